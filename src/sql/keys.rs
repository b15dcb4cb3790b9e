//! The key tables of both databases: their rows as records, and the statements whose text is the same.

pub(crate) mod log;

use crate::error::{Error, KeyFault, Result, StorageFault, no_effect};
use crate::keys::entry::keys_from_text;
use crate::keys::names::{KekId, KeyId, KeyScope};
use crate::keys::{
    DataKeyRecord, DestroyedKey, DueScope, EntryMac, KekRecord, KekState, KekUsage, KeyHistory, KeyInfo, ListedScope,
    LogEntry, RestoredScopes, ScopeAction, ScopeRecord, ScopeState,
};
use crate::kms::WrappedKek;
use crate::sql::{SqlRow, fill};

/// Declares the statements on the key tables, and a complete list of them. `new` fills in names: first the columns,
/// which are declared here, then the tables, which the adapter names.
macro_rules! statements {
    ($($name:ident: $sql:expr,)*) => {
        #[derive(Debug)]
        pub(crate) struct Statements {
            $(pub(crate) $name: std::sync::Arc<str>,)*
        }

        impl Statements {
            pub(crate) fn new(fill: impl Fn(&str) -> String) -> Self {
                let fill = |sql: &str| std::sync::Arc::<str>::from(fill(&crate::sql::keys::with_columns(sql)));
                Self { $($name: fill($sql),)* }
            }

            #[allow(dead_code, reason = "plans are examined in PostgreSQL only")]
            pub(crate) fn all(&self) -> Vec<(&'static str, std::sync::Arc<str>)> {
                vec![$((stringify!($name), std::sync::Arc::clone(&self.$name)),)*]
            }
        }
    };
}
pub(crate) use statements;

/// The key tables, without their prefix.
pub(crate) const TABLES: [&str; 8] = [
    "key_namespace",
    "key_encryption_keys",
    "key_scopes",
    "data_keys",
    "key_scope_changes",
    "shred_entries",
    "shred_log",
    "shred_log_head",
];

/// Fills the columns of its rows into a statement, in the order in which the functions of this module read them.
pub(crate) fn with_columns(sql: &str) -> String {
    let columns = |name: &str| {
        let columns = match name {
            "entry" => ENTRY,
            "key" => KEY,
            "kek" => KEK,
            "new_kek" => NEW_KEK,
            "scope" => SCOPE,
            "no_entry" | "no_key_and_scope" => FIFTEEN_NULLS,
            "no_scope" => SEVEN_NULLS,
            "disagreements" => log::DISAGREEMENTS,
            "last_version" => LAST_VERSION,
            "state" => STATE,
            _ => return None,
        };
        Some(columns.to_owned())
    };
    fill(sql, &columns)
}

/// The columns that [`data_key`] reads.
const KEY: &str = "k.key_id, k.scope_kind, k.scope_id, k.version, k.kek_id, k.wrapped_key, k.created_at, k.shredded_at";
/// The columns that [`scope`] reads, after [`KEY`].
const SCOPE: &str = "s.scope_kind, s.scope_id, {state}, s.generation, {last_version}, s.active_key_id, s.due_at";
/// In place of the columns that [`entry`] reads, and of those that [`scope`] reads with [`KEY`].
const FIFTEEN_NULLS: &str = "NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL";
/// In place of [`SCOPE`].
const SEVEN_NULLS: &str = "NULL, NULL, NULL, NULL, NULL, NULL, NULL";
/// Where the entry begins in a row of a [`history`].
const ENTRY_OF_HISTORY: usize = 15;
/// The columns that [`kek`] reads.
const KEK: &str = r#"e.kek_id, e."partition", e.provider, e.master_key_id, e.wrapped_kek, e.state, e.created_at,
    coalesce(e.wrapped_at, e.created_at)"#;
