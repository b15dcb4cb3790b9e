//! Key-encryption keys in PostgreSQL, inside transactions that the port's methods begin and end.

use super::{PostgresKeys, columns, data_key, query};
use crate::error::{Error, KeyFault, Result, no_effect};
use crate::keys::names::{KekId, KeyId};
use crate::keys::{
    DataKeyRecord, KekRecord, KekState, KeyStore, NewDataKey, Retirement, RewrapBatch, RewrappedBatch, Rewrapper,
    ScopeState,
};
use crate::kms::WrappedKek;
use crate::postgres::column;
use crate::sql::{SqlRow, key_database as database};
use sqlx::PgConnection;
use sqlx::postgres::PgRow;
use std::sync::Arc;
use time::OffsetDateTime;
use uuid::Uuid;

impl PostgresKeys {
    pub(crate) async fn install_in(&self, tx: &mut PgConnection, kek: &KekRecord) -> Result<()> {
        let installed = insert_kek(tx, &self.sql.install_kek, kek).await?;
        match self.active_kek(tx, &kek.partition).await? {
            Some(active) if installed == 0 || active == *kek => Ok(()),
            _ => Err(no_effect("preparing keys", "key_encryption_keys")),
        }
    }

    pub(crate) async fn install_key_in(&self, tx: &mut PgConnection, key: &NewDataKey) -> Result<()> {
        const OPERATION: &str = "inserting the integrity key";
        let scope = std::slice::from_ref(&key.scope);
        // Whoever inserts the scope makes its key; others wait for that here, and then insert nothing.
        let (kinds, ids) = columns(scope);
        let created = query(&self.sql.create_scopes)
            .bind(kinds)
            .bind(ids)
            .execute(&mut *tx)
            .await
            .map_err(database(OPERATION))?;
        if created.rows_affected() == 1 {
            return self.insert(tx, std::slice::from_ref(key)).await;
        }
        if self.look(tx, scope).await?.is_empty() { Err(no_effect(OPERATION, "key_scopes")) } else { Ok(()) }
    }

    pub(crate) async fn replace_in(&self, tx: &mut PgConnection, replaced: KekId, kek: &KekRecord) -> Result<bool> {
        const OPERATION: &str = "rotating a key-encryption key";
        let no_effect = || Err(no_effect(OPERATION, "key_encryption_keys"));
        let demoted = query(&self.sql.demote_kek).bind(replaced.0).bind(&kek.partition).execute(&mut *tx).await;
        if demoted.map_err(database(OPERATION))?.rows_affected() == 0 {
            let active = self.active_kek(tx, &kek.partition).await?.is_some_and(|active| active.kek_id == replaced);
            return if active { no_effect() } else { Ok(false) };
        }
        insert_kek(tx, &self.sql.promote_kek, kek).await?;
        if self.active_kek(tx, &kek.partition).await?.as_ref() == Some(kek) { Ok(true) } else { no_effect() }
    }

    pub(crate) async fn move_in(
        &self,
        tx: &mut PgConnection,
        old: &KekRecord,
        provider: &str,
        wrapped: &WrappedKek,
        at: OffsetDateTime,
    ) -> Result<bool> {
        const OPERATION: &str = "moving a key-encryption key";
        let moved = query(&self.sql.move_kek)
            .bind(old.kek_id.0)
            .bind(&old.wrapped.master_key_id)
            .bind(&old.wrapped.ciphertext)
            .bind(provider)
            .bind(&wrapped.master_key_id)
            .bind(&wrapped.ciphertext)
            .bind(at)
            .execute(&mut *tx)
            .await
            .map_err(database(OPERATION))?
            .rows_affected();
        let Some(row) = self.keks(tx, &[old.kek_id]).await?.pop() else { return Ok(false) };
        let is_moved = (row.provider.as_str(), &row.wrapped, row.wrapped_at) == (provider, wrapped, at);
        match (moved == 1, is_moved, row.wrapped == old.wrapped) {
            (true, true, _) => Ok(true),
            // Somebody else has changed it.
            (false, _, false) => Ok(false),
            _ => Err(no_effect(OPERATION, "key_encryption_keys")),
        }
    }

