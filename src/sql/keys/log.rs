//! The shred log of both databases: its rows as records, and the statements whose text is the same.

use super::entry;
use crate::error::{Error, Result, StorageFault};
use crate::keys::names::{KeyId, KeyScope};
use crate::keys::{EntryMac, LogDisagreement, LogHead, LogProblem, LogRow, SealedEntry};
use crate::sql::SqlRow;

/// The end of the chain, and any entry that is not in the chain.
pub(crate) const HEAD: &str = "SELECT h.seq, h.hash, (
        SELECT e.entry_id FROM {shred_entries} AS e WHERE {unsealed}
        ORDER BY e.scope_kind, e.scope_id, e.scope_seq LIMIT 1
    ) FROM {shred_log_head} AS h";

pub(crate) const MOVE_HEAD: &str = "UPDATE {shred_log_head} SET seq = $3, hash = $4 WHERE seq = $1 AND hash = $2";

pub(crate) const ADD_ENTRY: &str = "INSERT INTO {shred_entries} (entry_id, scope_kind, scope_id, scope_seq, decided_at,
        action, state, generation, keys, until, about, reason, actor, mac_key_id, mac)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)";

pub(crate) const ADD_TOMBSTONE: &str = "INSERT INTO {data_keys} (key_id, scope_kind, scope_id, version, kek_id,
        created_at, shredded_at, state)
    VALUES ($1, $2, $3, $4, $5, $6, $7, 'shredded')";

pub(crate) const SET_SCOPE: &str = "UPDATE {key_scopes}
    SET state = CASE WHEN $3 = 'withheld' THEN 'disabled' ELSE $3 END, withheld = ($3 = 'withheld'), generation = $4,
        due_at = $5, active_key_id = $6
    WHERE scope_kind = $1 AND scope_id = $2";

/// What follows the keys that came back: keys of shredded scopes that no entry names, scopes that their last entries
/// contradict, scopes that are not as new without any entry, and entries that only say that they are in the chain.
pub(super) const DISAGREEMENTS: &str = "UNION
            SELECT s.scope_kind, s.scope_id, 'key_came_back'
            FROM {key_scopes} AS s
            WHERE s.state = 'shredded' AND EXISTS (
                SELECT 1 FROM {data_keys} AS k
                WHERE k.scope_kind = s.scope_kind AND k.scope_id = s.scope_id AND k.wrapped_key IS NOT NULL
            )
            UNION
            SELECT s.scope_kind, s.scope_id, 'state'
            FROM {shred_entries} AS e
            JOIN {key_scopes} AS s ON s.scope_kind = e.scope_kind AND s.scope_id = e.scope_id
            WHERE ({state} <> e.state OR s.generation <> e.generation) AND NOT EXISTS (
                SELECT 1 FROM {shred_entries} AS n
                WHERE n.scope_kind = e.scope_kind AND n.scope_id = e.scope_id AND n.scope_seq > e.scope_seq
            )
            UNION
            SELECT s.scope_kind, s.scope_id, 'state'
            FROM {key_scopes} AS s
            WHERE (s.state <> 'live' OR s.generation <> 1) AND NOT EXISTS (
                SELECT 1 FROM {shred_entries} AS e WHERE e.scope_kind = s.scope_kind AND e.scope_id = s.scope_id
            )
            UNION
            SELECT e.scope_kind, e.scope_id, 'not_in_chain'
            FROM {shred_entries} AS e
            WHERE e.sealed AND NOT EXISTS (SELECT 1 FROM {shred_log} AS l WHERE l.entry_id = e.entry_id)";

fn invalid(what: &'static str, problem: &'static str) -> Error {
    Error::Storage(StorageFault::InvalidRow { what, problem })
}

fn seq(row: &impl SqlRow, index: usize) -> Result<u64> {
    u64::try_from(row.number(index)?).map_err(|_| invalid("shred_log.seq", "is negative"))
}

/// A number of the chain as databases keep it.
pub(crate) fn number(seq: u64) -> i64 {
    i64::try_from(seq).unwrap_or(i64::MAX)
}

fn bytes(row: &impl SqlRow, index: usize, what: &'static str) -> Result<[u8; 32]> {
    row.bytes(index)?.try_into().map_err(|_| invalid(what, "has not 32 bytes"))
}

/// Reads the row of [`HEAD`].
pub(crate) fn head(row: Option<&impl SqlRow>) -> Result<LogHead> {
    let row = row.ok_or_else(|| invalid("shred_log_head", "is empty: the end of the shred log was deleted"))?;
    let (hash, unsealed) = (bytes(row, 1, "shred_log_head.hash")?, row.optional_id(2)?.is_some());
    Ok(LogHead { seq: seq(row, 0)?, hash, unsealed })
}

/// Reads an entry, and then its row of the chain.
pub(crate) fn sealed(row: &impl SqlRow) -> Result<SealedEntry> {
    let entry = entry(row)?;
    let row = LogRow {
        seq: seq(row, 15)?,
        entry_id: entry.entry_id,
        previous_hash: bytes(row, 16, "shred_log.previous_hash")?,
        hash: bytes(row, 17, "shred_log.hash")?,
        mac: EntryMac { key_id: KeyId(row.id(18)?), mac: bytes(row, 19, "shred_log.mac")? },
    };
    Ok(SealedEntry { row, entry })
}

pub(crate) fn disagreement(row: &impl SqlRow) -> Result<LogDisagreement> {
    let scope = KeyScope::new(row.text(0)?, row.text(1)?);
    let problem =
        LogProblem::parse(row.text(2)?).ok_or_else(|| invalid("the shred log", "disagrees in no known way"))?;
    Ok(LogDisagreement { scope, problem })
}
