//! Copies of the shred log that lose a connection while a shred is copied at once.

use crate::operations::keyring;
use crate::proxy::Proxy;
use crate::{Kill, Point, settle};
use eventseal::erasure::ShredLogCopy as _;
use eventseal::keys::{KeyManager, ShredProgress, ShredRequest};
use eventseal::postgres::{PostgresCopy, PostgresKeys};
use eventseal::{Error, KeyScope};
use sqlx::Connection;
use sqlx::postgres::{PgConnection, PgPoolOptions};
use std::sync::atomic::Ordering;
use support::Postgres;

/// The connection to the keys, or that to the copy, is lost at any statement of a shred of many whose decisions are
/// copied at once. What was reported is in the copy. What was not is completed by the next process, each line once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i11_i13_what_was_reported_is_in_the_copy_wherever_a_connection_is_lost() {
    let (db, elsewhere) = (Postgres::new().await, Postgres::empty().await);
    let copy = PostgresCopy::new(elsewhere.pool.clone());
    let keys = |copy: PostgresCopy| KeyManager::builder(PostgresKeys::new(), keyring()).copy_shred_log(copy).build();
    let whole = keys(copy.clone());
    whole.prepare(&mut db.pool.acquire().await.unwrap()).await.unwrap();
    whole.export_log(&mut db.pool.acquire().await.unwrap(), &copy, &mut |_| {}).await.unwrap();
    let mut stopped = 0;
    for of_copy in [false, true] {
        for request in 0.. {
            let mut reached = false;
            for (done, kill) in [(false, Kill::Terminate), (true, Kill::Cut)] {
                let what = format!("of the copy: {of_copy}, {request}, done: {done}, {kill:?}");
                let proxy =
                    Proxy::start(if of_copy { &elsewhere } else { &db }, Some((Point { request, done }, kill))).await;
                let through = proxy.options(if of_copy { &elsewhere } else { &db });
                let pool = PgPoolOptions::new().max_connections(1);
                let copies = if of_copy { through.clone() } else { elsewhere.options.clone() };
                let manager = keys(PostgresCopy::new(pool.connect_lazy_with(copies)));
                let requests = ["a", "b"].map(|id| ShredRequest {
                    scope: KeyScope::new("Customer", format!("{what} {id}")),
                    reason: "request".to_owned(),
                });
                let mut reported = 0;
                let ended = match PgConnection::connect_with(if of_copy { &db.options } else { &through }).await {
                    Ok(mut connection) => {
                        let mut progress = |at: ShredProgress| reported = at.scopes;
                        manager.shred_many(&mut connection, &requests, &mut progress).await.map(drop)
                    }
                    Err(error) => Err(Error::database("connecting", error)),
                };
                let was_reached = proxy.requests.load(Ordering::SeqCst) > request;
                // A connection that was lost after the answer, or before the first statement, may be replaced.
                assert!(ended.is_ok() || was_reached, "{what}: {ended:?}");
                let in_copy = |lines: &[String]| lines.iter().filter(|line| line.contains(&what)).count() as u64;
                let lines = copy.lines(0, 100_000).await.unwrap();
                assert!(in_copy(&lines) >= reported, "I13, {what}: {reported} were reported");
                settle(&db).await;
                let again = keys(copy.clone());
                again.copy_log(&mut db.pool.acquire().await.unwrap()).await.unwrap();
                let mut connection = db.pool.acquire().await.unwrap();
                again.shred_many(&mut connection, &requests, &mut |_| {}).await.unwrap();
                let lines = copy.lines(0, 100_000).await.unwrap();
                assert_eq!(in_copy(&lines), 2, "{what}: each once");
                let report = again.verify_log(&mut connection, &[&copy], &mut |_| {}).await.unwrap();
                assert!(report.is_sound() && report.copies[0].seq == report.seq, "{what}: {report:?}");
                reached |= was_reached;
                stopped += usize::from(was_reached);
            }
            if !reached {
                break;
            }
        }
    }
    assert!(stopped > 50, "{stopped}");
    println!("stopped {stopped} times");
}
