//! Stores of snapshots: the contract of the port, on everything that implements it, and on stores that break it.

use super::{Order, SaveOutcome, order, placed, schemas};
use async_trait::async_trait;
use eventseal::conformance;
use eventseal::error::SetUpFault;
use eventseal::memory::{MemorySnapshots, MemoryTx};
use eventseal::postgres::PostgresSnapshots;
use eventseal::snapshots::SealedSnapshots;
use eventseal::split::{SplitKeys, SplitStore, SplitTx};
use eventseal::sqlite::{SqliteKeys, SqliteSnapshots, SqliteStore};
use eventseal::store::{SnapshotStore, StoredSnapshot};
use eventseal::{AggregateRef, Error, EventStore, ExpectedVersion, Result, SealedStore, aggregate};
use std::sync::Arc;
use support::backend::Backend;
use support::{KEYRING, Memory, Postgres, Sqlite, caught, customer_scope};

#[tokio::test]
async fn every_store_of_snapshots_keeps_the_contract() {
    conformance::snapshot_store(&Memory::new(), &MemorySnapshots::new()).await;
    let dynamic: Arc<dyn SnapshotStore<Tx = MemoryTx>> = Arc::new(MemorySnapshots::new());
    conformance::snapshot_store(&Memory::new(), &dynamic).await;

    let (db, named) = (Sqlite::empty().await, SqliteSnapshots::with_table("shop_Snapshots").unwrap());
    let snapshots = db.make_snapshots().await;
    named.migrate(&mut db.pool.acquire().await.unwrap()).await.unwrap();
    conformance::snapshot_store(&db, &snapshots).await;
    conformance::snapshot_store(&db, &named).await;

    let db = Postgres::empty().await;
    let named = PostgresSnapshots::with_table("shop_Snapshots").unwrap().in_schema("Shop").unwrap();
    let snapshots = db.make_snapshots().await;
    named.migrate(&mut db.pool.acquire().await.unwrap()).await.unwrap();
    conformance::snapshot_store(&db, &snapshots).await;
    conformance::snapshot_store(&db, &named).await;
}

#[tokio::test]
async fn migrations_run_again_and_by_hand() {
    for _ in 0..2 {
        let (sqlite, postgres) = (Sqlite::empty().await, Postgres::empty().await);
        sqlite.make_snapshots().await;
        sqlite.make_snapshots().await;
        postgres.make_snapshots().await;
        postgres.make_snapshots().await;
    }
    let (sqlite, postgres) = (Sqlite::empty().await, Postgres::empty().await);
    let (lite, pg) = (SqliteSnapshots::new(), PostgresSnapshots::new());
    sqlx::raw_sql(sqlx::AssertSqlSafe(lite.migration_sql())).execute(&sqlite.pool).await.unwrap();
    sqlx::raw_sql(sqlx::AssertSqlSafe(pg.migration_sql())).execute(&postgres.pool).await.unwrap();
    conformance::a_newer_snapshot_stays(&sqlite, &lite).await;
    conformance::a_newer_snapshot_stays(&postgres, &pg).await;
    for name in ["", "a\"b", "1a"] {
        assert!(SqliteSnapshots::with_table(name).is_err() && PostgresSnapshots::with_table(name).is_err());
        assert!(PostgresSnapshots::new().in_schema(name).is_err());
    }
}

async fn names_a_missing_table<B: Backend>() {
    let db = B::make().await;
    let (store, snapshots) = (db.prepared(schemas()).await, SealedSnapshots::new(B::Snapshots::default()));
    let mut transaction = db.begin().await.unwrap();
    let error = snapshots.load::<Order>(db.tx(&mut transaction), &store, &order("1")).await.unwrap_err();
    assert!(matches!(&error, Error::SetUp(SetUpFault::NoSnapshotTable { table }) if table == "snapshots"), "{error:?}");
    assert_eq!(error.kind().as_str(), "not_migrated");
}

#[tokio::test]
async fn a_missing_table_is_named() {
    names_a_missing_table::<Sqlite>().await;
    names_a_missing_table::<Postgres>().await;
}