    pub(crate) async fn retire_in(&self, tx: &mut PgConnection, kek_id: KekId) -> Result<Retirement> {
        let failed = || database("retiring a key-encryption key");
        let before = self.begin_waiting(tx).await?;
        let row = query(&self.sql.lock_kek).bind(kek_id.0).fetch_optional(&mut *tx).await.map_err(failed())?;
        self.end_waiting(tx, before).await?;
        let Some(row) = row else {
            // It can be read, but not locked.
            let known = !self.keks(tx, &[kek_id]).await?.is_empty();
            return if known {
                Err(no_effect("retiring a key-encryption key", "key_encryption_keys"))
            } else {
                Ok(Retirement::Unknown)
            };
        };
        if KekState::parse(column(&row, 0)?)? == KekState::Active {
            return Ok(Retirement::Active);
        }
        // A statement of its own: its snapshot is newer than the lock.
        let any = query(&self.sql.any_key_of_kek).bind(kek_id.0).fetch_optional(&mut *tx).await.map_err(failed())?;
        if any.is_some() {
            let row = query(&self.sql.count_keys_of_kek).bind(kek_id.0).fetch_one(tx).await.map_err(failed())?;
            return Ok(Retirement::InUse(column::<i64>(&row, 0)?.unsigned_abs()));
        }
        query(&self.sql.retire_kek).bind(kek_id.0).execute(&mut *tx).await.map_err(failed())?;
        match self.keks(tx, &[kek_id]).await?.pop() {
            Some(kek) if kek.state == KekState::Retired => Ok(Retirement::Done),
            _ => Err(no_effect("retiring a key-encryption key", "key_encryption_keys")),
        }
    }

    pub(crate) async fn rewrap_in(
        &self,
        tx: &mut PgConnection,
        batch: &RewrapBatch,
        by: &dyn Rewrapper,
    ) -> Result<RewrappedBatch> {
        let failed = || database("rewrapping data keys");
        // One key-encryption key after the other: each is one range of the index.
        let mut keys: Vec<DataKeyRecord> = Vec::new();
        for kek_id in &batch.from {
            let rows = query(&self.sql.rewrap_next)
                .bind(kek_id.0)
                .bind(batch.after.map_or(Uuid::nil(), |key_id| key_id.0))
                .bind(i64::from(batch.limit))
                .fetch_all(&mut *tx)
                .await
                .map_err(failed())?;
            // What may be done with a key is not asked here.
            keys.extend(rows.iter().map(|row| data_key(row, ScopeState::Live)).collect::<Result<Vec<_>>>()?);
        }
        keys.sort_unstable_by_key(|key| key.key_id);
        keys.truncate(batch.limit as usize);
        let found = u32::try_from(keys.len()).unwrap_or(u32::MAX);
        let mut outcome = RewrappedBatch { found, last: keys.last().map(|key| key.key_id), ..Default::default() };
        let (mut ids, mut old, mut new) = (Vec::new(), Vec::new(), Vec::new());
        for key in keys {
            match (by.rewrap(&key)?, key.wrapped_key) {
                (Some(rewrapped), Some(wrapped)) => {
                    ids.push(key.key_id.0);
                    old.push(wrapped);
                    new.push(rewrapped);
                }
                _ => outcome.bad.push(key.key_id),
            }
        }
        let rows = query(&self.sql.rewrap_keys)
            .bind(&ids)
            .bind(old)
            .bind(new)
            .bind(batch.to.0)
            .bind(batch.at)
            .fetch_all(&mut *tx)
            .await
            .map_err(failed())?;
        if rows.len() != ids.len() {
            // The rows are locked. Either the key-encryption key was retired meanwhile, or something keeps the change
            // away.
            let retired = self.keks(tx, &[batch.to]).await?.iter().all(|kek| kek.state == KekState::Retired);
            return Err(if retired {
                Error::Collision { source: None }
            } else {
                no_effect("rewrapping data keys", "data_keys")
            });
        }
        for row in &rows {
            let key_id = KeyId(column(row, 0)?);
            if !by.opens(key_id, column(row, 1)?) {
                return Err(Error::Keys(KeyFault::WrongKey { key_id, kek_id: batch.to }));
            }
            outcome.rewrapped += 1;
        }
        Ok(outcome)
    }
}

async fn insert_kek(connection: &mut PgConnection, sql: &Arc<str>, kek: &KekRecord) -> Result<u64> {
    let inserted = query(sql)
        .bind(kek.kek_id.0)
        .bind(&kek.partition)
        .bind(&kek.provider)
        .bind(&kek.wrapped.master_key_id)
        .bind(&kek.wrapped.ciphertext)
        .bind(kek.created_at)
        .bind(kek.wrapped_at)
        .execute(connection)
        .await
        .map_err(database("inserting a key-encryption key"))?;
    Ok(inserted.rows_affected())
}

pub(crate) fn kek(row: &PgRow) -> Result<KekRecord> {
    Ok(KekRecord {
        kek_id: KekId(column(row, 0)?),
        partition: column(row, 1)?,
        provider: column(row, 2)?,
        wrapped: WrappedKek { master_key_id: column(row, 3)?, ciphertext: column(row, 4)? },
        state: KekState::parse(column(row, 5)?)?,
        created_at: row.time(6, "key_encryption_keys.created_at")?,
        wrapped_at: row.time(7, "key_encryption_keys.wrapped_at")?,
    })
}
