//! Rows with odd values. Somebody who can write to the databases can put any value there. No stored value makes a call
//! panic: it is read, or it is an error.
//!
//! Every column of every table is set to odd values of its own type, with triggers and checks out of the way, and
//! everything that reads is called: readers, consumers, census, backfill, rewrite, and what the command calls for keys.

use eventseal::ExpectedVersion::Any;
use eventseal::error::StorageFault;
use eventseal::keys::RewrapOptions;
use eventseal::maintenance::{BackfillOptions, CensusOptions, RewriteOptions};
use eventseal::memory::{MemoryDb, MemoryKeys, MemoryStore};
use eventseal::sqlite::{SqliteKeys, SqliteStore};
use eventseal::{
    Changes, Error, EventFilter, EventStore, EventStoreExt, EventVersion, GlobalPosition, KeyScope, Keyring, Namespace,
    NewEvent, Owner, Schemas, SealedStore, aggregate, event, subject,
};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::Value;
use sqlx::sqlite::{SqliteConnectOptions, SqliteRow};
use sqlx::{AssertSqlSafe, Connection, Row, SqliteConnection};
use std::convert::Infallible;
use std::sync::Arc;
use support::Sqlite;

/// Values for columns of any type, and what becomes of the bytes that are there.
#[derive(Clone, Debug)]
struct Odd {
    integer: i64,
    text: String,
    /// For columns of times, which are text too.
    time: String,
    bytes: Bytes,
    is_null: bool,
}

#[derive(Clone, Debug)]
enum Bytes {
    These(Vec<u8>),
    Flipped(usize, u8),
    Cut(usize),
    /// A payload with a header of these bytes.
    Header(Vec<u8>),
}

#[derive(Clone, Debug)]
struct Change {
    column: prop::sample::Index,
    row: usize,
    all_rows: bool,
    odd: Odd,
}

const INTEGERS: &[i64] =
    &[i64::MIN, i64::MIN + 1, -1, 0, 1, 2, 3, 1 << 31, (1 << 31) - 1, 1 << 32, (1 << 53) + 1, i64::MAX - 1, i64::MAX];

const TEXTS: &[&str] = &[
    "",
    "\0",
    "x",
    "null",
    "{}",
    "[1e400,\"\\ud800\"]",
    "{\"$serde_json::private::RawValue\":\"x\"}",
    "00000000-0000-0000-0000-000000000000",
    "ffffffff-ffff-ffff-ffff-ffffffffffff",
    "ffffffffffffffffffffffffffffffff",
    "not-a-uuid",
    "Placed",
    "Moved",
    "Customer",
    "$eventseal",
    "integrity",
    "live",
    "disabled",
    "shredded",
    "active",
    "retired",
    "shred",
    "keyring",
    "main",
    "ß\u{202e}\u{fffd}",
];

const TIMES: &[&str] = &[
    "9999-12-31T23:59:59-23:59",
    "9999-12-31T23:59:59.999999Z",
    "0000-01-01T00:00:00+23:59",
    "0000-01-01T00:00:00Z",
    "-0001-01-01T00:00:00Z",
    "+262143-12-31T23:59:59Z",
    "2026-02-30T00:00:00Z",
    "2026-11-27T10:00:60Z",
    "infinity",
];

fn odd() -> impl Strategy<Value = Odd> {
    let text = prop_oneof![
        6 => prop::sample::select(TEXTS).prop_map(|text: &str| text.to_owned()),
        1 => Just("x".repeat(5_000)),
        1 => any::<String>(),
    ];
    let header = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..200),
        prop::collection::vec(any::<u8>(), 0..200).prop_map(|rest| [vec![1, 1, 0, 0], rest].concat()),
    ];
    let bytes = prop_oneof![
        1 => prop::collection::vec(any::<u8>(), 0..100).prop_map(Bytes::These),
        1 => any::<String>().prop_map(|text| Bytes::These(text.into_bytes())),
        1 => prop::sample::select(vec![
            "", "null", "[]", "{}", "\"x\"", "{\"customer\":9e999,\"name\":[]}", "{\"$seal\":1}", "{\"a\":",
        ])
            .prop_map(|text| Bytes::These(text.into())),
        4 => (any::<usize>(), 1_u8..).prop_map(|(at, bits)| Bytes::Flipped(at, bits)),
        1 => any::<usize>().prop_map(Bytes::Cut),
        2 => header.prop_map(Bytes::Header),
    ];
    let integer = prop_oneof![5 => prop::sample::select(INTEGERS), 1 => any::<i64>()];
    let time =
        prop_oneof![6 => prop::sample::select(TIMES).prop_map(|time: &str| time.to_owned()), 1 => any::<String>()];
    let odd = (integer, text, time, bytes, prop::bool::weighted(0.1));
    odd.prop_map(|(integer, text, time, bytes, is_null)| Odd { integer, text, time, bytes, is_null })
}

