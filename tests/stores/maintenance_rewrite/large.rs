//! Large events.

use super::{rewrite, schemas, small};
use eventseal::maintenance::{RewriteOptions, RewriteProgress};
use eventseal::memory::MemoryStore;
use eventseal::sqlite::SqliteStore;
use eventseal::{Changes, NewEvent, Schemas, event};
use serde_json::json;
use std::time::{Duration, Instant};
use support::backend::Backend;
use support::{Memory, Sqlite, customer};

/// Many sealed values beside much that is in the clear take one look at each, not one of the latter for each of the
/// former.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_values_beside_a_long_text_take_no_longer_than_both() {
    let (db, copy) = (Memory::new(), Memory::new());
    let met = || event("Met").version(1).protect(&["/secret"], customer());
    let store = db.prepared(Schemas::new([met()]).unwrap()).await;
    let list: Vec<String> = (0..5_000).map(|n| format!("value-{n:08}")).collect();
    let text: String = (0..100_000).map(|n| format!("word{n} ")).collect();
    let payload = json!({ "customer": "ada", "secret": list, "text": text }).to_string();
    db.append(&store, "1", &[NewEvent::raw("Met", 1, payload)]).await;
    let store = db.process(
        Schemas::new([met()
            .version(2)
            .protect(&["/s"], customer())
            .change(1, Changes::new().move_value("/secret", "/s"))])
        .unwrap(),
    );
    let began = Instant::now();
    assert_eq!(rewrite(&db, &store, &copy, &MemoryStore::new(), &small()).await.unwrap().rewritten, 1);
    assert!(began.elapsed() < Duration::from_secs(10), "it took {:?}", began.elapsed());
}

/// A batch is bounded by what its payloads weigh, too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_events_make_small_batches() {
    let (db, copy) = (Sqlite::new().await, Sqlite::new().await);
    let store = db.prepared(schemas()).await;
    for megabytes in [20, 30, 60, 1] {
        db.append_bare("1", &[NewEvent::raw("Stranger", 1, vec![b'x'; megabytes << 20])]).await;
    }
    let (mut from, mut to, mut told) =
        (db.pool.acquire().await.unwrap(), copy.pool.acquire().await.unwrap(), Vec::new());
    let mut tell = |progress: RewriteProgress<'_>| told.push(progress.position.get());
    let done =
        store.rewrite(&mut from, &SqliteStore::new(), &mut to, &RewriteOptions::default(), &mut tell).await.unwrap();
    assert_eq!((done.copied, told), (4, vec![2, 4]));
}
