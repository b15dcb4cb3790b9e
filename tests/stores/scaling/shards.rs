//! Key tables that are split by the hash of the scope, behind a [`KeyStore`] that routes: what works with the ports as
//! they are, and what does not.

use super::{append, schemas};
use async_trait::async_trait;
use eventseal::error::KeyFault;
use eventseal::keys::{
    DataKeyRecord, DestroyedKey, KekId, KekRecord, KeyHistory, KeyId, KeyManager, KeyStore, LogEntry, NewDataKey,
    RewrapOptions, ScopeLock, ScopeRecord,
};
use eventseal::postgres::{PostgresKeys, PostgresStore};
use eventseal::{Error, EventStoreExt, KeyScope, Namespace, Result, SealedStore, aggregate};
use sqlx::{Connection, PgConnection};
use std::sync::Arc;
use support::{KEYRING, Postgres, customer_scope};
use time::OffsetDateTime;

/// Key tables behind prefixes in one database.
#[derive(Clone)]
struct Shards(Arc<[PostgresKeys]>);

impl Shards {
    fn new(count: usize) -> Self {
        Self((0..count).map(|shard| PostgresKeys::new().with_prefix(&format!("k{shard}_")).unwrap()).collect())
    }

    /// FNV-1a: it must never change. What belongs to the library itself is in the first shard.
    fn of(&self, scope: &KeyScope) -> usize {
        if scope.is_reserved() {
            return 0;
        }
        let bytes = scope.kind().bytes().chain([0]).chain(scope.id().bytes());
        let hash =
            bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        usize::try_from(hash % self.0.len() as u64).unwrap()
    }

    fn at(&self, scope: &KeyScope) -> &PostgresKeys {
        &self.0[self.of(scope)]
    }

    /// Keys are wrapped by a key of their own shard, whose rows the data keys refer to.
    fn partition(shard: usize) -> String {
        if shard == 0 { "default".to_owned() } else { format!("shard-{shard}") }
    }

    fn named(&self, partition: &str) -> &PostgresKeys {
        let shard = partition.strip_prefix("shard-").and_then(|shard| shard.parse().ok()).unwrap_or(0);
        &self.0[shard]
    }

    /// The scopes of each shard, in the order of the shards. All processes lock in this order.
    fn split(&self, scopes: &[KeyScope]) -> impl Iterator<Item = (&PostgresKeys, Vec<KeyScope>)> {
        let of = |shard| scopes.iter().filter(|scope| self.of(scope) == shard).cloned().collect::<Vec<_>>();
        self.0.iter().enumerate().map(move |(shard, keys)| (keys, of(shard))).filter(|(_, scopes)| !scopes.is_empty())
    }
}

#[async_trait]
impl KeyStore for Shards {
    type Tx = PgConnection;

    fn is_in_transaction(&self, tx: &PgConnection) -> bool {
        self.0[0].is_in_transaction(tx)
    }

    async fn sees_newest_state(&self, tx: &mut PgConnection) -> Result<bool> {
        self.0[0].sees_newest_state(tx).await
    }

    async fn namespace(&self, tx: &mut PgConnection) -> Result<Option<Namespace>> {
        self.0[0].namespace(tx).await
    }

    async fn active_kek(&self, tx: &mut PgConnection, partition: &str) -> Result<Option<KekRecord>> {
        self.named(partition).active_kek(tx, partition).await
    }

    async fn keks(&self, tx: &mut PgConnection, kek_ids: &[KekId]) -> Result<Vec<KekRecord>> {
        let mut found = Vec::new();
        for keys in self.0.iter() {
            found.extend(keys.keks(tx, kek_ids).await?);
        }
        Ok(found)
    }

    async fn announce_writing(&self, tx: &mut PgConnection) -> Result<()> {
        self.0[0].announce_writing(tx).await
    }

    async fn scopes(&self, tx: &mut PgConnection, scopes: &[KeyScope], lock: ScopeLock) -> Result<Vec<ScopeRecord>> {
        let mut found = Vec::new();
        for (keys, scopes) in self.split(scopes) {
            found.extend(keys.scopes(tx, &scopes, lock).await?);
        }
        Ok(found)
    }

    async fn create_scopes(&self, tx: &mut PgConnection, scopes: &[KeyScope]) -> Result<()> {
        for (keys, scopes) in self.split(scopes) {
            keys.create_scopes(tx, &scopes).await?;
        }
        Ok(())
    }

    async fn insert_keys(&self, tx: &mut PgConnection, keys: &[NewDataKey]) -> Result<()> {
        for (shard, table) in self.0.iter().enumerate() {
            let of_shard: Vec<_> = keys.iter().filter(|key| self.of(&key.scope) == shard).cloned().collect();
            if !of_shard.is_empty() {
                table.insert_keys(tx, &of_shard).await?;
            }
        }
        Ok(())
    }

