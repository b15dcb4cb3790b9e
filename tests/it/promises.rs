//! What a call says that it did is done, whatever the database lets happen: a change that something keeps away is an error,
//! what is said to be committed is, and what must last outlasts a crash (invariants I5 and I6).

use async_trait::async_trait;
use eventseal::ExpectedVersion::Any;
use eventseal::*;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgSslMode};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteSynchronous};
use sqlx::{AssertSqlSafe, Connection, Executor};
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use support::backend::Backend;
use support::{Postgres, Sqlite, on_sqlite_and_postgres};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};

const OLD: &str = "old:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
const BOTH: &str = "new:AQECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\nold:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

fn schemas() -> Schemas {
    Schemas::new([event("Placed").version(1).protect(&["/name"], subject("Customer", "/customer"))]).unwrap()
}

fn placed(customer: &str) -> NewEvent {
    NewEvent::raw("Placed", 1, format!(r#"{{"customer":"{customer}","name":"Ada"}}"#))
}

fn scope(customer: &str) -> KeyScope {
    KeyScope::new("Customer", customer)
}

#[async_trait]
trait Scripted: Backend {
    async fn execute(&self, sql: String) {
        self.raw(&sql).await.unwrap();
    }

    async fn raw(&self, sql: &str) -> sqlx::Result<()>;

    /// Lets the database accept inserts or updates of a table, and do nothing.
    async fn keep_away(&self, change: &str, table: &str);

    /// Ends that.
    async fn let_through(&self, change: &str, table: &str);

    fn with_keyring(&self, keyring: &str) -> SealedStore<Self::Store> {
        self.process_with(Self::Keys::default(), Keyring::parse(keyring).unwrap(), schemas())
    }
}

#[async_trait]
impl Scripted for Sqlite {
    async fn raw(&self, sql: &str) -> sqlx::Result<()> {
        self.pool.execute(AssertSqlSafe(sql.to_owned())).await.map(drop)
    }

    async fn keep_away(&self, change: &str, table: &str) {
        self.execute(format!("CREATE TRIGGER {table}_{change} BEFORE {change} ON {table} BEGIN SELECT raise(IGNORE); END")).await;
    }

    async fn let_through(&self, change: &str, table: &str) {
        self.execute(format!("DROP TRIGGER {table}_{change}")).await;
    }
}

#[async_trait]
impl Scripted for Postgres {
    async fn raw(&self, sql: &str) -> sqlx::Result<()> {
        self.pool.execute(AssertSqlSafe(sql.to_owned())).await.map(drop)
    }

    async fn keep_away(&self, change: &str, table: &str) {
        let function = "CREATE OR REPLACE FUNCTION keep_away() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'";
        self.execute(function.to_owned()).await;
        self.execute(format!("CREATE TRIGGER zz_{change} BEFORE {change} ON {table} FOR EACH ROW EXECUTE FUNCTION keep_away()")).await;
    }

    async fn let_through(&self, change: &str, table: &str) {
        self.execute(format!("DROP TRIGGER zz_{change} ON {table}")).await;
    }
}

on_sqlite_and_postgres! {
    i5_a_change_that_is_kept_away_is_an_error_of_its_own,
    i5_keys_that_come_back_are_destroyed_on_the_record,
    what_is_retired_stays_so_and_in_its_partition,
    an_older_active_key_seals_nothing_and_a_rotation_puts_it_right,
    a_key_is_retired_in_its_own_database_only,
}

/// A database with customers `live`, `disabled` and `shredded`, and a rotated key-encryption key.
async fn with_scopes<B: Scripted>(db: &B) -> (SealedStore<B::Store>, KekId) {
    let store = db.with_keyring(OLD);
    let mut connection = db.connect().await.unwrap();
    let connection = db.connection(&mut connection);
    store.keys().prepare(connection).await.unwrap();
    let mut transaction = db.begin().await.unwrap();
    let tx = db.tx(&mut transaction);
    store.append(tx, &aggregate("Order", "1"), Any, &[placed("live"), placed("disabled"), placed("shredded")]).await.unwrap();
    store.keys().disable(tx, &scope("disabled"), "r").await.unwrap();
    store.keys().shred(tx, &scope("shredded"), "r").await.unwrap();
    db.commit(transaction).await.unwrap();
    let unused = store.keys().create_kek(connection, "unused").await.unwrap();
    store.keys().rotate_kek(connection, "unused").await.unwrap();
    store.keys().rotate_kek(connection, "default").await.unwrap();
    (store, unused.kek_id)
}

async fn change<B: Scripted>(db: &B, store: &SealedStore<B::Store>, unused: KekId, operation: &str) -> Result<()> {
    let keys = store.keys();
    let mut connection = db.connect().await?;
    let connection = db.connection(&mut connection);
    match operation {
        "create_kek" => return keys.create_kek(connection, "tenant").await.map(drop),
        "rotate_kek" => return keys.rotate_kek(connection, "default").await.map(drop),
        "rewrap" => return keys.rewrap(connection, &RewrapOptions::default(), &mut |_| {}).await.map(drop),
        "retire_kek" => return keys.retire_kek(connection, unused).await,
        "move_master_key" => return db.with_keyring(BOTH).keys().move_master_key(connection, None, &mut |_| {}).await.map(drop),
        _ => {}
    }
    let mut transaction = db.begin().await?;
    let tx = db.tx(&mut transaction);
    match operation {
        "shred" => keys.shred(tx, &scope("live"), "r").await.map(drop),
        "shred a scope that was never seen" => keys.shred(tx, &scope("unknown"), "r").await.map(drop),
        "disable" => keys.disable(tx, &scope("live"), "r").await,
        "enable" => keys.enable(tx, &scope("disabled"), "r").await,
        "reopen" => keys.reopen(tx, &scope("shredded"), "r").await.map(drop),
        "rotate_data_key" => keys.rotate_data_key(tx, &scope("live")).await.map(drop),
        "append" => store.append(tx, &aggregate("Order", "2"), Any, &[placed("new")]).await.map(drop),
        other => panic!("{other}"),
    }
}

async fn i5_a_change_that_is_kept_away_is_an_error_of_its_own<B: Scripted>() {
    let db = B::make().await;
    let (store, unused) = with_scopes(&db).await;
    let cases: [(&str, &str, &[&str]); 6] = [
        ("UPDATE", "data_keys", &["shred", "rewrap"]),
        ("INSERT", "data_keys", &["reopen", "rotate_data_key", "append"]),
        ("UPDATE", "key_scopes", &["shred", "disable", "enable", "reopen", "rotate_data_key", "append"]),
        ("INSERT", "key_scopes", &["shred a scope that was never seen"]),
        ("INSERT", "key_scope_changes", &["shred", "disable", "enable", "reopen"]),
        ("UPDATE", "key_encryption_keys", &["rotate_kek", "retire_kek", "move_master_key"]),
    ];
    let inserted: (&str, &str, &[&str]) = ("INSERT", "key_encryption_keys", &["create_kek", "rotate_kek"]);
    for (what, table, operations) in cases.into_iter().chain([inserted]) {
        db.keep_away(what, table).await;
        for operation in operations {
            let error = change(&db, &store, unused, operation).await.expect_err(operation);
            let named = matches!(&error, Error::NoEffect { table: named, .. } if named.contains(table));
            assert!(named && !error.is_retryable(), "{operation}, with no {what} of {table}: {error:?}");
            assert!(error.to_string().contains("row-level policies, triggers and rules"), "{error}");
        }
        db.let_through(what, table).await;
    }
    // With nothing in the way, all of it works.
    let others = ["rewrap", "rotate_kek", "create_kek", "append", "reopen", "enable", "disable", "shred", "move_master_key"];
    for operation in ["retire_kek"].into_iter().chain(others) {
        change(&db, &store, unused, operation).await.expect(operation);
    }
}

/// A restore of a part of the tables brings back keys under a tombstone.
async fn i5_keys_that_come_back_are_destroyed_on_the_record<B: Scripted>() {
    let db = B::make().await;
    let (store, _) = with_scopes(&db).await;
    let shred = async |customer: &'static str| {
        let mut transaction = db.begin().await.unwrap();
        let done = store.keys().shred(db.tx(&mut transaction), &scope(customer), "again").await.unwrap();
        let history = store.keys().key_history(db.tx(&mut transaction), &scope(customer)).await.unwrap().unwrap();
        db.commit(transaction).await.unwrap();
        (done, history)
    };
    let (done, history) = shred("shredded").await;
    assert_eq!((done.destroyed.len(), done.already.len(), done.was_shredded, history.changes.len()), (0, 1, true, 1));
    db.execute("UPDATE key_scopes SET state = 'shredded', active_key_id = NULL WHERE scope_id = 'live'".to_owned()).await;
    let (done, history) = shred("live").await;
    assert_eq!((done.destroyed.len(), done.already.len(), done.was_shredded), (1, 0, true));
    assert_eq!(history.changes.iter().map(|change| change.reason.as_str()).collect::<Vec<_>>(), ["again"], "a shred left no record");
    let (done, _) = shred("disabled").await;
    assert_eq!((done.destroyed.len(), done.already.len(), done.was_shredded), (1, 0, false));
}

async fn what_is_retired_stays_so_and_in_its_partition<B: Scripted>() {
    let db = B::make().await;
    let (store, unused) = with_scopes(&db).await;
    let mut connection = db.connect().await.unwrap();
    store.keys().retire_kek(db.connection(&mut connection), unused).await.unwrap();
    for sql in [
        "UPDATE key_encryption_keys SET state = 'decrypt_only' WHERE state = 'retired'",
        "UPDATE key_encryption_keys SET state = 'active', \"partition\" = 'other' WHERE state = 'retired'",
        "UPDATE key_encryption_keys SET state = 'active' WHERE state = 'decrypt_only'",
        "UPDATE key_encryption_keys SET \"partition\" = 'other' WHERE state = 'decrypt_only'",
        "UPDATE key_encryption_keys SET kek_id = (SELECT key_id FROM data_keys LIMIT 1) WHERE state = 'retired'",
    ] {
        let before = store.keys().kek_usage(db.connection(&mut connection)).await.unwrap();
        let refused = db.raw(sql).await.expect_err(sql);
        assert!(refused.to_string().contains("never"), "{sql}: {refused}");
        assert_eq!(store.keys().kek_usage(db.connection(&mut connection)).await.unwrap(), before, "{sql}");
    }
    // What the library does itself is not in the way of these guards.
    store.keys().rotate_kek(db.connection(&mut connection), "default").await.unwrap();
}

async fn an_older_active_key_seals_nothing_and_a_rotation_puts_it_right<B: Scripted>() {
    let db = B::make().await;
    let (store, _) = with_scopes(&db).await;
    let mut transaction = db.begin().await.unwrap();
    store.append(db.tx(&mut transaction), &aggregate("Order", "3"), Any, &[placed("live")]).await.unwrap();
    store.keys().rotate_data_key(db.tx(&mut transaction), &scope("live")).await.unwrap();
    db.commit(transaction).await.unwrap();
    let older = "SELECT key_id FROM data_keys WHERE scope_id = 'live' AND version = 1";
    db.execute(format!("UPDATE key_scopes SET active_key_id = ({older}) WHERE scope_id = 'live'")).await;
    let mut transaction = db.begin().await.unwrap();
    let tx = db.tx(&mut transaction);
    let refused = store.append(tx, &aggregate("Order", "2"), Any, &[placed("live")]).await.map(drop).unwrap_err();
    assert!(matches!(refused, Error::InvalidRow { .. }) && refused.to_string().contains("newest"), "{refused:?}");
    assert_eq!(store.keys().rotate_data_key(tx, &scope("live")).await.unwrap().version, 3);
    store.append(tx, &aggregate("Order", "2"), Any, &[placed("live")]).await.unwrap();
    let read = store.read_stream(tx, &aggregate("Order", "3")).await.unwrap();
    assert_eq!(read.events[0].payload, placed("live").payload, "older keys go on opening");
}

async fn a_key_is_retired_in_its_own_database_only<B: Scripted>() {
    let (db, other) = (B::make().await, B::make().await);
    let (_, unused) = with_scopes(&db).await;
    let elsewhere = other.with_keyring(OLD).for_namespace(Namespace::new("elsewhere").unwrap());
    let mut connection = db.connect().await.unwrap();
    let refused = elsewhere.keys().retire_kek(db.connection(&mut connection), unused).await;
    assert!(matches!(refused, Err(Error::NamespaceMismatch { .. })), "{refused:?}");
}

/// A policy that lets rows be seen but not changed filters the change away, and the lock as well.
#[tokio::test]
async fn i5_a_row_level_policy_is_not_taken_for_an_erasure() {
    for (table, expected) in [("data_keys", "data_keys"), ("key_scopes", "key_scopes")] {
        let db = Postgres::new().await;
        let (store, _) = with_scopes(&db).await;
        let role = format!("r{}", uuid::Uuid::now_v7().simple());
        for sql in [
            format!("CREATE ROLE {role}"),
            format!("GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA public TO {role}"),
            format!("GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {role}"),
            format!("ALTER TABLE {table} ENABLE ROW LEVEL SECURITY"),
            format!("CREATE POLICY s ON {table} FOR SELECT USING (true)"),
            format!("CREATE POLICY i ON {table} FOR INSERT WITH CHECK (true)"),
        ] {
            db.execute(sql).await;
        }
        let mut tx = db.pool.begin().await.unwrap();
        tx.execute(AssertSqlSafe(format!("SET LOCAL ROLE {role}"))).await.unwrap();
        let refused = store.keys().shred(&mut tx, &scope("live"), "r").await;
        assert!(matches!(&refused, Err(Error::NoEffect { table, .. }) if table.contains(expected)), "{table}: {refused:?}");
        drop(tx);
        db.execute(format!("DROP OWNED BY {role}; DROP ROLE {role}")).await;
    }
}

/// What a `begin()` leaves behind whose future was dropped, as by a timeout: a transaction that the driver does not know of.
async fn cancel_begin(connection: &mut PgConnection, db: &Postgres) {
    let pid: i32 = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut *connection).await.unwrap();
    // The server may answer before it is asked for the first time, and then there is nothing to cancel.
    loop {
        let mut begin = Box::pin(connection.begin());
        match poll_fn(|context| Poll::Ready(begin.as_mut().poll(context))).await {
            Poll::Pending => break,
            Poll::Ready(transaction) => transaction.unwrap().rollback().await.unwrap(),
        }
    }
    let state = "SELECT coalesce(state, '') FROM pg_stat_activity WHERE pid = $1";
    while sqlx::query_scalar::<_, String>(state).bind(pid).fetch_one(&db.pool).await.unwrap() != "idle in transaction" {}
    assert!(!connection.is_in_transaction());
}

