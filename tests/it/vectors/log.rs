//! The vectors of copies of the shred log, `v1_log_pass.json` and `v1_log_fail.json`: what the engine makes of a copy
//! that somebody hands to a key table without a log.

use super::case::{bytes_of, hex_of, parse};
use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use eventseal::erasure::{ReplayOptions, Replayed, ShredLogCopy};
use eventseal::error::{BoxError, KeyFault};
use eventseal::keys::{
    KekId, KekRecord, KekState, KeyId, KeyManager, KeyRows, KeyStore, KeyTable, KeyWork, NewDataKey,
};
use eventseal::kms::WrappedKek;
use eventseal::memory::{MemoryDb, MemoryKeys, MemoryTx};
use eventseal::{Error, KeyScope, Keyring, Namespace, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeSet;
use std::sync::Mutex;
use time::OffsetDateTime;
use uuid::Uuid;

/// A file of copies.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LogVectors {
    pub(super) about: String,
    pub(super) format: u8,
    pub(super) logs: Vec<LogCase>,
}

/// A copy, and what a reader makes of it: `seq`, `hash` and `entries`, or `line` and `error`.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LogCase {
    pub(super) name: String,
    pub(super) namespace: String,
    pub(super) master_key_id: String,
    pub(super) master_key: String,
    pub(super) lines: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) seq: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) hash: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) entries: Option<Vec<Parts>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) line: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<String>,
}

/// What the MAC of an entry covers, and what its row in the chain covers.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Parts {
    pub(super) transcript: String,
    pub(super) digest: String,
}

/// The words of the vectors for what the engine says. The first that fits is meant.
const ERRORS: [(&str, &str); 15] = [
    ("is not JSON", "json"),
    ("has format", "format"),
    ("has no valid", "member"),
    ("is of namespace", "namespace"),
    ("has other keys than it says", "keys"),
    ("is not where it was written", "place"),
    ("has a number that an earlier line has", "repeated"),
    ("is not the next one of its scope", "entry-number"),
    ("names no integrity key", "key"),
    ("is not authentic: it was altered, moved or invented", "entry-mac"),
    ("has no MAC", "no-mac"),
    ("is not the next one: a row", "row-number"),
    ("does not follow from the row before", "previous-hash"),
    ("is not that of its entry", "hash"),
    ("is not authentic: it was altered or invented", "row-mac"),
];

/// A copy in memory.
struct Lines(Mutex<Vec<String>>);

#[async_trait]
impl ShredLogCopy for Lines {
    fn name(&self) -> String {
        "the vectors".to_owned()
    }

    async fn last(&self) -> Result<Option<String>, BoxError> {
        Ok(self.0.lock().unwrap().last().cloned())
    }

    async fn lines(&self, from: u64, limit: u32) -> Result<Vec<String>, BoxError> {
        let lines = self.0.lock().unwrap();
        Ok(lines.iter().skip(usize::try_from(from)?).take(limit as usize).cloned().collect())
    }

    async fn append(&self, _: Option<&str>, lines: &[String]) -> Result<(), BoxError> {
        self.0.lock().unwrap().extend_from_slice(lines);
        Ok(())
    }
}

/// Puts the key-encryption key of a copy into a table.
struct Install(KekRecord);

#[async_trait]
impl KeyWork for Install {
    async fn run(&mut self, rows: &mut dyn KeyRows) -> Result<()> {
        assert!(rows.insert_kek(&self.0).await?);
        Ok(())
    }
}

fn id(value: &Value) -> Uuid {
    parse(value.as_str().unwrap())
}

fn base64(value: &Value) -> Vec<u8> {
    STANDARD.decode(value.as_str().unwrap()).unwrap()
}

fn time(value: &Value) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(value.as_i64().unwrap()) * 1_000).unwrap()
}

impl LogCase {
    /// A key table with the keys of the copy, and without a log.
    async fn key_table_of_copy(&self) -> (MemoryDb, KeyManager<MemoryTx>) {
        let (db, table) = (MemoryDb::new(Namespace::new(self.namespace.as_str()).unwrap()), MemoryKeys::new());
        let lines = self.lines.iter().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let copied = lines.filter_map(|line| line.get("copied_keys").cloned()).next_back().unwrap();
        let kek = &copied["keks"][0];
        let wrapped = WrappedKek {
            master_key_id: kek["master_key_id"].as_str().unwrap().to_owned(),
            ciphertext: base64(&kek["wrapped_kek"]),
        };
        let created_at = time(&kek["created_at"]);
        let mut install = Install(KekRecord {
            kek_id: KekId(id(&kek["kek_id"])),
            partition: kek["partition"].as_str().unwrap().to_owned(),
            provider: kek["provider"].as_str().unwrap().to_owned(),
            wrapped,
            state: KekState::Active,
            created_at,
            wrapped_at: created_at,
        });
        table.in_transaction(&mut db.begin(), "installing", &mut install).await.unwrap();
        let (mut tx, scope) = (db.begin(), KeyScope::new("$eventseal", "integrity"));
        table.create_scopes(&mut tx, std::slice::from_ref(&scope)).await.unwrap();
        for key in copied["integrity_keys"].as_array().unwrap() {
            let new = NewDataKey {
                key_id: KeyId(id(&key["key_id"])),
                scope: scope.clone(),
                version: u32::try_from(key["version"].as_u64().unwrap()).unwrap(),
                kek_id: KekId(id(&key["kek_id"])),
                wrapped_key: base64(&key["wrapped_key"]),
                created_at: time(&key["created_at"]),
            };
            table.insert_keys(&mut tx, &[new]).await.unwrap();
        }
        tx.commit().unwrap();
        let keys = self.manager();
        keys.prepare(&mut db.begin()).await.unwrap();
        (db, keys)
    }

