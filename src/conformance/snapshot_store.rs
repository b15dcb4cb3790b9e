//! The contract of a store of snapshots.

use crate::conformance::{Database, must};
use crate::error::{Error, TransactionFault};
use crate::event::{AggregateRef, AggregateVersion, aggregate, now};
use crate::store::{SnapshotStore, StoredSnapshot};
use uuid::Uuid;

/// Checks a store of snapshots: the newest one of each aggregate and state is kept as it is, in the caller's
/// transaction.
pub async fn snapshot_store<D: Database, S: SnapshotStore<Tx = D::Tx>>(db: &D, store: &S) {
    everything_saved_is_loaded(db, store).await;
    a_newer_snapshot_stays(db, store).await;
    aggregates_and_states_are_told_apart(db, store).await;
    deletes_take_what_they_name(db, store).await;
    rolled_back_snapshots_leave_nothing(db, store).await;
    writes_need_a_transaction(db, store).await;
}

fn fresh(name: &str) -> AggregateRef {
    aggregate("Conformance", format!("{name}-{}", Uuid::now_v7()))
}

fn snapshot(of: &AggregateRef, version: i64, sealed: &[u8]) -> StoredSnapshot {
    StoredSnapshot {
        aggregate: of.clone(),
        state: "state".to_owned(),
        version: must(AggregateVersion::try_from(version), "a version"),
        last_event: Uuid::now_v7(),
        fingerprint: std::array::from_fn(|index| u8::try_from(index).unwrap_or_default() ^ 0xC0),
        sealed: sealed.to_vec(),
        created_at: now(),
    }
}

async fn save<D: Database, S: SnapshotStore<Tx = D::Tx>>(db: &D, store: &S, snapshot: &StoredSnapshot) -> bool {
    let mut transaction = must(db.begin().await, "begin");
    let saved = must(store.save(db.tx(&mut transaction), snapshot).await, "save");
    must(db.commit(transaction).await, "commit");
    saved
}

async fn load<D: Database, S: SnapshotStore<Tx = D::Tx>>(
    db: &D,
    store: &S,
    aggregate: &AggregateRef,
    state: &str,
) -> Option<StoredSnapshot> {
    let mut transaction = must(db.begin().await, "begin");
    must(store.load(db.tx(&mut transaction), aggregate, state).await, "load")
}

/// Checks that a snapshot comes back as it was saved, whatever its bytes and names are.
pub async fn everything_saved_is_loaded<D: Database, S: SnapshotStore<Tx = D::Tx>>(db: &D, store: &S) {
    let rule = "a snapshot is loaded as it was saved";
    let every_byte: Vec<u8> = (0..=255).collect();
    for (name, sealed) in [("empty", Vec::new()), ("bytes", every_byte), ("large", vec![0xA5; 1 << 20])] {
        let of = fresh(name);
        assert_eq!(load(db, store, &of, "state").await, None, "there is none before it is saved");
        let one = snapshot(&of, 7, &sealed);
        assert!(save(db, store, &one).await, "save says that the first one is kept");
        assert!(load(db, store, &of, "state").await.as_ref() == Some(&one), "{rule}: {name}");
    }
    let long = "x".repeat(1_024);
    let odd = aggregate(format!("ä' \u{1F512} %_\\\"{}", &long[..900]), long);
    let one = StoredSnapshot { state: "n".repeat(255), ..snapshot(&odd, i64::MAX, b"odd") };
    assert!(save(db, store, &one).await, "save says that the first one is kept");
    assert!(load(db, store, &odd, &one.state).await.as_ref() == Some(&one), "{rule}: long and odd names");
}

/// Checks that an older snapshot never takes the place of a newer one, and that one of the same version does.
pub async fn a_newer_snapshot_stays<D: Database, S: SnapshotStore<Tx = D::Tx>>(db: &D, store: &S) {
    let of = fresh("newer");
    let [first, second, older, again] =
        [(5, b"first"), (9, b"newer"), (8, b"older"), (9, b"again")].map(|(at, sealed)| snapshot(&of, at, sealed));
    for (one, is_kept, stays) in
        [(&first, true, &first), (&second, true, &second), (&older, false, &second), (&again, true, &again)]
    {
        assert_eq!(save(db, store, one).await, is_kept, "save says whether a snapshot is kept: {one:?}");
        let found = load(db, store, &of, "state").await;
        assert!(found.as_ref() == Some(stays), "the newest snapshot is kept, and the last of one version: {found:?}");
    }
}

