//! I3 for snapshots: what was altered, moved or left over is discarded, and the state is that of the events.

use super::{Order, SealedStore, Snapshots, counted, fold, keep, load, order, placed, put, save, stored, world};
use eventseal::snapshots::{Discarded, SealedSnapshots};
use eventseal::store::StoredSnapshot;
use eventseal::{AggregateVersion, NewEvent};
use std::sync::{Arc, Mutex};
use support::backend::Backend;
use support::sealing::CANARY;
use support::{Memory, on_every_database};
use uuid::Uuid;

on_every_database! {
    i3_a_snapshot_opens_in_its_own_place_only,
    i3_what_never_was_a_snapshot_is_discarded,
    i8_a_snapshot_of_a_lost_future_is_never_used,
}

/// Puts this snapshot in the place of an order's, and returns why it is discarded.
async fn discarded<B: Backend>(
    db: &B,
    store: &SealedStore<B::Store>,
    snapshots: &Snapshots<B>,
    id: &str,
    snapshot: StoredSnapshot,
) -> Discarded {
    put(db, snapshots, &[StoredSnapshot { aggregate: order(id), ..snapshot }]).await;
    let rebuilt = load(db, store, snapshots, id).await;
    assert_eq!(*rebuilt.state(), fold(db, store, id).await, "the state is that of the events");
    assert!(rebuilt.snapshot().is_none());
    rebuilt.discarded().cloned().expect("it was used")
}

fn version(number: i64) -> AggregateVersion {
    number.try_into().unwrap()
}

async fn i3_a_snapshot_opens_in_its_own_place_only<B: Backend>() {
    let (db, store, snapshots) = world::<B>().await;
    db.append(&store, "1", &[placed("1"), placed("2")]).await;
    let first = keep(&db, &store, &snapshots, "1").await;
    let of_two = stored(&db, &snapshots, "1").await.unwrap();
    let one = db.append(&store, "1", &[counted()]).await.remove(0);
    keep(&db, &store, &snapshots, "1").await;
    let of_three = stored(&db, &snapshots, "1").await.unwrap();
    let twin = db.append(&store, "2", &[placed("1"), placed("2"), counted()]).await.remove(2);
    let release = SealedSnapshots::new(snapshots.inner().clone()).code_version("release 2");
    let rebuilt = load(&db, &store, &release, "1").await;
    save(&db, &store, &release, &rebuilt).await.unwrap();
    let of_release = stored(&db, &snapshots, "1").await.unwrap();

    let not_authentic = Discarded::Altered { problem: "the header's tag is not authentic" };
    let moved = [
        ("to another aggregate", "2", StoredSnapshot { last_event: twin.event_id, ..of_three.clone() }),
        ("to a later version", "1", StoredSnapshot { version: version(3), last_event: one.event_id, ..of_two.clone() }),
        ("from a later version", "1", StoredSnapshot { sealed: of_three.sealed.clone(), ..of_two.clone() }),
        ("from other code", "1", StoredSnapshot { sealed: of_release.sealed.clone(), ..of_three.clone() }),
    ];
    for (how, id, snapshot) in moved {
        assert_eq!(discarded(&db, &store, &snapshots, id, snapshot).await, not_authentic, "{how}");
    }
    let elsewhere = StoredSnapshot { last_event: Uuid::now_v7(), ..of_three.clone() };
    assert_eq!(discarded(&db, &store, &snapshots, "1", elsewhere).await, Discarded::NotInStream);
    assert_eq!(discarded(&db, &store, &snapshots, "2", of_three.clone()).await, Discarded::NotInStream);
    // An older snapshot of the same aggregate is no fraud: the events after it are folded.
    put(&db, &snapshots, &[of_two]).await;
    let rebuilt = load(&db, &store, &snapshots, "1").await;
    assert_eq!((rebuilt.folded(), rebuilt.state().events), (1, first.events + 1));
    assert_eq!(*rebuilt.state(), fold(&db, &store, "1").await);
}

