//! Copies of a store: the places where they may be, their keys, and the errors of maintenance.

use eventseal::error::{EventFault, KeyFault, MaintenanceFault, SetUpFault};
use eventseal::maintenance::{BackfillOptions, CensusOptions, RewriteOptions, Rewritten};
use eventseal::postgres::{PostgresStore, PostgresTables};
use eventseal::split::{SplitKeys, SplitStore, SplitTx};
use eventseal::sqlite::{SqliteKeys, SqliteStore};
use eventseal::store::EventTable;
use eventseal::{
    Changes, Error, EventFilter, EventStore, ExpectedVersion, GlobalPosition, KeyScope, NewEvent, PersistedEvent,
    Result, Schemas, SealedStore, aggregate, event, subject,
};
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use sqlx::{ConnectOptions, SqlitePool};
use std::process::Command;
use std::sync::Arc;
use support::backend::{Backend, Meddled, payloads};
use support::{KEYRING, Postgres, Sqlite, customer, on_every_database};

const OPERATIONS: &str = include_str!("../../docs/operations.md");

on_every_database! {
    a_store_is_not_rewritten_into_itself,
    a_target_without_tables_is_named,
    what_was_skipped_is_said_once,
    every_version_in_the_clear_is_named,
}

/// Version 2 of `Placed` protects a note, for an owner who may have no key before a rewrite makes it.
fn schemas() -> Schemas {
    Schemas::builder([event("Placed")
        .version(1)
        .protect(&["/name"], customer())
        .version(2)
        .protect(&["/name"], customer())
        .protect(&["/note"], subject("Customer", "/seller"))
        .change(1, Changes::new())])
    .accept_plaintext("Placed")
    .allow_older_appends()
    .build()
    .unwrap()
}

