//! Commits that are cancelled, refused, rolled back or not answered.

use super::{BOTH, OLD, Scripted, placed, schemas, scope, with_scopes};
use eventseal::EventStoreExt;
use eventseal::ExpectedVersion::Any;
use eventseal::error::TransactionFault;
use eventseal::keys::KeyStore;
use eventseal::keys::{KeyId, NewDataKey, RewrapOptions, ScopeState};
use eventseal::maintenance::BackfillOptions;
use eventseal::postgres::{PostgresKeys, PostgresStore};
use eventseal::split::{SplitKeys, SplitStore, SplitTx};
use eventseal::sqlite::SqliteKeys;
use eventseal::{Error, EventStore, Keyring, Namespace, SealedStore, aggregate};
use sqlx::postgres::{PgConnectOptions, PgConnection, PgSslMode};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteSynchronous};
use sqlx::{Connection, Executor};
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use support::Deadline;
use support::rows::{self, Change};
use support::{Postgres, Sqlite};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};

/// Leaves a transaction that the driver does not know of: the future of its `begin()` is dropped, as by a time-out.
async fn cancel_begin(connection: &mut PgConnection, db: &Postgres) {
    let pid: i32 = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut *connection).await.unwrap();
    // The server may answer before it is asked for the first time, and then there is nothing to cancel.
    let deadline = Deadline::of("for a BEGIN that the server has not answered yet");
    loop {
        deadline.check();
        let mut begin = Box::pin(connection.begin());
        match poll_fn(|context| Poll::Ready(begin.as_mut().poll(context))).await {
            Poll::Pending => break,
            Poll::Ready(transaction) => transaction.unwrap().rollback().await.unwrap(),
        }
    }
    let state = "SELECT coalesce(state, '') FROM pg_stat_activity WHERE pid = $1";
    let deadline = Deadline::of("for the server to begin a transaction");
    while sqlx::query_scalar::<_, String>(state).bind(pid).fetch_one(&db.pool).await.unwrap() != "idle in transaction" {
        deadline.look_again().await;
    }
    assert!(!connection.is_in_transaction());
}

/// If a move to a new master key were not committed, an operator who then deletes the old master key would lose
/// everything.
#[tokio::test]
async fn i11_what_is_said_to_be_committed_is_committed_on_a_connection_whose_begin_was_cancelled() {
    let db = Postgres::new().await;
    let (store, unused) = with_scopes(&db).await;
    let both = db.with_keyring(BOTH);
    let seen = async || keys_of(&db).await;
    for operation in
        ["create_kek", "rotate_kek", "rewrap", "retire_kek", "move_master_key", "install_key", "migrate", "backfill"]
    {
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
                let key = NewDataKey {
                    key_id,
                    scope: scope("tenant"),
                    version,
                    kek_id: of,
                    wrapped_key: vec![1],
                    created_at,
                };
                rows::change(&PostgresKeys::new(), &mut connection, Change::InsertFirstKey(&key)).await
            }
            "migrate" => PostgresKeys::new().migrate(&mut connection, &Namespace::new("conformance").unwrap()).await,
            _ => store.backfill(&mut connection, &BackfillOptions::default(), &mut |_| {}).await.map(drop),
        };
        assert!(
            matches!(refused, Err(Error::Transaction(TransactionFault::InTransaction { .. }))),
            "{operation}: {refused:?}"
        );
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
        let refused = rows::change(&PostgresKeys::new(), &mut connection, Change::InsertKek(&kek)).await;
        assert!(
            matches!(refused, Err(Error::Transaction(TransactionFault::InTransaction { .. }))),
            "{sql}: {refused:?}"
        );
    }
    let mut connection = PgConnection::connect_with(&fresh.options).await.unwrap();
    fresh.with_keyring(OLD).keys().prepare(&mut connection).await.unwrap();
}

