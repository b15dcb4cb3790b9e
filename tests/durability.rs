//! Commits that matter outlast a crash, whatever the database's defaults are (invariants I5 and I6).
//!
//! A PostgreSQL server of the test's own is killed with all its processes at once. Its database commits asynchronously,
//! and nothing writes the log in the background: what a commit did not wait for is lost for certain, and each test
//! shows that it is. A process that works on a SQLite file is killed likewise.

use eventseal::ExpectedVersion::Any;
use eventseal::keys::KeyStore;
use eventseal::keys::ScopeState;
use eventseal::postgres::{PostgresKeys, PostgresStore};
use eventseal::split::{SplitKeys, SplitStore, SplitTx};
use eventseal::sqlite::{SqliteKeys, SqliteStore};
use eventseal::{
    EventStore, EventStoreExt, KeyScope, Keyring, Namespace, NewEvent, Schemas, SealedStore, aggregate, event, subject,
};
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode};
use sqlx::{Connection, Executor};
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use support::cluster::Primary;
use support::{Postgres, Sqlite};

fn keyring() -> Keyring {
    Keyring::parse("main:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=").unwrap()
}

fn schemas() -> Schemas {
    Schemas::new([event("Placed").version(1).protect(&["/name"], subject("Customer", "/customer"))]).unwrap()
}

