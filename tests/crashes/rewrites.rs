//! A rewrite, and what is said of a rotation of which nobody knows whether it was committed.

use crate::operations::{keyring, set_up, store};
use crate::proxy::Proxy;
use crate::{Kill, Point, settle};
use eventseal::keys::KeyStore;
use eventseal::maintenance::{RewriteOptions, Rewritten};
use eventseal::postgres::{PostgresKeys, PostgresStore};
use eventseal::{
    Changes, EventFilter, EventStore, GlobalPosition, PersistedEvent, Result, Schemas, SealedStore, Sealer, event,
    subject,
};
use sqlx::Connection;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use std::sync::atomic::Ordering;
use support::Postgres;

/// If a committed rotation were called retryable, a caller that tries again would rotate twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_committed_is_never_called_retryable() {
    let db = Postgres::new().await;
    store("").keys().prepare(&mut *db.pool.acquire().await.unwrap()).await.unwrap();
    let active = async || {
        let kek = PostgresKeys::new().active_kek(&mut db.pool.acquire().await.unwrap(), "default").await.unwrap();
        kek.unwrap().kek_id
    };
    let rotate = async |proxy: &Proxy| {
        let mut connection = PgConnection::connect_with(&proxy.options(&db)).await.unwrap();
        let before = proxy.requests.load(Ordering::SeqCst);
        store("").keys().rotate_kek(&mut connection, "default").await.map(|_| before)
    };
    let calm = Proxy::start(&db, None).await;
    let first = rotate(&calm).await.unwrap();
    for request in first..calm.requests.load(Ordering::SeqCst) {
        for done in [false, true] {
            let (before, point) = (active().await, Point { request, done });
            let proxy = Proxy::start(&db, Some((point, Kill::Cut))).await;
            let error = rotate(&proxy).await.unwrap_err();
            settle(&db).await;
            assert!(error.is_outage(), "{point:?}: {error:?}");
            assert!(!error.is_retryable() || active().await == before, "{point:?}: {error:?}");
        }
    }
}

/// A rewrite has two connections. If either is lost, at any statement, each batch is copied as a whole or not at all,
/// and running the rewrite again completes it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i8_i11_a_rewrite_that_loses_a_connection_is_completed() {
    let (db, copy) = (Postgres::new().await, Postgres::new().await);
    store("").keys().prepare(&mut db.pool.acquire().await.unwrap()).await.unwrap();
    set_up(&db, &store(""), "reopen", "shredded").await;
    let mut options = RewriteOptions::default();
    options.batch = 1_000;
    let rewrite =
        async |source: &PgConnectOptions, target: &PgConnectOptions| -> Result<Rewritten, Box<dyn std::error::Error>> {
            let (mut source, mut target) =
                (PgConnection::connect_with(source).await?, PgConnection::connect_with(target).await?);
            Ok(evolved().rewrite(&mut source, &PostgresStore::new(), &mut target, &options, &mut |_| {}).await?)
        };
    let read = async || {
        let (mut source, mut target) = (db.pool.acquire().await.unwrap(), copy.pool.acquire().await.unwrap());
        let all = EventFilter::default();
        let stored =
            PostgresStore::new().read_events(&mut target, GlobalPosition::START, 1_000, &all).await.unwrap().events;
        let sealer = Sealer::new(PostgresKeys::new(), keyring(), evolved_schemas());
        let copied = sealer.open(&mut source, stored).await.expect("I11: every committed event is readable");
        let original = evolved().read_events(&mut source, GlobalPosition::START, 1_000, &all).await.unwrap().events;
        let seen = |event: PersistedEvent| {
            (event.global_position, event.event_id, event.event_version, event.payload, event.redacted)
        };
        (copied.into_iter().map(seen).collect::<Vec<_>>(), original.into_iter().map(seen).collect::<Vec<_>>())
    };
    let mut stopped = 0;
    for on_source in [true, false] {
        for request in 0.. {
            let mut reached = false;
            for (done, kill) in [(false, Kill::Terminate), (true, Kill::Cut)] {
                // One that is new each time, whose key has to be made before it is copied.
                set_up(&db, &store(""), "backfill", &format!("new {on_source} {request} {done} {kill:?}")).await;
                sqlx::query("TRUNCATE events, aggregate_heads RESTART IDENTITY").execute(&copy.pool).await.unwrap();
                let stop = Some((Point { request, done }, kill));
                let (source, target) = (
                    Proxy::start(&db, stop.filter(|_| on_source)).await,
                    Proxy::start(&copy, stop.filter(|_| !on_source)).await,
                );
                let ended = rewrite(&source.options(&db), &target.options(&copy)).await;
                let requests = if on_source { &source } else { &target }.requests.load(Ordering::SeqCst);
                let was_reached = requests > request;
                let what = format!("{} {request}, done: {done}, {kill:?}", if on_source { "source" } else { "target" });
                assert_eq!(ended.is_err(), was_reached, "{what}: {ended:?}");
                settle(&db).await;
                settle(&copy).await;
                let (copied, original) = read().await;
                assert!(copied.is_empty() || copied == original, "{what}: a part of a batch was committed");
                rewrite(&db.options, &copy.options).await.unwrap();
                let (copied, original) = read().await;
                assert!(copied == original, "{what}: it was not completed");
                reached |= was_reached;
                stopped += usize::from(was_reached);
            }
            if !reached {
                break;
            }
        }
    }
    assert!(stopped > 60, "{stopped}");
    println!("stopped {stopped} times");
}

fn evolved_schemas() -> Schemas {
    let customer = || subject("Customer", "/customer");
    let placed =
        event("Placed").version(1).protect(&["/name"], customer()).version(2).protect(&["/full_name"], customer());
    let placed = placed.change(1, Changes::new().move_value("/name", "/full_name"));
    Schemas::builder([placed]).accept_plaintext("Placed").build().unwrap()
}

fn evolved() -> SealedStore<PostgresStore> {
    SealedStore::new(PostgresStore::new(), PostgresKeys::new(), keyring(), evolved_schemas())
}
