//! What a database that fails, refuses or is away means to the caller, on real ones.

use eventseal::ExpectedVersion::Any;
use eventseal::*;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPoolOptions};
use sqlx::sqlite::SqliteConnection;
use sqlx::{AssertSqlSafe, Connection, Executor};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};
use support::{KEYRING, Postgres, Sqlite, whole};

fn schemas() -> Schemas {
    Schemas::new([event("Placed").version(1).protect(&["/name"], subject("Customer", "/customer"))]).unwrap()
}

fn placed(customer: &str) -> NewEvent {
    NewEvent::raw("Placed", 1, format!(r#"{{"customer":"{customer}","name":"Ada"}}"#))
}

fn order() -> AggregateRef {
    aggregate("Order", "1")
}

fn on_postgres() -> SealedStore<PostgresStore> {
    SealedStore::new(PostgresStore::new(), PostgresKeys::new(), Arc::clone(&KEYRING), schemas())
}

fn on_sqlite() -> SealedStore<SqliteStore> {
    SealedStore::new(SqliteStore::new(), SqliteKeys::new(), Arc::clone(&KEYRING), schemas())
}

async fn postgres() -> (Postgres, SealedStore<PostgresStore>) {
    let (db, store) = (Postgres::new().await, on_postgres());
    store.keys().prepare(&mut *db.pool.acquire().await.unwrap()).await.unwrap();
    (db, store)
}

async fn sqlite() -> (Sqlite, SealedStore<SqliteStore>) {
    let (db, store) = (Sqlite::new().await, on_sqlite());
    store.keys().prepare(&mut *db.pool.acquire().await.unwrap()).await.unwrap();
    (db, store)
}

fn assert_outage(error: &Error) {
    assert!(error.is_outage() && error.is_retryable() && !error.is_conflict(), "{error:?}");
}

// ---- outages

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
    let missing = SqliteConnection::connect(&format!("sqlite://{}/none/x.db", db.folder.path().display())).await.unwrap_err();
    assert_outage(&Error::database("connecting", missing));
    let mut connection = db.pool.acquire().await.unwrap();
    let pages: i64 = sqlx::query_scalar("PRAGMA page_count").fetch_one(&mut *connection).await.unwrap();
    connection.execute(AssertSqlSafe(format!("PRAGMA max_page_count = {pages}"))).await.unwrap();
    let mut tx = connection.begin_with("BEGIN IMMEDIATE").await.unwrap();
    let large = NewEvent::raw("Placed", 1, format!(r#"{{"customer":"42","name":"Ada","x":"{}"}}"#, "x".repeat(100_000)));
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
    assert!(matches!(error, Error::OutcomeUnknown { .. }) && error.is_outage() && !error.is_retryable(), "{error:?}");
    // Of the events' commit too, while a caller's own is the caller's.
    let mut tx = SplitTx::begin(&db.pool, &db.pool).await.unwrap();
    let pid: i32 = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut **tx.events()).await.unwrap();
    sqlx::query("SELECT pg_terminate_backend($1, 10000)").bind(pid).execute(&db.pool).await.unwrap();
    let error = tx.commit().await.unwrap_err();
    assert!(matches!(error, Error::OutcomeUnknown { .. }) && !error.is_retryable(), "{error:?}");
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
            tx.execute("DO $$ BEGIN RAISE EXCEPTION 'Ada' USING ERRCODE = '40001', DETAIL = 'row (Ada)'; END $$").await?;
            Ok(())
        }
    }
    let (db, store) = postgres().await;
    let mut tx = db.pool.begin().await.unwrap();
    let error = store.append_and_consume(&mut tx, &order(), Any, &[placed("42")], &[&Projection]).await.unwrap_err();
    assert!(matches!(error, Error::Consumer { .. }) && error.is_retryable() && !error.is_outage(), "{error:?}");
    assert!(!format!("{error} {error:?}").contains("Ada"), "{error:?}");
}

// ---- set-up