/// The state of a scope. Older versions of the tables had no word for one that is withheld.
const STATE: &str = "CASE WHEN s.withheld THEN 'withheld' ELSE s.state END";
const NEW_KEK: &str = r#"kek_id, "partition", provider, master_key_id, wrapped_kek, created_at, wrapped_at, state"#;
/// The columns that [`entry`] reads.
const ENTRY: &str = "e.entry_id, e.scope_kind, e.scope_id, e.scope_seq, e.decided_at, e.action, e.state, e.generation,
    e.keys, e.until, e.about, e.reason, e.actor, e.mac_key_id, e.mac";
/// The highest version of a scope's keys, whether that key is active or not. The column that names the active key is
/// not reliable, because anybody who can write to the table may have set it.
const LAST_VERSION: &str =
    "(SELECT max(d.version) FROM {data_keys} AS d WHERE d.scope_kind = s.scope_kind AND d.scope_id = s.scope_id)";

pub(crate) const NAMESPACE: &str = "SELECT namespace FROM {key_namespace}";

pub(crate) const ACTIVE_KEK: &str = r#"SELECT {kek} FROM {key_encryption_keys} AS e
    WHERE e."partition" = $1 AND e.state = 'active'"#;

pub(crate) const CHANGE_KEK_STATE: &str =
    "UPDATE {key_encryption_keys} SET state = $3 WHERE kek_id = $1 AND state = $2";

pub(crate) const CHANGE_KEK_WRAPPING: &str = "UPDATE {key_encryption_keys}
    SET provider = $4, master_key_id = $5, wrapped_kek = $6, wrapped_at = $7
    WHERE kek_id = $1 AND master_key_id = $2 AND wrapped_kek = $3";

pub(crate) const COUNT_KEYS_OF_KEK: &str = "SELECT count(*) FROM {data_keys} WHERE kek_id = $1 AND state = 'live'";

pub(crate) const DESTROY_KEYS: &str = "UPDATE {data_keys}
    SET wrapped_key = NULL, state = 'shredded', shredded_at = $3
    WHERE scope_kind = $1 AND scope_id = $2 AND state = 'live'";

/// What [`destroyed`] reads, for the end of [`DESTROY_KEYS`].
pub(crate) const RETURNING_DESTROYED: &str = "RETURNING key_id, version, kek_id, created_at";

pub(crate) const ANY_KEY_OF_SCOPE: &str = "SELECT key_id FROM {data_keys}
    WHERE scope_kind = $1 AND scope_id = $2 AND wrapped_key IS NOT NULL LIMIT 1";

pub(crate) const KEYS_OF_SCOPE: &str = "SELECT {key} FROM {data_keys} AS k
    WHERE k.scope_kind = $1 AND k.scope_id = $2 ORDER BY k.version";

/// Finds live keys of scopes that their entries leave shredded. Only scopes that were ever shredded are examined.
/// The parameter is the number of scopes to return.
pub(crate) const RESTORED_SCOPES: &str = "SELECT s.scope_kind, s.scope_id, count(*) OVER ()
    FROM (
        SELECT scope_kind, scope_id FROM {key_scopes} WHERE state = 'shredded'
        UNION
        SELECT c.scope_kind, c.scope_id FROM {shred_entries} AS c
        WHERE c.action IN ('shred', 'adopt') AND c.state = 'shredded' AND NOT EXISTS (
            SELECT 1 FROM {shred_entries} AS n
            WHERE n.scope_kind = c.scope_kind AND n.scope_id = c.scope_id AND n.scope_seq > c.scope_seq
                AND n.state <> 'shredded'
        )
    ) AS s
    WHERE EXISTS (
        SELECT 1 FROM {data_keys} AS k
        WHERE k.scope_kind = s.scope_kind AND k.scope_id = s.scope_id AND k.wrapped_key IS NOT NULL
    )
    ORDER BY s.scope_kind, s.scope_id LIMIT $1";

pub(crate) fn kek(row: &impl SqlRow) -> Result<KekRecord> {
    Ok(KekRecord {
        kek_id: KekId(row.id(0)?),
        partition: row.text(1)?.to_owned(),
        provider: row.text(2)?.to_owned(),
        wrapped: WrappedKek { master_key_id: row.text(3)?.to_owned(), ciphertext: row.bytes(4)? },
        state: KekState::parse(row.text(5)?)?,
        created_at: row.time(6, "key_encryption_keys.created_at")?,
        wrapped_at: row.time(7, "key_encryption_keys.wrapped_at")?,
    })
}