fn placed(customer: &str) -> NewEvent {
    NewEvent::raw("Placed", 1, format!(r#"{{"customer":"{customer}","name":"Ada"}}"#))
}

fn customer(id: &str) -> KeyScope {
    KeyScope::new("Customer", id)
}

// ---- PostgreSQL

type Store = SealedStore<PostgresStore>;

fn store() -> Store {
    SealedStore::new(PostgresStore::new(), PostgresKeys::new(), keyring(), schemas())
}

/// A server whose database commits asynchronously.
struct Server(Primary);

impl Server {
    async fn start() -> Self {
        let server = Self(Primary::durable());
        let mut connection = server.connect().await;
        connection.execute("ALTER DATABASE postgres SET synchronous_commit = off").await.unwrap();
        // Neither of them may write log that no commit waits for.
        connection.execute("ALTER SYSTEM SET autovacuum = off").await.unwrap();
        connection.execute("ALTER SYSTEM SET bgwriter_lru_maxpages = 0").await.unwrap();
        connection.execute("SELECT pg_reload_conf()").await.unwrap();
        let mut connection = server.connect().await;
        PostgresStore::new().migrate(&mut connection).await.unwrap();
        PostgresKeys::new().migrate(&mut connection, &Namespace::new("durability").unwrap()).await.unwrap();
        connection.execute("CREATE TABLE asynchronous (name TEXT)").await.unwrap();
        server
    }

    fn options(&self) -> PgConnectOptions {
        self.0.options()
    }

    async fn connect(&self) -> PgConnection {
        PgConnection::connect_with(&self.options()).await.unwrap()
    }

    /// From now on the log is written by commits alone. All that was committed so far is on the disk.
    async fn hold_the_log(&self) {
        let mut connection = self.connect().await;
        let settings: (String, String) =
            sqlx::query_as("SELECT current_setting('fsync'), current_setting('synchronous_commit')")
                .fetch_one(&mut connection)
                .await
                .unwrap();
        assert_eq!(settings, ("on".to_owned(), "off".to_owned()));
        connection.execute("CHECKPOINT").await.unwrap();
        let writer: i32 = sqlx::query_scalar("SELECT pid FROM pg_stat_activity WHERE backend_type = 'walwriter'")
            .fetch_one(&mut connection)
            .await
            .unwrap();
        assert!(Command::new("kill").args(["-STOP", &writer.to_string()]).status().unwrap().success());
    }

    /// A commit without any change of this crate. It comes last, so that no later commit takes it to the disk.
    async fn commit_plainly(&self) {
        self.connect().await.execute("INSERT INTO asynchronous VALUES ('lost')").await.unwrap();
    }

    /// Ends the server, and starts it again.
    async fn crash(&self) {
        self.commit_plainly().await;
        let before: i64 =
            sqlx::query_scalar("SELECT count(*) FROM asynchronous").fetch_one(&mut self.connect().await).await.unwrap();
        self.0.crash();
        let after: i64 =
            sqlx::query_scalar("SELECT count(*) FROM asynchronous").fetch_one(&mut self.connect().await).await.unwrap();
        assert_eq!((before, after), (1, 0), "the crash took nothing: it would show nothing");
    }

    /// The scope's state in the key tables, and the number of its keys.
    async fn scope(&self, id: &str) -> (Option<ScopeState>, i64) {
        let mut connection = self.connect().await;
        let history = PostgresKeys::new().history(&mut connection, &customer(id)).await.unwrap();
        let sql = "SELECT count(wrapped_key) FROM data_keys WHERE scope_kind = 'Customer' AND scope_id = $1";
        (
            history.map(|history| history.state),
            sqlx::query_scalar(sql).bind(id).fetch_one(&mut connection).await.unwrap(),
        )
    }

    async fn append(&self, id: &str) {
        let mut connection = self.connect().await;
        let mut tx = connection.begin().await.unwrap();
        store().append(&mut tx, &aggregate("Order", id), Any, &[placed(id)]).await.unwrap();
        tx.commit().await.unwrap();
    }

    /// How many events the stream has, and whether each can be read in full.
    async fn read(&self, id: &str) -> Vec<bool> {
        let stream = store().read_stream(&mut self.connect().await, &aggregate("Order", id)).await;
        stream.expect("I6: every committed event is readable").events.iter().map(|event| !event.is_redacted()).collect()
    }
}

#[tokio::test]
async fn i5_a_shred_outlasts_the_crash_of_a_server_that_commits_asynchronously() {
    let server = Server::start().await;
    store().keys().prepare(&mut server.connect().await).await.unwrap();
    for id in ["kept", "undone", "stopped"] {
        server.append(id).await;
    }
    server.hold_the_log().await;
    let mut connection = server.connect().await;
    let mut tx = connection.begin().await.unwrap();
    store().keys().shred(&mut tx, &customer("kept"), "request").await.unwrap();
    tx.commit().await.unwrap();
    let mut tx = connection.begin().await.unwrap();
    store().keys().disable(&mut tx, &customer("stopped"), "request").await.unwrap();
    tx.commit().await.unwrap();
    // Without what the crate does for it, this server loses a shred that was committed: the same, with the setting
    // taken back.
    let mut tx = connection.begin().await.unwrap();
    store().keys().shred(&mut tx, &customer("undone"), "request").await.unwrap();
    tx.execute("SET LOCAL synchronous_commit = off").await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(server.scope("undone").await, (Some(ScopeState::Shredded), 0));
    server.crash().await;
    assert_eq!(server.scope("kept").await, (Some(ScopeState::Shredded), 0));
    assert_eq!(server.read("kept").await, [false]);
    assert_eq!(server.scope("stopped").await, (Some(ScopeState::Disabled), 1));
    assert_eq!(server.scope("undone").await, (Some(ScopeState::Live), 1), "the control: it was lost");
    assert_eq!(server.read("undone").await, [true]);
}

#[tokio::test]
async fn i6_a_key_in_another_database_outlasts_its_crash_and_a_key_beside_its_event_shares_its_fate() {
    let (events, server) = (Postgres::new().await, Server::start().await);
    store().keys().prepare(&mut server.connect().await).await.unwrap();
    let keys = PgPool::connect_lazy_with(server.options());
    let split = SealedStore::new(
        SplitStore::new(PostgresStore::new()),
        SplitKeys::new(PostgresKeys::new()),
        keyring(),
        schemas(),
    );
    server.hold_the_log().await;
    let mut tx = SplitTx::begin(&events.pool, &keys).await.unwrap();
    split.append(&mut tx, &aggregate("Order", "apart"), Any, &[placed("apart")]).await.unwrap();
    tx.commit().await.unwrap();
    // A call that commits on its own is durable, too.
    let tenant = store().keys().create_kek(&mut server.connect().await, "tenant").await.unwrap();
    server.append("beside").await;
    assert_eq!(server.read("beside").await, [true]);
    server.crash().await;
    assert_eq!(server.scope("apart").await, (Some(ScopeState::Live), 1));
    let mut tx = SplitTx::begin(&events.pool, &PgPool::connect_lazy_with(server.options())).await.unwrap();
    let read =
        split.read_stream(&mut tx, &aggregate("Order", "apart")).await.expect("I6: every committed event is readable");
    assert!(String::from_utf8_lossy(&read.events[0].payload).contains("Ada"));
    let active = PostgresKeys::new().active_kek(&mut server.connect().await, "tenant").await.unwrap();
    assert_eq!(active.map(|kek| kek.kek_id), Some(tenant.kek_id));
    // An append in one database is as durable as its transaction: here it is lost, with its key.
    assert_eq!((server.scope("beside").await, server.read("beside").await), ((None, 0), vec![]));
}

// ---- SQLite

/// The environment variable that tells a child process what to do until it is killed.
const CHILD: &str = "EVENTSEAL_CHILD";

async fn open(path: &str, journal: SqliteJournalMode) -> SqliteConnection {
    SqliteConnection::connect_with(&SqliteConnectOptions::new().filename(path).journal_mode(journal)).await.unwrap()
}

fn sqlite_store() -> SealedStore<SqliteStore> {
    SealedStore::new(SqliteStore::new(), SqliteKeys::new(), keyring(), schemas())
}

/// Shreds, commits if it is told to, reports that, and waits until it is killed.
async fn child(path: &str, journal: SqliteJournalMode, commits: bool) {
    let mut connection = open(path, journal).await;
    // Pages go to the file before the commit, so that there is something to take back.
    connection.execute("PRAGMA cache_size = 1").await.unwrap();
    let mut tx = connection.begin_with("BEGIN IMMEDIATE").await.unwrap();
    sqlite_store().keys().shred(&mut tx, &customer("42"), "request").await.unwrap();
    if commits {
        tx.commit().await.unwrap();
    } else {
        let rows = "INSERT INTO filler SELECT hex(randomblob(500)) FROM (WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL \
            SELECT i + 1 FROM n WHERE i < 2000) SELECT i FROM n)";
        tx.execute(rows).await.unwrap();
    }
    println!("\nwritten");
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn i5_a_process_that_is_killed_leaves_a_shred_in_a_sqlite_file_done_or_not_begun() {
    if let Ok(work) = std::env::var(CHILD) {
        let [path, journal, commits] = work.split('|').collect::<Vec<_>>().try_into().unwrap();
        return child(path, journal.parse().unwrap(), commits == "true").await;
    }
    let test = std::thread::current().name().unwrap().to_owned();
    for (journal, beside) in [("delete", "-journal"), ("wal", "-wal")] {
        for commits in [true, false] {
            let db = Sqlite::empty().await;
            let path = db.folder.path().join("killed.db").display().to_string();
            drop(std::fs::File::create(&path).unwrap());
            let mut connection = open(&path, SqliteJournalMode::Wal).await;
            SqliteStore::new().migrate(&mut connection).await.unwrap();
            SqliteKeys::new().migrate(&mut connection, &Namespace::new("durability").unwrap()).await.unwrap();
            connection.execute("CREATE TABLE filler (bytes TEXT)").await.unwrap();
            let store = sqlite_store();
            store.keys().prepare(&mut connection).await.unwrap();
            let mut tx = connection.begin().await.unwrap();
            store.append(&mut tx, &aggregate("Order", "1"), Any, &[placed("42")]).await.unwrap();
            tx.commit().await.unwrap();
            connection.close().await.unwrap();

            let mut process = Command::new(std::env::current_exe().unwrap());
            process.args(["--exact", &test, "--nocapture"]).env(CHILD, format!("{path}|{journal}|{commits}"));
            let mut process = process.stdout(Stdio::piped()).spawn().unwrap();
            let mut said = BufReader::new(process.stdout.take().unwrap()).lines();
            assert!(said.any(|line| line.unwrap() == "written"), "the process ended by itself");
            let left = std::fs::metadata(path.clone() + beside).map_or(0, |file| file.len());
            // SIGKILL
            process.kill().unwrap();
            process.wait().unwrap();

            let what = format!("{journal}, committed: {commits}");
            assert!(left > 0 || (commits && journal == "delete"), "{what}: there is a journal");
            let mut connection = open(&path, journal.parse().unwrap()).await;
            let state = SqliteKeys::new().history(&mut connection, &customer("42")).await.unwrap().unwrap().state;
            let sql = "SELECT count(wrapped_key) FROM data_keys WHERE scope_kind = 'Customer'";
            let keys: i64 = sqlx::query_scalar(sql).fetch_one(&mut connection).await.unwrap();
            let read = sqlite_store().read_stream(&mut connection, &aggregate("Order", "1")).await.unwrap();
            let expected = if commits { (ScopeState::Shredded, 0, true) } else { (ScopeState::Live, 1, false) };
            assert_eq!((state, keys, read.events[0].is_redacted()), expected, "{what}");
            let sound: String = sqlx::query_scalar("PRAGMA integrity_check").fetch_one(&mut connection).await.unwrap();
            assert_eq!(sound, "ok", "{what}");
        }
    }
}
