//! Snapshots of aggregates, on every database: what holds for payloads (I1 to I9) holds for them (I17).

mod binding;
mod later;
mod races;
mod rows;
mod states;
mod stores;

use eventseal::error::BoxError;
use eventseal::schema::SplitPart;
use eventseal::snapshots::{AggregateState, Discarded, Rebuilt, SaveOutcome, SealedSnapshots};
use eventseal::store::{SnapshotStore, StoredSnapshot};
use eventseal::{
    AggregateRef, Error, EventStore, ExpectedVersion, NewEvent, PersistedEvent, Result, Schemas, SealedStore,
    Sensitive, aggregate, event, subject,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use support::backend::Backend;
use support::sealing::CANARY;
use support::{contains, customer, on_every_database, whole};

on_every_database! {
    i1_a_state_comes_back_as_it_was_folded,
    i1_states_that_json_can_not_express_are_not_saved,
    i2_nothing_of_a_state_is_stored_in_the_clear,
    i6_a_snapshot_of_new_keys_is_committed_with_them,
    i7_no_key_is_overlooked_in_what_steps_drop_split_and_move,
    i8_versions_are_those_of_stored_events,
    i9_nothing_shows_what_is_in_a_state,
    a_snapshot_is_saved_every_n_events,
    other_code_begins_anew,
    values_in_the_clear_are_not_kept,
}

/// What is known of an order.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Order {
    names: Vec<Sensitive<String>>,
    notes: BTreeMap<u32, Sensitive<Option<String>>>,
    events: u64,
    largest: Option<u64>,
    ratio: f64,
    texts: Vec<String>,
}

#[derive(Deserialize)]
struct Placed {
    name: Sensitive<String>,
    note: Sensitive<Option<String>>,
}

impl AggregateState for Order {
    const NAME: &'static str = "order";
    const VERSION: u32 = 1;

    fn apply(&mut self, event: &PersistedEvent) -> Result<(), BoxError> {
        self.events += 1;
        match event.event_type.as_str() {
            "Placed" | "Named" => {
                let placed: Placed = event.decode()?;
                self.names.push(placed.name);
                self.notes.insert(self.names.len().try_into()?, placed.note);
            }
            "Counted" => {
                let value: Value = event.decode()?;
                self.largest = value["count"].as_u64();
                self.ratio = value["ratio"].as_f64().unwrap_or_default();
            }
            "Broken" => return Err(format!("it is broken: {CANARY}").into()),
            other => self.texts.push(format!("{other}: {}", String::from_utf8_lossy(&event.payload))),
        }
        Ok(())
    }
}

fn schemas() -> Schemas {
    Schemas::new([
        event("Placed").version(1).protect(&["/name", "/note"], customer()),
        event("Counted").version(1),
        event("Texted").version(1),
        event("Broken").version(1),
    ])
    .unwrap()
}

