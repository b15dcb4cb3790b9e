//! Connections and processes that end in the middle of something, on PostgreSQL: nothing is left half done
//! (invariants I5, I6, I11 and I14).
//!
//! A client talks to the server through a proxy that counts what it asks for. At each of its statements in turn, just
//! before the server gets it and just after the server has done it, the connection is terminated by the server, cut, or
//! the client process is killed. Afterwards the tables are as they were before or, if the commit had been done, as they
//! are when all went well.

mod copies;
mod operations;
mod proxy;
mod replays;
mod rewrites;

use eventseal::postgres::PostgresStore;
use eventseal::store::EventTable;
use operations::{OPERATIONS, act, act_on, look, set_up, store};
use proxy::{Proxy, through};
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use support::{Deadline, Postgres};
use tokio::process::Command;
use tokio::task::JoinSet;
use uuid::Uuid;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kill {
    /// The server ends the connection, as an administrator makes it.
    Terminate,
    /// The network connection is cut.
    Cut,
    /// The client process is killed.
    Process,
}

/// Where a client is stopped.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Point {
    /// The number of its request, from 0.
    request: usize,
    /// Has the server carried out the request?
    done: bool,
}

/// On how many databases operations are stopped at the same time.
const DATABASES: usize = 6;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i5_i6_i11_whatever_ends_in_the_middle_leaves_nothing_half_done() {
    if let Ok(operation) = std::env::var("EVENTSEAL_CHILD") {
        // This process is the client that another one is going to kill.
        let options = support::cluster::server().database(&std::env::var("EVENTSEAL_DATABASE").unwrap());
        let options = through(Path::new(&std::env::var_os("EVENTSEAL_PROXY").unwrap()), &options);
        act(&options, &operation, &std::env::var("EVENTSEAL_NAME").unwrap()).await.unwrap();
        return;
    }
    let next = Arc::new(AtomicUsize::new(0));
    let mut working = JoinSet::new();
    for _ in 0..DATABASES {
        let next = Arc::clone(&next);
        working.spawn(async move {
            let db = Postgres::new().await;
            store("").keys().prepare(&mut *db.pool.acquire().await.unwrap()).await.unwrap();
            PostgresStore::new().seal_index().unwrap().make(&mut *db.pool.acquire().await.unwrap()).await.unwrap();
            // With an event, so that each run finds an index that ends at one.
            set_up(&db, &store(""), "append", "first").await;
            let mut stopped = 0;
            while let Some(operation) = OPERATIONS.get(next.fetch_add(1, Ordering::SeqCst)) {
                stopped += stop_everywhere(&db, operation).await;
            }
            stopped
        });
    }
    let stopped: usize = working.join_all().await.into_iter().sum();
    assert!(stopped > 1_000, "{stopped}");
    println!("stopped {stopped} times");
}

/// Stops an operation at each of its statements, in each way. Returns how often.
async fn stop_everywhere(db: &Postgres, operation: &str) -> usize {
    let fresh = || format!("x{}_", &Uuid::now_v7().simple().to_string()[12..]);
    let warm = store("");
    let (calm, name) = (Proxy::start(db, None).await, fresh());
    set_up(db, &warm, operation, &name).await;
    let before = look(db, operation, &name).await;
    run(db, &calm, operation, &name, false).await;
    let (requests, after) = (calm.requests.load(Ordering::SeqCst), look(db, operation, &name).await);
    assert!(requests >= 5, "{operation}: the proxy saw {requests} requests");
    let commits = calm.commits.lock().unwrap().clone();
    // A sweep commits its shred, and then gives the entry its number.
    let commit = if operation == "sweep" { commits.first() } else { commits.last() };
    let commit = *commit.unwrap_or(&usize::MAX);
    let mut stopped = 0;
    for request in 0..requests {
        for done in [false, true] {
            for kill in [Kill::Terminate, Kill::Cut, Kill::Process] {
                let (point, name) = (Point { request, done }, fresh());
                set_up(db, &warm, operation, &name).await;
                let proxy = Proxy::start(db, Some((point, kill))).await;
                let committed = (request, done) >= (commit, true);
                run(db, &proxy, operation, &name, operation == "sweep" && committed).await;
                settle(db).await;
                let left = look(db, operation, &name).await;
                let what = format!("{operation}, {kill:?} at {point:?} of {requests}");
                if operation == "prepare" {
                    // Each of its statements is committed on its own, in an order that leaves none half done.
                    assert!(["0 0 0/0", "1 0 0/0", "1 1 1/1"].contains(&&*left), "{what}: {left}");
                } else {
                    assert_eq!(left, if committed { &*after } else { &*before }, "{what}");
                }
                // The operation runs again without a disturbance, and completes.
                if left != after || operation == "prepare" {
                    act_on(&mut db.pool.acquire().await.unwrap(), operation, &name).await.unwrap();
                    assert_eq!(look(db, operation, &name).await, after, "{what}");
                }
                stopped += 1;
            }
        }
    }
    let mut connection = db.pool.acquire().await.unwrap();
    let log = warm.keys().verify_log(&mut connection, &[], &mut |_| {}).await.unwrap();
    assert!(log.is_sound(), "I14, {operation}: {log:?}");
    stopped
}

/// Runs the operation through the proxy until it is stopped, or to its end. If its work `may_be_done`, it need not fail
/// when it is stopped.
async fn run(db: &Postgres, proxy: &Proxy, operation: &str, name: &str, may_be_done: bool) {
    let killed = proxy.stop.map(|(_, kill)| kill);
    if killed == Some(Kill::Process) {
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", "i5_i6_i11_whatever_ends_in_the_middle_leaves_nothing_half_done"]);
        child.env("EVENTSEAL_CHILD", operation).env("EVENTSEAL_NAME", name).env("EVENTSEAL_PROXY", proxy.folder.path());
        if std::env::var_os("DATABASE_URL").is_none() {
            child.env(
                "DATABASE_URL",
                format!("postgres://postgres@localhost?host={}", db.options.get_socket().unwrap().display()),
            );
        }
        child.env("EVENTSEAL_DATABASE", db.options.get_database().unwrap());
        let mut child = child.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        tokio::select! {
            () = proxy.reached.notified() => child.kill().await.unwrap(),
            ended = child.wait() => panic!("the child ended by itself: {ended:?}"),
        }
    } else {
        let done = act(&proxy.options(db), operation, name).await;
        assert!(done.is_err() == killed.is_some() || may_be_done, "{operation}, {:?}: {done:?}", proxy.stop);
    }
}

/// Waits until the server has noticed that clients went, and rolled back what they had begun.
async fn settle(db: &Postgres) {
    let mut connection = db.pool.acquire().await.unwrap();
    let deadline = Deadline::of("for transactions to end whose client has gone");
    loop {
        deadline.look_again().await;
        let busy: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() AND \
             xact_start IS NOT NULL",
        )
        .fetch_one(&mut *connection)
        .await
        .unwrap();
        if busy == 0 {
            return;
        }
    }
}