/// Whoever deletes the old master key after a move that was not committed has lost everything.
#[tokio::test]
async fn i11_what_is_said_to_be_committed_is_committed_on_a_connection_whose_begin_was_cancelled() {
    let db = Postgres::new().await;
    let (store, unused) = with_scopes(&db).await;
    let both = db.with_keyring(BOTH);
    let seen = async || keys_of(&db).await;
    for operation in ["create_kek", "rotate_kek", "rewrap", "retire_kek", "move_master_key", "install_key", "migrate", "backfill"] {
        let mut connection = PgConnection::connect_with(&db.options).await.unwrap();
        cancel_begin(&mut connection, &db).await;
        let before = seen().await;
        let refused = match operation {
            "create_kek" => store.keys().create_kek(&mut connection, "tenant").await.map(drop),
            "rotate_kek" => store.keys().rotate_kek(&mut connection, "default").await.map(drop),
            "rewrap" => store.keys().rewrap(&mut connection, &RewrapOptions::default(), &mut |_| {}).await.map(drop),
            "retire_kek" => store.keys().retire_kek(&mut connection, unused).await,
            "move_master_key" => both.keys().move_master_key(&mut connection, None, &mut |_| {}).await.map(drop),
            "install_key" => {
                let of = PostgresKeys::new().active_kek(&mut connection, "default").await.unwrap().unwrap().kek_id;
                let key_id = KeyId(uuid::Uuid::now_v7());
                let (version, created_at) = (1, time::OffsetDateTime::now_utc());
                let key = NewDataKey { key_id, scope: scope("tenant"), version, kek_id: of, wrapped_key: vec![1], created_at };
                PostgresKeys::new().install_key(&mut connection, &key).await
            }
            "migrate" => PostgresKeys::new().migrate(&mut connection, &Namespace::new("conformance").unwrap()).await,
            _ => store.backfill(&mut connection, &BackfillOptions::default(), &mut |_| {}).await.map(drop),
        };
        assert!(matches!(refused, Err(Error::InTransaction { .. })), "{operation}: {refused:?}");
        connection.close().await.unwrap();
        assert_eq!(seen().await, before, "{operation}");
    }
    // A first start, and a transaction of which the driver knows nothing for another reason, and one that has failed.
    let fresh = Postgres::new().await;
    let kek = PostgresKeys::new().active_kek(&mut *db.pool.acquire().await.unwrap(), "default").await.unwrap().unwrap();
    for sql in ["", "BEGIN", "BEGIN; SELECT 1 / 0"] {
        let mut connection = PgConnection::connect_with(&fresh.options).await.unwrap();
        if sql.is_empty() {
            cancel_begin(&mut connection, &fresh).await;
        } else {
            let _ = connection.execute(sql).await;
        }
        let refused = fresh.with_keyring(OLD).keys().create_kek(&mut connection, "default").await;
        assert!(refused.is_err(), "{sql}: {refused:?}");
        // One that has failed answers no question, so nothing but a write gets as far as this.
        let refused = PostgresKeys::new().install_kek(&mut connection, &kek).await;
        assert!(matches!(refused, Err(Error::InTransaction { .. })), "{sql}: {refused:?}");
    }
    let mut connection = PgConnection::connect_with(&fresh.options).await.unwrap();
    fresh.with_keyring(OLD).keys().prepare(&mut connection).await.unwrap();
}

