//! eventseal behind a real PgBouncer in transaction mode: the documented settings work, and others are recognised.
//!
//! Debian's PgBouncer is older than 1.21 and can't track prepared statements. The variable `PGBOUNCER` names another
//! one. With either, everything that its version can do is tested, and nothing is skipped.

use eventseal::ExpectedVersion::Any;
use eventseal::error::SetUpFault;
use eventseal::postgres::{PostgresKeys, PostgresStore};
use eventseal::{Error, EventStore, EventStoreExt, Keyring, NewEvent, Schemas, SealedStore, aggregate, event, subject};
use sqlx::Executor;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use std::collections::BTreeMap;
use std::sync::Arc;
use support::Postgres;
use support::pgbouncer::{PgBouncer, binary};

/// The documented settings for PgBouncer before 1.21: each transaction leaves its session without prepared statements.
const RESET: &str = "server_reset_query = DEALLOCATE ALL\nserver_reset_query_always = 1\n";
const TRACK: &str = "max_prepared_statements = 200\n";

/// Settings under which prepared statements get lost. From 1.24 on, tracking is on by default.
fn losing(version: (u32, u32)) -> &'static str {
    if version >= (1, 21) { "max_prepared_statements = 0\n" } else { "" }
}

const CLIENTS: usize = 3;
const ROUNDS: usize = 60;

fn store(keyring: &Arc<Keyring>) -> SealedStore<PostgresStore> {
    let schemas =
        Schemas::new([event("Placed").version(1).protect(&["/name"], subject("Customer", "/customer"))]).unwrap();
    SealedStore::new(PostgresStore::new(), PostgresKeys::new(), Arc::clone(keyring), schemas)
}

