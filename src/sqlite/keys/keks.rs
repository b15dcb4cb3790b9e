//! Key-encryption keys in SQLite, inside transactions that the port's methods begin and end.

use super::{SqliteKeys, data_key, json};
use crate::error::{Error, KeyFault, Result, no_effect};
use crate::keys::names::KekId;
use crate::keys::{
    KekRecord, KekState, KeyStore, NewDataKey, Retirement, RewrapBatch, RewrappedBatch, Rewrapper, ScopeState,
};
use crate::kms::WrappedKek;
use crate::sql::{SqlRow, key_database as database};
use crate::sqlite::{column, to_text};
use sqlx::sqlite::SqliteRow;
use sqlx::{AssertSqlSafe, SqliteConnection};
use std::sync::Arc;
use time::OffsetDateTime;

impl SqliteKeys {
    pub(crate) async fn install_in(&self, tx: &mut SqliteConnection, kek: &KekRecord) -> Result<()> {
        let installed = insert_kek(tx, &self.sql.install_kek, kek).await?;
        match self.active_kek(tx, &kek.partition).await? {
            Some(active) if installed == 0 || active == *kek => Ok(()),
            _ => Err(no_effect("preparing keys", "key_encryption_keys")),
        }
    }

    pub(crate) async fn install_key_in(&self, tx: &mut SqliteConnection, key: &NewDataKey) -> Result<()> {
        if self.look(tx, &key.scope).await?.is_some() {
            return Ok(());
        }
        self.create_scopes(tx, std::slice::from_ref(&key.scope)).await?;
        self.insert(tx, key).await
    }

    pub(crate) async fn replace_in(&self, tx: &mut SqliteConnection, replaced: KekId, kek: &KekRecord) -> Result<bool> {
        const OPERATION: &str = "rotating a key-encryption key";
        let no_effect = || Err(no_effect(OPERATION, "key_encryption_keys"));
        let demoted = sqlx::query(AssertSqlSafe(Arc::clone(&self.sql.demote_kek)))
            .bind(replaced.0.hyphenated().to_string())
            .bind(&kek.partition)
            .execute(&mut *tx)
            .await
            .map_err(database(OPERATION))?;
        if demoted.rows_affected() == 0 {
            let active = self.active_kek(tx, &kek.partition).await?.is_some_and(|active| active.kek_id == replaced);
            return if active { no_effect() } else { Ok(false) };
        }
        insert_kek(tx, &self.sql.promote_kek, kek).await?;
        if self.active_kek(tx, &kek.partition).await?.as_ref() == Some(kek) { Ok(true) } else { no_effect() }
    }