/// An append and a shred belong to their caller's transaction. The driver begins within the one that it does not know of, and
/// commits both.
#[tokio::test]
async fn i5_i6_an_append_and_a_shred_are_committed_after_a_begin_that_was_cancelled() {
    let db = Postgres::new().await;
    let (store, _) = with_scopes(&db).await;
    let mut connection = PgConnection::connect_with(&db.options).await.unwrap();
    cancel_begin(&mut connection, &db).await;
    let mut tx = connection.begin().await.unwrap();
    store.append(&mut tx, &aggregate("Order", "2"), Any, &[placed("new")]).await.unwrap();
    store.keys().shred(&mut tx, &scope("live"), "r").await.unwrap();
    tx.commit().await.unwrap();
    connection.close().await.unwrap();
    let mut other = db.pool.acquire().await.unwrap();
    let new = store.read_stream(&mut other, &aggregate("Order", "2")).await.unwrap();
    assert_eq!(new.events[0].payload, placed("new").payload);
    let history = store.keys().key_history(&mut other, &scope("live")).await.unwrap().unwrap();
    assert_eq!(history.state, ScopeState::Shredded);
}

#[tokio::test]
async fn i11_sqlite_commits_on_its_own_outside_of_transactions_that_the_driver_does_not_know_of() {
    let db = Sqlite::new().await;
    let (store, unused) = with_scopes(&db).await;
    let mut connection = db.pool.acquire().await.unwrap();
    for operation in ["create_kek", "rotate_kek", "rewrap", "retire_kek", "move_master_key", "migrate"] {
        connection.execute("BEGIN").await.unwrap();
        assert!(!connection.is_in_transaction(), "a raw BEGIN, of which the driver does not know");
        let refused = match operation {
            "create_kek" => store.keys().create_kek(&mut connection, "tenant").await.map(drop),
            "rotate_kek" => store.keys().rotate_kek(&mut connection, "default").await.map(drop),
            "rewrap" => store.keys().rewrap(&mut connection, &RewrapOptions::default(), &mut |_| {}).await.map(drop),
            "retire_kek" => store.keys().retire_kek(&mut connection, unused).await,
            "move_master_key" => db.with_keyring(BOTH).keys().move_master_key(&mut connection, None, &mut |_| {}).await.map(drop),
            _ => SqliteKeys::new().migrate(&mut connection, &Namespace::new("conformance").unwrap()).await,
        };
        assert!(matches!(refused, Err(Error::InTransaction { .. })), "{operation}: {refused:?}");
        connection.execute("ROLLBACK").await.unwrap();
    }
    // The driver's own begin() leaves nothing behind.
    drop(connection);
    for polls in 0..20 {
        let mut connection = db.pool.acquire().await.unwrap();
        {
            let mut begin = Box::pin(connection.begin());
            for _ in 0..polls {
                if poll_fn(|context| Poll::Ready(begin.as_mut().poll(context))).await.is_ready() {
                    break;
                }
                tokio::task::yield_now().await;
            }
        }
        let partition = format!("tenant_{polls}");
        store.keys().create_kek(&mut connection, &partition).await.unwrap();
        let mut other = db.pool.acquire().await.unwrap();
        assert!(SqliteKeys::new().active_kek(&mut other, &partition).await.unwrap().is_some(), "after {polls} polls");
    }
}