/// Runs appends and reads of several clients over fewer sessions. Returns how often each outcome occurred.
async fn traffic(db: &Postgres, options: PgConnectOptions, keyring: &Arc<Keyring>) -> BTreeMap<String, usize> {
    let mut tasks = Vec::new();
    for client in 0..CLIENTS {
        let pool = PgPoolOptions::new().max_connections(1).connect_with(options.clone()).await.unwrap();
        let store = store(keyring);
        tasks.push(tokio::spawn(async move {
            let mut seen = BTreeMap::<String, usize>::new();
            for round in 0..ROUNDS {
                let order = aggregate("Order", format!("{client}"));
                let done = async {
                    let mut tx = pool.begin().await.map_err(|error| Error::database("beginning", error))?;
                    let event =
                        NewEvent::raw("Placed", 1, format!(r#"{{"customer":"{client}","name":"Ada {round}"}}"#));
                    let appended = store.append(&mut tx, &order, Any, &[event]).await;
                    let read = match appended {
                        Ok(_) => store.read_stream(&mut tx, &order).await,
                        Err(error) => Err(error),
                    };
                    match read {
                        Ok(read) => {
                            tx.commit().await.map(|()| read).map_err(|error| Error::committing("appending", error))
                        }
                        Err(error) => {
                            let _ = tx.rollback().await;
                            Err(error)
                        }
                    }
                };
                let what = match done.await {
                    Ok(read)
                        if read
                            .events
                            .last()
                            .is_some_and(|event| event.payload.ends_with(format!("Ada {round}\"}}").as_bytes())) =>
                    {
                        "done"
                    }
                    Ok(_) => "a wrong answer",
                    Err(Error::SetUp(SetUpFault::PooledStatements { .. })) => "a statement was lost",
                    Err(error) => panic!("{error:?}"),
                };
                *seen.entry(what.to_owned()).or_default() += 1;
                tokio::task::yield_now().await;
            }
            seen
        }));
    }
    let mut all = BTreeMap::new();
    for task in tasks {
        for (what, times) in task.await.unwrap() {
            *all.entry(what).or_default() += times;
        }
    }
    // The sessions of the next traffic must begin without the statements of this one.
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> \
        pg_backend_pid()";
    db.pool.execute(end).await.unwrap();
    all
}

async fn prepared() -> (Postgres, Arc<Keyring>) {
    let (db, keyring) = (Postgres::new().await, Arc::new(Keyring::generate("main").unwrap()));
    store(&keyring).keys().prepare(&mut *db.pool.acquire().await.unwrap()).await.unwrap();
    (db, keyring)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_documented_works() {
    let (db, keyring) = prepared().await;
    let (bin, version) = binary();
    // From 1.21 on, the driver's cache is left on. Before, each transaction prepares its statements anew.
    let (settings, capacity) = if version >= (1, 21) { (TRACK, 100) } else { (RESET, 0) };
    let pooler = PgBouncer::start(&bin, &db.options, 2, settings);
    let seen = traffic(&db, pooler.options(&db.options).statement_cache_capacity(capacity), &keyring).await;
    assert_eq!(seen, BTreeMap::from([("done".to_owned(), CLIENTS * ROUNDS)]), "{version:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_it_statements_are_lost_and_said_to_be() {
    let (db, keyring) = prepared().await;
    let (bin, version) = binary();
    let pooler = PgBouncer::start(&bin, &db.options, 2, losing(version));
    for capacity in [100, 0] {
        let seen = traffic(&db, pooler.options(&db.options).statement_cache_capacity(capacity), &keyring).await;
        assert!(seen.get("a statement was lost").is_some_and(|times| *times > 0), "capacity {capacity}: {seen:?}");
    }
}

fn run(arguments: &[&str], options: &PgConnectOptions, folder: &std::path::Path) -> (i32, serde_json::Value) {
    let database = options.get_database().unwrap();
    let host = options.get_socket().unwrap().display().to_string();
    let url = format!("postgres://postgres@localhost:{}/{database}?host={host}", options.get_port());
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_eventseal"));
    command
        .args(arguments)
        .arg("--json")
        .env_clear()
        .env("DATABASE_URL", url)
        .env("EVENTSEAL_KEYRING_FILE", folder.join("ring"));
    let output = command.output().unwrap();
    let text = if output.stdout.is_empty() { &output.stderr } else { &output.stdout };
    (output.status.code().unwrap(), serde_json::from_slice(text).unwrap_or_else(|error| panic!("{error}: {output:?}")))
}

fn pooler_check(report: &serde_json::Value) -> &serde_json::Value {
    report["checks"]
        .as_array()
        .unwrap()
        .iter()
        .find(|check| check["check"] == "pooler")
        .unwrap_or_else(|| panic!("{report}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_recognises_a_pooler() {
    let db = Postgres::new().await;
    let folder = tempfile::tempdir().unwrap();
    let keyring = Arc::new(Keyring::create_file(folder.path().join("ring"), "main").unwrap());
    store(&keyring).keys().prepare(&mut *db.pool.acquire().await.unwrap()).await.unwrap();
    let (bin, version) = binary();
    // Only the check of poolers counts here. Doctor also finds that the cluster of the tests does not wait for the
    // disk.
    let (_, direct) = run(&["doctor"], &db.options, folder.path());
    assert_eq!(&pooler_check(&direct)["ok"], &serde_json::Value::Bool(true), "{direct}");
    for connections in [1, 3] {
        let pooler = PgBouncer::start(&bin, &db.options, connections, losing(version));
        let options = pooler.options(&db.options);
        let (code, report) = run(&["doctor"], &options, folder.path());
        assert_eq!((code, &pooler_check(&report)["ok"]), (5, &serde_json::Value::Bool(false)), "{report}");
        let (code, refused) = run(&["migrate", "--namespace", "conformance"], &options, folder.path());
        assert_eq!((code, &refused["error"]["kind"]), (4, &serde_json::Value::from("pooler")), "{refused}");
    }
    if version >= (1, 21) {
        let pooler = PgBouncer::start(&bin, &db.options, 2, TRACK);
        let (_, report) = run(&["doctor"], &pooler.options(&db.options), folder.path());
        assert_eq!(&pooler_check(&report)["ok"], &serde_json::Value::Bool(true), "{report}");
    }
}