fn change() -> impl Strategy<Value = Change> {
    (any::<prop::sample::Index>(), 0_usize..6, prop::bool::weighted(0.4), odd())
        .prop_map(|(column, row, all_rows, odd)| Change { column, row, all_rows, odd })
}

fn schemas() -> Schemas {
    Schemas::new([
        event("Placed")
            .version(1)
            .protect(&["/name", "/lines/*/note"], subject("Customer", "/customer"))
            .version(2)
            .protect(&["/name", "/lines/*/text"], subject("Customer", "/customer"))
            .change(1, Changes::new().move_value("/lines/*/note", "/lines/*/text").set_default("/currency", "EUR"))
            .version(3)
            .protect_same_as(2)
            .upcast_with(2, |payload: Value, context| {
                // A step may do this with the time that it gets.
                let _ = context.created_at.to_offset(time::UtcOffset::UTC).date();
                Ok::<_, Infallible>(payload)
            })
            .legacy_version(1),
        event("Noted").version(1).protect_whole(Owner::Aggregate),
        event("Moved").version(1),
    ])
    .unwrap()
}

fn wrap<S: EventStore<Tx = SqliteConnection>>(store: S, keyring: &Arc<Keyring>, schemas: Schemas) -> SealedStore<S> {
    SealedStore::new(store, SqliteKeys::new(), Arc::clone(keyring), schemas)
}

