//! The contract of the rows of a key table.

use crate::conformance::key_store::{fresh, key};
use crate::conformance::key_table::{kek, rotated};
use crate::conformance::{Database, must};
use crate::error::Result;
use crate::event::now;
use crate::keys::names::{KekId, KeyId};
use crate::keys::{DataKeyRecord, KekRecord, KekState, KeyRewrap, KeyRows, KeyTable, KeyWork, KeyWrapping};
use crate::kms::WrappedKek;
use async_trait::async_trait;

/// Changes the rows of two key-encryption keys of one partition, and looks at each.
struct KekRows {
    first: KekRecord,
    second: KekRecord,
}

#[async_trait]
impl KeyWork for KekRows {
    async fn run(&mut self, rows: &mut dyn KeyRows) -> Result<()> {
        let Self { first, second } = self;
        assert!(rows.insert_kek(first).await?, "insert_kek must insert the first key of a partition, and say so");
        assert!(!rows.insert_kek(second).await?, "insert_kek must leave a partition alone that has an active key");
        assert_eq!(
            rows.active_kek(&first.partition).await?.as_ref(),
            Some(&*first),
            "insert_kek must insert the key that it was given"
        );
        assert!(rows.kek(second.kek_id).await?.is_none() && rows.lock_kek(second.kek_id).await?.is_none());
        assert_eq!(rows.lock_kek(first.kek_id).await?.as_ref(), Some(&*first), "lock_kek must return the row");
        for (kek, from) in [(&*first, KekState::DecryptOnly), (&*second, KekState::Active)] {
            assert!(
                !rows.change_kek_state(kek.kek_id, from, KekState::Retired).await?,
                "change_kek_state must change nothing but a key in the state that it was told, and say so"
            );
        }
        assert!(
            rows.change_kek_state(first.kek_id, KekState::Active, KekState::DecryptOnly).await?,
            "change_kek_state must change a key in the state that it was told, and say so"
        );
        first.state = KekState::DecryptOnly;
        assert_eq!(
            rows.kek(first.kek_id).await?.as_ref(),
            Some(&*first),
            "change_kek_state must change the state alone"
        );
        assert!(rows.active_kek(&first.partition).await?.is_none(), "a key that is not active any more still is");
        self.moved(rows).await
    }
}

impl KekRows {
    async fn moved(&mut self, rows: &mut dyn KeyRows) -> Result<()> {
        let Self { first, .. } = self;
        let elsewhere = WrappedKek { master_key_id: "another".to_owned(), ciphertext: vec![9, 9] };
        let later = now() + time::Duration::SECOND;
        assert!(
            rows.change_kek_wrapping(first, "other provider", &elsewhere, later).await?,
            "change_kek_wrapping must change a row that is as it was, and say so"
        );
        let moved =
            KekRecord { provider: "other provider".to_owned(), wrapped: elsewhere, wrapped_at: later, ..first.clone() };
        assert_eq!(
            rows.kek(first.kek_id).await?.as_ref(),
            Some(&moved),
            "change_kek_wrapping must exchange provider, wrapping and time of the row"
        );
        let third = WrappedKek { master_key_id: "a third".to_owned(), ciphertext: vec![3] };
        assert!(
            !rows.change_kek_wrapping(first, "a third provider", &third, later).await?
                && rows.kek(first.kek_id).await?.as_ref() == Some(&moved),
            "change_kek_wrapping must leave a row alone that was changed meanwhile, and say so"
        );
        assert_eq!(rows.count_live_keys(first.kek_id).await?, 0, "a new key wraps nothing");
        Ok(())
    }
}

/// Checks that a change of a key-encryption key changes a row only if the row is as the caller says, and returns
/// whether it changed it.
pub async fn rows_of_key_encryption_keys_are_what_they_are_said_to_be<D: Database, K: KeyTable<Tx = D::Tx>>(
    db: &D,
    keys: &K,
) {
    let mut connection = must(db.connect().await, "connect");
    let partition = fresh("rows").id().to_owned();
    let mut work = KekRows { first: kek(&partition), second: kek(&partition) };
    must(keys.in_transaction(db.connection(&mut connection), "changing rows", &mut work).await, "changing rows");
}

/// Wraps data keys anew, one of which was changed since it was read.
struct DataKeyRows {
    old: KekId,
    new: KekId,
    ids: Vec<KeyId>,
}

#[async_trait]
impl KeyWork for DataKeyRows {
    async fn run(&mut self, rows: &mut dyn KeyRows) -> Result<()> {
        let Self { old, new, ids } = self;
        assert_eq!(rows.count_live_keys(*old).await?, 3, "count_live_keys must count what a key wraps");
        let found = rows.lock_live_keys(&[*old, *new], None, 2).await?;
        let found_ids: Vec<KeyId> = found.iter().map(|key| key.key_id).collect();
        assert_eq!(found_ids, ids[..2], "lock_live_keys must return the first keys, in ascending order of id");
        let rest = rows.lock_live_keys(&[*old], Some(ids[1]), 2).await?;
        let rest: Vec<KeyId> = rest.iter().map(|key| key.key_id).collect();
        assert_eq!(rest, ids[2..], "lock_live_keys must go on after the key that it was told");
        let rewrap = |key: &DataKeyRecord| KeyRewrap {
            key: key.clone(),
            new: KeyWrapping { key_id: key.key_id, wrapped_key: vec![7; 65] },
        };
        let mut keys: Vec<KeyRewrap> = found.iter().map(rewrap).collect();
        keys[1].key.wrapped_key = Some(vec![8; 65]);
        let at = now() + time::Duration::MINUTE;
        let written = rows.rewrap_keys(&keys, *new, at).await?;
        assert_eq!(
            written,
            [keys[0].new.clone()],
            "rewrap_keys must leave a row alone that was changed since it was read, and leave it out"
        );
        assert_eq!(
            (rows.count_live_keys(*old).await?, rows.count_live_keys(*new).await?),
            (2, 1),
            "rewrap_keys must write which key-encryption key wraps a data key now"
        );
        Ok(())
    }
}

/// Checks that a change of data keys' wrappings changes the rows that are as the caller says, and returns those.
pub async fn rows_of_data_keys_are_what_they_are_said_to_be<D: Database, K: KeyTable<Tx = D::Tx>>(db: &D, keys: &K) {
    let mut connection = must(db.connect().await, "connect");
    let conn = db.connection(&mut connection);
    let (old, new) = rotated(keys, conn, "data key rows").await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        let mut transaction = must(db.begin().await, "begin");
        let tx = db.tx(&mut transaction);
        let scope = fresh("data key rows");
        let new = key(&scope, 1, old.kek_id);
        must(keys.create_scopes(tx, std::slice::from_ref(&scope)).await, "create_scopes");
        must(keys.insert_keys(tx, std::slice::from_ref(&new)).await, "insert_keys");
        must(db.commit(transaction).await, "commit");
        ids.push(new.key_id);
    }
    ids.sort_unstable();
    let mut work = DataKeyRows { old: old.kek_id, new: new.kek_id, ids };
    must(keys.in_transaction(conn, "changing rows", &mut work).await, "changing rows");
}