const COMMIT: &[u8] = b"Q\0\0\0\x0bCOMMIT\0";
const ROLLBACK: &[u8] = b"Q\0\0\0\x0dROLLBACK\0";

/// Stands between a client and the server, and sends something else than what the client sends, or ends the connection.
async fn between(server: &PgConnectOptions, instead: fn(&[u8]) -> Option<&[u8]>) -> PgConnectOptions {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let real = server.clone();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server: Box<dyn Stream> = match real.get_socket() {
                Some(folder) => Box::new(UnixStream::connect(folder.join(format!(".s.PGSQL.{}", real.get_port()))).await.unwrap()),
                None => Box::new(TcpStream::connect((real.get_host(), real.get_port())).await.unwrap()),
            };
            let ((mut from_client, mut to_client), (mut from_server, mut to_server)) = (client.into_split(), tokio::io::split(server));
            let back = tokio::spawn(async move { tokio::io::copy(&mut from_server, &mut to_client).await });
            tokio::spawn(async move {
                let mut buffer = vec![0; 65_536];
                while let Ok(read @ 1..) = from_client.read(&mut buffer).await {
                    let Some(sent) = instead(&buffer[..read]) else { break };
                    to_server.write_all(sent).await.unwrap();
                }
                back.abort();
            });
        }
    });
    let options = if server.get_socket().is_some() { PgConnectOptions::new_without_pgpass() } else { server.clone() };
    let options = options.username(server.get_username()).database(server.get_database().unwrap());
    options.host("127.0.0.1").port(port).ssl_mode(PgSslMode::Disable)
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// All that a database says of its keys.
async fn keys_of(db: &Postgres) -> Vec<String> {
    let rows = "SELECT format('%s %s %s', kek_id, state, master_key_id) FROM key_encryption_keys
        UNION ALL SELECT format('%s %s', key_id, kek_id) FROM data_keys ORDER BY 1";
    sqlx::query_scalar(rows).fetch_all(&db.pool).await.unwrap()
}

