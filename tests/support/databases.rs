//! Databases, each test's own: in memory, a file of SQLite, a database of the PostgreSQL server.

#[cfg(feature = "databases")]
use crate::cluster;
use async_trait::async_trait;
#[cfg(feature = "databases")]
use eventseal::Error;
use eventseal::memory::{MemoryDb, MemoryTx};
#[cfg(feature = "databases")]
use eventseal::postgres::{PostgresKeys, PostgresStore};
#[cfg(feature = "databases")]
use eventseal::sqlite::{SqliteKeys, SqliteStore};
use eventseal::{Namespace, Result, conformance};
#[cfg(feature = "databases")]
use sqlx::SqliteConnection;
#[cfg(feature = "databases")]
use sqlx::Transaction;
#[cfg(feature = "databases")]
use sqlx::pool::PoolConnection;
#[cfg(feature = "databases")]
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions};
#[cfg(feature = "databases")]
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool, SqlitePoolOptions};

pub struct Memory(pub MemoryDb);

impl Memory {
    pub fn new() -> Self {
        Self(MemoryDb::new(Namespace::new("conformance").unwrap()))
    }
}

#[async_trait]
impl conformance::Database for Memory {
    type Tx = MemoryTx;
    type Transaction = MemoryTx;
    type Connection = MemoryTx;

    async fn connect(&self) -> Result<MemoryTx> {
        Ok(self.0.begin())
    }

    fn connection<'c>(&self, connection: &'c mut MemoryTx) -> &'c mut MemoryTx {
        connection
    }

    async fn begin(&self) -> Result<MemoryTx> {
        Ok(self.0.begin())
    }

    fn tx<'t>(&self, transaction: &'t mut MemoryTx) -> &'t mut MemoryTx {
        transaction
    }

    async fn commit(&self, transaction: MemoryTx) -> Result<()> {
        transaction.commit()
    }
}

/// A database file that goes with the value.
#[cfg(feature = "databases")]
pub struct Sqlite {
    pub pool: SqlitePool,
    pub folder: tempfile::TempDir,
}

#[cfg(feature = "databases")]
impl Sqlite {
    /// Without tables.
    pub async fn empty() -> Self {
        // Changes of scopes are refused where commits are not durable. In memory, these cost nothing.
        let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let options = SqliteConnectOptions::new().filename(folder.path().join("test.db")).create_if_missing(true);
        let pool = SqlitePoolOptions::new().max_connections(8).connect_with(options).await.unwrap();
        Self { pool, folder }
    }

    /// With the tables of events and keys.
    pub async fn new() -> Self {
        let db = Self::empty().await;
        let mut connection = db.pool.acquire().await.unwrap();
        SqliteStore::new().migrate(&mut connection).await.unwrap();
        SqliteKeys::new().migrate(&mut connection, &Namespace::new("conformance").unwrap()).await.unwrap();
        drop(connection);
        db
    }
}

#[cfg(feature = "databases")]
#[async_trait]
impl conformance::Database for Sqlite {
    type Tx = SqliteConnection;
    type Transaction = Transaction<'static, sqlx::Sqlite>;
    type Connection = PoolConnection<sqlx::Sqlite>;

    async fn connect(&self) -> Result<Self::Connection> {
        Ok(self.pool.acquire().await.unwrap())
    }

    fn connection<'c>(&self, connection: &'c mut Self::Connection) -> &'c mut SqliteConnection {
        connection
    }

    async fn begin(&self) -> Result<Self::Transaction> {
        Ok(self.pool.begin().await.unwrap())
    }

    fn tx<'t>(&self, transaction: &'t mut Self::Transaction) -> &'t mut SqliteConnection {
        transaction
    }

    async fn commit(&self, transaction: Self::Transaction) -> Result<()> {
        transaction.commit().await.map_err(|source| Error::Collision { source: Some(source.into()) })
    }
}

/// A database of a PostgreSQL server that goes with the value.
#[cfg(feature = "databases")]
pub struct Postgres {
    pub pool: PgPool,
    pub options: PgConnectOptions,
    name: String,
}

#[cfg(feature = "databases")]
impl Postgres {
    /// Without tables.
    pub async fn empty() -> Self {
        let db = Self::unmade();
        administer(format!("CREATE DATABASE {}", db.name)).await;
        db
    }

    /// With the tables of events and keys.
    pub async fn new() -> Self {
        // A server that stays would keep the template.
        if !cluster::is_throw_away() {
            let db = Self::empty().await;
            db.make_tables().await;
            return db;
        }
        let template = TEMPLATE.get_or_init(Self::template).await;
        let db = Self::unmade();
        administer(format!("CREATE DATABASE {} TEMPLATE {template}", db.name)).await;
        db
    }

    /// Makes a database from which others are copied: migrations take longer than a copy.
    async fn template() -> String {
        let mut db = Self::empty().await;
        db.make_tables().await;
        // Nobody may be connected to what is copied.
        db.pool.close().await;
        std::mem::take(&mut db.name)
    }