    fn manager(&self) -> KeyManager<MemoryTx> {
        let ring = format!("{}:{}", self.master_key_id, STANDARD.encode(bytes_of(&self.master_key)));
        KeyManager::new(MemoryKeys::new(), Keyring::parse(&ring).unwrap())
    }

    /// A key table with keys of its own.
    async fn key_table(&self) -> (MemoryDb, KeyManager<MemoryTx>) {
        let db = MemoryDb::new(Namespace::new(self.namespace.as_str()).unwrap());
        let keys = self.manager();
        keys.prepare(&mut db.begin()).await.unwrap();
        (db, keys)
    }

    fn copy(&self) -> Lines {
        Lines(Mutex::new(self.lines.clone()))
    }
}

async fn replay(db: &MemoryDb, keys: &KeyManager<MemoryTx>, copy: &Lines) -> Result<Replayed> {
    keys.replay_log(&mut db.begin(), &[copy], &ReplayOptions::default(), &mut |_| {}).await
}

/// The lines of entries.
fn entries(lines: &[String]) -> Vec<Value> {
    let lines = lines.iter().map(|line| serde_json::from_str(line).unwrap());
    lines.filter(|line: &Value| line.get("entry").is_some()).collect()
}

fn read(file: &str) -> LogVectors {
    let vectors: LogVectors = serde_json::from_str(&std::fs::read_to_string(super::path(file)).unwrap()).unwrap();
    assert_eq!((vectors.format, vectors.logs.is_empty()), (1, false), "{file}");
    vectors
}

/// The engine takes the log over from each copy, and writes the same lines again.
#[tokio::test]
async fn i14_the_pass_vectors_of_the_log_are_read_and_written() {
    for case in read("v1_log_pass.json").logs {
        let name = &case.name;
        let (db, keys) = case.key_table_of_copy().await;
        let replayed = replay(&db, &keys, &case.copy()).await;
        let seq = case.seq.unwrap();
        assert!(replayed.as_ref().is_ok_and(|done| done.entries == seq && done.missing == seq), "{name}: {replayed:?}");
        let head = MemoryKeys::new().log_head(&mut db.begin()).await.unwrap();
        assert_eq!((head.seq, Some(hex_of(&head.hash))), (seq, case.hash.clone()), "{name}");
        let again = Lines(Mutex::default());
        assert_eq!(keys.export_log(&mut db.begin(), &again, &mut |_| {}).await.unwrap().seq, seq, "{name}");
        let mut lines = entries(&case.lines);
        lines.sort_by_key(|line| line["seq"].as_u64());
        lines.dedup();
        let mut again = entries(&again.0.into_inner().unwrap());
        assert_eq!(again.len(), lines.len(), "{name}");
        for (again, line) in again.iter_mut().zip(&mut lines) {
            // One digest names the keys that there are now, and the other those that there were.
            for line in [&mut *again, line] {
                line.as_object_mut().unwrap().remove("keys");
            }
            assert_eq!(again, line, "{name}");
        }
        assert_eq!(case.entries.map(|entries| entries.len() as u64), Some(seq), "{name}");
    }
}

#[tokio::test]
async fn i14_the_fail_vectors_of_the_log_are_refused_for_their_reasons() {
    let mut seen = BTreeSet::new();
    for case in read("v1_log_fail.json").logs {
        let name = &case.name;
        let (db, keys) = case.key_table().await;
        let replayed = replay(&db, &keys, &case.copy()).await;
        let Err(Error::Keys(KeyFault::LogCopy { line, problem, .. })) = &replayed else {
            panic!("{name}: {replayed:?}");
        };
        let word = ERRORS.iter().find(|(text, _)| problem.contains(text)).map(|(_, word)| *word);
        let found = (line.map(|line| usize::try_from(line).unwrap()), word);
        assert_eq!(found, (case.line, case.error.as_deref()), "{name}: {problem}");
        assert_eq!(MemoryKeys::new().log_head(&mut db.begin()).await.unwrap().seq, 0, "{name}: nothing was taken over");
        seen.extend(word);
    }
    for (_, word) in ERRORS {
        assert!(seen.contains(word), "no vector is refused for {word}");
    }
}
