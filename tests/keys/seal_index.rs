//! The index of seals, on every database: with it, a search finds what it finds without it, whoever wrote the events.

use crate::events_of::{placed, schemas};
use async_trait::async_trait;
use eventseal::error::MaintenanceFault;
use eventseal::maintenance::{
    EventsOf, EventsOfOptions, IndexSealsOptions, IndexSealsProgress, RewriteOptions, SealsIndexed, index_seals,
};
use eventseal::memory::{MemoryKeys, MemoryStore};
use eventseal::postgres::{PostgresKeys, PostgresStore, PostgresTables};
use eventseal::sqlite::{SqliteKeys, SqliteStore};
use eventseal::store::{EventTable, PayloadReplacement, SealIndexState, TableWork};
use eventseal::{
    Error, EventStore, ExpectedVersion, GlobalPosition, KeyScope, NewEvent, PersistedEvent, Result, SealedStore,
    aggregate,
};
use std::sync::Arc;
use support::backend::{Backend, insert};
use support::{KEYRING, Memory, Postgres, Sqlite, customer_scope, on_every_database};

on_every_database! {
    appends_keep_the_index_and_a_search_reads_little,
    who_does_not_keep_the_index_is_found,
    backfill_and_rewrite_keep_the_index,
    the_job_goes_on_where_it_was_and_may_run_twice,
    a_header_that_cannot_be_read_is_reported_from_the_index,
    rows_that_are_written_during_a_search_hide_nothing,
    an_index_of_other_events_is_not_used,
    an_index_that_is_emptied_during_a_search_stops_it,
    rows_prove_nothing,
    without_its_tables_an_append_says_so,
}

/// A database whose stores keep the index.
#[async_trait]
trait Indexed: Backend {
    fn keeping() -> Self::Store;

    fn process_keeping(&self) -> SealedStore<Self::Store>;

    async fn made(&self) {
        let mut connection = self.connect().await.unwrap();
        Self::keeping().seal_index().unwrap().make(self.connection(&mut connection)).await.unwrap();
    }

    async fn state(&self) -> Option<SealIndexState> {
        let mut connection = self.connect().await.unwrap();
        Self::keeping().seal_index().unwrap().state(self.connection(&mut connection)).await.unwrap()
    }

    async fn index(&self, options: &IndexSealsOptions) -> Result<SealsIndexed> {
        let mut connection = self.connect().await.unwrap();
        index_seals(&Self::keeping(), self.connection(&mut connection), options, &mut |_| {}).await
    }

    /// What a search finds, with the index or without it: positions, and the positions of what is unreadable.
    async fn search(&self, scope: &KeyScope, use_index: bool) -> (Vec<i64>, Vec<i64>, u64) {
        let (store, mut connection) = (self.process(schemas()), self.connect().await.unwrap());
        let mut options = EventsOfOptions::default();
        (options.use_index, options.batch) = (use_index, 3);
        let mut search = store.events_of(self.connection(&mut connection), scope, &options).await.unwrap();
        assert_eq!(search.uses_index(), use_index);
        let (found, unreadable) = rest(self, &mut search, &mut connection).await.unwrap();
        assert_eq!(search.progress().position, search.progress().last);
        (found, unreadable, search.progress().looked_at)
    }

    /// Checks that the search finds the same with the index and without it, and returns how many events it looked at.
    async fn same(&self, scope: &KeyScope) -> u64 {
        let (with, without) = (self.search(scope, true).await, self.search(scope, false).await);
        assert_eq!((&with.0, &with.1), (&without.0, &without.1), "{scope}");
        assert!(!with.0.is_empty(), "{scope} has events");
        with.2
    }
}

/// What the pages that are left find.
async fn rest<B: Backend>(
    db: &B,
    search: &mut EventsOf<'_, B::Store>,
    connection: &mut B::Connection,
) -> Result<(Vec<i64>, Vec<i64>)> {
    let (mut found, mut unreadable) = (Vec::new(), Vec::new());
    while let Some(page) = search.next(db.connection(connection)).await? {
        found.extend(page.events.iter().map(|found| found.event.global_position.get()));
        unreadable.extend(page.unreadable.iter().map(|event| event.global_position.get()));
    }
    assert!(found.is_sorted() && found.windows(2).all(|pair| pair[0] < pair[1]), "each once: {found:?}");
    unreadable.sort_unstable();
    Ok((found, unreadable))
}

#[async_trait]
impl Indexed for Memory {
    fn keeping() -> MemoryStore {
        MemoryStore::new().index_seals()
    }