/// A database with events of all kinds: sealed, shredded, in the clear, of older versions and of none.
async fn template(keyring: &Arc<Keyring>) -> Sqlite {
    let db = Sqlite::new().await;
    let old = Schemas::builder([
        event("Placed").version(1).protect(&["/name", "/lines/*/note"], subject("Customer", "/customer")),
        event("Noted").version(1).protect_whole(Owner::Aggregate),
        event("Moved").version(1),
    ]);
    let store = wrap(SqliteStore::new(), keyring, old.build().unwrap());
    let mut connection = db.pool.acquire().await.unwrap();
    store.keys().prepare(&mut connection).await.unwrap();
    let placed = |customer: &str| {
        NewEvent::raw(
            "Placed",
            1,
            format!(r#"{{"customer":"{customer}","name":"Ada","lines":[{{"note":"a"}},{{"note":2}}]}}"#),
        )
    };
    let mut with_metadata = placed("2");
    with_metadata.metadata = Some(br#"{"ip":1}"#.to_vec());
    for (id, events) in [
        ("1", vec![placed("1"), with_metadata]),
        ("2", vec![NewEvent::raw("Noted", 1, vec![0xff, 0]), NewEvent::raw("Moved", 1, r#"{"to":1}"#)]),
    ] {
        let mut tx = connection.begin().await.unwrap();
        store.append(&mut tx, &aggregate("Order", id), Any, &events).await.unwrap();
        tx.commit().await.unwrap();
    }
    let mut tx = connection.begin().await.unwrap();
    store.inner().append(&mut tx, &aggregate("Order", "3"), Any, &[placed("1")]).await.unwrap();
    store.keys().shred(&mut tx, &KeyScope::new("Customer", "2"), "request").await.unwrap();
    tx.commit().await.unwrap();
    store.keys().rotate_kek(&mut connection, "default").await.unwrap();
    let triggers: Vec<String> = names("SELECT name FROM sqlite_master WHERE type = 'trigger'", &mut connection).await;
    for trigger in triggers {
        sqlx::query(AssertSqlSafe(format!("DROP TRIGGER \"{trigger}\""))).execute(&mut *connection).await.unwrap();
    }
    sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").execute(&mut *connection).await.unwrap();
    drop(connection);
    db
}

async fn names(sql: &'static str, connection: &mut SqliteConnection) -> Vec<String> {
    let rows: Vec<SqliteRow> = sqlx::query(sql).fetch_all(connection).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

/// Table, column, type.
async fn columns(connection: &mut SqliteConnection) -> Vec<(String, String, String)> {
    let sql = "SELECT m.name, c.name, c.type FROM sqlite_master m, pragma_table_info(m.name) c WHERE m.type = 'table' \
        AND m.name NOT LIKE 'sqlite%' AND m.name NOT LIKE '%migrations%' ORDER BY 1, 2";
    let rows: Vec<SqliteRow> = sqlx::query(sql).fetch_all(connection).await.unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect()
}

async fn alter(connection: &mut SqliteConnection, columns: &[(String, String, String)], change: &Change) {
    let (table, column, kind) = change.column.get(columns);
    let old = format!("SELECT \"{column}\" FROM \"{table}\" LIMIT 1 OFFSET {}", change.row);
    let Some(old) = sqlx::query(AssertSqlSafe(old)).fetch_optional(&mut *connection).await.unwrap() else { return };
    let here = if change.all_rows { "" } else { " WHERE \"COLUMN\" IS ?2" }.replace("COLUMN", column);
    // SQLite refuses values that the table's types can't hold, so these can't be stored.
    let update = format!("UPDATE OR IGNORE \"{table}\" SET \"{column}\" = ?1{here}");
    let query = sqlx::query(AssertSqlSafe(update));
    let odd = &change.odd;
    let done = match kind.as_str() {
        "INTEGER" => {
            query
                .bind((!odd.is_null).then_some(odd.integer))
                .bind(old.get::<Option<i64>, _>(0))
                .execute(connection)
                .await
        }
        "TEXT" if column.ends_with("_at") => {
            query
                .bind((!odd.is_null).then_some(&odd.time))
                .bind(old.get::<Option<String>, _>(0))
                .execute(connection)
                .await
        }
        "TEXT" => {
            query
                .bind((!odd.is_null).then_some(&odd.text))
                .bind(old.get::<Option<String>, _>(0))
                .execute(connection)
                .await
        }
        "BLOB" => {
            let old = old.get::<Option<Vec<u8>>, _>(0);
            let new = (!odd.is_null).then(|| odd.bytes.of(old.clone().unwrap_or_default()));
            query.bind(new).bind(old).execute(connection).await
        }
        other => panic!("{table}.{column} has the type {other}"),
    };
    drop(done);
}

impl Bytes {
    fn of(&self, mut old: Vec<u8>) -> Vec<u8> {
        match self {
            Self::These(bytes) => bytes.clone(),
            Self::Flipped(at, bits) => {
                let at = at % old.len().max(1);
                old.get_mut(at).into_iter().for_each(|byte| *byte ^= bits);
                old
            }
            Self::Cut(at) => {
                old.truncate(at % (old.len() + 1));
                old
            }
            Self::Header(bytes) => {
                use base64::Engine;
                let header = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes);
                format!(r#"{{"$seal":"{header}","customer":"1","name":"AAAA","lines":[]}}"#).into_bytes()
            }
        }
    }
}

/// Calls everything that reads what is stored. What comes out does not matter here.
async fn read_all(store: &SealedStore<SqliteStore>, connection: &mut SqliteConnection) {
    for id in ["1", "2", "3"] {
        drop(store.read_stream(connection, &aggregate("Order", id)).await);
    }
    drop(store.read_events(connection, GlobalPosition::START, 10, &EventFilter::default()).await);
    drop(store.read_events_each(connection, GlobalPosition::START, 10, &EventFilter::default()).await);
    drop(store.latest_global_position(connection).await);
    let mut every = CensusOptions::default();
    every.every_payload = true;
    let mut parts = CensusOptions::default();
    parts.positions_per_scan = Some(2);
    for options in [every, parts, CensusOptions::default()] {
        if let Ok(census) = store.census(connection, &options, &mut |_| {}).await {
            let _ = (census.may_refuse_plaintext("Placed"), census.unneeded_steps(), census.not_stored());
            for row in &census.rows {
                let (first, last) = row.created_at;
                let _ = (first.to_offset(time::UtcOffset::UTC).date(), last.to_offset(time::UtcOffset::UTC).date());
            }
        }
    }
    let keys = store.keys();
    for (kind, id) in [("Customer", "1"), ("Customer", "2"), ("Order", "2"), ("$eventseal", "integrity")] {
        drop(keys.key_history(connection, &KeyScope::new(kind, id)).await);
    }
    drop(keys.kek_usage(connection).await);
}

async fn change_all(
    store: &SealedStore<SqliteStore>,
    keyring: &Arc<Keyring>,
    connection: &mut SqliteConnection,
    target: &mut SqliteConnection,
) {
    let mut dry = BackfillOptions::default();
    dry.dry_run = true;
    dry.every_payload = true;
    drop(store.backfill(connection, &dry, &mut |_| {}).await);
    let mut rewriting = RewriteOptions::default();
    rewriting.copy_unreadable = true;
    drop(store.rewrite(connection, &SqliteStore::new(), target, &rewriting, &mut |_| {}).await);
    dry.dry_run = false;
    dry.erase_shredded = true;
    drop(store.backfill(connection, &dry, &mut |_| {}).await);
    let keys = store.keys();
    let mut tx = connection.begin().await.unwrap();
    let new = NewEvent::raw("Placed", 3, r#"{"customer":"1","name":"Ada","lines":[]}"#);
    drop(store.append(&mut tx, &aggregate("Order", "1"), Any, &[new]).await);
    drop(tx.rollback().await);
    for id in ["1", "2"] {
        let mut tx = connection.begin().await.unwrap();
        let scope = KeyScope::new("Customer", id);
        drop(keys.rotate_data_key(&mut tx, &scope).await);
        drop(keys.disable(&mut tx, &scope, "why").await);
        drop(keys.enable(&mut tx, &scope, "why").await);
        drop(keys.shred(&mut tx, &scope, "why").await);
        drop(keys.reopen(&mut tx, &scope, "why").await);
        drop(tx.commit().await);
    }
    drop(keys.rewrap(connection, &RewrapOptions::default(), &mut |_| {}).await);
    drop(keys.move_master_key(connection, Some(&**keyring), &mut |_| {}).await);
    drop(keys.rotate_kek(connection, "default").await);
    drop(keys.prepare(connection).await);
}

fn cases() -> u32 {
    std::env::var("CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(120)
}

#[test]
fn nothing_stored_in_sqlite_panics() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let keyring = Arc::new(Keyring::generate("main").unwrap());
    let (template, target) = runtime.block_on(async { (template(&keyring).await, Sqlite::new().await) });
    let columns = runtime.block_on(async { columns(&mut template.pool.acquire().await.unwrap()).await });
    assert!(columns.len() > 30, "{columns:?}");
    runtime.block_on(async {
        sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").execute(&target.pool).await.unwrap();
        template.pool.close().await;
        target.pool.close().await;
    });
    let source = template.folder.path().join("test.db");
    let empty = target.folder.path().join("test.db");
    let mut runner = TestRunner::new(Config { cases: cases(), failure_persistence: None, ..Config::default() });
    let outcome = runner.run(&prop::collection::vec(change(), 1..4), |changes| {
        runtime.block_on(async {
            let folder = tempfile::tempdir().unwrap();
            let open = async |from: &std::path::Path, name: &str| {
                let path = folder.path().join(name);
                std::fs::copy(from, &path).unwrap();
                let options = SqliteConnectOptions::new().filename(path).foreign_keys(false);
                SqliteConnection::connect_with(
                    &options.pragma("ignore_check_constraints", "ON").synchronous(sqlx::sqlite::SqliteSynchronous::Off),
                )
                .await
                .unwrap()
            };
            let mut connection = open(&source, "source.db").await;
            let mut target = open(&empty, "target.db").await;
            for change in &changes {
                alter(&mut connection, &columns, change).await;
            }
            let store = wrap(SqliteStore::new(), &keyring, schemas());
            read_all(&store, &mut connection).await;
            change_all(&store, &keyring, &mut connection, &mut target).await;
            read_all(&store, &mut connection).await;
            read_all(&store, &mut target).await;
        });
        Ok(())
    });
    outcome.unwrap_or_else(|failure| panic!("{failure}"));
}

/// The one that was found: a time that is none in UTC.
#[tokio::test]
async fn a_time_at_the_end_of_time_is_an_error_and_no_panic() {
    let keyring = Arc::new(Keyring::generate("main").unwrap());
    let (db, copy) = (template(&keyring).await, Sqlite::new().await);
    let store = wrap(SqliteStore::new(), &keyring, schemas());
    let mut connection = db.pool.acquire().await.unwrap();
    sqlx::query("UPDATE events SET created_at = '9999-12-31T23:59:59-23:59'").execute(&mut *connection).await.unwrap();
    let is_told = |error: &Error| {
        matches!(
            error,
            Error::Storage(StorageFault::InvalidRow { .. }) | Error::Storage(StorageFault::InvalidEvent { .. })
        )
    };
    let read = store.read_stream(&mut connection, &aggregate("Order", "1")).await.unwrap_err();
    assert!(is_told(&read), "{read}");
    let census = store.census(&mut connection, &CensusOptions::default(), &mut |_| {}).await.unwrap_err();
    assert!(is_told(&census), "{census}");
    let mut target = copy.pool.acquire().await.unwrap();
    let rewrite = store
        .rewrite(&mut connection, &SqliteStore::new(), &mut target, &RewriteOptions::default(), &mut |_| {})
        .await
        .unwrap_err();
    assert!(is_told(&rewrite), "{rewrite}");
    sqlx::query("UPDATE key_encryption_keys SET created_at = '9999-12-31T23:59:59-23:59'")
        .execute(&mut *connection)
        .await
        .unwrap();
    let usage = store.keys().kek_usage(&mut connection).await.unwrap_err();
    assert!(is_told(&usage), "{usage}");
}

/// No event in memory makes a call panic either, although any bytes can be stored there as payload and metadata.
#[test]
fn nothing_stored_in_memory_panics() {
    let keyring = Arc::new(Keyring::generate("main").unwrap());
    let mut runner = TestRunner::new(Config { cases: 4 * cases(), failure_persistence: None, ..Config::default() });
    let inputs = (odd(), odd(), 0_u8..4, any::<bool>());
    let outcome = runner.run(&inputs, |(payload, metadata, how, sealed)| {
        futures::executor::block_on(async {
            let db = MemoryDb::new(Namespace::new("n").unwrap());
            let store = SealedStore::new(MemoryStore::new(), MemoryKeys::new(), Arc::clone(&keyring), schemas());
            store.keys().prepare(&mut db.begin()).await.unwrap();
            let mut tx = db.begin();
            let order = aggregate("Order", "1");
            let new = NewEvent::raw("Placed", 3, r#"{"customer":"1","name":"Ada","lines":[{"text":"a"}]}"#);
            store.append(&mut tx, &order, Any, std::slice::from_ref(&new)).await.unwrap();
            let stored = store.inner().read_stream(&mut tx, &order).await.unwrap().events.remove(0).payload;
            let mut event =
                NewEvent::raw(["Placed", "Noted", "Moved", "Unknown"][usize::from(how)], 1, payload.bytes.of(stored));
            event.event_version = EventVersion::new(u32::try_from(payload.integer).unwrap_or(1).max(1));
            event = if sealed { event.with_id(new.event_id) } else { event };
            event.metadata = (!metadata.is_null).then(|| metadata.text.clone().into_bytes());
            let other = MemoryDb::new(Namespace::new("n").unwrap());
            let mut tx = other.begin();
            store.keys().prepare(&mut other.begin()).await.unwrap();
            if store.inner().append(&mut tx, &order, Any, &[event]).await.is_err() {
                return;
            }
            drop(store.read_stream(&mut tx, &order).await);
            drop(store.read_events_each(&mut tx, GlobalPosition::START, 10, &EventFilter::default()).await);
            tx.commit().unwrap();
            let mut options = CensusOptions::default();
            options.every_payload = true;
            drop(store.census(&mut other.begin(), &options, &mut |_| {}).await);
            let copy = MemoryDb::new(Namespace::new("n").unwrap());
            drop(
                store
                    .rewrite(
                        &mut other.begin(),
                        &MemoryStore::new(),
                        &mut copy.begin(),
                        &RewriteOptions::default(),
                        &mut |_| {},
                    )
                    .await,
            );
            drop(store.backfill(&mut other.begin(), &BackfillOptions::default(), &mut |_| {}).await);
        });
        Ok(())
    });
    outcome.unwrap_or_else(|failure| panic!("{failure}"));
}
