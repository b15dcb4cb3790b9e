//! Outages of the database.

use super::{order, placed, postgres, sqlite};
use eventseal::ExpectedVersion::Any;
use eventseal::consumer::Consumer;
use eventseal::error::{BoxError, SetUpFault, TransactionFault};
use eventseal::split::SplitTx;
use eventseal::{Error, EventStore, EventStoreExt, NewEvent, PersistedEvent, Result};
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPoolOptions};
use sqlx::sqlite::SqliteConnection;
use sqlx::{AssertSqlSafe, Connection, Executor};
use std::time::Duration;

fn assert_outage(error: &Error) {
    assert!(error.is_outage() && error.is_retryable() && !error.is_conflict(), "{error:?}");
}

#[tokio::test]
async fn a_server_that_goes_away_is_an_outage() {
    let (db, store) = postgres().await;
    let mut tx = db.pool.begin().await.unwrap();
    let pid: i32 = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut *tx).await.unwrap();
    sqlx::query("SELECT pg_terminate_backend($1, 10000)").bind(pid).execute(&db.pool).await.unwrap();
    for _ in 0..3 {
        assert_outage(&store.append(&mut tx, &order(), Any, &[placed("42")]).await.unwrap_err());
    }
    assert_outage(&store.read_stream(&mut tx, &order()).await.unwrap_err());
    let nobody = PgConnection::connect_with(&PgConnectOptions::new().host("127.0.0.1").port(1)).await.unwrap_err();
    assert_outage(&Error::database("connecting", nobody));
}

#[tokio::test]
async fn a_server_that_takes_no_connection_or_no_write_is_an_outage() {
    let (db, store) = postgres().await;
    let mut tx = db.pool.begin().await.unwrap();
    tx.execute("SET TRANSACTION READ ONLY").await.unwrap();
    assert_outage(&store.append(&mut tx, &order(), Any, &[placed("42")]).await.unwrap_err());
    drop(tx);
    let role = format!("limited_{}", uuid::Uuid::now_v7().simple());
    db.pool.execute(AssertSqlSafe(format!("CREATE ROLE {role} LOGIN CONNECTION LIMIT 0"))).await.unwrap();
    let refused = PgConnection::connect_with(&db.options.clone().username(&role)).await.unwrap_err();
    db.pool.execute(AssertSqlSafe(format!("DROP ROLE {role}"))).await.unwrap();
    let refused = Error::database("connecting", refused);
    assert_outage(&refused);
    assert!(matches!(&refused, Error::Database { source, .. } if source.code() == Some("53300")), "{refused:?}");
    let full = PgPoolOptions::new().max_connections(1).acquire_timeout(Duration::from_millis(50));
    let full = full.connect_with(db.options.clone()).await.unwrap();
    let _held = full.acquire().await.unwrap();
    assert_outage(&SplitTx::begin(&full, &db.pool).await.unwrap_err());
}