#[tokio::test]
async fn missing_tables_columns_and_permissions_are_errors_of_their_own() {
    let db = Postgres::empty().await;
    let mut connection = db.pool.acquire().await.unwrap();
    PostgresKeys::new().migrate(&mut connection, &Namespace::new("shop").unwrap()).await.unwrap();
    on_postgres().keys().prepare(&mut connection).await.unwrap();
    for read in [false, true] {
        let mut tx = connection.begin().await.unwrap();
        let error = match read {
            true => on_postgres().read_stream(&mut tx, &order()).await.unwrap_err(),
            false => on_postgres().append(&mut tx, &order(), Any, &[placed("42")]).await.unwrap_err(),
        };
        assert!(matches!(&error, Error::NoEventTables { table, .. } if table.contains("events") || table.contains("heads")), "{error:?}");
        assert!(!error.is_retryable() && !error.is_outage());
    }
    PostgresStore::new().migrate(&mut connection).await.unwrap();
    let role = format!("reader_{}", uuid::Uuid::now_v7().simple());
    connection.execute(AssertSqlSafe(format!("CREATE ROLE {role}; GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}"))).await.unwrap();
    let mut tx = connection.begin().await.unwrap();
    tx.execute(AssertSqlSafe(format!("SET LOCAL ROLE {role}"))).await.unwrap();
    let error = on_postgres().append(&mut tx, &order(), Any, &[placed("42")]).await.unwrap_err();
    assert!(matches!(&error, Error::PermissionDenied { source, .. } if source.code() == Some("42501")), "{error:?}");
    drop(tx);
    connection.execute(AssertSqlSafe(format!("DROP OWNED BY {role}; DROP ROLE {role}"))).await.unwrap();
    connection.execute("ALTER TABLE events RENAME COLUMN event_version TO version").await.unwrap();
    let error = on_postgres().read_stream(&mut connection, &order()).await.unwrap_err();
    assert!(matches!(error, Error::OutdatedTables { .. }), "{error:?}");
    connection.execute("DROP TABLE data_keys CASCADE").await.unwrap();
    let mut tx = connection.begin().await.unwrap();
    let error = on_postgres().keys().key_history(&mut tx, &KeyScope::new("Customer", "42")).await.unwrap_err();
    assert!(matches!(error, Error::NotMigrated), "{error:?}");
}

#[tokio::test]
async fn missing_tables_columns_and_permissions_are_errors_of_their_own_on_sqlite() {
    let db = Sqlite::empty().await;
    let mut connection = db.pool.acquire().await.unwrap();
    SqliteKeys::new().migrate(&mut connection, &Namespace::new("shop").unwrap()).await.unwrap();
    on_sqlite().keys().prepare(&mut connection).await.unwrap();
    let mut tx = connection.begin().await.unwrap();
    let error = on_sqlite().append(&mut tx, &order(), Any, &[placed("42")]).await.unwrap_err();
    assert!(matches!(&error, Error::NoEventTables { table, .. } if table == "events" || table == "aggregate_heads"), "{error:?}");
    tx.rollback().await.unwrap();
    SqliteStore::new().migrate(&mut connection).await.unwrap();
    connection.execute("PRAGMA query_only = ON").await.unwrap();
    let mut tx = connection.begin().await.unwrap();
    let error = on_sqlite().append(&mut tx, &order(), Any, &[placed("42")]).await.unwrap_err();
    assert!(matches!(error, Error::PermissionDenied { .. }), "{error:?}");
    tx.rollback().await.unwrap();
    connection.execute("PRAGMA query_only = OFF").await.unwrap();
    connection.execute("ALTER TABLE events RENAME COLUMN event_version TO version").await.unwrap();
    let error = on_sqlite().read_stream(&mut connection, &order()).await.unwrap_err();
    assert!(matches!(error, Error::OutdatedTables { .. }), "{error:?}");
}

/// A migration that this version does not know, as a newer one writes it down.
fn newer(bookkeeping: &str, description: &str) -> AssertSqlSafe<String> {
    AssertSqlSafe(format!(
        "INSERT INTO {bookkeeping} (version, description, installed_on, success, checksum, execution_time)
         SELECT 90, '{description}', installed_on, success, checksum, execution_time FROM {bookkeeping} WHERE version = 1"
    ))
}