/// An order of a customer. The note is `null`, which is a value.
fn placed(customer: &str) -> NewEvent {
    NewEvent::raw("Placed", 1, format!(r#"{{"customer":"{customer}","name":"{CANARY} {customer}","note":null}}"#))
}

fn counted() -> NewEvent {
    NewEvent::raw("Counted", 1, r#"{"count":18446744073709551615,"ratio":0.1}"#)
}

fn order(id: &str) -> AggregateRef {
    aggregate("Order", id)
}

type Snapshots<B> = SealedSnapshots<<B as Backend>::Snapshots>;

/// A database with a table of snapshots.
async fn world<B: Backend>() -> (B, SealedStore<B::Store>, Snapshots<B>) {
    let db = B::make().await;
    let snapshots = SealedSnapshots::new(db.make_snapshots().await);
    let store = db.prepared(schemas()).await;
    (db, store, snapshots)
}

async fn try_load<B: Backend, A: AggregateState>(
    db: &B,
    store: &SealedStore<B::Store>,
    snapshots: &Snapshots<B>,
    id: &str,
) -> Result<Rebuilt<A>> {
    let mut transaction = db.begin().await?;
    let rebuilt = snapshots.load(db.tx(&mut transaction), store, &order(id)).await;
    db.roll_back(transaction).await;
    rebuilt
}

async fn load<B: Backend>(db: &B, store: &SealedStore<B::Store>, snapshots: &Snapshots<B>, id: &str) -> Rebuilt<Order> {
    try_load(db, store, snapshots, id).await.unwrap()
}

async fn save<B: Backend, A: AggregateState>(
    db: &B,
    store: &SealedStore<B::Store>,
    snapshots: &Snapshots<B>,
    rebuilt: &Rebuilt<A>,
) -> Result<SaveOutcome> {
    let mut transaction = db.begin().await?;
    let saved = snapshots.save(db.tx(&mut transaction), store, rebuilt).await;
    db.end(transaction, saved).await
}

/// Saves a snapshot of an order as it is now, and returns the state.
async fn keep<B: Backend>(db: &B, store: &SealedStore<B::Store>, snapshots: &Snapshots<B>, id: &str) -> Order {
    let rebuilt = load(db, store, snapshots, id).await;
    assert_eq!(save(db, store, snapshots, &rebuilt).await.unwrap(), SaveOutcome::Saved);
    rebuilt.into_state()
}

/// The state without any snapshot.
async fn fold<B: Backend>(db: &B, store: &SealedStore<B::Store>, id: &str) -> Order {
    let mut state = Order::default();
    for event in db.read(store, id).await.unwrap() {
        state.apply(&event).unwrap();
    }
    state
}

async fn stored<B: Backend>(db: &B, snapshots: &Snapshots<B>, id: &str) -> Option<StoredSnapshot> {
    let mut transaction = db.begin().await.unwrap();
    let stored = snapshots.inner().load(db.tx(&mut transaction), &order(id), Order::NAME).await.unwrap();
    db.roll_back(transaction).await;
    stored
}

/// Puts these snapshots in the place of whatever is stored.
async fn put<B: Backend>(db: &B, snapshots: &Snapshots<B>, all: &[StoredSnapshot]) {
    let mut transaction = db.begin().await.unwrap();
    for one in all {
        let tx = db.tx(&mut transaction);
        snapshots.inner().delete(tx, &one.aggregate, Some(&one.state)).await.unwrap();
        assert!(snapshots.inner().save(tx, one).await.unwrap());
    }
    db.commit(transaction).await.unwrap();
}

async fn i1_a_state_comes_back_as_it_was_folded<B: Backend>() {
    let (db, store, snapshots) = world::<B>().await;
    let other = db.process(schemas());
    db.append(&store, "1", &[placed("1"), counted(), placed("erased")]).await;
    db.shred(&store, "erased").await;
    for round in 0..4 {
        let state = keep(&db, &store, &snapshots, "1").await;
        assert!(state.names[1].is_redacted() && state.notes[&1] == Sensitive::Present(None), "{state:?}");
        assert_eq!((state.largest, state.ratio.to_bits()), (Some(u64::MAX), 0.1_f64.to_bits()));
        for process in [&store, &other] {
            let rebuilt = load(&db, process, &snapshots, "1").await;
            assert_eq!((rebuilt.state(), rebuilt.folded()), (&state, 0), "round {round}");
            assert_eq!(rebuilt.snapshot(), rebuilt.version());
            assert_eq!(rebuilt.discarded(), None);
        }
        let text = NewEvent::json("Texted", 1, &json!({"text": "ä \u{1F512} \" \\ \u{0}"})).unwrap();
        db.append(&store, "1", &[text, placed(&format!("round {round}"))]).await;
        let rebuilt = load(&db, &other, &snapshots, "1").await;
        assert_eq!((rebuilt.folded(), rebuilt.snapshot().is_some()), (2, true));
        assert_eq!(*rebuilt.state(), fold(&db, &store, "1").await, "round {round}");
    }
    let empty = load(&db, &store, &snapshots, "never seen").await;
    assert_eq!((empty.state(), empty.version(), empty.folded()), (&Order::default(), None, 0));
    assert_eq!(save(&db, &store, &snapshots, &empty).await.unwrap(), SaveOutcome::NotDue);
}

/// A state of numbers that are none.
#[derive(Default, Serialize, Deserialize)]
struct NotANumber(f64);

impl AggregateState for NotANumber {
    const NAME: &'static str = "not a number";
    const VERSION: u32 = 1;

    fn apply(&mut self, _: &PersistedEvent) -> Result<(), BoxError> {
        self.0 = f64::NAN;
        Ok(())
    }
}

/// A state that can't read what it writes.
#[derive(Default, Serialize)]
struct OneWay(u64);

impl<'de> Deserialize<'de> for OneWay {
    fn deserialize<D: serde::Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        Err(serde::de::Error::custom("no"))
    }
}

impl AggregateState for OneWay {
    const NAME: &'static str = "one way";
    const VERSION: u32 = 1;

    fn apply(&mut self, _: &PersistedEvent) -> Result<(), BoxError> {
        self.0 += 1;
        Ok(())
    }
}

async fn i1_states_that_json_can_not_express_are_not_saved<B: Backend>() {
    let (db, store, snapshots) = world::<B>().await;
    db.append(&store, "1", &[placed("1"), counted()]).await;
    let rebuilt: Rebuilt<NotANumber> = try_load(&db, &store, &snapshots, "1").await.unwrap();
    assert_eq!(save(&db, &store, &snapshots, &rebuilt).await.unwrap(), SaveOutcome::Unwritable);
    let rebuilt: Rebuilt<OneWay> = try_load(&db, &store, &snapshots, "1").await.unwrap();
    assert!(save(&db, &store, &snapshots, &rebuilt).await.unwrap().is_saved());
    let again: Rebuilt<OneWay> = try_load(&db, &store, &snapshots, "1").await.unwrap();
    assert_eq!((again.state().0, again.discarded()), (2, Some(&Discarded::Undecodable)));
}

async fn i2_nothing_of_a_state_is_stored_in_the_clear<B: Backend>() {
    let (db, store, snapshots) = world::<B>().await;
    let plain = NewEvent::raw("Texted", 1, format!(r#"{{"text":"{}"}}"#, CANARY.repeat(20)));
    db.append(&store, "both", &[placed("1"), placed("2"), plain.clone()]).await;
    db.append(&store, "plain", &[plain.with_id(uuid::Uuid::now_v7())]).await;
    for id in ["both", "plain"] {
        let state = keep(&db, &store, &snapshots, id).await;
        assert!(state.texts[0].contains(CANARY));
        let stored = stored(&db, &snapshots, id).await.unwrap();
        for text in [CANARY, "Customer", "names", "texts", "redacted"] {
            assert!(!contains(&stored.sealed, text), "{id}: {text} is in what is stored");
        }
        let rebuilt = load(&db, &store, &snapshots, id).await;
        assert_eq!((rebuilt.state(), rebuilt.folded()), (&state, 0), "{id}");
    }
    let [both, again] = [stored(&db, &snapshots, "both").await.unwrap(), {
        keep(&db, &store, &snapshots, "both").await;
        stored(&db, &snapshots, "both").await.unwrap()
    }];
    assert_ne!(both.sealed, again.sealed, "two snapshots of one state look alike");
}

async fn i6_a_snapshot_of_new_keys_is_committed_with_them<B: Backend>() {
    let (db, store, snapshots) = world::<B>().await;
    for commits in [false, true] {
        let mut transaction = db.begin().await.unwrap();
        let tx = db.tx(&mut transaction);
        store.append(tx, &order("1"), ExpectedVersion::NoStream, &[placed("new"), placed("newer")]).await.unwrap();
        let rebuilt = snapshots.load::<Order>(tx, &store, &order("1")).await.unwrap();
        assert_eq!(snapshots.save(tx, &store, &rebuilt).await.unwrap(), SaveOutcome::Saved);
        let within = snapshots.load::<Order>(tx, &store, &order("1")).await.unwrap();
        assert_eq!((within.state(), within.folded()), (rebuilt.state(), 0), "its own transaction sees both");
        if commits {
            db.commit(transaction).await.unwrap();
            assert_eq!(load(&db, &store, &snapshots, "1").await.folded(), 0);
        } else {
            db.roll_back(transaction).await;
            assert_eq!(stored(&db, &snapshots, "1").await, None);
            assert_eq!(db.history(&store, "new").await.map(|history| history.keys.len()), None);
            // A snapshot that was kept though its keys were rolled back is none.
            let refused = save(&db, &store, &snapshots, &rebuilt).await.unwrap();
            assert_eq!(refused, SaveOutcome::KeyChanged, "no key was made");
            assert_eq!(db.history(&store, "new").await.map(|history| history.keys.len()), None);
        }
    }
}

/// Events whose values steps drop, split and move to where nothing protects them.
fn stepping() -> Schemas {
    let named =
        |payload: &Value, of: [&str; 2]| json!({"customer": payload[of[0]], "name": payload[of[1]], "note": null});
    Schemas::builder([
        event("Dropped").version(1).protect(&["/name"], customer()).drop_from(1),
        event("Split")
            .version(1)
            .protect(&["/first"], subject("Customer", "/one"))
            .protect(&["/second"], subject("Customer", "/two"))
            .split(1, &[("Named", 1)], move |payload: Value, _: &_| {
                let parts = [["one", "first"], ["two", "second"]];
                let parts = parts.map(|of| SplitPart::new("Named", 1, named(&payload, of)));
                Ok::<_, Error>(parts.to_vec())
            }),
        event("Named").version(1).protect(&["/name"], customer()),
        event("Moved")
            .version(1)
            .protect(&["/name"], customer())
            .version(2)
            .unprotected("a test")
            .upcast(1, |payload: Value| Ok::<_, Error>(json!({"text": payload["name"]}))),
    ])
    .allow_older_appends()
    .build()
    .unwrap()
}

async fn i7_no_key_is_overlooked_in_what_steps_drop_split_and_move<B: Backend>() {
    let db = B::make().await;
    let snapshots = SealedSnapshots::new(db.make_snapshots().await);
    let store = db.prepared(stepping()).await;
    let split = |first: &str, second: &str| {
        let payload = format!(r#"{{"one":"{first}","first":"Ada","two":"{second}","second":"Grace"}}"#);
        NewEvent::raw("Split", 1, payload)
    };
    for (id, of) in [("a", 0), ("b", 1), ("c", 2), ("d", 3)] {
        let owners = [1, 2, 3, 4].map(|owner| format!("{id}{owner}"));
        let ([first, second, dropped, moved], shredded) = (&owners, &owners[of]);
        let drop = NewEvent::raw("Dropped", 1, format!(r#"{{"customer":"{dropped}","name":"{CANARY}"}}"#));
        let moving = NewEvent::raw("Moved", 1, format!(r#"{{"customer":"{moved}","name":"Joan"}}"#));
        db.append(&store, id, &[split(first, second), drop, moving]).await;
        let state = keep(&db, &store, &snapshots, id).await;
        assert_eq!(state.names, ["Ada".into(), "Grace".into()], "steps see opened values");
        assert_eq!(state.texts, [r#"Moved: {"text":"Joan"}"#], "and put them where nothing is protected");
        assert_eq!(load(&db, &store, &snapshots, id).await.folded(), 0);
        db.shred(&store, shredded).await;
        let rebuilt = load(&db, &store, &snapshots, id).await;
        assert!(matches!(rebuilt.discarded(), Some(Discarded::KeyChanged { .. })), "{shredded}: {rebuilt:?}");
        let redacted: Vec<bool> = rebuilt.state().names.iter().map(Sensitive::is_redacted).collect();
        assert_eq!(redacted, [shredded == first, shredded == second], "{shredded}");
        assert_eq!(rebuilt.state().texts[0].contains("Joan"), shredded != moved, "{shredded}");
        let kept = keep(&db, &store, &snapshots, id).await;
        assert_eq!(kept, load(&db, &store, &snapshots, id).await.into_state(), "the redactions come back");
    }
}

async fn i8_versions_are_those_of_stored_events<B: Backend>() {
    let db = B::make().await;
    let snapshots = SealedSnapshots::new(db.make_snapshots().await);
    let store = db.prepared(stepping()).await;
    let drop = |n: u32| NewEvent::raw("Dropped", 1, format!(r#"{{"customer":"{n}","name":"n"}}"#));
    let mut expected = ExpectedVersion::NoStream;
    for version in 1..=4 {
        let mut transaction = db.begin().await.unwrap();
        let tx = db.tx(&mut transaction);
        store.append(tx, &order("1"), expected, &[drop(0)]).await.unwrap();
        let rebuilt = snapshots.load::<Order>(tx, &store, &order("1")).await.unwrap();
        assert_eq!(rebuilt.version().unwrap().get(), version, "a dropped event counts");
        assert_eq!((rebuilt.folded(), rebuilt.state().events), (1, 0));
        assert_eq!(rebuilt.snapshot().map_or(0, eventseal::AggregateVersion::get), version - 1);
        assert!(snapshots.save_every(tx, &store, &rebuilt, 1).await.unwrap().is_saved());
        expected = rebuilt.expected_version();
        db.commit(transaction).await.unwrap();
    }
    let split = NewEvent::raw("Split", 1, r#"{"one":"1","first":"Ada","two":"2","second":"Grace"}"#);
    db.append(&store, "1", &[split]).await;
    let rebuilt = load(&db, &store, &snapshots, "1").await;
    assert_eq!((rebuilt.version().unwrap().get(), rebuilt.folded(), rebuilt.state().events), (5, 1, 2));
    assert_eq!(db.stored().await.len(), 5);
}

async fn i9_nothing_shows_what_is_in_a_state<B: Backend>() {
    let (db, store, snapshots) = world::<B>().await;
    db.append(&store, "1", &[placed("1")]).await;
    let rebuilt = load(&db, &store, &snapshots, "1").await;
    save(&db, &store, &snapshots, &rebuilt).await.unwrap();
    let row = stored(&db, &snapshots, "1").await.unwrap();
    for shown in [format!("{rebuilt:?}"), format!("{snapshots:?}"), format!("{row:?} {row:#?}")] {
        assert!(!shown.contains(CANARY) && !shown.contains("192, 193"), "{shown}");
    }
    db.append(&store, "1", &[NewEvent::raw("Broken", 1, "{}")]).await;
    let error = try_load::<B, Order>(&db, &store, &snapshots, "1").await.unwrap_err();
    assert!(matches!(&error, Error::Consumer { consumer, version, .. } if consumer == "order" && version.get() == 2));
    assert!(!error.to_string().contains(CANARY), "the text of the application is the source alone: {error}");
    let broken = StoredSnapshot { sealed: CANARY.repeat(40).into_bytes(), ..row };
    put(&db, &snapshots, &[broken]).await;
    let error = try_load::<B, Order>(&db, &store, &snapshots, "1").await.unwrap_err();
    assert!(matches!(error, Error::Consumer { .. }), "{}", whole(&error));
}

async fn a_snapshot_is_saved_every_n_events<B: Backend>() {
    let (db, store, snapshots) = world::<B>().await;
    let mut saved = Vec::new();
    for version in 1..=10 {
        db.append(&store, "1", &[counted()]).await;
        let mut transaction = db.begin().await.unwrap();
        let tx = db.tx(&mut transaction);
        let rebuilt = snapshots.load::<Order>(tx, &store, &order("1")).await.unwrap();
        assert!(rebuilt.folded() <= 3, "no more than three events are folded");
        match snapshots.save_every(tx, &store, &rebuilt, 3).await.unwrap() {
            SaveOutcome::Saved => saved.push(version),
            outcome => assert_eq!(outcome, SaveOutcome::NotDue),
        }
        db.commit(transaction).await.unwrap();
    }
    assert_eq!(saved, [3, 6, 9]);
    let older = load(&db, &store, &snapshots, "1").await;
    db.append(&store, "1", &[counted()]).await;
    keep(&db, &store, &snapshots, "1").await;
    assert_eq!(save(&db, &store, &snapshots, &older).await.unwrap(), SaveOutcome::Outdated, "the newer one stays");
    assert_eq!(load(&db, &store, &snapshots, "1").await.snapshot().unwrap().get(), 11);
    let mut transaction = db.begin().await.unwrap();
    assert_eq!(snapshots.delete(db.tx(&mut transaction), &order("1")).await.unwrap(), 1);
    db.commit(transaction).await.unwrap();
    assert_eq!(load(&db, &store, &snapshots, "1").await.folded(), 11);
}

/// The next version of the code of [`Order`].
#[derive(Default, Serialize, Deserialize)]
struct NextOrder(Order);

impl AggregateState for NextOrder {
    const NAME: &'static str = Order::NAME;
    const VERSION: u32 = Order::VERSION;

    fn apply(&mut self, event: &PersistedEvent) -> Result<(), BoxError> {
        self.0.apply(event)
    }
}

async fn other_code_begins_anew<B: Backend>() {
    let (db, store, snapshots) = world::<B>().await;
    db.append(&store, "1", &[placed("1"), counted()]).await;
    let state = keep(&db, &store, &snapshots, "1").await;
    let older = stored(&db, &snapshots, "1").await.unwrap();
    let release = snapshots.clone().code_version("release 2");
    let changed = Schemas::new([
        event("Placed").version(1).protect(&["/name", "/note"], customer()).redact_as("/name", "gone"),
        event("Counted").version(1),
    ]);
    let changed = db.process(changed.unwrap());
    for (process, kept) in [(&store, &release), (&changed, &snapshots)] {
        put(&db, &snapshots, std::slice::from_ref(&older)).await;
        let rebuilt = load(&db, process, kept, "1").await;
        assert_eq!((rebuilt.discarded(), rebuilt.folded()), (Some(&Discarded::OtherCode), 2));
        assert_eq!(*rebuilt.state(), state);
        assert!(save(&db, process, kept, &rebuilt).await.unwrap().is_saved());
        assert_eq!(load(&db, process, kept, "1").await.folded(), 0);
        assert_eq!(load(&db, &store, &snapshots, "1").await.discarded(), Some(&Discarded::OtherCode));
    }
    put(&db, &snapshots, &[older]).await;
    let next: Rebuilt<NextOrder> = try_load(&db, &store, &snapshots, "1").await.unwrap();
    assert_eq!((next.discarded(), &next.state().0), (Some(&Discarded::OtherCode), &state), "another type of that name");
}

async fn values_in_the_clear_are_not_kept<B: Backend>() {
    let (db, store, snapshots) = world::<B>().await;
    let accepting = || {
        let placed = event("Placed").version(1).protect(&["/name", "/note"], customer());
        let texted = event("Texted").version(1).protect(&["/secret"], customer());
        let builder = Schemas::builder([placed, texted, event("Counted").version(1)]);
        builder.accept_plaintext("Placed").accept_plaintext("Texted").build().unwrap()
    };
    let process = db.process(accepting());
    let unnamed = NewEvent::raw("Texted", 1, r#"{"customer":"2","text":"a","secret":null}"#);
    db.append_bare("old", &[placed("1"), counted()]).await;
    db.append_bare("nobody", &[unnamed]).await;
    db.append(&store, "new", &[placed("1")]).await;
    for (id, outcome) in [("old", SaveOutcome::InTheClear), ("nobody", SaveOutcome::Saved), ("new", SaveOutcome::Saved)]
    {
        let rebuilt = load(&db, &process, &snapshots, id).await;
        assert_eq!(save(&db, &process, &snapshots, &rebuilt).await.unwrap(), outcome, "{id}");
    }
    assert_eq!(stored(&db, &snapshots, "old").await, None);
    // Once they are sealed, a snapshot of them is, too.
    db.backfill(&process, &eventseal::maintenance::BackfillOptions::default()).await.unwrap();
    keep(&db, &process, &snapshots, "old").await;
    db.shred(&process, "1").await;
    let rebuilt = load(&db, &process, &snapshots, "old").await;
    assert!(rebuilt.state().names[0].is_redacted() && rebuilt.discarded().is_some(), "{rebuilt:?}");
}