/// A state that was loaded from one database is not kept in another.
#[tokio::test]
async fn states_stay_in_their_namespace() {
    use eventseal::Namespace;
    use eventseal::memory::{MemoryDb, MemoryKeys, MemoryStore};
    let snapshots = SealedSnapshots::new(MemorySnapshots::new());
    let mut worlds = Vec::new();
    for name in ["one", "two"] {
        let db = MemoryDb::new(Namespace::new(name).unwrap());
        let store = SealedStore::new(MemoryStore::new(), MemoryKeys::new(), Arc::clone(&KEYRING), schemas());
        store.keys().prepare(&mut db.begin()).await.unwrap();
        let mut tx = db.begin();
        store.append(&mut tx, &order("1"), ExpectedVersion::NoStream, &[super::counted()]).await.unwrap();
        tx.commit().unwrap();
        worlds.push((db, store));
    }
    let [(one, store), (two, other)] = &worlds[..] else { panic!("two of them") };
    let rebuilt = snapshots.load::<Order>(&mut one.begin(), store, &order("1")).await.unwrap();
    let refused = snapshots.save(&mut two.begin(), other, &rebuilt).await;
    assert!(matches!(refused, Err(Error::SetUp(SetUpFault::NamespaceMismatch { .. }))), "{refused:?}");
}

/// Events and snapshots in one database, keys in another.
#[tokio::test]
async fn snapshots_work_with_keys_in_another_database() {
    let (events, keys) = (Sqlite::new().await, Sqlite::new().await);
    let snapshots = SealedSnapshots::new(SplitStore::new(events.make_snapshots().await));
    let (inner, tables) = (SplitStore::new(SqliteStore::new()), SplitKeys::new(SqliteKeys::new()));
    let store = SealedStore::new(inner, tables, Arc::clone(&KEYRING), schemas());
    let begin = || SplitTx::begin(&events.pool, &keys.pool);
    store.keys().prepare(&mut begin().await.unwrap()).await.unwrap();
    let mut tx = begin().await.unwrap();
    store.append(&mut tx, &order("1"), ExpectedVersion::NoStream, &[placed("1")]).await.unwrap();
    let rebuilt = snapshots.load::<Order>(&mut tx, &store, &order("1")).await.unwrap();
    assert_eq!(snapshots.save(&mut tx, &store, &rebuilt).await.unwrap(), SaveOutcome::Saved);
    tx.commit().await.unwrap();
    let mut tx = begin().await.unwrap();
    let again = snapshots.load::<Order>(&mut tx, &store, &order("1")).await.unwrap();
    assert_eq!((again.state(), again.folded()), (rebuilt.state(), 0));
    drop(tx);
    let mut tx = begin().await.unwrap();
    store.keys().shred(&mut tx, &customer_scope("1"), "request").await.unwrap();
    tx.commit().await.unwrap();
    let mut tx = begin().await.unwrap();
    let gone = snapshots.load::<Order>(&mut tx, &store, &order("1")).await.unwrap();
    assert!(gone.state().names[0].is_redacted() && gone.discarded().is_some());
    assert_eq!(snapshots.delete(&mut tx, &order("1")).await.unwrap(), 1);
}

/// What a stranger's store does wrongly.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Wrong {
    Nothing,
    KeepsNothing,
    ReplacesNewer,
    KeepsTheFirstOfAVersion,
    SaysSavedAlways,
    CutsLargeOnes,
    ForgetsTheFingerprint,
    ForgetsTheEvent,
    ForgetsTheTime,
    IgnoresTheState,
    IgnoresTheType,
    FoldsCase,
    DeletesOneStateOnly,
    DeletesAllStates,
    DeletesNothing,
    CommitsByItself,
}

struct Mine(Wrong, MemorySnapshots);

impl Mine {
    fn place(&self, of: &AggregateRef, state: &str) -> (AggregateRef, String) {
        let (kind, id) = (of.aggregate_type(), of.aggregate_id());
        match self.0 {
            Wrong::IgnoresTheState => (of.clone(), "one".to_owned()),
            Wrong::IgnoresTheType => (aggregate("one", id), state.to_owned()),
            Wrong::FoldsCase => (aggregate(kind.to_lowercase(), id), state.to_owned()),
            _ => (of.clone(), state.to_owned()),
        }
    }
}

#[async_trait]
impl SnapshotStore for Mine {
    type Tx = MemoryTx;

