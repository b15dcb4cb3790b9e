//! The file with the test keys of a corpus: everything that is needed to open its sealed cases.

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use eventseal::error::{KeyFault, SetUpFault};
use eventseal::keys::{
    KekId, KekRecord, KekState, KeyId, KeyManager, KeyRows, KeyStore, KeyTable, KeyWork, NewDataKey,
};
use eventseal::kms::WrappedKek;
use eventseal::memory::{MemoryDb, MemoryKeys};
use eventseal::{Error, KeyScope, Keyring, Namespace, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use time::OffsetDateTime;
use uuid::Uuid;

/// The partition of the corpus's only key-encryption key.
const PARTITION: &str = "default";
const WARNING: &str =
    "Test keys. They open the test events in this folder and nothing else. Commit them, and use them nowhere else.";

/// The content of the file: the whole key database of a corpus.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TestKeys {
    eventseal_test_keys: u32,
    warning: String,
    namespace: String,
    keyring: String,
    kek: Kek,
    /// In order of scope and version.
    data_keys: Vec<DataKey>,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kek {
    id: Uuid,
    wrapped_by: String,
    wrapped_key: String,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct DataKey {
    scope_kind: String,
    scope_id: String,
    version: u32,
    id: Uuid,
    wrapped_key: String,
}

/// A database in memory with the test keys, and the keyring that opens them.
pub(super) struct KeyDb {
    pub(super) db: MemoryDb,
    namespace: Namespace,
    keyring: String,
    /// The scopes whose keys the file has.
    scopes: BTreeSet<KeyScope>,
}

impl KeyDb {
    /// Makes new keys, for a new corpus.
    pub(super) async fn generate() -> Result<Self> {
        let mut key = [0; 32];
        getrandom::fill(&mut key).map_err(|_| Error::Keys(KeyFault::Random))?;
        let keyring = format!("test-only:{}", STANDARD.encode(key));
        let namespace = Namespace::new("golden-corpus")?;
        let keys = Self {
            db: MemoryDb::new(namespace.clone()),
            namespace,
            keyring,
            scopes: BTreeSet::from([KeyScope::integrity()]),
        };
        KeyManager::new(MemoryKeys::new(), keys.keyring()?).prepare(&mut keys.db.begin()).await?;
        Ok(keys)
    }

    pub(super) fn keyring(&self) -> Result<Keyring> {
        Keyring::parse(&self.keyring)
    }

    /// Loads the keys of a file. The error says what is wrong with the file.
    pub(super) async fn load(file: &TestKeys) -> Result<Self, String> {
        let shown = |error: Error| error.to_string();
        let blob = |text: &String| {
            STANDARD.decode(text).map_err(|error| format!("wrapped_key {text:?} is not base64: {error}"))
        };
        if file.eventseal_test_keys != 1 {
            return Err(format!(
                "it is of format {}, which this version of eventseal does not know",
                file.eventseal_test_keys
            ));
        }
        let namespace = Namespace::new(file.namespace.as_str()).map_err(shown)?;
        let db = MemoryDb::new(namespace.clone());
        let at = OffsetDateTime::now_utc();
        let kek = KekRecord {
            kek_id: KekId(file.kek.id),
            partition: PARTITION.to_owned(),
            provider: "keyring".to_owned(),
            wrapped: WrappedKek {
                master_key_id: file.kek.wrapped_by.clone(),
                ciphertext: blob(&file.kek.wrapped_key)?,
            },
            state: KekState::Active,
            created_at: at,
            wrapped_at: at,
        };
        MemoryKeys::new()
            .in_transaction(&mut db.begin(), "filling a golden corpus's keys", &mut FirstKek(&kek))
            .await
            .map_err(shown)?;
        let mut keys = Vec::with_capacity(file.data_keys.len());
        for key in &file.data_keys {
            keys.push(NewDataKey {
                key_id: KeyId(key.id),
                scope: KeyScope::new(key.scope_kind.as_str(), key.scope_id.as_str()),
                version: key.version,
                kek_id: kek.kek_id,
                wrapped_key: blob(&key.wrapped_key)?,
                created_at: at,
            });
        }
        let mut scopes: BTreeSet<KeyScope> = keys.iter().map(|key| key.scope.clone()).collect();
        let mut tx = db.begin();
        MemoryKeys::new().create_scopes(&mut tx, &Vec::from_iter(scopes.clone())).await.map_err(shown)?;
        MemoryKeys::new().insert_keys(&mut tx, &keys).await.map_err(shown)?;
        tx.commit().map_err(shown)?;
        scopes.insert(KeyScope::integrity());
        Ok(Self { db, namespace, keyring: file.keyring.clone(), scopes })
    }

    /// The content for the file: the keys of the scopes that it had, and of these new ones.
    pub(super) async fn save(&self, new: &BTreeSet<KeyScope>) -> Result<TestKeys> {
        let (keys, mut tx) = (MemoryKeys::new(), self.db.begin());
        let kek = keys.active_kek(&mut tx, PARTITION).await?.ok_or(Error::SetUp(SetUpFault::NotMigrated))?;
        let mut data_keys = Vec::new();
        for scope in self.scopes.union(new) {
            let Some(history) = keys.history(&mut tx, scope).await? else { continue };
            let ids: Vec<KeyId> = history.keys.iter().map(|key| key.key_id).collect();
            data_keys.extend(keys.data_keys(&mut tx, &ids).await?.into_iter().map(|key| DataKey {
                scope_kind: key.scope.kind().to_owned(),
                scope_id: key.scope.id().to_owned(),
                version: key.version,
                id: key.key_id.0,
                wrapped_key: STANDARD.encode(key.wrapped_key.unwrap_or_default()),
            }));
        }
        data_keys.sort_by(|a, b| (&a.scope_kind, &a.scope_id, a.version).cmp(&(&b.scope_kind, &b.scope_id, b.version)));
        Ok(TestKeys {
            eventseal_test_keys: 1,
            warning: WARNING.to_owned(),
            namespace: self.namespace.as_str().to_owned(),
            keyring: self.keyring.clone(),
            kek: Kek {
                id: kek.kek_id.0,
                wrapped_by: kek.wrapped.master_key_id.clone(),
                wrapped_key: STANDARD.encode(&kek.wrapped.ciphertext),
            },
            data_keys,
        })
    }

    /// Every scope of the file, without those that eventseal uses for itself.
    pub(super) fn scopes(&self) -> impl Iterator<Item = &KeyScope> {
        self.scopes.iter().filter(|scope| !scope.is_reserved())
    }
}

/// The key-encryption key of a corpus, which is inserted into an empty key table.
struct FirstKek<'a>(&'a KekRecord);

#[async_trait]
impl KeyWork for FirstKek<'_> {
    async fn run(&mut self, rows: &mut dyn KeyRows) -> Result<()> {
        rows.insert_kek(self.0).await.map(drop)
    }
}