fn placed(customer: &str, seller: &str) -> NewEvent {
    NewEvent::raw(
        "Placed",
        1,
        format!(r#"{{"customer":"{customer}","name":"Ada","seller":"{seller}","note":"rings twice"}}"#),
    )
}

fn options(dry_run: bool) -> RewriteOptions {
    let mut options = RewriteOptions::default();
    options.dry_run = dry_run;
    options
}

async fn rewrite<B, T>(db: &B, store: &SealedStore<B::Store>, copy: &B, target: &T, dry_run: bool) -> Result<Rewritten>
where
    B: Backend,
    T: EventTable<Tx = B::Tx>,
{
    let (mut connection, mut other) = (db.connect().await.unwrap(), copy.connect().await.unwrap());
    store
        .rewrite(db.connection(&mut connection), target, copy.connection(&mut other), &options(dry_run), &mut |_| {})
        .await
}

async fn a_store_is_not_rewritten_into_itself<B: Backend>() {
    let db = B::make().await;
    let store = db.prepared(schemas()).await;
    for appended in [false, true] {
        if appended {
            db.append(&store, "1", &[placed("ada", "kim")]).await;
        }
        for dry_run in [true, false] {
            let refused = rewrite(&db, &store, &db, &B::Store::default(), dry_run).await.unwrap_err();
            assert!(
                matches!(
                    refused,
                    Error::Maintenance(MaintenanceFault::TargetIsSource)
                        | Error::Maintenance(MaintenanceFault::TargetInSameFile)
                ) && !refused.is_retryable(),
                "{refused:?}"
            );
            let refused = rewrite(&db, &store, &db, &Arc::new(Meddled::<B>::default()), dry_run).await.unwrap_err();
            assert!(
                matches!(
                    refused,
                    Error::Maintenance(MaintenanceFault::TargetIsSource)
                        | Error::Maintenance(MaintenanceFault::TargetInSameFile)
                ),
                "through others: {refused:?}"
            );
        }
    }
    assert_eq!(rewrite(&db, &store, &B::make().await, &B::Store::default(), false).await.unwrap().up_to.get(), 1);
}

/// The database of a target may not have been migrated.
async fn a_target_without_tables_is_named<B: Backend>() {
    let (db, copy) = (B::make().await, B::make().await);
    if !B::drop_events(&copy).await {
        return assert!(std::any::type_name::<B>().ends_with("Memory"), "a database in memory has its tables");
    }
    let store = db.prepared(schemas()).await;
    for dry_run in [true, false] {
        let refused = rewrite(&db, &store, &copy, &B::Store::default(), dry_run).await.unwrap_err();
        assert!(matches!(refused, Error::SetUp(SetUpFault::NoEventTables { of: "target", .. })), "{refused:?}");
        assert!(
            refused.to_string().starts_with("the target has no event tables")
                && refused.to_string().contains("migrate()")
        );
    }
    // And as a source, or where they are counted.
    let store = copy.process(schemas());
    let refused = rewrite(&copy, &store, &db, &B::Store::default(), true).await.unwrap_err();
    let mut connection = copy.connect().await.unwrap();
    let uncounted =
        store.census(copy.connection(&mut connection), &CensusOptions::default(), &mut |_| {}).await.unwrap_err();
    for error in [refused, uncounted] {
        assert!(
            matches!(
                error,
                Error::SetUp(SetUpFault::NoEventTables { of: "database", .. })
                    | Error::Keys(KeyFault::NoActiveKek { .. })
            ),
            "{error:?}"
        );
    }
}

async fn what_was_skipped_is_said_once<B: Backend>() {
    let db = B::make().await;
    let store = db.prepared(schemas()).await;
    db.append_bare("1", &[NewEvent::raw("Placed", 1, r#"{"name":"Ada"}"#)]).await;
    let done = db.backfill(&store, &BackfillOptions::default()).await.unwrap();
    let skipped = &done.first_skipped[0];
    assert!(OPERATIONS.contains(r#"println!("{skipped}: {}", skipped.error)"#), "what the manual prints:");
    let line = format!("{skipped}: {}", skipped.error);
    assert_eq!(line.matches(&skipped.event_id.to_string()).count(), 1, "{line}");
    assert!(line.contains("position 1") && line.contains("stored") && line.contains("another owner"), "{line}");
}

async fn every_version_in_the_clear_is_named<B: Backend>() {
    let db = B::make().await;
    let store = db.prepared(schemas()).await;
    let raw = |version| NewEvent::raw("Placed", version, r#"{"customer":"ada","name":"Ada"}"#);
    db.append_bare("1", &[raw(1), raw(2), raw(2), raw(7)]).await;
    let answer = db.census(&store, &CensusOptions::default()).await.may_refuse_plaintext("Placed").to_string();
    for part in ["of Placed version 1, 1 stored", "of Placed version 2, 2 stored", "1 stored events are of version 7"] {
        assert!(answer.starts_with("no: ") && answer.contains(part), "{answer}");
    }
}

/// Other tables, other names of the file, and a file that is attached.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_tables_of_a_sqlite_file_are_refused_at_once() {
    let (db, copy) = (Sqlite::new().await, Sqlite::new().await);
    let store = db.prepared(schemas()).await;
    db.append(&store, "1", &[placed("ada", "kim")]).await;
    let target = SqliteStore::with_tables("events_2", "heads_2").unwrap();
    target.migrate(&mut db.pool.acquire().await.unwrap()).await.unwrap();
    let file = db.folder.path().join("test.db");
    let (symbolic, hard) = (copy.folder.path().join("symbolic.db"), copy.folder.path().join("hard.db"));
    std::os::unix::fs::symlink(&file, &symbolic).unwrap();
    std::fs::hard_link(&file, &hard).unwrap();
    for path in [&file, &symbolic, &hard] {
        let mut connection = db.pool.acquire().await.unwrap();
        let pool = SqlitePool::connect(&format!("sqlite://{}", path.display())).await.unwrap();
        let mut other = pool.acquire().await.unwrap();
        for dry_run in [true, false] {
            let refused =
                store.rewrite(&mut connection, &target, &mut other, &options(dry_run), &mut |_| {}).await.unwrap_err();
            assert!(
                matches!(refused, Error::Maintenance(MaintenanceFault::TargetInSameFile)) && !refused.is_retryable(),
                "{refused:?}"
            );
        }
    }
    let (mut connection, mut other) = (db.pool.acquire().await.unwrap(), copy.pool.acquire().await.unwrap());
    sqlx::query("ATTACH ? AS original").bind(file.display().to_string()).execute(&mut *other).await.unwrap();
    let refused =
        store.rewrite(&mut connection, &SqliteStore::new(), &mut other, &options(true), &mut |_| {}).await.unwrap_err();
    assert!(
        matches!(refused, Error::Maintenance(MaintenanceFault::TargetInSameFile)),
        "a transaction of the target would lock the source: {refused:?}"
    );
    sqlx::query("DETACH original").execute(&mut *other).await.unwrap();
    assert_eq!(
        store
            .rewrite(&mut connection, &SqliteStore::new(), &mut other, &options(false), &mut |_| {})
            .await
            .unwrap()
            .rewritten,
        1
    );
    // Connections of a pool share what is in memory.
    let pool = SqlitePool::connect("sqlite::memory:").await.unwrap();
    let (mut connection, mut other) = (pool.acquire().await.unwrap(), pool.acquire().await.unwrap());
    SqliteStore::new().migrate(&mut connection).await.unwrap();
    target.migrate(&mut connection).await.unwrap();
    let refused = store.rewrite(&mut connection, &target, &mut other, &options(false), &mut |_| {}).await.unwrap_err();
    assert!(matches!(refused, Error::Maintenance(MaintenanceFault::TargetInSameFile)), "{refused:?}");
    let mut to_file = copy.pool.acquire().await.unwrap();
    let location = (
        SqliteStore::new().location(&mut connection).await.unwrap(),
        SqliteStore::new().location(&mut to_file).await.unwrap(),
    );
    assert_ne!(location.0, location.1, "a file is not in memory");
}

/// On PostgreSQL, two names of one table are one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_table_of_postgres_is_known_by_all_its_names() {
    let db = Postgres::new().await;
    let store = db.prepared(schemas()).await;
    let named = PostgresStore::with_tables(PostgresTables::new().in_schema("public")).unwrap();
    assert!(matches!(
        rewrite(&db, &store, &db, &named, false).await,
        Err(Error::Maintenance(MaintenanceFault::TargetIsSource))
    ));
    let other = PostgresStore::with_tables(PostgresTables::new().in_schema("other")).unwrap();
    other.migrate(&mut db.pool.acquire().await.unwrap()).await.unwrap();
    db.append(&store, "1", &[placed("ada", "kim")]).await;
    assert_eq!(rewrite(&db, &store, &db, &other, false).await.unwrap().rewritten, 1);
}

/// The first block of this language below the heading about the keys of a copy.
fn recipe(language: &str) -> &'static str {
    let (_, section) = OPERATIONS.split_once("### The keys of a copy").unwrap();
    let (_, block) = section.split_once(&format!("```{language}\n")).unwrap();
    block.split_once("```").unwrap().0
}

/// A store with everything that keys can have, whose rewrite makes another key. What its readers see.
async fn rewritten<B: Backend>(db: &B, copy: &B) -> (SealedStore<B::Store>, Vec<PersistedEvent>) {
    let store = db.prepared(schemas()).await;
    db.append(&store, "1", &[placed("ada", "kim"), placed("eve", "kim"), placed("pat", "kim"), placed("bob", "kim")])
        .await;
    db.shred(&store, "eve").await;
    db.shred(&store, "pat").await;
    db.reopen(&store, "pat").await;
    db.append(&store, "1", &[placed("pat", "bob")]).await;
    db.disable(&store, "bob").await;
    db.enable(&store, "bob").await;
    let done = rewrite(db, &store, copy, &B::Store::default(), false).await.unwrap();
    assert_eq!(done.rewritten, 5, "{done:?}");
    // Readers of the original see values that were in the clear as before.
    let read = db.read_log(&store).await.unwrap();
    (store, read)
}

fn same(read: &[PersistedEvent], copied: &[PersistedEvent]) {
    assert_eq!(payloads(copied), payloads(read));
    assert_eq!(copied.iter().map(PersistedEvent::is_redacted).collect::<Vec<_>>(), [false, true, true, false, false]);
}

/// The copy goes on by itself.
async fn goes_on<B: Backend>(db: &B, original: &SealedStore<B::Store>, copy: &B, read: &[PersistedEvent]) {
    let copied = copy.process(schemas());
    let kim = KeyScope::new("Customer", "kim");
    same(read, &copy.read_log(&copied).await.unwrap());
    let (mut here, mut there) = (copy.connect().await.unwrap(), db.connect().await.unwrap());
    let keys = copied.keys().key_history(copy.connection(&mut here), &kim).await.unwrap().unwrap();
    assert_eq!(keys, original.keys().key_history(db.connection(&mut there), &kim).await.unwrap().unwrap());
    drop((here, there));
    // A service starts, appends, and erases: in one of them.
    copied.keys().prepare(copy.connection(&mut copy.connect().await.unwrap())).await.unwrap();
    copy.append(&copied, "1", &[placed("ada", "eva"), placed("new", "kim")]).await;
    assert_eq!(copy.shred(&copied, "ada").await.destroyed.len(), 1);
    assert!(copy.read_log(&copied).await.unwrap()[0].is_redacted());
    assert!(!db.read_log(original).await.unwrap()[0].is_redacted(), "as the manual says");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i6_keys_are_copied_last_on_sqlite() {
    let (db, copy) = (Sqlite::new().await, Sqlite::new().await);
    let (original, read) = rewritten(&db, &copy).await;
    let unreadable = copy.read_log(&copy.process(schemas())).await.unwrap_err();
    assert!(
        matches!(unreadable, Error::Event { fault: EventFault::MissingKey { .. }, .. }),
        "before the keys are there: {unreadable:?}"
    );
    let sql = recipe("sql").replace("shop.db", &db.folder.path().join("test.db").display().to_string());
    let mut connection = copy.pool.acquire().await.unwrap();
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql.clone())).execute(&mut *connection).await.unwrap();
    drop(connection);
    goes_on(&db, &original, &copy, &read).await;
    // A key database with a key of its own is not filled.
    let other = Sqlite::new().await;
    other.prepared(schemas()).await;
    let mut connection = other.pool.acquire().await.unwrap();
    let refused = sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut *connection).await.unwrap_err();
    assert!(refused.to_string().contains("UNIQUE constraint failed"), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i6_keys_are_copied_last_on_postgres() {
    let (db, copy) = (Postgres::new().await, Postgres::new().await);
    let (original, read) = rewritten(&db, &copy).await;
    let unreadable = copy.read_log(&copy.process(schemas())).await.unwrap_err();
    assert!(
        matches!(unreadable, Error::Event { fault: EventFault::MissingKey { .. }, .. }),
        "before the keys are there: {unreadable:?}"
    );
    let run = |copy: &Postgres| {
        let mut shell = Command::new("bash");
        shell.args(["-c", recipe("sh")]).env("ORIGINAL", conninfo(&db.options)).env("COPY", conninfo(&copy.options));
        if let Some(password) = db.options.to_url_lossy().password() {
            shell.env("PGPASSWORD", password);
        }
        shell.output().expect("bash")
    };
    let done = run(&copy);
    assert!(
        done.status.success(),
        "PostgreSQL's pg_dump and psql are needed: {}",
        String::from_utf8_lossy(&done.stderr)
    );
    goes_on(&db, &original, &copy, &read).await;
    let other = Postgres::new().await;
    other.prepared(schemas()).await;
    assert!(!run(&other).status.success(), "a key database with a key of its own is not filled");
}

fn conninfo(options: &PgConnectOptions) -> String {
    assert!(!matches!(options.get_ssl_mode(), PgSslMode::VerifyFull), "certificates are not handed on");
    let host = options.get_socket().map_or(options.get_host().to_owned(), |socket| socket.display().to_string());
    let database = options.get_database().unwrap();
    format!("host='{host}' port={} user='{}' dbname='{database}'", options.get_port(), options.get_username())
}

/// Keys that stay where they are: one shred reaches both.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i5_keys_may_stay_with_the_original() {
    let (db, copy) = (Sqlite::new().await, Sqlite::new().await);
    let (original, read) = rewritten(&db, &copy).await;
    let store = SealedStore::new(
        SplitStore::new(SqliteStore::new()),
        SplitKeys::new(SqliteKeys::new()),
        Arc::clone(&KEYRING),
        schemas(),
    );
    let mut tx = SplitTx::begin(&copy.pool, &db.pool).await.unwrap();
    same(&read, &store.read_events(&mut tx, GlobalPosition::START, 100, &EventFilter::default()).await.unwrap().events);
    tx.commit().await.unwrap();
    let mut tx = SplitTx::begin(&copy.pool, &db.pool).await.unwrap();
    let new = placed("ada", "eva");
    store.append(&mut tx, &aggregate("Order", "1"), ExpectedVersion::Any, &[new]).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(copy.stored().await.len(), 6);
    let mut tx = SplitTx::begin(&copy.pool, &db.pool).await.unwrap();
    store.keys().shred(&mut tx, &KeyScope::new("Customer", "ada"), "request").await.unwrap();
    tx.commit().await.unwrap();
    let mut tx = SplitTx::begin(&copy.pool, &db.pool).await.unwrap();
    assert!(
        store.read_events(&mut tx, GlobalPosition::START, 100, &EventFilter::default()).await.unwrap().events[0]
            .is_redacted()
    );
    assert!(db.read_log(&original).await.unwrap()[0].is_redacted(), "in the original too");
}