/// An append and a shred belong to their caller's transaction. The driver begins within the one that it does not know
/// of, and commits both.
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
    assert_eq!(new.events[0].payload, placed("new").payload());
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
            "move_master_key" => {
                db.with_keyring(BOTH).keys().move_master_key(&mut connection, None, &mut |_| {}).await.map(drop)
            }
            _ => SqliteKeys::new().migrate(&mut connection, &Namespace::new("conformance").unwrap()).await,
        };
        assert!(
            matches!(refused, Err(Error::Transaction(TransactionFault::InTransaction { .. }))),
            "{operation}: {refused:?}"
        );
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
                Some(folder) => {
                    Box::new(UnixStream::connect(folder.join(format!(".s.PGSQL.{}", real.get_port()))).await.unwrap())
                }
                None => Box::new(TcpStream::connect((real.get_host(), real.get_port())).await.unwrap()),
            };
            let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
                (client.into_split(), tokio::io::split(server));
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

/// All rows of the key tables, as texts.
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
        assert!(
            matches!(error, Error::Transaction(TransactionFault::NotCommitted { .. })) && !error.is_retryable(),
            "{operation}: {error:?}"
        );
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
    assert!(
        matches!(error, Error::Transaction(TransactionFault::OutcomeUnknown { .. }))
            && error.is_outage()
            && !error.is_retryable(),
        "{error:?}"
    );
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
    let end = "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = current_database() AND \
        state = 'idle in transaction'";
    keys.pool.execute(end).await.unwrap();
    let error = tx.commit().await.unwrap_err();
    assert!(
        matches!(error, Error::Transaction(TransactionFault::OutcomeUnknown { operation: "the keys", .. }))
            && !error.is_retryable(),
        "{error:?}"
    );
}

/// A collision is retryable otherwise. Here the whole transaction would append its events a second time.
#[tokio::test]
async fn i11_a_collision_while_keys_of_their_own_database_are_committed_is_not_retryable() {
    let (events, keys) = (Postgres::new().await, Postgres::new().await);
    let store = SealedStore::new(
        SplitStore::new(PostgresStore::new()),
        SplitKeys::new(PostgresKeys::new()),
        Keyring::parse(OLD).unwrap(),
        schemas(),
    );
    store.keys().prepare(&mut SplitTx::begin(&events.pool, &keys.pool).await.unwrap()).await.unwrap();
    let collides = "CREATE FUNCTION collide() RETURNS trigger LANGUAGE plpgsql AS \
        $$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = '40001'; END $$;
        CREATE CONSTRAINT TRIGGER collide AFTER UPDATE ON key_scopes DEFERRABLE INITIALLY DEFERRED \
        FOR EACH ROW EXECUTE FUNCTION collide()";
    sqlx::raw_sql(collides).execute(&keys.pool).await.unwrap();
    let mut tx = SplitTx::begin(&events.pool, &keys.pool).await.unwrap();
    store.keys().shred(&mut tx, &scope("live"), "r").await.unwrap();
    let error = tx.commit().await.unwrap_err();
    assert!(matches!(error, Error::Database { operation: "the keys", .. }) && !error.is_retryable(), "{error:?}");
}

/// A deferred constraint trigger makes the server refuse the commit.
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
    let options =
        SqliteConnectOptions::new().filename(db.folder.path().join("test.db")).synchronous(SqliteSynchronous::Normal);
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

    let writer = db.pool.begin_with("BEGIN IMMEDIATE").await.unwrap();
    let options = options.busy_timeout(std::time::Duration::ZERO);
    let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
    let error = store.keys().rotate_kek(&mut connection, "default").await.unwrap_err();
    assert!(error.is_retryable(), "{error:?}");
    let setting: i64 = sqlx::query_scalar("PRAGMA synchronous").fetch_one(&mut connection).await.unwrap();
    assert_eq!(setting, 1, "of a call that could not even begin, nothing stays");
    drop(writer);
}

/// Callers that commit by themselves get the same check.
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
    let count =
        async || -> i64 { sqlx::query_scalar("SELECT count(*) FROM events").fetch_one(&events.pool).await.unwrap() };
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
        // The session ends, as it does by idle_in_transaction_session_timeout, a fail-over or a firewall.
        let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND state \
            = 'idle in transaction'";
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