#[tokio::test]
async fn a_newer_migration_does_not_stop_older_code_unless_it_is_marked() {
    let namespace = Namespace::new("conformance").unwrap();
    let (db, store) = postgres().await;
    let mut connection = db.pool.acquire().await.unwrap();
    for table in ["_keys_migrations", "_events_migrations"] {
        connection.execute(newer(table, "additive")).await.unwrap();
    }
    PostgresKeys::new().migrate(&mut connection, &namespace).await.unwrap();
    PostgresStore::new().migrate(&mut connection).await.unwrap();
    assert_eq!(PostgresKeys::new().applied_migration(&mut connection).await.unwrap(), Some(90));
    store.keys().prepare(&mut connection).await.unwrap();
    for table in ["_keys_migrations", "_events_migrations"] {
        connection.execute(AssertSqlSafe(format!("UPDATE {table} SET description = 'breaking: x' WHERE version = 90"))).await.unwrap();
    }
    for error in [
        PostgresKeys::new().migrate(&mut connection, &namespace).await.unwrap_err(),
        PostgresStore::new().migrate(&mut connection).await.unwrap_err(),
        PostgresKeys::new().applied_migration(&mut connection).await.unwrap_err(),
    ] {
        assert!(matches!(error, Error::NewerTables { found: 90, .. }), "{error:?}");
    }
    let (db, store) = sqlite().await;
    let mut connection = db.pool.acquire().await.unwrap();
    connection.execute(newer("_keys_migrations", "additive")).await.unwrap();
    SqliteKeys::new().migrate(&mut connection, &namespace).await.unwrap();
    store.keys().prepare(&mut connection).await.unwrap();
    connection.execute("UPDATE _keys_migrations SET description = 'breaking' WHERE version = 90").await.unwrap();
    let error = SqliteKeys::new().migrate(&mut connection, &namespace).await.unwrap_err();
    assert!(matches!(error, Error::NewerTables { found: 90, .. }), "{error:?}");
}

#[tokio::test]
async fn a_migration_that_fails_holds_up_nobody_elses() {
    let db = Postgres::empty().await;
    let mut connection = db.pool.acquire().await.unwrap();
    connection.execute("CREATE TABLE events (x INT)").await.unwrap();
    let error = PostgresStore::new().migrate(&mut connection).await.unwrap_err();
    assert!(matches!(error, Error::TablesExist { .. }), "{error:?}");
    let held = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    let held: i64 = sqlx::query_scalar(held).fetch_one(&mut *connection).await.unwrap();
    assert_eq!(held, 0, "the session still has the lock that others wait for");
}

// ---- metadata