    fn process_keeping(&self) -> SealedStore<MemoryStore> {
        SealedStore::new(Self::keeping(), MemoryKeys::new(), Arc::clone(&KEYRING), schemas())
    }
}

#[async_trait]
impl Indexed for Sqlite {
    fn keeping() -> SqliteStore {
        SqliteStore::new().index_seals()
    }

    fn process_keeping(&self) -> SealedStore<SqliteStore> {
        SealedStore::new(Self::keeping(), SqliteKeys::new(), Arc::clone(&KEYRING), schemas())
    }
}

#[async_trait]
impl Indexed for Postgres {
    fn keeping() -> PostgresStore {
        PostgresStore::with_tables(PostgresTables::new().index_seals()).unwrap()
    }

    fn process_keeping(&self) -> SealedStore<PostgresStore> {
        SealedStore::new(Self::keeping(), PostgresKeys::new(), Arc::clone(&KEYRING), schemas())
    }
}

fn options(change: impl FnOnce(&mut IndexSealsOptions)) -> IndexSealsOptions {
    let mut options = IndexSealsOptions::default();
    change(&mut options);
    options
}

fn plain() -> NewEvent {
    NewEvent::raw("Plain", 1, "{}")
}

/// A database with an index, and a process that keeps it.
async fn start<B: Indexed>() -> (B, SealedStore<B::Store>) {
    let db = B::make().await;
    db.made().await;
    let store = db.process_keeping();
    db.prepare(&store).await;
    (db, store)
}

async fn appends_keep_the_index_and_a_search_reads_little<B: Indexed>() {
    let (db, store) = start::<B>().await;
    for round in 0..10 {
        db.append(&store, "1", &[placed("eve"), plain(), placed(&format!("other {round}"))]).await;
        db.append(&store, "2", &[placed("eve"), placed("ada")]).await;
    }
    // Before the job ran, the search looks into the events that have no row. These are not sealed.
    assert_eq!(db.same(&customer_scope("ada")).await, 10 + 10);
    let done = db.index(&options(|options| options.batch = 4)).await.unwrap();
    assert_eq!((done.looked_at, done.indexed, done.unreadable, done.complete_up_to.get()), (10, 0, 0, 50));
    assert_eq!(db.same(&customer_scope("ada")).await, 10, "afterwards, only at what it finds");
    assert_eq!(db.same(&customer_scope("eve")).await, 20);

    // An append that is rolled back leaves no row, and one that is refused none either.
    let mut transaction = db.begin().await.unwrap();
    let order = aggregate("Order", "2");
    store.append(db.tx(&mut transaction), &order, ExpectedVersion::Any, &[placed("ada")]).await.unwrap();
    drop(transaction);
    let mut transaction = db.begin().await.unwrap();
    let refused = store.append(db.tx(&mut transaction), &order, ExpectedVersion::NoStream, &[placed("ada")]).await;
    assert!(refused.unwrap_err().is_conflict());
    db.commit(transaction).await.unwrap();
    assert_eq!(db.same(&customer_scope("ada")).await, 10);

    // A shred takes nothing out of the index.
    db.shred(&store, "ada").await;
    assert_eq!(db.same(&customer_scope("ada")).await, 10);
}

async fn who_does_not_keep_the_index_is_found<B: Indexed>() {
    let (db, keeping) = start::<B>().await;
    let foreign = db.process(schemas());
    db.append(&foreign, "1", &[placed("ada"), placed("eve")]).await;
    db.append(&keeping, "2", &[placed("ada")]).await;
    db.append(&foreign, "3", &[placed("ada"), plain()]).await;
    assert_eq!(db.search(&customer_scope("ada"), true).await.0, [1, 3, 4]);
    db.same(&customer_scope("eve")).await;
    let done = db.index(&IndexSealsOptions::default()).await.unwrap();
    assert_eq!((done.looked_at, done.indexed), (4, 3));
    assert_eq!(db.same(&customer_scope("ada")).await, 3);
    // Behind the mark too.
    db.append(&foreign, "1", &[placed("ada"), placed("eve")]).await;
    assert_eq!(db.same(&customer_scope("ada")).await, 2 + 4, "two without rows, and the four that are found");
    assert_eq!(db.search(&customer_scope("ada"), true).await.0, [1, 3, 4, 6]);
}

