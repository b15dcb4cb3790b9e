//! The operations that are stopped, what comes before them, and what is left of them.

use eventseal::ExpectedVersion::Any;
use eventseal::erasure::{ShredMode, SweepOptions};
use eventseal::keys::{KeyStore, ScopeAction};
use eventseal::maintenance::{BackfillOptions, IndexSealsOptions, index_seals};
use eventseal::postgres::{PostgresKeys, PostgresStore, PostgresTables};
use eventseal::{
    Error, EventStore, EventStoreExt, KeyScope, Keyring, Namespace, NewEvent, PersistedEvent, Schemas, SealedStore,
    aggregate, event, subject,
};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, Connection};
use std::time::Duration;
use support::deadline::passed;
use support::{Deadline, Postgres};
use time::OffsetDateTime;

pub(crate) const OPERATIONS: [&str; 17] = [
    "prepare",
    "append",
    "append with the index",
    "first append",
    "shred",
    "shred of a stranger",
    "reopen",
    "rotate",
    "backfill",
    "index",
    "hold",
    "hold of a stranger",
    "release",
    "schedule",
    "cancel",
    "sweep",
    "seal",
];

pub(crate) fn keyring() -> Keyring {
    Keyring::parse("main:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=").unwrap()
}

pub(crate) fn store(prefix: &str) -> SealedStore<PostgresStore> {
    let placed = event("Placed").version(1).protect(&["/name"], subject("Customer", "/customer"));
    let schemas = Schemas::builder([placed]).accept_plaintext("Placed").build().unwrap();
    let keys = if prefix.is_empty() { PostgresKeys::new() } else { PostgresKeys::new().with_prefix(prefix).unwrap() };
    SealedStore::new(PostgresStore::new(), keys, keyring(), schemas)
}

/// A store whose appends keep the index of seals.
fn keeping() -> SealedStore<PostgresStore> {
    let placed = event("Placed").version(1).protect(&["/name"], subject("Customer", "/customer"));
    let tables = PostgresStore::with_tables(PostgresTables::new().index_seals()).unwrap();
    SealedStore::new(tables, PostgresKeys::new(), keyring(), Schemas::new([placed]).unwrap())
}