    pub(crate) async fn move_in(
        &self,
        tx: &mut SqliteConnection,
        old: &KekRecord,
        provider: &str,
        wrapped: &WrappedKek,
        at: OffsetDateTime,
    ) -> Result<bool> {
        const OPERATION: &str = "moving a key-encryption key";
        let moved = sqlx::query(AssertSqlSafe(Arc::clone(&self.sql.move_kek)))
            .bind(old.kek_id.0.hyphenated().to_string())
            .bind(&old.wrapped.master_key_id)
            .bind(&old.wrapped.ciphertext)
            .bind(provider)
            .bind(&wrapped.master_key_id)
            .bind(&wrapped.ciphertext)
            .bind(to_text(at))
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

    pub(crate) async fn retire_in(&self, tx: &mut SqliteConnection, kek_id: KekId) -> Result<Retirement> {
        let failed = || database("retiring a key-encryption key");
        let id = kek_id.0.hyphenated().to_string();
        let row = sqlx::query(AssertSqlSafe(Arc::clone(&self.sql.kek_state)))
            .bind(&id)
            .fetch_optional(&mut *tx)
            .await
            .map_err(failed())?;
        let Some(row) = row else { return Ok(Retirement::Unknown) };
        let live = column::<i64>(&row, 1)?.unsigned_abs();
        if KekState::parse(column(&row, 0)?)? == KekState::Active {
            return Ok(Retirement::Active);
        }
        if live > 0 {
            return Ok(Retirement::InUse(live));
        }
        sqlx::query(AssertSqlSafe(Arc::clone(&self.sql.retire_kek)))
            .bind(&id)
            .execute(&mut *tx)
            .await
            .map_err(failed())?;
        match self.keks(tx, &[kek_id]).await?.pop() {
            Some(kek) if kek.state == KekState::Retired => Ok(Retirement::Done),
            _ => Err(no_effect("retiring a key-encryption key", "key_encryption_keys")),
        }
    }

    pub(crate) async fn rewrap_in(
        &self,
        tx: &mut SqliteConnection,
        batch: &RewrapBatch,
        by: &dyn Rewrapper,
    ) -> Result<RewrappedBatch> {
        let failed = || database("rewrapping data keys");
        let from: Vec<String> = batch.from.iter().map(|kek_id| kek_id.0.hyphenated().to_string()).collect();
        let rows = sqlx::query(AssertSqlSafe(Arc::clone(&self.sql.rewrap_next)))
            .bind(json(&from)?)
            .bind(batch.after.map(|key_id| key_id.0.hyphenated().to_string()))
            .bind(i64::from(batch.limit))
            .fetch_all(&mut *tx)
            .await
            .map_err(failed())?;
        let keys =
            rows.iter().map(|row| data_key(row, ScopeState::parse(column(row, 8)?)?)).collect::<Result<Vec<_>>>()?;
        let found = u32::try_from(keys.len()).unwrap_or(u32::MAX);
        let mut outcome = RewrappedBatch { found, last: keys.last().map(|key| key.key_id), ..Default::default() };
        for key in keys {
            let Some(wrapped) = by.rewrap(&key)? else {
                outcome.bad.push(key.key_id);
                continue;
            };
            let written: Option<Vec<u8>> = sqlx::query_scalar(AssertSqlSafe(Arc::clone(&self.sql.rewrap_key)))
                .bind(key.key_id.0.hyphenated().to_string())
                .bind(key.kek_id.0.hyphenated().to_string())
                .bind(&key.wrapped_key)
                .bind(&wrapped)
                .bind(batch.to.0.hyphenated().to_string())
                .bind(to_text(batch.at))
                .fetch_optional(&mut *tx)
                .await
                .map_err(failed())?;
            match written {
                Some(written) if by.opens(key.key_id, &written) => outcome.rewrapped += 1,
                Some(_) => return Err(Error::Keys(KeyFault::WrongKey { key_id: key.key_id, kek_id: batch.to })),
                // Nobody else writes now: the key-encryption key was retired meanwhile, or something keeps the change
                // away.
                None => {
                    let retired = self.keks(tx, &[batch.to]).await?.iter().all(|kek| kek.state == KekState::Retired);
                    return Err(if retired {
                        Error::Collision { source: None }
                    } else {
                        no_effect("rewrapping data keys", "data_keys")
                    });
                }
            }
        }
        Ok(outcome)
    }
}

async fn insert_kek(connection: &mut SqliteConnection, sql: &Arc<str>, kek: &KekRecord) -> Result<u64> {
    let inserted = sqlx::query(AssertSqlSafe(Arc::clone(sql)))
        .bind(kek.kek_id.0.hyphenated().to_string())
        .bind(&kek.partition)
        .bind(&kek.provider)
        .bind(&kek.wrapped.master_key_id)
        .bind(&kek.wrapped.ciphertext)
        .bind(to_text(kek.created_at))
        .bind(to_text(kek.wrapped_at))
        .execute(connection)
        .await
        .map_err(database("inserting a key-encryption key"))?;
    Ok(inserted.rows_affected())
}

pub(crate) fn kek(row: &SqliteRow) -> Result<KekRecord> {
    Ok(KekRecord {
        kek_id: KekId(row.id(0)?),
        partition: column(row, 1)?,
        provider: column(row, 2)?,
        wrapped: WrappedKek { master_key_id: column(row, 3)?, ciphertext: column(row, 4)? },
        state: KekState::parse(column(row, 5)?)?,
        created_at: row.time(6, "key_encryption_keys.created_at")?,
        wrapped_at: row.time(7, "key_encryption_keys.wrapped_at")?,
    })
}