    async fn make_tables(&self) {
        let mut connection = self.pool.acquire().await.unwrap();
        PostgresStore::new().migrate(&mut connection).await.unwrap();
        PostgresKeys::new().migrate(&mut connection, &Namespace::new("conformance").unwrap()).await.unwrap();
    }

    /// A name, and a pool that connects to it when it is asked to.
    fn unmade() -> Self {
        let name = format!("eventseal_{}", uuid::Uuid::now_v7().simple());
        let options = cluster::server().database(&name);
        let pool = PgPoolOptions::new().max_connections(40).connect_lazy_with(options.clone());
        Self { pool, options, name }
    }
}

#[cfg(feature = "databases")]
static TEMPLATE: tokio::sync::OnceCell<String> = tokio::sync::OnceCell::const_new();

/// Event tables as eventsalsa/store 0.1 and later makes them if events are partitioned by position: with a sequence of
/// their own, and no unique constraint but the primary key. There is a default partition, as pg_partman makes it, and
/// the index on event ids that `doctor` asks for.
#[cfg(feature = "databases")]
const PARTITIONED: &str = "
    CREATE SEQUENCE events_global_position_seq;
    CREATE TABLE events (
        global_position BIGINT NOT NULL DEFAULT nextval('events_global_position_seq'),
        stream_type TEXT NOT NULL, stream_id TEXT NOT NULL, stream_version BIGINT NOT NULL,
        event_id UUID NOT NULL, event_type TEXT NOT NULL, event_version INT NOT NULL DEFAULT 1, payload BYTEA NOT NULL,
        trace_id TEXT, correlation_id TEXT, causation_id TEXT,
            metadata JSONB, created_at TIMESTAMPTZ NOT NULL DEFAULT now(),
        PRIMARY KEY (global_position)
    ) PARTITION BY RANGE (global_position);
    CREATE TABLE events_default PARTITION OF events DEFAULT;
    CREATE INDEX idx_events_stream ON events (stream_type, stream_id, stream_version);
    CREATE INDEX idx_events_event_id ON events (event_id);
    CREATE INDEX idx_events_event_type ON events (event_type, global_position);
    CREATE INDEX idx_events_correlation ON events (correlation_id) WHERE correlation_id IS NOT NULL;
    CREATE INDEX idx_events_stream_type_position ON events (stream_type, global_position);
    CREATE TABLE stream_heads (
        stream_type TEXT NOT NULL, stream_id TEXT NOT NULL, stream_version BIGINT NOT NULL,
        updated_at TIMESTAMPTZ NOT NULL DEFAULT now(), PRIMARY KEY (stream_type, stream_id)
    );
    CREATE INDEX idx_stream_heads_updated ON stream_heads (updated_at);";

#[cfg(feature = "databases")]
impl Postgres {
    /// Makes partitioned tables of events, with partitions for these positions (the second excluded) and one for the
    /// rest.
    pub async fn partitioned(&self, partitions: &[(i64, i64)]) {
        let mut sql = PARTITIONED.to_owned();
        for (from, to) in partitions {
            sql += &format!("CREATE TABLE events_p{from} PARTITION OF events FOR VALUES FROM ({from}) TO ({to});");
        }
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&self.pool).await.unwrap();
    }
}

#[cfg(feature = "databases")]
async fn administer(sql: String) {
    let mut connection = <PgConnection as sqlx::Connection>::connect_with(&cluster::server()).await.unwrap();
    sqlx::query(sqlx::AssertSqlSafe(sql)).execute(&mut connection).await.unwrap();
}

#[cfg(feature = "databases")]
impl Drop for Postgres {
    fn drop(&mut self) {
        // The template has given its name away.
        if self.name.is_empty() {
            return;
        }
        let sql = format!("DROP DATABASE {} WITH (FORCE)", self.name);
        // The test's own runtime may be about to end.
        let dropping = std::thread::spawn(|| {
            tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(administer(sql));
        });
        dropping.join().unwrap();
    }
}

#[cfg(feature = "databases")]
#[async_trait]
impl conformance::Database for Postgres {
    type Tx = PgConnection;
    type Transaction = Transaction<'static, sqlx::Postgres>;
    type Connection = PoolConnection<sqlx::Postgres>;

    async fn connect(&self) -> Result<Self::Connection> {
        Ok(self.pool.acquire().await.unwrap())
    }

    fn connection<'c>(&self, connection: &'c mut Self::Connection) -> &'c mut PgConnection {
        connection
    }

    async fn begin(&self) -> Result<Self::Transaction> {
        Ok(self.pool.begin().await.unwrap())
    }

    fn tx<'t>(&self, transaction: &'t mut Self::Transaction) -> &'t mut PgConnection {
        transaction
    }

    async fn commit(&self, transaction: Self::Transaction) -> Result<()> {
        transaction.commit().await.map_err(|source| Error::Collision { source: Some(source.into()) })
    }
}
