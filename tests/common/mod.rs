//! Databases for tests, each of its own.

#![allow(dead_code, unreachable_pub, reason = "no test file uses all of it")]

#[cfg(feature = "postgres")]
pub mod cluster;
#[cfg(feature = "aws-kms")]
pub mod moto;
pub mod world;

use async_trait::async_trait;
use eventseal::*;
#[cfg(feature = "sqlite")]
use sqlx::SqliteConnection;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
use sqlx::Transaction;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
use sqlx::pool::PoolConnection;
#[cfg(feature = "postgres")]
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions};
#[cfg(feature = "sqlite")]
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool, SqlitePoolOptions};

pub struct Memory(pub MemoryDb);

impl Memory {
    pub fn new() -> Self {
        Self(MemoryDb::new(Namespace::new("conformance").unwrap()))
    }
}

#[cfg(feature = "conformance")]
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
#[cfg(feature = "sqlite")]
pub struct Sqlite {
    pub pool: SqlitePool,
    pub folder: tempfile::TempDir,
}

#[cfg(feature = "sqlite")]
impl Sqlite {
    /// Without tables.
    pub async fn empty() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let options = SqliteConnectOptions::new()
            .filename(folder.path().join("test.db"))
            .create_if_missing(true)
            .synchronous(sqlx::sqlite::SqliteSynchronous::Off);
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

#[cfg(all(feature = "sqlite", feature = "conformance"))]
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
#[cfg(feature = "postgres")]
pub struct Postgres {
    pub pool: PgPool,
    pub options: PgConnectOptions,
    name: String,
}

#[cfg(feature = "postgres")]
impl Postgres {
    /// Without tables.
    pub async fn empty() -> Self {
        let name = format!("eventseal_{}", uuid::Uuid::now_v7().simple());
        administer(format!("CREATE DATABASE {name}")).await;
        let options = cluster::server().database(&name);
        let pool = PgPoolOptions::new().max_connections(40).connect_with(options.clone()).await.unwrap();
        Self { pool, options, name }
    }

    /// With the tables of events and keys.
    pub async fn new() -> Self {
        let db = Self::empty().await;
        let mut connection = db.pool.acquire().await.unwrap();
        PostgresStore::new().migrate(&mut connection).await.unwrap();
        PostgresKeys::new().migrate(&mut connection, &Namespace::new("conformance").unwrap()).await.unwrap();
        drop(connection);
        db
    }
}

#[cfg(feature = "postgres")]
async fn administer(sql: String) {
    let mut connection = <PgConnection as sqlx::Connection>::connect_with(&cluster::server()).await.unwrap();
    sqlx::query(sqlx::AssertSqlSafe(sql)).execute(&mut connection).await.unwrap();
}

#[cfg(feature = "postgres")]
impl Drop for Postgres {
    fn drop(&mut self) {
        let sql = format!("DROP DATABASE {} WITH (FORCE)", self.name);
        // The test's own runtime may be about to end.
        let dropping = std::thread::spawn(|| {
            tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(administer(sql));
        });
        dropping.join().unwrap();
    }
}

#[cfg(all(feature = "postgres", feature = "conformance"))]
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