/// The driver takes the answer to a COMMIT for a commit, whatever it says.
#[tokio::test]
async fn i11_what_was_rolled_back_without_an_error_is_not_said_to_be_committed() {
    let db = Postgres::new().await;
    let (store, unused) = with_scopes(&db).await;
    // No error is raised. So it is where a transaction had failed, or ended, and nobody noticed.
    let rolls_back = between(&db.options, |sent| Some(if sent == COMMIT { ROLLBACK } else { sent })).await;
    let mut connection = PgConnection::connect_with(&rolls_back).await.unwrap();
    for operation in ["create_kek", "rotate_kek", "rewrap", "retire_kek", "move_master_key"] {
        let before = keys_of(&db).await;
        let done = match operation {
            "create_kek" => store.keys().create_kek(&mut connection, "tenant").await.map(drop),
            "rotate_kek" => store.keys().rotate_kek(&mut connection, "default").await.map(drop),
            "rewrap" => store.keys().rewrap(&mut connection, &RewrapOptions::default(), &mut |_| {}).await.map(drop),
            "retire_kek" => store.keys().retire_kek(&mut connection, unused).await,
            _ => db.with_keyring(BOTH).keys().move_master_key(&mut connection, None, &mut |_| {}).await.map(drop),
        };
        let Err(error) = done else { panic!("{operation}: it was not committed") };
        assert!(matches!(error, Error::NotCommitted { .. }) && !error.is_retryable(), "{operation}: {error:?}");
        assert!(error.to_string().contains("nothing was changed"), "{error}");
        assert_eq!(keys_of(&db).await, before, "{operation}");
    }
    // The connection goes on: it is in no transaction, as far as either side knows.
    store.keys().kek_usage(&mut connection).await.unwrap();
}