/// Reads a [`kek`], the number of live keys that it wraps, and the time of the oldest wrapping.
pub(crate) fn kek_usage(row: &impl SqlRow) -> Result<KekUsage> {
    Ok(KekUsage {
        kek: kek(row)?,
        live_keys: row.number(8)?.unsigned_abs(),
        oldest_wrap: row.optional_time(9, "data_keys.wrapped_at")?,
    })
}

pub(crate) fn data_key(row: &impl SqlRow, scope_state: ScopeState) -> Result<DataKeyRecord> {
    Ok(DataKeyRecord {
        key_id: KeyId(row.id(0)?),
        scope: KeyScope::new(row.text(1)?, row.text(2)?),
        version: row.small_number(3, "data_keys.version")?,
        kek_id: KekId(row.id(4)?),
        wrapped_key: row.optional_bytes(5)?,
        created_at: row.time(6, "data_keys.created_at")?,
        shredded_at: row.optional_time(7, "data_keys.shredded_at")?,
        scope_state,
    })
}

/// Reads a [`data_key`], and the state of its scope.
pub(crate) fn data_key_of_scope(row: &impl SqlRow) -> Result<DataKeyRecord> {
    data_key(row, ScopeState::parse(row.text(8)?)?)
}

/// Reads the active key of a scope, if it has one, and the scope.
pub(crate) fn scope(row: &impl SqlRow) -> Result<ScopeRecord> {
    let state = ScopeState::parse(row.text(10)?)?;
    let has_key = row.optional_id(0)?.is_some();
    Ok(ScopeRecord {
        scope: KeyScope::new(row.text(8)?, row.text(9)?),
        state,
        generation: row.small_number(11, "key_scopes.generation")?,
        last_version: row.optional_small_number(12, "data_keys.version")?,
        due: row.optional_time(14, "key_scopes.due_at")?,
        active: if has_key { Some(data_key(row, state)?) } else { None },
    })
}

/// The id of a scope's active key, whether the key is there or not.
#[cfg(feature = "postgres")]
pub(crate) fn active_key_id(row: &impl SqlRow) -> Result<Option<KeyId>> {
    Ok(row.optional_id(13)?.map(KeyId))
}

/// Reads an entry of the shred log.
pub(crate) fn entry(row: &impl SqlRow) -> Result<LogEntry> {
    entry_from(row, 0)
}

/// Reads an [`entry`] that begins at this column.
fn entry_from(row: &impl SqlRow, first: usize) -> Result<LogEntry> {
    let invalid = |what, problem| Error::Storage(StorageFault::InvalidRow { what, problem });
    let mac = match (row.optional_id(first + 13)?, row.optional_bytes(first + 14)?) {
        (Some(key_id), Some(mac)) => {
            let mac = mac.try_into().map_err(|_| invalid("shred_entries.mac", "has not 32 bytes"))?;
            Some(EntryMac { key_id: KeyId(key_id), mac })
        }
        (None, None) => None,
        _ => return Err(invalid("shred_entries.mac", "is there without the id of its key, or the other way round")),
    };
    Ok(LogEntry {
        entry_id: row.id(first)?,
        scope: KeyScope::new(row.text(first + 1)?, row.text(first + 2)?),
        scope_seq: row.small_number(first + 3, "shred_entries.scope_seq")?,
        at: row.time(first + 4, "shred_entries.decided_at")?,
        action: ScopeAction::parse(row.text(first + 5)?)?,
        state: ScopeState::parse(row.text(first + 6)?)?,
        generation: row.small_number(first + 7, "shred_entries.generation")?,
        keys: keys_from_text(row.text(first + 8)?)?,
        until: row.optional_time(first + 9, "shred_entries.until")?,
        about: row.optional_id(first + 10)?,
        reason: row.text(first + 11)?.to_owned(),
        actor: row.optional_text(first + 12)?.map(str::to_owned),
        mac,
    })
}

