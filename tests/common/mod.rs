//! Databases for tests, each of its own.

#![allow(dead_code, unreachable_pub, reason = "no test file uses all of it")]

use async_trait::async_trait;
use eventseal::*;
#[cfg(feature = "sqlite")]
use sqlx::pool::PoolConnection;
#[cfg(feature = "sqlite")]
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool, SqlitePoolOptions};
#[cfg(feature = "sqlite")]
use sqlx::{SqliteConnection, Transaction};

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