/// It was committed, and must not be done again blindly.
#[tokio::test]
async fn i11_an_outage_after_the_commit_says_that_nobody_knows() {
    let db = Postgres::new().await;
    let (store, _) = with_scopes(&db).await;
    fn is_look(sent: &[u8]) -> bool {
        sent.windows(14).any(|bytes| bytes == b"pg_xact_status")
    }
    let ends = between(&db.options, |sent| if is_look(sent) { None } else { Some(sent) }).await;
    let mut connection = PgConnection::connect_with(&ends).await.unwrap();
    let before = keys_of(&db).await;
    let error = store.keys().rotate_kek(&mut connection, "default").await.unwrap_err();
    assert!(matches!(error, Error::OutcomeUnknown { .. }) && error.is_outage() && !error.is_retryable(), "{error:?}");
    assert_ne!(keys_of(&db).await, before, "it is done");
}

/// The events are committed then, and the shred is not, or nobody knows.
#[tokio::test]
async fn i5_an_outage_while_keys_of_their_own_database_are_committed_says_that_nobody_knows() {
    let (events, keys) = (Postgres::new().await, Postgres::new().await);
    let store = SealedStore::new(
        SplitStore::new(PostgresStore::new()),
        SplitKeys::new(PostgresKeys::new()),
        Keyring::parse(OLD).unwrap(),
        schemas(),
    );
    store.keys().prepare(&mut SplitTx::begin(&events.pool, &keys.pool).await.unwrap()).await.unwrap();
    let mut tx = SplitTx::begin(&events.pool, &keys.pool).await.unwrap();
    store.keys().shred(&mut tx, &scope("live"), "r").await.unwrap();
    let end = "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = current_database() AND state = 'idle in transaction'";
    keys.pool.execute(end).await.unwrap();
    let error = tx.commit().await.unwrap_err();
    assert!(matches!(error, Error::OutcomeUnknown { operation: "the keys", .. }) && !error.is_retryable(), "{error:?}");
}

/// What the server finds wrong when it commits.
#[tokio::test]
async fn i11_a_commit_that_is_refused_is_an_error_and_changes_nothing() {
    let db = Postgres::new().await;
    let (store, _) = with_scopes(&db).await;
    db.execute(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''no''; END';
         CREATE CONSTRAINT TRIGGER refuses AFTER INSERT OR UPDATE ON key_encryption_keys DEFERRABLE INITIALLY DEFERRED
             FOR EACH ROW EXECUTE FUNCTION refuse()"
            .to_owned(),
    )
    .await;
    let before = keys_of(&db).await;
    let mut connection = db.pool.acquire().await.unwrap();
    let error = store.keys().rotate_kek(&mut connection, "default").await.unwrap_err();
    assert!(matches!(error, Error::Database { .. }) && !error.is_retryable(), "{error:?}");
    assert_eq!(keys_of(&db).await, before);
    db.execute("DROP TRIGGER refuses ON key_encryption_keys".to_owned()).await;
    store.keys().rotate_kek(&mut connection, "default").await.unwrap();

    let db = Sqlite::new().await;
    let (store, _) = with_scopes(&db).await;
    let options = SqliteConnectOptions::new().filename(db.folder.path().join("test.db")).synchronous(SqliteSynchronous::Normal);
    let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
    db.execute(
        "CREATE TABLE parent (id INTEGER PRIMARY KEY) STRICT;
         CREATE TABLE child (id INTEGER REFERENCES parent (id) DEFERRABLE INITIALLY DEFERRED) STRICT;
         CREATE TRIGGER refuses AFTER INSERT ON key_encryption_keys BEGIN INSERT INTO child VALUES (1); END"
            .to_owned(),
    )
    .await;
    let before = store.keys().kek_usage(&mut connection).await.unwrap();
    let error = store.keys().rotate_kek(&mut connection, "default").await.unwrap_err();
    assert!(matches!(error, Error::Database { .. }) && !error.is_retryable(), "{error:?}");
    assert_eq!(store.keys().kek_usage(&mut connection).await.unwrap(), before);
    let setting: i64 = sqlx::query_scalar("PRAGMA synchronous").fetch_one(&mut connection).await.unwrap();
    assert_eq!(setting, 1, "the caller's setting is his own again");
    db.execute("DROP TRIGGER refuses".to_owned()).await;
    store.keys().rotate_kek(&mut connection, "default").await.unwrap();
}

/// How far the log is.
async fn log(connection: &mut PgConnection) -> String {
    sqlx::query_scalar("SELECT pg_current_wal_insert_lsn()::text").fetch_one(connection).await.unwrap()
}

async fn is_flushed(db: &Postgres, end: &str) -> bool {
    sqlx::query_scalar("SELECT pg_current_wal_flush_lsn() > $1::text::pg_lsn").bind(end).fetch_one(&db.pool).await.unwrap()
}