async fn backfill_and_rewrite_keep_the_index<B: Indexed>() {
    let (db, keeping) = start::<B>().await;
    // These are before the mark when they are sealed, by a process that is not configured to keep the index.
    db.append_bare("1", &[placed("ada"), placed("eve")]).await;
    db.append(&keeping, "2", &[placed("ada")]).await;
    db.index(&IndexSealsOptions::default()).await.unwrap();
    assert_eq!(db.search(&customer_scope("ada"), true).await.0, [3]);
    let done = db.backfill(&db.process(schemas()), &eventseal::maintenance::BackfillOptions::default()).await.unwrap();
    assert_eq!(done.sealed, 2);
    assert_eq!(db.search(&customer_scope("ada"), true).await.0, [1, 3]);
    assert_eq!(db.same(&customer_scope("ada")).await, 2);

    let target = B::make().await;
    target.made().await;
    let (mut from, mut to) = (db.connect().await.unwrap(), target.connect().await.unwrap());
    let table = B::Store::default();
    let (source, target_connection) = (db.connection(&mut from), target.connection(&mut to));
    keeping.rewrite(source, &table, target_connection, &RewriteOptions::default(), &mut |_| {}).await.unwrap();
    let keys: Vec<_> = db.history(&keeping, "ada").await.unwrap().keys.iter().map(|key| key.key_id).collect();
    let mut search = EventsOf::of_keys(&table, target_connection, keys, &EventsOfOptions::default()).await.unwrap();
    assert!(search.uses_index());
    let (found, _) = rest(&target, &mut search, &mut to).await.unwrap();
    assert_eq!((found, search.progress().looked_at), (vec![1, 3], 2), "all of the copy is in its index");
}

async fn the_job_goes_on_where_it_was_and_may_run_twice<B: Indexed>() {
    let db = B::make().await;
    let store = db.prepared(schemas()).await;
    assert!(db.state().await.is_none());
    for _ in 0..10 {
        db.append(&store, "1", &[placed("ada"), placed("eve"), plain()]).await;
    }
    // It is ended after its third batch, as if the process were killed.
    let (table, mut connection) = (B::Store::default(), db.connect().await.unwrap());
    let four = options(|options| options.batch = 4);
    let mut told: Vec<IndexSealsProgress> = Vec::new();
    let ended = std::panic::AssertUnwindSafe(async {
        let mut tell = |progress| {
            told.push(progress);
            assert!(told.len() < 3, "killed");
        };
        index_seals(&table, db.connection(&mut connection), &four, &mut tell).await
    });
    assert!(futures::FutureExt::catch_unwind(ended).await.is_err());
    drop(connection);
    let state = db.state().await.unwrap();
    assert_eq!((state.complete_up_to.get(), told[2].complete_up_to.get(), told[2].last.get()), (12, 12, 30));
    assert_eq!(db.same(&customer_scope("ada")).await, 18 + 10, "those without rows, and those that are found");
    let done = db.index(&four).await.unwrap();
    assert_eq!((done.looked_at, done.indexed, done.complete_up_to.get()), (18, 12, 30));
    assert_eq!(db.same(&customer_scope("ada")).await, 10);
    let again = db.index(&four).await.unwrap();
    assert_eq!((again.looked_at, again.complete_up_to.get()), (0, 30));
    // Two at once.
    db.append(&store, "2", &(0..20).map(|_| placed("ada")).collect::<Vec<_>>()).await;
    let one = options(|options| options.batch = 1);
    let (first, second) = tokio::join!(db.index(&one), db.index(&one));
    let done = [first, second].into_iter().filter_map(Result::ok).map(|done| done.complete_up_to.get()).max();
    assert_eq!(done, Some(50));
    assert_eq!(db.same(&customer_scope("ada")).await, 30);
    // From nothing.
    let anew = db.index(&options(|options| options.anew = true)).await.unwrap();
    assert_eq!((anew.looked_at, anew.indexed), (50, 40));
    assert_ne!(db.state().await.unwrap().id, state.id);
    assert_eq!(db.same(&customer_scope("ada")).await, 30);
}

/// Puts other bytes in the place of a stored payload, past the index.
async fn replace<B: Backend>(db: &B, event: &PersistedEvent, new: Vec<u8>) {
    struct Replace<S>(S, PayloadReplacement);
    #[async_trait]
    impl<S: EventTable> TableWork<S::Tx> for Replace<S> {
        async fn run(&mut self, tx: &mut S::Tx) -> Result<()> {
            let replaced = self.0.replace_payloads(tx, std::slice::from_ref(&self.1)).await?;
            assert_eq!(replaced, [self.1.position]);
            Ok(())
        }
    }
    let (position, event_id, old) = (event.global_position, event.event_id, event.payload.clone());
    let (table, mut connection) = (B::Store::default(), db.connect().await.unwrap());
    let mut work = Replace(table.clone(), PayloadReplacement { position, event_id, old, new, metadata: None });
    table.in_transaction(db.connection(&mut connection), &mut work).await.unwrap();
}