/// Checks that each aggregate and each state has a snapshot of its own.
pub async fn aggregates_and_states_are_told_apart<D: Database, S: SnapshotStore<Tx = D::Tx>>(db: &D, store: &S) {
    let id = Uuid::now_v7().to_string();
    let places = [("A", id.as_str(), "s"), ("B", &id, "s"), ("a", &id, "s"), ("A", &id[1..], "s"), ("A", &id, "S")];
    let all = places.map(|(kind, id, state)| StoredSnapshot {
        state: state.to_owned(),
        ..snapshot(&aggregate(kind, id), 1, format!("{kind} {id} {state}").as_bytes())
    });
    for one in &all {
        assert!(save(db, store, one).await, "save says that the first one of a state is kept: {one:?}");
    }
    for one in &all {
        let found = load(db, store, &one.aggregate, &one.state).await;
        assert!(found.as_ref() == Some(one), "each aggregate and state has a snapshot of its own: {one:?}, {found:?}");
    }
}

/// Checks that a delete takes the snapshot of one state, or of all states of one aggregate.
pub async fn deletes_take_what_they_name<D: Database, S: SnapshotStore<Tx = D::Tx>>(db: &D, store: &S) {
    let (of, other) = (fresh("deleted"), fresh("kept"));
    let named = |of: &AggregateRef, state: &str| StoredSnapshot { state: state.to_owned(), ..snapshot(of, 3, b"s") };
    let all = [named(&of, "a"), named(&of, "b"), named(&of, "c"), named(&other, "a")];
    for one in &all {
        save(db, store, one).await;
    }
    for (state, count, left) in [(Some("a"), 1, 0b1110), (Some("a"), 0, 0b1110), (None, 2, 0b1000), (None, 0, 0b1000)] {
        let mut transaction = must(db.begin().await, "begin");
        let deleted = must(store.delete(db.tx(&mut transaction), &of, state).await, "delete");
        must(db.commit(transaction).await, "commit");
        assert_eq!(deleted, count, "delete says how many there were: {state:?}");
        for (index, one) in all.iter().enumerate() {
            let is_there = load(db, store, &one.aggregate, &one.state).await.is_some();
            assert_eq!(is_there, left & (1 << index) != 0, "delete {state:?} takes what it names: {one:?}");
        }
    }
    assert!(save(db, store, &named(&of, "a")).await, "an older one can be saved once the newer one is deleted");
}

/// Checks that nothing is left of a transaction that is rolled back, and that others see nothing before the commit.
pub async fn rolled_back_snapshots_leave_nothing<D: Database, S: SnapshotStore<Tx = D::Tx>>(db: &D, store: &S) {
    let of = fresh("rolled-back");
    let mut transaction = must(db.begin().await, "begin");
    let one = snapshot(&of, 2, b"mine");
    must(store.save(db.tx(&mut transaction), &one).await, "save");
    let within = must(store.load(db.tx(&mut transaction), &of, "state").await, "load");
    assert!(within.as_ref() == Some(&one), "a transaction sees what it saved");
    assert_eq!(load(db, store, &of, "state").await, None, "others see no snapshot that is not committed");
    drop(transaction);
    assert_eq!(load(db, store, &of, "state").await, None, "a rolled back snapshot leaves nothing");
    assert!(save(db, store, &one).await);
    let mut transaction = must(db.begin().await, "begin");
    must(store.delete(db.tx(&mut transaction), &of, None).await, "delete");
    drop(transaction);
    assert!(load(db, store, &of, "state").await.as_ref() == Some(&one), "a rolled back delete leaves all");
}

/// Checks that a connection that is not in a transaction is refused by what writes.
pub async fn writes_need_a_transaction<D: Database, S: SnapshotStore<Tx = D::Tx>>(db: &D, store: &S) {
    let (of, kept) = (fresh("outside"), snapshot(&fresh("kept"), 1, b"kept"));
    assert!(save(db, store, &kept).await);
    let mut outside = must(db.connect().await, "connect");
    let saved = store.save(db.connection(&mut outside), &snapshot(&of, 1, b"outside")).await.map(drop);
    let deleted = store.delete(db.connection(&mut outside), &kept.aggregate, None).await.map(drop);
    drop(outside);
    for refused in [saved, deleted] {
        let is_refused = matches!(refused, Ok(()) | Err(Error::Transaction(TransactionFault::NotInTransaction { .. })));
        assert!(is_refused, "a write outside of a transaction is refused with NotInTransaction, not {refused:?}");
    }
    assert_eq!(load(db, store, &of, "state").await, None, "a save outside of a transaction is refused");
    let found = load(db, store, &kept.aggregate, "state").await;
    assert!(found.as_ref() == Some(&kept), "a delete outside of a transaction is refused");
}
