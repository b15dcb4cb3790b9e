//! A call that succeeds has done what it says, whatever happens in the database. A change that something prevents is an
//! error. A call that says that it is committed is. A change that must last outlasts a crash (invariants I5 and I6).

mod commits;
mod disk;
mod rows;

use async_trait::async_trait;
use eventseal::ExpectedVersion::Any;
use eventseal::keys::{KekId, RewrapOptions};
use eventseal::{EventStore, KeyScope, Keyring, NewEvent, Result, Schemas, SealedStore, aggregate, event, subject};
use sqlx::{AssertSqlSafe, Executor};
use support::backend::Backend;
use support::{Postgres, Sqlite};

const OLD: &str = "old:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
const BOTH: &str = "new:AQECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\nold:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

fn schemas() -> Schemas {
    Schemas::new([event("Placed").version(1).protect(&["/name"], subject("Customer", "/customer"))]).unwrap()
}

fn placed(customer: &str) -> NewEvent {
    NewEvent::raw("Placed", 1, format!(r#"{{"customer":"{customer}","name":"Ada"}}"#))
}

fn scope(customer: &str) -> KeyScope {
    KeyScope::new("Customer", customer)
}

#[async_trait]
trait Scripted: Backend {
    async fn execute(&self, sql: String) {
        self.raw(&sql).await.unwrap();
    }

    async fn raw(&self, sql: &str) -> sqlx::Result<()>;

    /// Lets the database accept inserts or updates of a table, and do nothing.
    async fn keep_away(&self, change: &str, table: &str);

    /// Ends that.
    async fn let_through(&self, change: &str, table: &str);

    fn with_keyring(&self, keyring: &str) -> SealedStore<Self::Store> {
        self.process_with(Self::Keys::default(), Keyring::parse(keyring).unwrap(), schemas())
    }
}

#[async_trait]
impl Scripted for Sqlite {
    async fn raw(&self, sql: &str) -> sqlx::Result<()> {
        self.pool.execute(AssertSqlSafe(sql.to_owned())).await.map(drop)
    }

    async fn keep_away(&self, change: &str, table: &str) {
        self.execute(format!(
            "CREATE TRIGGER {table}_{change} BEFORE {change} ON {table} BEGIN SELECT raise(IGNORE); END"
        ))
        .await;
    }

    async fn let_through(&self, change: &str, table: &str) {
        self.execute(format!("DROP TRIGGER {table}_{change}")).await;
    }
}

#[async_trait]
impl Scripted for Postgres {
    async fn raw(&self, sql: &str) -> sqlx::Result<()> {
        self.pool.execute(AssertSqlSafe(sql.to_owned())).await.map(drop)
    }

    async fn keep_away(&self, change: &str, table: &str) {
        let function =
            "CREATE OR REPLACE FUNCTION keep_away() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'";
        self.execute(function.to_owned()).await;
        self.execute(format!(
            "CREATE TRIGGER zz_{change} BEFORE {change} ON {table} FOR EACH ROW EXECUTE FUNCTION keep_away()"
        ))
        .await;
    }

    async fn let_through(&self, change: &str, table: &str) {
        self.execute(format!("DROP TRIGGER zz_{change} ON {table}")).await;
    }
}

/// A database with customers `live`, `disabled` and `shredded`, and a rotated key-encryption key.
async fn with_scopes<B: Scripted>(db: &B) -> (SealedStore<B::Store>, KekId) {
    let store = db.with_keyring(OLD);
    let mut connection = db.connect().await.unwrap();
    let connection = db.connection(&mut connection);
    store.keys().prepare(connection).await.unwrap();
    let mut transaction = db.begin().await.unwrap();
    let tx = db.tx(&mut transaction);
    store
        .append(tx, &aggregate("Order", "1"), Any, &[placed("live"), placed("disabled"), placed("shredded")])
        .await
        .unwrap();
    store.keys().disable(tx, &scope("disabled"), "r").await.unwrap();
    store.keys().shred(tx, &scope("shredded"), "r").await.unwrap();
    db.commit(transaction).await.unwrap();
    let unused = store.keys().create_kek(connection, "unused").await.unwrap();
    store.keys().rotate_kek(connection, "unused").await.unwrap();
    store.keys().rotate_kek(connection, "default").await.unwrap();
    (store, unused.kek_id)
}

async fn change<B: Scripted>(db: &B, store: &SealedStore<B::Store>, unused: KekId, operation: &str) -> Result<()> {
    let keys = store.keys();
    let mut connection = db.connect().await?;
    let connection = db.connection(&mut connection);
    match operation {
        "create_kek" => return keys.create_kek(connection, "tenant").await.map(drop),
        "rotate_kek" => return keys.rotate_kek(connection, "default").await.map(drop),
        "rewrap" => return keys.rewrap(connection, &RewrapOptions::default(), &mut |_| {}).await.map(drop),
        "retire_kek" => return keys.retire_kek(connection, unused).await,
        "move_master_key" => {
            return db.with_keyring(BOTH).keys().move_master_key(connection, None, &mut |_| {}).await.map(drop);
        }
        _ => {}
    }
    let mut transaction = db.begin().await?;
    let tx = db.tx(&mut transaction);
    match operation {
        "shred" => keys.shred(tx, &scope("live"), "r").await.map(drop),
        "shred a scope that was never seen" => keys.shred(tx, &scope("unknown"), "r").await.map(drop),
        "disable" => keys.disable(tx, &scope("live"), "r").await,
        "enable" => keys.enable(tx, &scope("disabled"), "r").await,
        "reopen" => keys.reopen(tx, &scope("shredded"), "r").await.map(drop),
        "rotate_data_key" => keys.rotate_data_key(tx, &scope("live")).await.map(drop),
        "append" => store.append(tx, &aggregate("Order", "2"), Any, &[placed("new")]).await.map(drop),
        other => panic!("{other}"),
    }
}
