//! Databases that go with the value: on a PostgreSQL server that is started here, and files of SQLite.

use crate::cluster;
use eventseal::keys::KeyManager;
use eventseal::kms::Kms;
use eventseal::postgres::{PostgresKeys, PostgresStore, PostgresTables};
use eventseal::sqlite::{SqliteKeys, SqliteStore};
use eventseal::{Keyring, Namespace, Schemas, SealedStore};
use sqlx::postgres::{PgConnection, PgPool, PgPoolOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor};
use std::future::Future;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};

pub const CONNECTIONS: u32 = 8;

static VERSION: OnceLock<String> = OnceLock::new();

/// Whether commits wait for the disk. It counts before the server's first use.
pub fn set_durable(durable: bool) {
    cluster::DURABLE.store(durable, Ordering::SeqCst);
}

/// The server's version, if it was used.
pub fn postgres_version() -> Option<String> {
    VERSION.get().cloned()
}

/// A database of PostgreSQL with event tables and key tables, and the runtime that talks to it.
pub struct Postgres {
    runtime: Runtime,
    name: String,
    pub pool: PgPool,
    pub keyring: Arc<Keyring>,
}

impl Postgres {
    /// One thread talks to it: what waits for an answer is woken without a switch of threads.
    pub fn new(what: &str) -> Self {
        Self::on(Builder::new_current_thread(), what)
    }

    /// Several threads talk to it.
    pub fn with_threads(what: &str) -> Self {
        Self::on(Builder::new_multi_thread(), what)
    }

    fn on(mut runtime: Builder, what: &str) -> Self {
        let runtime = runtime.enable_all().build().expect("a runtime");
        let name = format!("eventseal_bench_{}_{what}", std::process::id());
        let pool = runtime.block_on(async {
            let mut admin = PgConnection::connect_with(&cluster::server()).await.unwrap();
            admin.execute(AssertSqlSafe(format!("CREATE DATABASE {name}"))).await.unwrap();
            let version = sqlx::query_scalar("SHOW server_version").fetch_one(&mut admin).await.unwrap();
            VERSION.get_or_init(|| version);
            let options = PgPoolOptions::new().max_connections(CONNECTIONS);
            let pool = options.connect_with(cluster::server().database(&name)).await.unwrap();
            let namespace = Namespace::new("bench").unwrap();
            PostgresKeys::new().migrate(&mut pool.acquire().await.unwrap(), &namespace).await.unwrap();
            pool
        });
        Self { runtime, name, pool, keyring: Arc::new(Keyring::generate("main").unwrap()) }
    }

    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.runtime.block_on(future)
    }

    /// A connection that is not the pool's: one of those can only be dropped within the runtime.
    pub fn connection(&self) -> PgConnection {
        self.block_on(PgConnection::connect_with(&cluster::server().database(&self.name))).unwrap()
    }

    pub fn execute(&self, sql: impl Into<String>) {
        self.block_on(self.pool.execute(AssertSqlSafe(sql.into()))).unwrap();
    }

    /// Event tables that begin with this name. `sealed` is taken: the index of seals is called `sealed_events`.
    pub fn tables(&self, name: &str) -> PostgresTables {
        PostgresTables::new().events(format!("{name}_events")).heads(format!("{name}_heads"))
    }

    /// A store over these tables, which are made if they are not there.
    pub fn bare(&self, tables: PostgresTables) -> PostgresStore {
        let store = PostgresStore::with_tables(tables).unwrap();
        let mut connection = self.connection();
        self.block_on(store.migrate(&mut connection)).unwrap();
        store
    }

    /// A sealed store over these tables: a process of its own, with empty caches.
    pub fn sealed(&self, tables: PostgresTables, schemas: Schemas) -> SealedStore<PostgresStore> {
        self.sealed_with(tables, Arc::clone(&self.keyring), schemas)
    }

    pub fn sealed_with(
        &self,
        tables: PostgresTables,
        kms: impl Kms + 'static,
        schemas: Schemas,
    ) -> SealedStore<PostgresStore> {
        self.prepared(SealedStore::new(self.bare(tables), PostgresKeys::new(), kms, schemas))
    }

    /// A sealed store whose reads may lag.
    pub fn lagging(&self, tables: PostgresTables, schemas: Schemas) -> SealedStore<PostgresStore> {
        let keys = KeyManager::builder(PostgresKeys::new(), Arc::clone(&self.keyring));
        let keys = keys.reads_may_lag(Duration::from_secs(3_600)).build();
        self.prepared(SealedStore::with_keys(self.bare(tables), keys, schemas))
    }

    fn prepared(&self, store: SealedStore<PostgresStore>) -> SealedStore<PostgresStore> {
        let mut connection = self.connection();
        self.block_on(store.keys().prepare(&mut connection)).unwrap();
        store
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // A failure is about to end the process, and the server with it.
        if std::thread::panicking() {
            return;
        }
        self.block_on(async {
            self.pool.close().await;
            let mut admin = PgConnection::connect_with(&cluster::server()).await.unwrap();
            admin.execute(AssertSqlSafe(format!("DROP DATABASE {} WITH (FORCE)", self.name))).await.unwrap();
        });
    }
}

/// A file of SQLite with a write-ahead log, and the runtime that talks to it. It waits for the disk at each commit.
pub struct Sqlite {
    runtime: Runtime,
    options: SqliteConnectOptions,
    keyring: Arc<Keyring>,
    _folder: tempfile::TempDir,
}

impl Sqlite {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let options = SqliteConnectOptions::new().filename(folder.path().join("bench.db")).create_if_missing(true);
        let options = options.journal_mode(SqliteJournalMode::Wal);
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        let db = Self { runtime, options, keyring: Arc::new(Keyring::generate("main").unwrap()), _folder: folder };
        let mut connection = db.connection();
        let namespace = Namespace::new("bench").unwrap();
        db.block_on(SqliteKeys::new().migrate(&mut connection, &namespace)).unwrap();
        db
    }

    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.runtime.block_on(future)
    }

    pub fn connection(&self) -> SqliteConnection {
        self.block_on(self.options.connect()).unwrap()
    }

    pub fn bare(&self, name: &str) -> SqliteStore {
        let store = SqliteStore::with_tables(&format!("{name}_events"), &format!("{name}_heads")).unwrap();
        self.block_on(store.migrate(&mut self.connection())).unwrap();
        store
    }

    pub fn sealed(&self, name: &str, schemas: Schemas) -> SealedStore<SqliteStore> {
        let store = SealedStore::new(self.bare(name), SqliteKeys::new(), Arc::clone(&self.keyring), schemas);
        self.block_on(store.keys().prepare(&mut self.connection())).unwrap();
        store
    }
}

impl Default for Sqlite {
    fn default() -> Self {
        Self::new()
    }
}