    async fn commit_durably(&self, tx: &mut PgConnection) -> Result<()> {
        self.0[0].commit_durably(tx).await
    }

    /// A key id says nothing of its scope: every shard is asked.
    async fn data_keys(&self, tx: &mut PgConnection, key_ids: &[KeyId]) -> Result<Vec<DataKeyRecord>> {
        let mut found = Vec::new();
        for keys in self.0.iter() {
            found.extend(keys.data_keys(tx, key_ids).await?);
        }
        Ok(found)
    }

    async fn change_scope(&self, tx: &mut PgConnection, entry: &LogEntry) -> Result<()> {
        self.at(&entry.scope).change_scope(tx, entry).await
    }

    async fn destroy_keys(
        &self,
        tx: &mut PgConnection,
        scope: &KeyScope,
        at: OffsetDateTime,
    ) -> Result<Vec<DestroyedKey>> {
        self.at(scope).destroy_keys(tx, scope, at).await
    }

    async fn history(&self, tx: &mut PgConnection, scope: &KeyScope) -> Result<Option<KeyHistory>> {
        self.at(scope).history(tx, scope).await
    }
}

type Store = SealedStore<PostgresStore, dyn KeyStore<Tx = PgConnection>>;

fn process(shards: &Shards) -> Store {
    let of = shards.clone();
    let keys = KeyManager::over_key_store(shards.clone(), Arc::clone(&KEYRING))
        .kek_partition(move |scope| Shards::partition(of.of(scope)))
        .build();
    SealedStore::with_keys(PostgresStore::new(), keys, schemas())
}

async fn shown(connection: &mut PgConnection, store: &Store, id: &str) -> bool {
    let events = store.read_stream(connection, &aggregate("Order", id)).await.unwrap().events;
    !events[0].is_redacted()
}

#[tokio::test]
async fn i5_keys_that_are_split_by_the_hash_of_their_scope_are_used_and_shredded_through_a_router() {
    let (db, shards) = (Postgres::empty().await, Shards::new(3));
    let mut connection = db.pool.acquire().await.unwrap();
    PostgresStore::new().migrate(&mut connection).await.unwrap();
    let operators: Vec<_> = shards.0.iter().map(|keys| KeyManager::new(keys.clone(), Arc::clone(&KEYRING))).collect();
    for (shard, keys) in shards.0.iter().enumerate() {
        keys.migrate(&mut connection, &Namespace::new("sharded").unwrap()).await.unwrap();
        match shard {
            // The integrity key is in the first.
            0 => operators[shard].prepare(&mut connection).await.unwrap(),
            _ => drop(operators[shard].create_kek(&mut connection, &Shards::partition(shard)).await.unwrap()),
        }
    }
    let store = process(&shards);
    store.keys().open(&mut connection).await.unwrap();
    let ids: Vec<String> = (0..12).map(|id| id.to_string()).collect();
    for id in &ids {
        append(&mut connection, &store, id).await.unwrap();
    }
    for shard in 0..3 {
        let sql = format!("SELECT count(*) FROM k{shard}_data_keys WHERE scope_kind = 'Customer'");
        let rows: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_one(&mut *connection).await.unwrap();
        assert!(rows > 0, "shard {shard} has keys");
        let first = ids.iter().find(|id| shards.of(&customer_scope(id)) == shard).unwrap();
        assert!(shown(&mut connection, &store, first).await && shown(&mut connection, &process(&shards), first).await);
        let mut tx = connection.begin().await.unwrap();
        store.keys().shred(&mut tx, &customer_scope(first), "request 118").await.unwrap();
        tx.commit().await.unwrap();
        assert!(
            !shown(&mut connection, &store, first).await && !shown(&mut connection, &process(&shards), first).await
        );
        assert!(append(&mut connection, &store, first).await.unwrap_err().is_shredded());
    }
    // The keys of a shard are wrapped anew by an operator of that shard.
    operators[1].rotate_kek(&mut connection, "shard-1").await.unwrap();
    let rewrapped = operators[1].rewrap(&mut connection, &RewrapOptions::default(), &mut |_| {}).await.unwrap();
    assert!(rewrapped.rewrapped > 0);
    for id in &ids {
        let is_shredded = (0..3).any(|shard| ids.iter().find(|id| shards.of(&customer_scope(id)) == shard) == Some(id));
        assert_eq!(shown(&mut connection, &process(&shards), id).await, !is_shredded);
    }
    // Its shred log is not: the integrity key, which authenticates the entries, is in another shard.
    let unsealed = operators[1].seal_log(&mut connection).await;
    assert!(matches!(unsealed, Err(Error::Keys(KeyFault::NoActiveKek { .. }))), "{unsealed:?}");
}
