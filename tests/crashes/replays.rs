//! A replay of the shred log.

use crate::operations::{act, set_up, store};
use crate::proxy::Proxy;
use crate::{Kill, Point, settle};
use eventseal::Result;
use eventseal::erasure::{FileCopy, ReplayOptions, Replayed};
use sqlx::Connection;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use std::sync::atomic::Ordering;
use support::Postgres;

const SAVE: &str = "CREATE TABLE saved_keys AS SELECT * FROM data_keys;
    CREATE TABLE saved_scopes AS SELECT * FROM key_scopes; CREATE TABLE saved_entries AS SELECT * FROM shred_entries;
    CREATE TABLE saved_log AS SELECT * FROM shred_log; CREATE TABLE saved_head AS SELECT * FROM shred_log_head";
const RESTORE: &str = "BEGIN; SET LOCAL session_replication_role = replica;
    DELETE FROM shred_log; DELETE FROM shred_entries; DELETE FROM shred_log_head; DELETE FROM data_keys;
    DELETE FROM key_scopes; INSERT INTO key_scopes SELECT * FROM saved_scopes;
    INSERT INTO data_keys SELECT * FROM saved_keys; INSERT INTO shred_entries SELECT * FROM saved_entries;
    INSERT INTO shred_log SELECT * FROM saved_log; INSERT INTO shred_log_head SELECT * FROM saved_head; COMMIT";

/// A sealing or a replay that loses its connection, at any statement, leaves a log that holds, and running it again
/// completes it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i11_i13_a_replay_that_loses_its_connection_is_completed() {
    let db = Postgres::new().await;
    let keys = || store("");
    keys().keys().prepare(&mut db.pool.acquire().await.unwrap()).await.unwrap();
    set_up(&db, &store(""), "shred", "first").await;
    set_up(&db, &store(""), "reopen", "second").await;
    sqlx::raw_sql(SAVE).execute(&db.pool).await.unwrap();
    act(&db.options, "shred", "first").await.unwrap();
    act(&db.options, "reopen", "second").await.unwrap();
    set_up(&db, &store(""), "reopen", "third").await;
    let folder = tempfile::tempdir().unwrap();
    let copy = FileCopy::new(folder.path().join("log"));
    let mut connection = db.pool.acquire().await.unwrap();
    assert_eq!(keys().keys().export_log(&mut connection, &copy, &mut |_| {}).await.unwrap().seq, 4);
    drop(connection);
    let replay = async |options: &PgConnectOptions| -> Result<Replayed, Box<dyn std::error::Error>> {
        let mut connection = PgConnection::connect_with(options).await?;
        let mut batches = ReplayOptions::default();
        batches.batch = 2;
        Ok(keys().keys().replay_log(&mut connection, &[&copy], &batches, &mut |_| {}).await?)
    };
    let mut stopped = 0;
    // Without a fork, and with one.
    for own in ["", "fourth"] {
        for request in 0.. {
            let mut reached = false;
            for (done, kill) in [(false, Kill::Terminate), (true, Kill::Cut)] {
                sqlx::raw_sql(RESTORE).execute(&db.pool).await.unwrap();
                if !own.is_empty() {
                    set_up(&db, &store(""), "reopen", &format!("{own} {request} {done}")).await;
                    keys().keys().seal_log(&mut db.pool.acquire().await.unwrap()).await.unwrap();
                }
                let proxy = Proxy::start(&db, Some((Point { request, done }, kill))).await;
                let ended = replay(&proxy.options(&db)).await;
                let was_reached = proxy.requests.load(Ordering::SeqCst) > request;
                let what = format!("{own:?}, {request}, done: {done}, {kill:?}");
                assert_eq!(ended.is_err(), was_reached, "{what}: {ended:?}");
                settle(&db).await;
                let done = replay(&db.options).await.unwrap();
                assert!(done.is_complete() && done.forked != own.is_empty(), "{what}: {done:?}");
                let mut connection = db.pool.acquire().await.unwrap();
                let report = keys().keys().verify_log(&mut connection, &[&copy], &mut |_| {}).await.unwrap();
                assert!(report.is_sound(), "{what}: {report:?}");
                let left: i64 =
                    sqlx::query_scalar("SELECT count(wrapped_key) FROM data_keys WHERE scope_id IN ('first', 'third')")
                        .fetch_one(&mut *connection)
                        .await
                        .unwrap();
                assert_eq!(left, 0, "I13, {what}");
                reached |= was_reached;
                stopped += usize::from(was_reached);
            }
            if !reached {
                break;
            }
        }
    }
    assert!(stopped > 100, "{stopped}");
    println!("stopped {stopped} times");
}