/// Builds the history of a scope. Each row is the scope with its active key, or one of its keys, or one of its entries.
pub(crate) fn history<R: SqlRow>(rows: &[R]) -> Result<Option<KeyHistory>> {
    let (mut record, mut keys, mut entries) = (None, Vec::new(), Vec::new());
    for row in rows {
        if row.optional_id(ENTRY_OF_HISTORY)?.is_some() {
            entries.push(entry_from(row, ENTRY_OF_HISTORY)?);
        } else if row.optional_text(8)?.is_some() {
            record = Some(scope(row)?);
        } else {
            keys.push(KeyInfo {
                key_id: KeyId(row.id(0)?),
                version: row.small_number(3, "data_keys.version")?,
                kek_id: KekId(row.id(4)?),
                created_at: row.time(6, "data_keys.created_at")?,
                shredded_at: row.optional_time(7, "data_keys.shredded_at")?,
            });
        }
    }
    keys.sort_unstable_by_key(|key| key.version);
    entries.sort_unstable_by_key(|entry| entry.scope_seq);
    Ok(record.map(|record: ScopeRecord| KeyHistory {
        keys,
        entries,
        scope: record.scope,
        state: record.state,
        generation: record.generation,
        due: record.due,
        active_key: record.active.map(|key| key.key_id),
    }))
}

/// The keys that [`DESTROY_KEYS`] has destroyed, by version.
pub(crate) fn destroyed(rows: &[impl SqlRow]) -> Result<Vec<DestroyedKey>> {
    let destroyed = rows.iter().map(|row| {
        Ok(DestroyedKey {
            key_id: KeyId(row.id(0)?),
            version: row.small_number(1, "data_keys.version")?,
            kek_id: KekId(row.id(2)?),
            created_at: row.time(3, "data_keys.created_at")?,
        })
    });
    let mut destroyed = destroyed.collect::<Result<Vec<_>>>()?;
    destroyed.sort_unstable_by_key(|key| key.version);
    Ok(destroyed)
}

/// The reason why a data key was not inserted although its key-encryption key exists and is not retired. `record` is
/// the row of its scope now.
pub(crate) fn refused_key(scope: &KeyScope, record: Option<&ScopeRecord>) -> Error {
    let problem = match record {
        Some(record) if record.state == ScopeState::Live => {
            return no_effect("inserting data keys", "data_keys or key_scopes");
        }
        Some(_) => "is not live, so it can't be given a key",
        None => "is not there, so it can't be given a key",
    };
    Error::Keys(KeyFault::ScopeState { scope: scope.clone(), problem })
}

/// Reads the name of a scope.
pub(crate) fn scope_name(row: &impl SqlRow) -> Result<KeyScope> {
    Ok(KeyScope::new(row.text(0)?, row.text(1)?))
}

/// Reads a scope of a list.
pub(crate) fn listed_scope(row: &impl SqlRow) -> Result<ListedScope> {
    Ok(ListedScope {
        scope: scope_name(row)?,
        state: ScopeState::parse(row.text(2)?)?,
        generation: row.small_number(3, "key_scopes.generation")?,
        last_version: row.optional_small_number(4, "data_keys.version")?,
        kek_id: row.optional_id(5)?.map(KekId),
    })
}

/// Reads the name of a scope, and when it is due.
pub(crate) fn due_scope(row: &impl SqlRow) -> Result<DueScope> {
    Ok(DueScope { scope: scope_name(row)?, due: row.time(2, "key_scopes.due_at")? })
}

/// Reads the result of [`RESTORED_SCOPES`].
pub(crate) fn restored(rows: &[impl SqlRow]) -> Result<RestoredScopes> {
    let count = rows.first().map_or(Ok(0), |row| row.number(2))?.unsigned_abs();
    Ok(RestoredScopes { count, first: rows.iter().map(scope_name).collect::<Result<_>>()? })
}