#[tokio::test]
async fn a_file_that_can_not_be_opened_or_is_full_is_an_outage_and_one_that_is_locked_is_not() {
    let (db, store) = sqlite().await;
    let missing =
        SqliteConnection::connect(&format!("sqlite://{}/none/x.db", db.folder.path().display())).await.unwrap_err();
    assert_outage(&Error::database("connecting", missing));
    let mut connection = db.pool.acquire().await.unwrap();
    let pages: i64 = sqlx::query_scalar("PRAGMA page_count").fetch_one(&mut *connection).await.unwrap();
    connection.execute(AssertSqlSafe(format!("PRAGMA max_page_count = {pages}"))).await.unwrap();
    let mut tx = connection.begin_with("BEGIN IMMEDIATE").await.unwrap();
    let large =
        NewEvent::raw("Placed", 1, format!(r#"{{"customer":"42","name":"Ada","x":"{}"}}"#, "x".repeat(100_000)));
    assert_outage(&store.append(&mut tx, &order(), Any, &[large]).await.unwrap_err());
    drop(tx);
    connection.execute("PRAGMA max_page_count = 1000000").await.unwrap();
    connection.execute("PRAGMA busy_timeout = 0").await.unwrap();
    let _writer = db.pool.begin_with("BEGIN IMMEDIATE").await.unwrap();
    let mut tx = connection.begin().await.unwrap();
    let locked = store.append(&mut tx, &order(), Any, &[placed("42")]).await.unwrap_err();
    assert!(matches!(locked, Error::Collision { .. }) && locked.is_retryable() && !locked.is_outage(), "{locked:?}");
}

/// Ends the session while it commits.
const ENDS_AT_COMMIT: &str = "
    CREATE FUNCTION end_session() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); PERFORM pg_sleep(10); RETURN NULL; END $$;
    CREATE CONSTRAINT TRIGGER ends_at_commit AFTER INSERT ON key_encryption_keys DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW EXECUTE FUNCTION end_session();";

#[tokio::test]
async fn an_outage_during_a_commit_of_the_library_says_that_nobody_knows() {
    let (db, store) = postgres().await;
    db.pool.execute(ENDS_AT_COMMIT).await.unwrap();
    let error = store.keys().rotate_kek(&mut *db.pool.acquire().await.unwrap(), "default").await.unwrap_err();
    assert!(
        matches!(error, Error::Transaction(TransactionFault::OutcomeUnknown { .. }))
            && error.is_outage()
            && !error.is_retryable(),
        "{error:?}"
    );
    // The same holds for the commit of the events' transaction. A caller that commits by itself gets the driver's own
    // error.
    let mut tx = SplitTx::begin(&db.pool, &db.pool).await.unwrap();
    let pid: i32 = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut **tx.events()).await.unwrap();
    sqlx::query("SELECT pg_terminate_backend($1, 10000)").bind(pid).execute(&db.pool).await.unwrap();
    let error = tx.commit().await.unwrap_err();
    assert!(
        matches!(error, Error::Transaction(TransactionFault::OutcomeUnknown { .. })) && !error.is_retryable(),
        "{error:?}"
    );
}

#[tokio::test]
async fn what_a_consumer_met_is_told_apart_too() {
    struct Projection;
    #[async_trait::async_trait]
    impl Consumer<PgConnection> for Projection {
        fn name(&self) -> &str {
            "projection"
        }
        async fn handle(&self, tx: &mut PgConnection, _: &PersistedEvent) -> Result<(), BoxError> {
            tx.execute("DO $$ BEGIN RAISE EXCEPTION 'Ada' USING ERRCODE = '40001', DETAIL = 'row (Ada)'; END $$")
                .await?;
            Ok(())
        }
    }
    let (db, store) = postgres().await;
    let mut tx = db.pool.begin().await.unwrap();
    let error = store.append_and_consume(&mut tx, &order(), Any, &[placed("42")], &[&Projection]).await.unwrap_err();
    assert!(matches!(error, Error::Consumer { .. }) && error.is_retryable() && !error.is_outage(), "{error:?}");
    assert!(!format!("{error} {error:?}").contains("Ada"), "{error:?}");
}

/// A pooler that loses statements can give out a session in which the name means another statement.
#[tokio::test]
async fn a_name_that_means_another_statement_is_a_pooler_and_no_outage() {
    // More parameters than that statement has, fewer, and as many of other types.
    for parameters in ["", "int", &["int"; 60].join(", ")] {
        let (db, store) = postgres().await;
        let mut connection = db.pool.acquire().await.unwrap();
        let mut tx = connection.begin().await.unwrap();
        store.append(&mut tx, &order(), Any, &[placed("42")]).await.unwrap();
        store.append(&mut tx, &order(), Any, &[placed("42")]).await.unwrap();
        tx.commit().await.unwrap();
        let named = "SELECT name FROM pg_prepared_statements";
        let names: Vec<String> = sqlx::query_scalar(named).persistent(false).fetch_all(&mut *connection).await.unwrap();
        for name in names.iter().filter(|name| name.starts_with("sqlx")) {
            let list = if parameters.is_empty() { String::new() } else { format!("({parameters})") };
            let other = format!("DEALLOCATE \"{name}\"; PREPARE \"{name}\" {list} AS SELECT 1");
            connection.execute(AssertSqlSafe(other)).await.unwrap();
        }
        let mut tx = connection.begin().await.unwrap();
        let error = store.append(&mut tx, &order(), Any, &[placed("42")]).await.unwrap_err();
        assert!(matches!(error, Error::SetUp(SetUpFault::PooledStatements { .. })), "({parameters}): {error:?}");
        assert!(!error.is_outage() && !error.is_retryable());
    }
}