/// The server is one that does not wait for its disk. What is committed must be there after a crash all the same.
#[tokio::test]
async fn i5_a_change_of_keys_is_on_the_disk_when_it_is_committed() {
    let db = Postgres::new().await;
    db.execute("CREATE TABLE asynchronous (name TEXT)".to_owned()).await;
    let (store, _) = with_scopes(&db).await;
    let mut connection = PgConnection::connect_with(&db.options).await.unwrap();
    connection.execute("SET synchronous_commit = off").await.unwrap();
    for operation in ["disable", "enable", "shred", "reopen"].into_iter().cycle().take(20) {
        let mut tx = connection.begin().await.unwrap();
        let (keys, scope) = (store.keys(), scope("live"));
        match operation {
            "disable" => keys.disable(&mut tx, &scope, "r").await.unwrap(),
            "enable" => keys.enable(&mut tx, &scope, "r").await.unwrap(),
            "shred" => drop(keys.shred(&mut tx, &scope, "r").await.unwrap()),
            _ => drop(keys.reopen(&mut tx, &scope, "r").await.unwrap()),
        }
        let end = log(&mut tx).await;
        tx.commit().await.unwrap();
        assert!(is_flushed(&db, &end).await, "{operation} was committed, and is not on the disk");
    }
    for round in 0..10 {
        let end = log(&mut connection).await;
        store.keys().create_kek(&mut connection, &format!("tenant_{round}")).await.unwrap();
        assert!(is_flushed(&db, &end).await, "a key-encryption key was made, and is not on the disk");
    }
    let kept: String = sqlx::query_scalar("SHOW synchronous_commit").fetch_one(&mut connection).await.unwrap();
    assert_eq!(kept, "off", "the caller's setting is his own again");
    // What is stronger stays.
    let mut tx = connection.begin().await.unwrap();
    tx.execute("SET LOCAL synchronous_commit = remote_apply").await.unwrap();
    store.keys().disable(&mut tx, &scope("live"), "r").await.unwrap();
    let kept: String = sqlx::query_scalar("SHOW synchronous_commit").fetch_one(&mut *tx).await.unwrap();
    assert_eq!(kept, "remote_apply");
}

#[tokio::test]
async fn i6_a_key_in_another_database_is_on_the_disk_before_the_event_that_needs_it() {
    let (events, keys) = (Postgres::new().await, Postgres::new().await);
    keys.execute(
        "ALTER ROLE CURRENT_USER IN DATABASE \"$\" SET synchronous_commit = off".replace('$', keys.options.get_database().unwrap()),
    )
    .await;
    let options = keys.options.clone();
    let pool = sqlx::postgres::PgPoolOptions::new().connect_with(options).await.unwrap();
    let store = SealedStore::new(
        SplitStore::new(PostgresStore::new()),
        SplitKeys::new(PostgresKeys::new()),
        Keyring::parse(OLD).unwrap(),
        schemas(),
    );
    store.keys().prepare(&mut SplitTx::begin(&events.pool, &pool).await.unwrap()).await.unwrap();
    for customer in 0..20 {
        let end = log(&mut pool.acquire().await.unwrap()).await;
        let mut tx = SplitTx::begin(&events.pool, &pool).await.unwrap();
        store.append(&mut tx, &aggregate("Order", "1"), Any, &[placed(&customer.to_string())]).await.unwrap();
        assert!(is_flushed(&keys, &end).await, "the event can be committed, and its key be lost");
        tx.commit().await.unwrap();
    }
}

/// SQLite does not let a transaction change how durable it is: it is refused before it says more than it can hold.
#[tokio::test]
async fn i5_a_shred_that_the_power_could_take_back_is_refused() {
    let db = Sqlite::new().await;
    let (store, _) = with_scopes(&db).await;
    db.execute(
        "CREATE TABLE seen (setting INTEGER) STRICT;
         CREATE TRIGGER sees AFTER INSERT ON key_encryption_keys BEGIN INSERT INTO seen SELECT synchronous FROM pragma_synchronous; END"
            .to_owned(),
    )
    .await;
    for (synchronous, durable) in [
        (SqliteSynchronous::Off, false),
        (SqliteSynchronous::Normal, false),
        (SqliteSynchronous::Full, true),
        (SqliteSynchronous::Extra, true),
    ] {
        let options = SqliteConnectOptions::new().filename(db.folder.path().join("test.db")).synchronous(synchronous);
        let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
        let before: i64 = sqlx::query_scalar("PRAGMA synchronous").fetch_one(&mut connection).await.unwrap();
        // What commits on its own sees to it, in its transaction, and leaves the connection as it was.
        store.keys().create_kek(&mut connection, &format!("tenant_{before}")).await.unwrap();
        assert_eq!(sqlx::query_scalar::<_, i64>("PRAGMA synchronous").fetch_one(&mut connection).await.unwrap(), before);
        let within: i64 = sqlx::query_scalar("SELECT setting FROM seen ORDER BY rowid DESC").fetch_one(&mut connection).await.unwrap();
        assert_eq!(within, before.max(2), "a key-encryption key could be taken back by a loss of power");
        let mut tx = connection.begin_with("BEGIN IMMEDIATE").await.unwrap();
        for done in [
            store.keys().shred(&mut tx, &scope("shredded"), "r").await.map(drop),
            store.keys().disable(&mut tx, &scope("live"), "r").await,
            SqliteKeys::new().commit_durably(&mut tx).await,
        ] {
            match done {
                Ok(()) => assert!(durable, "{synchronous:?}"),
                Err(error) => {
                    assert!(!durable && matches!(error, Error::NotDurable { .. }), "{synchronous:?}: {error:?}");
                    assert!(error.to_string().contains("synchronous = FULL"), "{error}");
                }
            }
        }
        store.append(&mut tx, &aggregate("Order", "2"), Any, &[placed("other")]).await.expect("appends go on");
    }
}

