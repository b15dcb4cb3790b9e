//! A primary and a hot standby, which the tests of standbys share: one test at a time, in a database of its own.

use super::{Store, process};
use eventseal::Namespace;
use eventseal::postgres::{PostgresKeys, PostgresStore};
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use std::sync::atomic::{AtomicUsize, Ordering};
use support::Deadline;
use support::cluster::{Primary, Standby};
use tokio::sync::{Mutex, MutexGuard};

static SERVERS: Mutex<Option<Servers>> = Mutex::const_new(None);
static DATABASES: AtomicUsize = AtomicUsize::new(0);

pub(super) struct Servers {
    pub(super) primary: Primary,
    pub(super) standby: Standby,
}

/// A database on both servers.
pub(super) struct Pair {
    servers: MutexGuard<'static, Option<Servers>>,
    name: String,
}

impl Pair {
    /// With tables, and with keys that are prepared.
    pub(super) async fn prepared() -> (Self, Store) {
        let (pair, store) = (Self::migrated().await, process());
        store.keys().prepare(&mut pair.primary().await).await.unwrap();
        pair.replayed().await;
        (pair, store)
    }

    /// With tables. They are on the standby when this returns.
    pub(super) async fn migrated() -> Self {
        let mut servers = SERVERS.lock().await;
        if servers.is_none() {
            let primary = Primary::start();
            // Commits are in the log when they return, as in a server that nobody has told otherwise.
            let mut connection = connect(&primary.options()).await;
            connection.execute("ALTER ROLE postgres SET synchronous_commit = on").await.unwrap();
            let standby = primary.standby();
            // It looks for its primary again soon after a crash of that.
            let mut connection = connect(&standby.options()).await;
            connection.execute("ALTER SYSTEM SET wal_retrieve_retry_interval = '50ms'").await.unwrap();
            connection.execute("SELECT pg_reload_conf()").await.unwrap();
            *servers = Some(Servers { primary, standby });
        }
        let name = format!("scaling_{}", DATABASES.fetch_add(1, Ordering::Relaxed));
        let pair = Self { servers, name };
        // A test that failed may have left the standby as it was then.
        pair.replay().await;
        let mut admin = connect(&pair.both().primary.options()).await;
        admin.execute("ALTER SYSTEM RESET synchronous_standby_names").await.unwrap();
        admin.execute("SELECT pg_reload_conf()").await.unwrap();
        admin.execute(AssertSqlSafe(format!("CREATE DATABASE {}", pair.name))).await.unwrap();
        let mut connection = pair.primary().await;
        PostgresStore::new().migrate(&mut connection).await.unwrap();
        PostgresKeys::new().migrate(&mut connection, &Namespace::new("scaling").unwrap()).await.unwrap();
        pair.replayed().await;
        pair
    }

    pub(super) fn both(&self) -> &Servers {
        self.servers.as_ref().unwrap()
    }

    pub(super) fn options(&self) -> PgConnectOptions {
        self.both().primary.options().database(&self.name)
    }

    pub(super) async fn primary(&self) -> PgConnection {
        connect(&self.options()).await
    }

    pub(super) async fn standby(&self) -> PgConnection {
        self.on(&self.both().standby).await
    }

    /// This database on another standby.
    pub(super) async fn on(&self, standby: &Standby) -> PgConnection {
        connect(&standby.options().database(&self.name)).await
    }

    /// From now on the standby receives everything, and shows nothing of it.
    pub(super) async fn pause(&self) {
        let mut standby = connect(&self.both().standby.options()).await;
        standby.execute("SELECT pg_wal_replay_pause()").await.unwrap();
        let deadline = Deadline::of("for the replay to pause");
        while !is(&mut standby, "pg_get_wal_replay_pause_state() = 'paused'").await {
            deadline.look_again().await;
        }
    }

    /// The standby shows again what it has received.
    pub(super) async fn replay(&self) {
        connect(&self.both().standby.options()).await.execute("SELECT pg_wal_replay_resume()").await.unwrap();
    }

    /// Waits until the standby shows all that is committed now.
    pub(super) async fn replayed(&self) {
        let at = self.position().await;
        let mut standby = connect(&self.both().standby.options()).await;
        let deadline = Deadline::of("for the standby");
        while !is(&mut standby, &format!("pg_last_wal_replay_lsn() >= '{at}'")).await {
            deadline.look_again().await;
        }
    }

    /// The end of the primary's log, with everything that is committed.
    pub(super) async fn position(&self) -> String {
        let sql = "SELECT pg_current_wal_lsn()::text";
        sqlx::query_scalar(sql).fetch_one(&mut self.primary().await).await.unwrap()
    }

    /// Waits until a commit on the primary waits for the standby, and goes on to wait when the standby has all of it on
    /// its disk. Returns the process that waits.
    pub(super) async fn commit_waits(&self) -> i32 {
        let waiting = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'SyncRep'";
        let received = "count(*) > 0 FROM pg_stat_replication
            WHERE sync_state = 'sync' AND flush_lsn >= pg_current_wal_flush_lsn()";
        let mut primary = self.primary().await;
        let deadline = Deadline::of("for a commit to wait for the standby");
        let pid = loop {
            if let Some(pid) = sqlx::query_scalar(waiting).fetch_optional(&mut primary).await.unwrap() {
                break pid;
            }
            deadline.look_again().await;
        };
        while !is(&mut primary, received).await {
            deadline.look_again().await;
        }
        // One that waited for the disk alone is through by now.
        for _ in 0..20 {
            let waits: Option<i32> = sqlx::query_scalar(waiting).fetch_optional(&mut primary).await.unwrap();
            assert_eq!(waits, Some(pid), "the commit waits for the replay");
        }
        pid
    }
}

pub(super) async fn connect(options: &PgConnectOptions) -> PgConnection {
    PgConnection::connect_with(options).await.unwrap()
}

pub(super) async fn is(connection: &mut PgConnection, condition: &str) -> bool {
    sqlx::query_scalar(AssertSqlSafe(format!("SELECT {condition}"))).fetch_one(connection).await.unwrap()
}