async fn a_header_that_cannot_be_read_is_reported_from_the_index<B: Indexed>() {
    let (db, store) = start::<B>().await;
    db.append(&db.process(schemas()), "1", &[placed("ada"), placed("ada"), placed("eve")]).await;
    db.append(&store, "1", &[placed("ada")]).await;
    let stored = db.stored().await;
    replace(&db, &stored[1], br#"{"$seal":"AQEAAAAA"}"#.to_vec()).await;
    for _ in 0..2 {
        for (scope, expected) in [("ada", vec![1, 4]), ("eve", vec![3])] {
            let (found, unreadable, _) = db.search(&customer_scope(scope), true).await;
            assert_eq!((found, unreadable), (expected, vec![2]), "whoever is asked for");
            db.same(&customer_scope(scope)).await;
        }
        let done = db.index(&IndexSealsOptions::default()).await.unwrap();
        assert_eq!(done.complete_up_to.get(), 4);
    }
    // Once it is restored, it is found, although the index says nothing of its keys.
    replace(&db, &db.stored().await[1], stored[1].payload.clone()).await;
    assert_eq!(db.search(&customer_scope("ada"), true).await.0, [1, 2, 4]);
    assert_eq!(db.search(&customer_scope("eve"), true).await.1, [0_i64; 0]);
    // If one is damaged later, whoever's keys it named is told.
    replace(&db, &stored[3], br#"{"$seal":"AQEAAAAA"}"#.to_vec()).await;
    assert_eq!(db.search(&customer_scope("ada"), true).await.1, [4]);
}

async fn rows_that_are_written_during_a_search_hide_nothing<B: Indexed>() {
    let (db, keeping) = start::<B>().await;
    let foreign = db.process(schemas());
    db.append(&foreign, "1", &[placed("ada"), placed("eve"), placed("ada"), placed("ada")]).await;
    let mut options = EventsOfOptions::default();
    options.batch = 1;
    for pages in 0..5_usize {
        db.index(&self::options(|options| options.anew = true)).await.unwrap();
        db.append(&foreign, "2", &[placed("ada"), placed("eve"), placed("ada")]).await;
        let expected = db.search(&customer_scope("ada"), false).await.0;
        let mut connection = db.connect().await.unwrap();
        let ada = customer_scope("ada");
        let mut search = keeping.events_of(db.connection(&mut connection), &ada, &options).await.unwrap();
        for _ in 0..pages {
            search.next(db.connection(&mut connection)).await.unwrap();
        }
        // The job writes the rows of the events that the search has seen, and of those that it has not.
        db.index(&IndexSealsOptions::default()).await.unwrap();
        let left = rest(&db, &mut search, &mut connection).await.unwrap().0;
        let missed = expected.len() - left.len();
        assert!(missed <= pages.saturating_sub(3), "after {pages} pages, {left:?} are left of {expected:?}");
    }
}

async fn an_index_of_other_events_is_not_used<B: Indexed>() {
    let (db, store) = start::<B>().await;
    db.append(&store, "1", &[placed("ada"), placed("eve")]).await;
    db.index(&IndexSealsOptions::default()).await.unwrap();
    // The mark is at the second event. Somebody claims that it was another one.
    let state = db.state().await.unwrap();
    let (table, mut transaction) = (B::Store::default(), db.begin().await.unwrap());
    let index = table.seal_index().unwrap();
    let other = uuid::Uuid::now_v7();
    assert!(index.complete(db.tx(&mut transaction), state.id, state.complete_up_to, other).await.unwrap());
    db.commit(transaction).await.unwrap();
    let mut connection = db.connect().await.unwrap();
    let every = EventsOfOptions::default();
    let ada = customer_scope("ada");
    let mut search = store.events_of(db.connection(&mut connection), &ada, &every).await.unwrap();
    assert!(!search.uses_index());
    assert_eq!(rest(&db, &mut search, &mut connection).await.unwrap().0, [1]);
    let refused = db.index(&IndexSealsOptions::default()).await;
    let Err(Error::Maintenance(MaintenanceFault::ForeignSealIndex { position })) = refused else {
        panic!("{refused:?}")
    };
    assert_eq!(position.get(), 2);
    db.index(&options(|options| options.anew = true)).await.unwrap();
    db.same(&customer_scope("ada")).await;
}

async fn an_index_that_is_emptied_during_a_search_stops_it<B: Indexed>() {
    let (db, store) = start::<B>().await;
    db.append(&store, "1", &[placed("ada"), placed("eve")]).await;
    db.index(&IndexSealsOptions::default()).await.unwrap();
    let mut connection = db.connect().await.unwrap();
    let (ada, every) = (customer_scope("ada"), EventsOfOptions::default());
    let mut search = store.events_of(db.connection(&mut connection), &ada, &every).await.unwrap();
    let (table, mut transaction) = (B::Store::default(), db.begin().await.unwrap());
    table.seal_index().unwrap().empty(db.tx(&mut transaction)).await.unwrap();
    db.commit(transaction).await.unwrap();
    let stopped = rest(&db, &mut search, &mut connection).await;
    assert!(matches!(stopped, Err(Error::Collision { .. })), "{stopped:?}");
}

/// A row of an event that is gone, or of a key that the event does not name, finds nothing.
async fn rows_prove_nothing<B: Indexed>() {
    let (db, store) = start::<B>().await;
    db.append(&store, "1", &[placed("ada"), placed("eve")]).await;
    let ada = db.history(&store, "ada").await.unwrap().keys[0].key_id;
    let (table, mut transaction) = (B::Store::default(), db.begin().await.unwrap());
    let at = |position: i64| eventseal::store::IndexedSeal {
        position: GlobalPosition::try_from(position).unwrap(),
        keys: vec![ada],
    };
    let index = table.seal_index().unwrap();
    index.add(db.tx(&mut transaction), &[at(2), at(3), at(1)]).await.unwrap();
    db.commit(transaction).await.unwrap();
    assert_eq!(db.same(&customer_scope("ada")).await, 2, "the event that does not name the key is read, and not found");
    // An event that gets a position at which a row is left over still gets its own rows.
    let mut next = db.stored().await.remove(1);
    (next.aggregate, next.event_id) = (aggregate("Order", "copy"), uuid::Uuid::now_v7());
    next.global_position = GlobalPosition::try_from(4).unwrap();
    insert(&db, next).await;
    assert_eq!(db.search(&customer_scope("eve"), true).await.0, [2, 4]);
}

async fn without_its_tables_an_append_says_so<B: Indexed>() {
    let db = B::make().await;
    let store = db.process_keeping();
    db.prepare(&store).await;
    match db.try_append(&store, "1", &[placed("ada")]).await {
        // In memory, the first append makes it.
        Ok(_) => assert_eq!(db.state().await.unwrap().complete_up_to, GlobalPosition::START),
        Err(error) => {
            assert!(error.to_string().contains("sealed_events"), "{error}");
            db.made().await;
            db.append(&store, "1", &[placed("ada")]).await;
        }
    }
    db.same(&customer_scope("ada")).await;
}

/// Migrations of a store that keeps the index make its tables, under the names that it is given, beside those of
/// another.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_tables_have_configured_names() {
    let db = Postgres::empty().await;
    let mut connection = db.pool.acquire().await.unwrap();
    let named = PostgresTables::streams().in_schema("shop").events("log").index_seals().sealed_events("log_seals");
    let store = PostgresStore::with_tables(named).unwrap();
    store.migrate(&mut connection).await.unwrap();
    store.migrate(&mut connection).await.unwrap();
    assert!(store.seal_index().unwrap().state(&mut connection).await.unwrap().is_some());
    assert!(PostgresStore::new().seal_index().unwrap().state(&mut connection).await.unwrap().is_none());
    assert!(store.migration_sql().contains(r#"CREATE TABLE "shop"."log_seals""#));
    for tables in [
        PostgresTables::new().sealed_events("events"),
        PostgresTables::new().events("seals_mark").sealed_events("seals"),
        PostgresTables::new().sealed_events("a b"),
    ] {
        assert!(PostgresStore::with_tables(tables).is_err());
    }
    let db = Sqlite::empty().await;
    let mut connection = db.pool.acquire().await.unwrap();
    let store = SqliteStore::with_tables("log", "log_heads").unwrap().index_seals().sealed_events("log_seals").unwrap();
    store.migrate(&mut connection).await.unwrap();
    store.migrate(&mut connection).await.unwrap();
    assert!(store.seal_index().unwrap().state(&mut connection).await.unwrap().is_some());
    assert!(store.migration_sql().contains(r#"CREATE TABLE "log_seals_mark""#));
    assert!(SqliteStore::new().sealed_events("a b").is_err());
}