async fn i3_what_never_was_a_snapshot_is_discarded<B: Backend>() {
    let (db, store, snapshots) = world::<B>().await;
    db.append(&store, "1", &[placed("1")]).await;
    keep(&db, &store, &snapshots, "1").await;
    let good = stored(&db, &snapshots, "1").await.unwrap();
    let event = db.stored().await.remove(0).payload;
    for (name, sealed) in [
        ("nothing", Vec::new()),
        ("a state in the clear", br#"{"redacted":[],"state":{}}"#.to_vec()),
        ("a sealed payload", event),
        ("zeros", vec![0; 300]),
    ] {
        let why = discarded(&db, &store, &snapshots, "1", StoredSnapshot { sealed, ..good.clone() }).await;
        assert!(matches!(why, Discarded::Altered { .. } | Discarded::Unsupported { .. }), "{name}: {why}");
    }
}

/// The events were restored from a backup, and the snapshots were not.
async fn i8_a_snapshot_of_a_lost_future_is_never_used<B: Backend>() {
    let (db, store, snapshots) = world::<B>().await;
    db.append(&store, "1", &[placed("1"), placed("1")]).await;
    db.append(&store, "2", &[placed("1"), placed("1"), placed("lost"), counted()]).await;
    keep(&db, &store, &snapshots, "2").await;
    let lost = stored(&db, &snapshots, "2").await.unwrap();
    // Order 1 is what is left of order 2: it has other events from version 3 on.
    for more in 0..4 {
        let why = discarded(&db, &store, &snapshots, "1", lost.clone()).await;
        assert_eq!(why, Discarded::NotInStream, "after {more} more events");
        db.append(&store, "1", &[NewEvent::raw("Texted", 1, "{}")]).await;
    }
    put(&db, &snapshots, &[StoredSnapshot { aggregate: order("1"), version: version(i64::MAX), ..lost }]).await;
    let rebuilt = load(&db, &store, &snapshots, "1").await;
    assert_eq!(rebuilt.discarded(), Some(&Discarded::NotInStream));
    assert!(save(&db, &store, &snapshots, &rebuilt).await.unwrap().is_saved(), "it is of an older version");
    assert_eq!(load(&db, &store, &snapshots, "1").await.folded(), 0);
}

/// Every bit of a snapshot is looked at: of its header, its key lists, its tag, its commitments and its ciphertext.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i3_no_bit_of_a_snapshot_can_be_altered() {
    let (db, store, snapshots) = world::<Memory>().await;
    db.append(&store, "1", &[placed("1"), placed("erased"), placed("2")]).await;
    db.shred(&store, "erased").await;
    let state = keep(&db, &store, &snapshots, "1").await;
    let good = stored(&db, &snapshots, "1").await.unwrap();
    let length = good.sealed.len();
    let bits = (0..length * 8).map(|bit| {
        let mut sealed = good.sealed.clone();
        sealed[bit / 8] ^= 1 << (bit % 8);
        sealed
    });
    let cut = (0..length).map(|length| good.sealed[..length].to_vec());
    let longer = [1, 16, 32, 64].map(|more| [&good.sealed[..], &vec![0; more]].concat());
    for (number, sealed) in bits.chain(cut).chain(longer).enumerate() {
        put(&db, &snapshots, &[StoredSnapshot { sealed, ..good.clone() }]).await;
        let rebuilt = load(&db, &store, &snapshots, "1").await;
        assert!(rebuilt.discarded().is_some() && rebuilt.folded() == 3, "number {number} was used");
        assert_eq!(*rebuilt.state(), state);
    }
    put(&db, &snapshots, &[good]).await;
    assert_eq!(load(&db, &store, &snapshots, "1").await.folded(), 0);
}

/// I9: the log says why a snapshot was discarded, and shows nothing of it.
#[tokio::test]
async fn i9_the_log_says_why_and_shows_nothing() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = || tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE);
    // If there is one subscriber only, the first thread that comes by a place decides whether that is logged, and other
    // tests have none.
    let _second = tracing::Dispatch::new(subscriber().with_writer(std::io::sink).finish());
    let guard = tracing::subscriber::set_default(subscriber().with_writer(move || writer.clone()).finish());
    let (db, store, snapshots) = world::<Memory>().await;
    db.append(&store, "1", &[placed("1")]).await;
    keep(&db, &store, &snapshots, "1").await;
    let good = stored(&db, &snapshots, "1").await.unwrap();
    let foreign = StoredSnapshot { fingerprint: [7; 32], ..good.clone() };
    let cut = StoredSnapshot { sealed: good.sealed[..100].to_vec(), ..good.clone() };
    for (snapshot, reason) in [(foreign, "other_code"), (cut, "altered: the header is malformed")] {
        log.0.lock().unwrap().clear();
        discarded(&db, &store, &snapshots, "1", snapshot).await;
        let logged = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
        let line = logged.lines().find(|line| line.contains("a snapshot was discarded")).unwrap();
        assert!(line.contains(reason) && line.contains("aggregate_id=\"1\" aggregate_version=1"), "{line}");
    }
    db.shred(&store, "1").await;
    let why = discarded(&db, &store, &snapshots, "1", good).await;
    let logged = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(logged.contains(&why.to_string()) && why.to_string().starts_with("key_changed: "), "{logged}");
    drop(guard);
    assert!(!logged.contains(CANARY));
}

/// What was logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Bytes that begin like a snapshot and go on at random never panic, and are never used.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i3_random_bytes_are_discarded() {
    let (db, store, snapshots) = world::<Memory>().await;
    db.append(&store, "1", &[placed("1")]).await;
    let state: Order = keep(&db, &store, &snapshots, "1").await;
    let good = stored(&db, &snapshots, "1").await.unwrap();
    let mut random = 0x5EED_u64;
    let mut next = move || {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) as usize
    };
    for round in 0..3_000 {
        let kept = [0, 1, 3, 4, 20, 36, 37, 38, 54, 56, 61, 77, 109][next() % 13].min(good.sealed.len());
        let mut sealed = good.sealed[..kept].to_vec();
        sealed.extend((0..next() % 400).map(|_| if next() % 2 == 0 { 0 } else { next() as u8 }));
        put(&db, &snapshots, &[StoredSnapshot { sealed, ..good.clone() }]).await;
        let rebuilt = load(&db, &store, &snapshots, "1").await;
        assert!(rebuilt.discarded().is_some(), "round {round}");
        assert_eq!(*rebuilt.state(), state);
    }
}