fn placed(name: &str) -> NewEvent {
    NewEvent::raw("Placed", 1, format!(r#"{{"customer":"{name}","name":"Ada"}}"#))
}

fn is_plain(event: &PersistedEvent) -> bool {
    String::from_utf8_lossy(&event.payload).contains("Ada")
}

/// One operation, as a process that has just started does it.
pub(crate) async fn act(
    options: &PgConnectOptions,
    operation: &str,
    name: &str,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    act_on(&mut PgConnection::connect_with(options).await?, operation, name).await
}

/// One operation, with nothing at hand but a connection.
pub(crate) async fn act_on(
    connection: &mut PgConnection,
    operation: &str,
    name: &str,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    if operation == "prepare" {
        store(name).keys().prepare(connection).await?;
        return Ok(());
    }
    let (store, scope) = (store(""), KeyScope::new("Customer", name));
    match operation {
        "backfill" => {
            // One batch, for a subject that is new: its key is made in the same transaction.
            let done = store.backfill(connection, &BackfillOptions::default(), &mut |_| {}).await?;
            assert_eq!(done.skipped, 0);
            return Ok(());
        }
        "index" => {
            index_seals(store.inner(), connection, &IndexSealsOptions::default(), &mut |_| {}).await?;
            return Ok(());
        }
        "sweep" => {
            let mut swept = store.keys().sweep(connection, &SweepOptions::default(), &mut |_| {}).await?;
            return swept.failed.pop().map_or(Ok(()), |failed| Err(failed.error.into()));
        }
        "seal" => return Ok(store.keys().seal_log(connection).await.map(drop)?),
        _ => {}
    }
    let mut tx = connection.begin().await?;
    match operation {
        "append" | "first append" => {
            drop(store.append(&mut tx, &aggregate("Order", name), Any, &[placed(name), placed(name)]).await?);
        }
        "append with the index" => {
            drop(keeping().append(&mut tx, &aggregate("Order", name), Any, &[placed(name), placed(name)]).await?);
        }
        "shred" | "shred of a stranger" => drop(store.keys().shred(&mut tx, &scope, "crash").await?),
        "reopen" => store.keys().reopen(&mut tx, &scope, "crash").await.map(|_| ())?,
        "rotate" => store.keys().rotate_data_key(&mut tx, &scope).await.map(|_| ())?,
        "hold" | "hold of a stranger" => drop(store.keys().hold(&mut tx, &scope, "crash", None).await?),
        "release" => {
            let holds = store.keys().holds_of(&mut tx, &scope).await?;
            store.keys().release(&mut tx, &holds[0], "crash").await?;
        }
        "schedule" => {
            let due = OffsetDateTime::now_utc() + Duration::from_secs(86_400);
            drop(store.keys().schedule_shred(&mut tx, &scope, due, ShredMode::Redact, "crash").await?);
        }
        "cancel" => store.keys().cancel(&mut tx, &scope, "crash").await?,
        other => panic!("unknown operation {other}"),
    }
    tx.commit().await?;
    Ok(())
}

/// Brings the world to where the operation starts. `store` has opened its keys already.
pub(crate) async fn set_up(db: &Postgres, store: &SealedStore<PostgresStore>, operation: &str, name: &str) {
    let mut connection = db.pool.acquire().await.unwrap();
    match operation {
        "prepare" => {
            let keys = PostgresKeys::new().with_prefix(name).unwrap();
            return keys.migrate(&mut connection, &Namespace::new("conformance").unwrap()).await.unwrap();
        }
        // Each run begins with an index that is complete up to some event.
        "index" => {
            let options = IndexSealsOptions::default();
            index_seals(store.inner(), &mut *connection, &options, &mut |_| {}).await.unwrap();
        }
        // Each run seals one entry.
        "seal" => drop(store.keys().seal_log(&mut connection).await.unwrap()),
        _ => {}
    }
    let mut tx = connection.begin().await.unwrap();
    if operation == "backfill" {
        let events = [placed(name), placed(name)];
        PostgresStore::new().append(&mut tx, &aggregate("Order", name), Any, &events).await.unwrap();
        tx.commit().await.unwrap();
        return;
    }
    let (keys, scope) = (store.keys(), KeyScope::new("Customer", name));
    if !matches!(operation, "first append" | "shred of a stranger" | "hold of a stranger") {
        store.append(&mut tx, &aggregate("Order", name), Any, &[placed(name)]).await.unwrap();
        keys.rotate_data_key(&mut tx, &scope).await.unwrap();
    }
    let tomorrow = OffsetDateTime::now_utc() + Duration::from_secs(86_400);
    let mut due = None;
    match operation {
        "reopen" | "seal" => drop(keys.shred(&mut tx, &scope, "before").await.unwrap()),
        "release" => drop(keys.hold(&mut tx, &scope, "before", None).await.unwrap()),
        "cancel" => drop(keys.schedule_shred(&mut tx, &scope, tomorrow, ShredMode::Disable, "before").await.unwrap()),
        "sweep" => due = Some(schedule_soon(&mut tx, store, &scope).await),
        _ => {}
    }
    tx.commit().await.unwrap();
    if let Some(due) = due {
        passed(due).await;
    }
}

/// Schedules a shred that comes due at once. Returns when.
async fn schedule_soon(tx: &mut PgConnection, store: &SealedStore<PostgresStore>, scope: &KeyScope) -> OffsetDateTime {
    let deadline = Deadline::of("for a time that is not past when it is looked at");
    loop {
        deadline.look_again().await;
        let due = OffsetDateTime::now_utc() + Duration::from_millis(3);
        match store.keys().schedule_shred(tx, scope, due, ShredMode::KeepWorking, "before").await {
            Ok(_) => return due,
            Err(Error::Input(_)) => {}
            Err(error) => panic!("{error:?}"),
        }
    }
}

/// The rows of a customer's keys, and the decisions about him.
async fn look_at_keys(connection: &mut PgConnection, store: &SealedStore<PostgresStore>, name: &str) -> String {
    let scope = KeyScope::new("Customer", name);
    let Some(history) = PostgresKeys::new().history(connection, &scope).await.unwrap() else {
        return "never seen".to_owned();
    };
    let keys: Vec<(u32, bool)> = history.keys.iter().map(|key| (key.version, key.shredded_at.is_some())).collect();
    let active = history.keys.iter().position(|key| Some(key.key_id) == history.active_key);
    let changes: Vec<ScopeAction> = history.entries.iter().map(|change| change.action).collect();
    let wrapped: i64 =
        sqlx::query_scalar("SELECT count(wrapped_key) FROM data_keys WHERE scope_kind = 'Customer' AND scope_id = $1")
            .bind(name)
            .fetch_one(&mut *connection)
            .await
            .unwrap();
    // The entries are authentic, and agree with the row.
    let schedule = store.keys().schedule_of(connection, &scope).await.expect("I14: the entries hold together");
    assert_eq!(schedule.is_some(), history.due.is_some());
    format!(
        "{:?} generation {} due {} keys {keys:?} active {active:?} wrapped {wrapped} {changes:?}",
        history.state,
        history.generation,
        history.due.is_some()
    )
}

/// The state of the tables, and what a reader sees.
pub(crate) async fn look(db: &Postgres, operation: &str, name: &str) -> String {
    let mut connection = db.pool.acquire().await.unwrap();
    if operation == "prepare" {
        let sql = format!(
            "SELECT (SELECT count(*) FROM {name}key_encryption_keys WHERE state = 'active') ||
                ' ' || (SELECT count(*) FROM {name}data_keys WHERE state = 'live')
                 || ' ' || (SELECT count(active_key_id) || '/' || count(*) FROM {name}key_scopes)"
        );
        return sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(&mut *connection).await.unwrap();
    }
    let store = store("");
    let history = look_at_keys(&mut connection, &store, name).await;
    let read = match store.read_stream(&mut connection, &aggregate("Order", name)).await {
        Err(Error::Disabled { .. }) if operation == "cancel" => return history,
        read => read.expect("I11: every committed event is readable"),
    };
    let events: Vec<&str> =
        read.events.iter().map(|event| if event.is_redacted() { "redacted" } else { "plain" }).collect();
    assert!(read.events.iter().all(|event| event.is_redacted() != is_plain(event)));
    let of_chain = if operation == "seal" { ROWS_OF_CHAIN } else { "SELECT ''" };
    let stored: String = sqlx::query_scalar(AssertSqlSafe(STORED.replace("{of_chain}", of_chain)))
        .bind(name)
        .fetch_one(&mut *connection)
        .await
        .unwrap();
    format!("{history}; events {events:?}, {stored}")
}

/// What is stored of an order.
const STORED: &str = "SELECT concat_ws(', ',
        'head ' || (SELECT aggregate_version FROM aggregate_heads WHERE aggregate_id = $1),
        'sealed ' || (SELECT string_agg((position('\"$seal\"'::bytea IN payload) > 0)::text, ' '
            ORDER BY aggregate_version) FROM events WHERE aggregate_id = $1),
        'indexed ' || (SELECT count(*) FROM sealed_events JOIN events USING (global_position) WHERE aggregate_id = $1),
        ({of_chain}))";

/// The entries that say that the chain has them, those that it has, and whether its end is its last row.
const ROWS_OF_CHAIN: &str = "SELECT 'marked ' || count(*) FILTER (WHERE e.sealed) || ', in the chain ' || count(l.seq)
            || ' of ' || count(*) || ', ' || (h.seq = (SELECT coalesce(max(seq), 0) FROM shred_log))
        FROM shred_entries AS e LEFT JOIN shred_log AS l USING (entry_id), shred_log_head AS h
        WHERE e.scope_id = $1 GROUP BY h.seq";
