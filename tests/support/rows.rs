//! Changes of the rows of a key table, as somebody who can write to the table could make them.

use async_trait::async_trait;
use eventseal::Result;
use eventseal::keys::{KekRecord, KekState, KeyRows, KeyTable, KeyWork, NewDataKey};

/// One change.
pub enum Change<'a> {
    /// Inserts the active key of a partition, unless there is one.
    InsertKek(&'a KekRecord),
    /// Puts a key in the place of the active one.
    Replace { active: &'a KekRecord, by: &'a KekRecord },
    /// Writes how a key is wrapped.
    Wrap { kek: &'a KekRecord, as_in: &'a KekRecord },
    /// Inserts the first key of a scope.
    InsertFirstKey(&'a NewDataKey),
}

/// Makes a change, in a transaction of its own.
pub async fn change<K: KeyTable>(keys: &K, connection: &mut K::Tx, mut change: Change<'_>) -> Result<()> {
    keys.in_transaction(connection, "changing rows", &mut change).await
}

#[async_trait]
impl KeyWork for Change<'_> {
    async fn run(&mut self, rows: &mut dyn KeyRows) -> Result<()> {
        let done = match self {
            Self::InsertKek(kek) => rows.insert_kek(kek).await?,
            Self::Replace { active, by } => {
                rows.change_kek_state(active.kek_id, KekState::Active, KekState::DecryptOnly).await?
                    && rows.insert_kek(by).await?
            }
            Self::Wrap { kek, as_in } => {
                rows.change_kek_wrapping(kek, &as_in.provider, &as_in.wrapped, as_in.wrapped_at).await?
            }
            Self::InsertFirstKey(key) => rows.insert_first_key(key).await?,
        };
        assert!(done, "nothing was changed");
        Ok(())
    }
}