    async fn save(&self, tx: &mut MemoryTx, snapshot: &StoredSnapshot) -> Result<bool> {
        let (aggregate, state) = self.place(&snapshot.aggregate, &snapshot.state);
        let mut one = StoredSnapshot { aggregate: aggregate.clone(), state: state.clone(), ..snapshot.clone() };
        let known = self.1.load(tx, &aggregate, &state).await?;
        match self.0 {
            Wrong::KeepsNothing => return Ok(true),
            Wrong::ReplacesNewer => drop(self.1.delete(tx, &aggregate, Some(&state)).await?),
            Wrong::KeepsTheFirstOfAVersion if known.is_some_and(|known| known.version == one.version) => {
                return Ok(true);
            }
            Wrong::CutsLargeOnes => one.sealed.truncate(65_535),
            Wrong::ForgetsTheFingerprint => one.fingerprint = [0; 32],
            Wrong::ForgetsTheEvent => one.last_event = uuid::Uuid::nil(),
            Wrong::ForgetsTheTime => one.created_at = time::OffsetDateTime::UNIX_EPOCH,
            _ => {}
        }
        let saved = self.1.save(tx, &one).await?;
        Ok(saved || self.0 == Wrong::SaysSavedAlways)
    }

    async fn load(&self, tx: &mut MemoryTx, of: &AggregateRef, name: &str) -> Result<Option<StoredSnapshot>> {
        let (aggregate, state) = self.place(of, name);
        let found = self.1.load(tx, &aggregate, &state).await?;
        Ok(found.map(|found| StoredSnapshot { aggregate: of.clone(), state: name.to_owned(), ..found }))
    }

    async fn delete(&self, tx: &mut MemoryTx, of: &AggregateRef, name: Option<&str>) -> Result<u64> {
        let (aggregate, state) = self.place(of, name.unwrap_or("b"));
        match (self.0, name) {
            (Wrong::DeletesNothing, _) => Ok(0),
            (Wrong::DeletesAllStates, _) => self.1.delete(tx, &aggregate, None).await,
            (Wrong::DeletesOneStateOnly, None) => self.1.delete(tx, &aggregate, Some(&state)).await,
            _ => self.1.delete(tx, &aggregate, name.map(|_| state.as_str())).await,
        }
    }
}

/// Saves into another transaction, and commits that.
struct Hasty(MemorySnapshots, Memory);

#[async_trait]
impl SnapshotStore for Hasty {
    type Tx = MemoryTx;

    async fn save(&self, _: &mut MemoryTx, snapshot: &StoredSnapshot) -> Result<bool> {
        let mut own = self.1.0.begin();
        let saved = self.0.save(&mut own, snapshot).await;
        own.commit()?;
        saved
    }

    async fn load(&self, tx: &mut MemoryTx, of: &AggregateRef, state: &str) -> Result<Option<StoredSnapshot>> {
        self.0.load(tx, of, state).await
    }

    async fn delete(&self, tx: &mut MemoryTx, of: &AggregateRef, state: Option<&str>) -> Result<u64> {
        self.0.delete(tx, of, state).await
    }
}

async fn suite(wrong: Wrong) {
    let db = Memory::new();
    if wrong == Wrong::CommitsByItself {
        let same = Memory(db.0.clone());
        conformance::snapshot_store(&db, &Hasty(MemorySnapshots::new(), same)).await;
    } else {
        conformance::snapshot_store(&db, &Mine(wrong, MemorySnapshots::new())).await;
    }
}

#[tokio::test]
async fn the_suite_finds_every_broken_rule() {
    suite(Wrong::Nothing).await;
    let as_saved = "a snapshot is loaded as it was saved";
    let its_own = "each aggregate and state has a snapshot of its own";
    for (wrong, rule) in [
        (Wrong::KeepsNothing, as_saved),
        (Wrong::ReplacesNewer, "save says whether a snapshot is kept"),
        (Wrong::KeepsTheFirstOfAVersion, "the newest snapshot is kept, and the last of one version"),
        (Wrong::SaysSavedAlways, "save says whether a snapshot is kept"),
        (Wrong::CutsLargeOnes, as_saved),
        (Wrong::ForgetsTheFingerprint, as_saved),
        (Wrong::ForgetsTheEvent, as_saved),
        (Wrong::ForgetsTheTime, as_saved),
        (Wrong::IgnoresTheState, its_own),
        (Wrong::IgnoresTheType, its_own),
        (Wrong::FoldsCase, its_own),
        (Wrong::DeletesOneStateOnly, "delete says how many there were: None"),
        (Wrong::DeletesAllStates, "delete says how many there were: Some"),
        (Wrong::DeletesNothing, "delete says how many there were"),
        (Wrong::CommitsByItself, "others see no snapshot that is not committed"),
    ] {
        caught(&format!("{wrong:?}"), rule, suite(wrong)).await;
    }
}
