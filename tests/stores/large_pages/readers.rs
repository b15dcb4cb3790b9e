//! Every read that opens large pages, on every database: what comes of it on several threads is what comes of it on
//! one.

use super::{MANY, Watch, new, schemas};
use eventseal::erasure::{ExportItem, ExportOptions, ExportedEvent, VerifyOptions};
use eventseal::error::BoxError;
use eventseal::snapshots::{AggregateState, SaveOutcome, SealedSnapshots};
use eventseal::{
    EventFilter, EventStore, EventStoreExt, GlobalPosition, NewEvent, PersistedEvent, SealedStore, aggregate,
};
use serde::{Deserialize, Serialize};
use std::fmt::Write as _;
use std::sync::Arc;
use support::backend::Backend;
use support::{KEYRING, customer_scope, on_every_database};

on_every_database! {
    reads_come_to_the_same_on_any_number_of_threads,
    an_export_comes_to_the_same_on_any_number_of_threads,
    a_verification_comes_to_the_same_on_any_number_of_threads,
    i5_a_snapshot_needs_the_keys_of_all_parts,
}

/// A store that opens on so many threads.
fn store<B: Backend>(db: &B, threads: usize) -> SealedStore<B::Store> {
    db.process_with(B::Keys::default(), Arc::clone(&KEYRING), schemas(&Arc::<Watch>::default()))
        .open_on_threads(threads)
}

/// A database with large streams: those of three customers, one of whom is erased, and then of a fourth.
async fn filled<B: Backend>() -> B {
    const TYPES: [&str; 6] = ["Placed", "Registered", "Joined", "Moved", "Dropped", "Plain"];
    let db = B::make().await;
    let writer = db.prepared(schemas(&Arc::default())).await;
    let customer = |number: usize| match number {
        _ if number == MANY - 3 => "last".to_owned(),
        _ => (number / TYPES.len() % 3).to_string(),
    };
    let events: Vec<NewEvent> =
        (0..MANY).map(|number| new(TYPES[number % TYPES.len()], &customer(number), "fine")).collect();
    db.append(&writer, "1", &events).await;
    db.shred(&writer, "1").await;
    db
}

fn text(events: &[PersistedEvent]) -> String {
    events.iter().fold(String::new(), |mut text, event| {
        let payload = String::from_utf8_lossy(&event.payload);
        let metadata = event.metadata.as_deref().map(String::from_utf8_lossy);
        write!(text, "{event:?} {payload} {metadata:?} {:?}", event.sealed_places()).unwrap();
        text
    })
}

async fn reads_come_to_the_same_on_any_number_of_threads<B: Backend>() {
    let db = filled::<B>().await;
    let mut outcomes = Vec::new();
    for threads in [1, 2, 4] {
        let store = store(&db, threads);
        let log = text(&db.read_log(&store).await.unwrap());
        // The second read of a stream gets its keys with its events.
        let streams =
            [db.read(&store, "1").await.unwrap(), db.read(&store, "1").await.unwrap()].map(|read| text(&read));
        let mut transaction = db.begin().await.unwrap();
        let tx = db.tx(&mut transaction);
        let only = EventFilter { event_types: vec!["Registered".to_owned()], ..EventFilter::default() };
        let filtered = store.read_events(tx, GlobalPosition::START, 1_000, &only).await.unwrap();
        let each = store.read_events_each(tx, GlobalPosition::START, 1_000, &EventFilter::default()).await.unwrap();
        let stream = store.read_stream(tx, &aggregate("Order", "1")).await.unwrap();
        db.roll_back(transaction).await;
        let each: String = each.events.iter().map(|events| text(events.as_ref().unwrap())).collect();
        assert_eq!(each, log);
        assert!(log.contains("gone") && log.contains("2@x"));
        assert_eq!(log.matches("1@x").count(), 17, "what was never sealed");
        outcomes.push((log, streams, text(&filtered.events), filtered.next, filtered.scanned, stream.last_version));
    }
    assert!(outcomes.iter().all(|outcome| *outcome == outcomes[0]));
}

async fn an_export_comes_to_the_same_on_any_number_of_threads<B: Backend>() {
    let db = filled::<B>().await;
    let mut outcomes = Vec::new();
    for threads in [1, 4] {
        let store = store(&db, threads);
        let mut events: Vec<ExportedEvent> = Vec::new();
        let mut sink = |item: ExportItem<'_>| {
            let ExportItem::Event(event) = item else { return Err("an event can't be read".into()) };
            events.push(event.clone());
            Ok(())
        };
        let mut connection = db.connect().await.unwrap();
        let (connection, options) = (db.connection(&mut connection), ExportOptions::default());
        let exported = store.export(connection, &customer_scope("2"), &options, &mut sink, &mut |_| {}).await.unwrap();
        assert_eq!(events.len(), 80, "a sixth of its events is not sealed");
        outcomes.push((format!("{events:?}"), exported));
    }
    assert_eq!(outcomes[0], outcomes[1]);
}

/// Its events are borrowed, so copies of them are opened.
async fn a_verification_comes_to_the_same_on_any_number_of_threads<B: Backend>() {
    let db = filled::<B>().await;
    let mut outcomes = Vec::new();
    for threads in [1, 4] {
        let store = store(&db, threads);
        let mut connection = db.connect().await.unwrap();
        let connection = db.connection(&mut connection);
        let verified = store.verify(connection, &[], &VerifyOptions::default(), &mut |_| {}).await.unwrap();
        assert!(verified.is_clean() && verified.events == MANY as u64, "{verified:?}");
        assert_eq!(verified.sealed, 250);
        outcomes.push(verified);
    }
    assert_eq!(outcomes[0], outcomes[1]);
}

#[derive(Default, Serialize, Deserialize)]
struct Mails(Vec<String>);

impl AggregateState for Mails {
    const NAME: &'static str = "mails";
    const VERSION: u32 = 1;

    fn apply(&mut self, event: &PersistedEvent) -> Result<(), BoxError> {
        self.0.push(String::from_utf8(event.payload.clone())?);
        Ok(())
    }
}

/// The key of the last customer is named in the last part of the page alone.
async fn i5_a_snapshot_needs_the_keys_of_all_parts<B: Backend>() {
    let db = filled::<B>().await;
    let snapshots = SealedSnapshots::new(db.make_snapshots().await);
    let (alone, together) = (store(&db, 1), store(&db, 4));
    let order = aggregate("Order", "1");
    let mut transaction = db.begin().await.unwrap();
    let tx = db.tx(&mut transaction);
    let rebuilt = snapshots.load::<Mails>(tx, &together, &order).await.unwrap();
    let same = snapshots.load::<Mails>(tx, &alone, &order).await.unwrap();
    assert_eq!((rebuilt.folded(), &rebuilt.state().0), (MANY as u64, &same.state().0));
    assert_eq!(snapshots.save(tx, &together, &rebuilt).await.unwrap(), SaveOutcome::Saved);
    let kept = snapshots.load::<Mails>(tx, &alone, &order).await.unwrap();
    assert_eq!(kept.folded(), 0);
    db.commit(transaction).await.unwrap();
    db.shred(&alone, "last").await;
    let mut transaction = db.begin().await.unwrap();
    let anew = snapshots.load::<Mails>(db.tx(&mut transaction), &together, &order).await.unwrap();
    assert!(anew.discarded().is_some() && anew.folded() == MANY as u64);
    assert!(!anew.state().0.iter().any(|payload| payload.contains("last@x")));
    db.roll_back(transaction).await;
}