/// Texts at the limits of JSONB, most of them JSON.
fn metadata() -> impl Strategy<Value = String> {
    let exponent = prop_oneof![
        -16_390..-16_370_i64,
        131_060..131_080_i64,
        -131_080..-131_060_i64,
        -5..5_i64,
        Just(1_073_741_822),
        Just(1_073_741_823),
        Just(-1_073_741_823),
        Just(i64::MAX)
    ];
    let digits = prop_oneof![
        "[0-9]{1,4}",
        Just("0".repeat(16_382)),
        Just("0".repeat(16_383)),
        Just("0".repeat(16_384)),
        Just("9".repeat(131_071)),
        Just("9".repeat(131_072)),
        Just("9".repeat(131_073))
    ];
    let number =
        ("-?", "(0|[1-9][0-9]{0,3})", proptest::option::of(digits.clone()), proptest::option::of(("[eE]", "[+]?0{0,2}", exponent)))
            .prop_map(|(sign, whole, fraction, exponent)| {
                let fraction = fraction.map(|fraction| format!(".{fraction}")).unwrap_or_default();
                let exponent = exponent.map(
                    |(e, zeros, exponent)| {
                        if exponent < 0 { format!("{e}{exponent}") } else { format!("{e}{zeros}{exponent}") }
                    },
                );
                format!("{sign}{whole}{fraction}{}", exponent.unwrap_or_default())
            });
    let whole = digits.prop_map(|digits| format!("1{}", &digits[1..]));
    let piece = prop_oneof![
        4 => "[a-z é😀]{0,3}",
        1 => Just(r"\u0000".to_owned()),
        1 => Just(r"\ud83d".to_owned()),
        1 => Just(r"\ude00".to_owned()),
        2 => Just(r"\uD83D\uDE00".to_owned()),
        1 => Just(r"\\u0000".to_owned()),
        1 => Just(r#"\n\t\/\""#.to_owned()),
        1 => Just(r"\u00e9".to_owned()),
        1 => Just("\u{1}".to_owned()),
        1 => Just(r"\x".to_owned()),
        1 => Just("\u{7f}".to_owned()),
    ];
    let string = proptest::collection::vec(piece, 0..4).prop_map(|pieces| format!("\"{}\"", pieces.concat()));
    let depth = prop_oneof![Just(200_usize), Just(5_900), Just(50_000)];
    let nested = (depth, any::<bool>()).prop_map(|(depth, object)| {
        let (open, close) = if object { (r#"{"a":"#, "}") } else { ("[", "]") };
        format!("{}1{}", open.repeat(depth), close.repeat(depth))
    });
    let wrong = prop_oneof![Just("01"), Just("1."), Just("nul"), Just("NaN"), Just("'a'"), Just("\u{feff}1"), Just("1 2"), Just("")];
    let leaf = prop_oneof![
        6 => number,
        3 => whole,
        6 => string.clone(),
        2 => prop_oneof![Just("true"), Just("null"), Just("[]"), Just("{}")].prop_map(str::to_owned),
        1 => nested,
        1 => wrong.prop_map(str::to_owned),
    ];
    leaf.prop_recursive(3, 8, 4, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(|values| format!("[{}]", values.join(" , "))),
            proptest::collection::vec((string.clone(), inner), 0..4).prop_map(|members| {
                let members: Vec<String> = members.into_iter().map(|(name, value)| format!("{name} : {value}")).collect();
                format!("{{{}}}", members.join(","))
            }),
        ]
    })
}

#[tokio::test]
async fn metadata_is_refused_exactly_where_the_database_would_refuse_it() {
    let db = Postgres::new().await;
    let store = PostgresStore::new();
    let mut tx = db.pool.begin().await.unwrap();
    let mut runner = TestRunner::default();
    let strategy = metadata();
    let (mut taken, mut refused, mut causes) = (0, 0, BTreeMap::new());
    for number in 0..1_500 {
        let text = strategy.new_tree(&mut runner).unwrap().current();
        let event = NewEvent::raw("Noted", 1, "{}").with_metadata(text.clone());
        let ours = store.append(&mut tx, &aggregate("Order", number.to_string()), Any, &[event]).await;
        let mut nested = tx.begin().await.unwrap();
        let theirs = sqlx::query("SELECT $1::text::jsonb").bind(&text).execute(&mut *nested).await;
        nested.rollback().await.unwrap();
        let start: String = text.chars().take(300).collect();
        assert_eq!(ours.is_ok(), theirs.is_ok(), "{} bytes: {start}\n{ours:?}\n{theirs:?}", text.len());
        match ours {
            Ok(_) => taken += 1,
            Err(error) => {
                let Error::InvalidMetadata { problem, .. } = error else { panic!("{error:?}") };
                // It names what the database would have stumbled over, unless that is further on than where it is no JSON.
                let theirs = theirs.unwrap_err();
                let code = theirs.as_database_error().and_then(sqlx::error::DatabaseError::code).unwrap_or_default().into_owned();
                let cause = match &*code {
                    "22003" => "holds a number",
                    "22P05" | "22P02" => "half of a surrogate pair",
                    "54001" => "is nested deeper",
                    _ => panic!("{theirs:?}"),
                };
                assert!(problem.contains(cause) || problem.contains("is not JSON"), "{code}: {problem}: {start}");
                causes.insert(cause, problem.contains(cause) || causes.get(cause).is_some_and(|it| *it));
                refused += 1;
            }
        }
    }
    assert!(taken > 300 && refused > 300, "{taken} taken, {refused} refused");
    assert!(causes.len() == 3 && causes.values().all(|is_named| *is_named), "{causes:?}");
    tx.commit().await.unwrap();
}

// ---- what errors show

#[tokio::test]
async fn i9_no_row_and_no_value_is_shown_of_a_database_error() {
    let (db, store) = postgres().await;
    db.pool
        .execute(
            "ALTER TABLE data_keys ADD CONSTRAINT no_x CHECK (scope_id <> 'x');
             ALTER TABLE events ADD CONSTRAINT no_big CHECK (length(payload) < 1000);
             CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN RAISE EXCEPTION 'row of %', NEW.trace_id USING DETAIL = NEW.trace_id, HINT = NEW.trace_id; END $$;
             CREATE TRIGGER tell BEFORE INSERT ON events FOR EACH ROW WHEN (NEW.trace_id IS NOT NULL) EXECUTE FUNCTION tell();
             CREATE FUNCTION convert() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN PERFORM NEW.correlation_id::int; RETURN NEW; END $$;
             CREATE TRIGGER convert BEFORE INSERT ON events FOR EACH ROW WHEN (NEW.correlation_id IS NOT NULL) EXECUTE FUNCTION convert();",
        )
        .await
        .unwrap();
    let secret = "SECRET\u{1b}[2J";
    let big = NewEvent::raw("Other", 1, format!(r#"{{"a":"{}"}}"#, "SECRET".repeat(500)));
    for event in [placed("x"), big, placed("42").with_trace_id(secret), placed("42").with_correlation_id(secret)] {
        let mut tx = db.pool.begin().await.unwrap();
        let error = on_postgres_with_unknown_types().append(&mut tx, &order(), Any, &[event]).await.unwrap_err();
        let text = whole(&error);
        assert!(!text.contains("\\\\x") && !text.contains("SECRET") && !text.contains("534543") && !text.contains('\u{1b}'), "{text}");
        let Error::Database { source, .. } = &error else { panic!("{error:?}") };
        assert!(source.driver().is::<sqlx::Error>() && source.code().is_some(), "whoever asks for it gets it");
    }
    let mut tx = db.pool.begin().await.unwrap();
    let error = store.append(&mut tx, &order(), Any, &[placed("x")]).await.unwrap_err();
    let Error::Database { source, .. } = &error else { panic!("{error:?}") };
    assert_eq!((source.code(), source.table(), source.constraint()), (Some("23514"), Some("data_keys"), Some("no_x")));
    assert!(source.to_string().contains("violates check constraint"), "{source}");
}

fn on_postgres_with_unknown_types() -> SealedStore<PostgresStore> {
    let other = event("Other").version(1).unprotected("for a test");
    let schemas = Schemas::new([event("Placed").version(1).protect(&["/name"], subject("Customer", "/customer")), other]).unwrap();
    SealedStore::new(PostgresStore::new(), PostgresKeys::new(), Arc::clone(&KEYRING), schemas)
}

#[tokio::test]
async fn a_lock_timeout_below_a_millisecond_is_one() {
    let (db, store) = postgres().await;
    let scope = KeyScope::new("Customer", "42");
    let mut tx = db.pool.begin().await.unwrap();
    store.append(&mut tx, &order(), Any, &[placed("42")]).await.unwrap();
    for timeout in [Duration::from_nanos(1), Duration::from_micros(999)] {
        let keys = KeyManager::new(PostgresKeys::new().lock_timeout(timeout), KEYRING.clone());
        let mut other = db.pool.begin().await.unwrap();
        let waited = tokio::time::timeout(Duration::from_secs(20), keys.shred(&mut other, &scope, "request")).await;
        assert!(matches!(waited, Ok(Err(Error::Collision { .. }))), "{timeout:?}: {waited:?}");
    }
    tx.commit().await.unwrap();
    let keys = KeyManager::new(PostgresKeys::new().lock_timeout(Duration::MAX), KEYRING.clone());
    keys.shred(&mut db.pool.begin().await.unwrap(), &scope, "request").await.unwrap();
}

// ---- positions

#[tokio::test]
async fn a_copy_goes_on_behind_its_last_event_whoever_owns_the_sequence() {
    let (db, store) = postgres().await;
    let mut tx = db.pool.begin().await.unwrap();
    store.append(&mut tx, &order(), Any, &[placed("42"), placed("43"), placed("44")]).await.unwrap();
    tx.commit().await.unwrap();
    let target = PostgresStore::with_tables(PostgresTables::new().events("copied").heads("copied_heads")).unwrap();
    let (mut source, mut connection) = (db.pool.acquire().await.unwrap(), db.pool.acquire().await.unwrap());
    target.migrate(&mut connection).await.unwrap();
    // As a partitioned table or a restored dump has it, or one whose sequence was made by hand.
    connection.execute("ALTER SEQUENCE copied_global_position_seq OWNED BY NONE").await.unwrap();
    store.rewrite(&mut source, &target, &mut connection, &RewriteOptions::default(), &mut |_| {}).await.unwrap();
    let mut tx = connection.begin().await.unwrap();
    let appended = target.append(&mut tx, &order(), Any, &[NewEvent::raw("Noted", 1, "{}")]).await.unwrap();
    assert_eq!(appended.events[0].global_position.get(), 4);
    tx.commit().await.unwrap();

    // Where it can't be known which sequence that is, nothing is inserted.
    connection.execute("TRUNCATE copied, copied_heads").await.unwrap();
    connection.execute("ALTER TABLE copied ALTER global_position SET DEFAULT nextval('copied_global_position_seq'::text)").await.unwrap();
    let error = store.rewrite(&mut source, &target, &mut connection, &RewriteOptions::default(), &mut |_| {}).await.unwrap_err();
    assert!(matches!(error, Error::NoSequence { .. }) && !error.is_retryable(), "{error:?}");
    let copied: i64 = sqlx::query_scalar("SELECT count(*) FROM copied").fetch_one(&mut *connection).await.unwrap();
    assert_eq!(copied, 0);
}

#[tokio::test]
async fn an_identity_gives_out_positions_behind_a_copy_too() {
    let (db, store) = postgres().await;
    let mut tx = db.pool.begin().await.unwrap();
    store.append(&mut tx, &order(), Any, &[placed("42"), placed("43")]).await.unwrap();
    tx.commit().await.unwrap();
    let target = PostgresStore::with_tables(PostgresTables::new().events("copied").heads("copied_heads")).unwrap();
    let (mut source, mut connection) = (db.pool.acquire().await.unwrap(), db.pool.acquire().await.unwrap());
    target.migrate(&mut connection).await.unwrap();
    let identity = "ALTER TABLE copied ALTER global_position DROP DEFAULT, ALTER global_position ADD GENERATED BY DEFAULT AS IDENTITY";
    connection.execute("ALTER TABLE copied ALTER global_position DROP DEFAULT; DROP SEQUENCE copied_global_position_seq").await.unwrap();
    connection.execute(identity).await.unwrap();
    store.rewrite(&mut source, &target, &mut connection, &RewriteOptions::default(), &mut |_| {}).await.unwrap();
    let mut tx = connection.begin().await.unwrap();
    let appended = target.append(&mut tx, &order(), Any, &[NewEvent::raw("Noted", 1, "{}")]).await.unwrap();
    assert_eq!(appended.events[0].global_position.get(), 3);
}

#[tokio::test]
async fn a_position_that_is_taken_is_not_tried_again_for_ever() {
    let (db, store) = postgres().await;
    let mut tx = db.pool.begin().await.unwrap();
    let first = placed("42");
    store.append(&mut tx, &order(), Any, std::slice::from_ref(&first)).await.unwrap();
    tx.commit().await.unwrap();
    db.pool.execute("SELECT setval('events_global_position_seq', 1, false)").await.unwrap();
    let mut tx = db.pool.begin().await.unwrap();
    let error = store.append(&mut tx, &order(), Any, &[placed("42")]).await.unwrap_err();
    assert!(matches!(error, Error::PositionTaken { .. }) && !error.is_retryable() && !error.is_conflict(), "{error:?}");
    assert!(error.to_string().contains("setval()"), "{error}");
}

/// What a detail quotes of the rows is anybody's text. It must not pass for the name of a column.
#[tokio::test]
async fn what_a_constraint_is_about_is_not_read_from_values() {
    let (db, store) = postgres().await;
    let (text, append) = ("(global_position)=(1)", async |store: &SealedStore<PostgresStore>, order: &AggregateRef, event: NewEvent| {
        let mut tx = db.pool.begin().await.unwrap();
        store.append(&mut tx, order, Any, &[event, placed("43")]).await.map(|_| drop(tx)).unwrap_err()
    });
    // The second version of a stream is there, and nobody has the first: its rows quote the stream's id.
    let insert = "INSERT INTO events (aggregate_type, aggregate_id, aggregate_version, event_id, event_type, payload)
        VALUES ('Order', '(global_position)=(1)', 2, gen_random_uuid(), 'Noted', '')";
    db.pool.execute(insert).await.unwrap();
    let error = append(&store, &aggregate("Order", text), placed("42")).await;
    assert!(matches!(error, Error::Collision { source: Some(_) }), "{error:?}");
    // Somebody else's constraint is not one of ours, which would be worth another attempt.
    db.pool.execute("CREATE UNIQUE INDEX once ON events (event_type, (trace_id))").await.unwrap();
    let traced = || placed("42").with_trace_id(text);
    let mut tx = db.pool.begin().await.unwrap();
    store.append(&mut tx, &order(), Any, &[traced()]).await.unwrap();
    tx.commit().await.unwrap();
    let error = append(&store, &order(), traced()).await;
    assert!(matches!(error, Error::Database { .. }) && !error.is_retryable(), "{error:?}");
    assert!(!format!("{error:?}").contains(text), "{error:?}");
}

// ---- futures that were dropped

/// Polls a future for so long, and drops it. Did it end?
async fn poll<F: Future>(future: F, time: Duration) -> bool {
    let mut future = Box::pin(future);
    let start = Instant::now();
    while start.elapsed() < time {
        if std::future::poll_fn(|context| Poll::Ready(future.as_mut().poll(context).is_ready())).await {
            return true;
        }
        tokio::task::yield_now().await;
    }
    false
}

#[tokio::test]
async fn of_an_append_that_was_dropped_all_or_nothing_is_in_the_transaction() {
    let (db, store) = postgres().await;
    let (mut all, mut nothing) = (0, 0);
    let mut whole = Duration::from_millis(1);
    for times in 0..90 {
        let order = aggregate("Order", times.to_string());
        let mut tx = db.pool.begin().await.unwrap();
        let events = [placed(&format!("{times}a")), placed(&format!("{times}b")), placed(&format!("{times}c"))];
        let done = poll(store.append(&mut tx, &order, Any, &events), whole * (times % 30) / 20).await;
        // Whoever commits all the same finds a stream that holds.
        tx.commit().await.unwrap();
        let mut tx = db.pool.begin().await.unwrap();
        let read = store.read_stream(&mut tx, &order).await.unwrap().events.len();
        assert!(read == 3 || read == 0 && !done, "{read} of 3 events, of an append that was dropped");
        let start = Instant::now();
        let next = store.append(&mut tx, &order, Any, &[placed(&format!("{times}d"))]).await.unwrap().events.remove(0);
        whole = start.elapsed();
        assert_eq!(next.aggregate_version.get(), i64::try_from(read).unwrap() + 1);
        tx.commit().await.unwrap();
        if read == 3 {
            all += 1;
        } else {
            nothing += 1;
        }
    }
    assert!(all > 0 && nothing > 0, "{all} times all, {nothing} times nothing");
}

#[tokio::test]
async fn of_an_append_that_was_dropped_all_or_nothing_is_in_the_transaction_on_sqlite() {
    let (db, store) = sqlite().await;
    let (mut all, mut nothing) = (0, 0);
    let mut whole = Duration::from_millis(1);
    for times in 0..90 {
        let order = aggregate("Order", times.to_string());
        let mut tx = db.pool.begin_with("BEGIN IMMEDIATE").await.unwrap();
        let events = [placed(&format!("{times}a")), placed(&format!("{times}b")), placed(&format!("{times}c"))];
        let done = poll(store.append(&mut tx, &order, Any, &events), whole * (times % 30) / 20).await;
        tx.commit().await.unwrap();
        let mut tx = db.pool.begin_with("BEGIN IMMEDIATE").await.unwrap();
        let read = store.read_stream(&mut tx, &order).await.unwrap().events.len();
        assert!(read == 3 || read == 0 && !done, "{read} of 3 events, of an append that was dropped");
        let start = Instant::now();
        let next = store.append(&mut tx, &order, Any, &[placed(&format!("{times}d"))]).await.unwrap().events.remove(0);
        whole = start.elapsed();
        assert_eq!(next.aggregate_version.get(), i64::try_from(read).unwrap() + 1);
        tx.commit().await.unwrap();
        if read == 3 {
            all += 1;
        } else {
            nothing += 1;
        }
    }
    assert!(all > 0 && nothing > 0, "{all} times all, {nothing} times nothing");
}