/// Those who commit themselves look as well.
#[tokio::test]
async fn i5_no_event_is_committed_after_the_lock_on_its_key_was_lost() {
    let (events, keys) = (Postgres::new().await, Postgres::new().await);
    let store = Arc::new(SealedStore::new(
        SplitStore::new(PostgresStore::new()),
        SplitKeys::new(PostgresKeys::new()),
        Keyring::parse(OLD).unwrap(),
        schemas(),
    ));
    let begin = || async { SplitTx::begin(&events.pool, &keys.pool).await.unwrap() };
    store.keys().prepare(&mut begin().await).await.unwrap();
    let order = aggregate("Order", "1");
    let count = async || -> i64 { sqlx::query_scalar("SELECT count(*) FROM events").fetch_one(&events.pool).await.unwrap() };
    for (first_key, itself) in [(true, false), (false, false), (true, true), (false, true)] {
        let customer = format!("{first_key} {itself}");
        if !first_key {
            let mut tx = begin().await;
            store.append(&mut tx, &order, Any, &[placed(&customer)]).await.unwrap();
            tx.commit().await.unwrap();
        }
        let before = count().await;
        let mut tx = begin().await;
        store.append(&mut tx, &order, Any, &[placed(&customer)]).await.unwrap();
        // As by idle_in_transaction_session_timeout, a fail-over, a firewall.
        let end =
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND state = 'idle in transaction'";
        keys.pool.execute(end).await.unwrap();
        let mut shred = begin().await;
        store.keys().shred(&mut shred, &scope(&customer), "request").await.unwrap();
        shred.commit().await.unwrap();
        let error = if itself {
            let (events, mut side) = tx.into_parts();
            let error = side.confirm().await.unwrap_err();
            events.rollback().await.unwrap();
            error
        } else {
            tx.commit().await.unwrap_err()
        };
        assert!(error.is_retryable(), "{error:?}");
        assert_eq!(count().await, before, "an event was committed under a key that was destroyed before");
    }
}

/// A restore of a part of the tables, in each of the ways in which it can go wrong.
async fn restored<B: Scripted>(db: &B) {
    let (store, _) = with_scopes(db).await;
    let mut transaction = db.begin().await.unwrap();
    let tx = db.tx(&mut transaction);
    store.keys().shred(tx, &scope("disabled"), "r").await.unwrap();
    store.keys().reopen(tx, &scope("shredded"), "r").await.unwrap();
    db.commit(transaction).await.unwrap();
    for sql in [
        // The scopes were restored, and the keys; what was done to them was not.
        "UPDATE key_scopes SET state = 'disabled' WHERE scope_id = 'disabled'",
        // The keys alone.
        "UPDATE key_scopes SET state = 'shredded' WHERE scope_id = 'live'",
    ] {
        db.execute(sql.to_owned()).await;
    }
}

#[tokio::test]
async fn i5_keys_that_a_restore_brought_back_are_found() {
    let expected = ["disabled", "live"].map(scope).to_vec();
    let db = Sqlite::new().await;
    let mut connection = db.pool.acquire().await.unwrap();
    assert_eq!(SqliteKeys::new().restored_scopes(&mut connection, 5).await.unwrap().count, 0);
    restored(&db).await;
    let bring_back = "UPDATE data_keys SET wrapped_key = x'00', state = 'live', shredded_at = NULL WHERE scope_id = 'disabled'";
    db.execute(format!("DROP TRIGGER data_keys_stay_shredded; {bring_back}")).await;
    let found = SqliteKeys::new().restored_scopes(&mut connection, 5).await.unwrap();
    assert_eq!((found.count, found.first), (2, expected.clone()));
    let found = SqliteKeys::new().restored_scopes(&mut connection, 1).await.unwrap();
    assert_eq!((found.count, found.first), (2, expected[..1].to_vec()));

    let db = Postgres::new().await;
    let mut connection = db.pool.acquire().await.unwrap();
    assert_eq!(PostgresKeys::new().restored_scopes(&mut connection, 5).await.unwrap().count, 0);
    restored(&db).await;
    let bring_back = bring_back.replace("x'00'", "'\\x00'");
    db.execute("DROP TRIGGER stays_shredded ON data_keys".to_owned()).await;
    db.execute(bring_back).await;
    let found = PostgresKeys::new().restored_scopes(&mut connection, 5).await.unwrap();
    assert_eq!((found.count, found.first), (2, expected));
}
