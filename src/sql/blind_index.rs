//! A table of blind indexes: what both databases do alike.

use crate::blind_index::BlindEntry;
use crate::crypto::backend::sha256;
use crate::error::Result;
use crate::keys::names::{KeyId, KeyScope};
use crate::sql::{SqlRow, qualified};
use std::sync::Arc;

/// The table if no other one is named.
pub(crate) const TABLE: &str = "blind_index";

/// What is called `slot` in the table: nothing for a unique entry, and else a hash of its scope.
pub(crate) fn slot(entry: &BlindEntry) -> Vec<u8> {
    if entry.unique {
        return Vec::new();
    }
    // Names hold no NUL.
    sha256([entry.scope.kind(), "\0", entry.scope.id()].concat().as_bytes()).to_vec()
}

/// An entry of a row: key, hash, slot, kind, id and generation.
pub(crate) fn entry(index: &Arc<str>, row: &impl SqlRow) -> Result<BlindEntry> {
    Ok(BlindEntry {
        index: Arc::clone(index),
        key_id: KeyId(row.id(0)?),
        hash: row.bytes(1)?,
        unique: row.bytes(2)?.is_empty(),
        scope: KeyScope::new(row.text(3)?, row.text(4)?),
        generation: row.small_number(5, "blind_index.generation")?,
    })
}

/// Entries in the order in which rows are inserted and locked, by index.
pub(crate) fn by_index(entries: &[BlindEntry]) -> Vec<(Arc<str>, Vec<&BlindEntry>)> {
    let mut sorted: Vec<&BlindEntry> = entries.iter().collect();
    sorted.sort_unstable();
    let groups = sorted.chunk_by(|one, other| one.index == other.index);
    groups.map(|group| (Arc::clone(&group[0].index), group.to_vec())).collect()
}

/// Fills names that were checked into a SQL text.
pub(crate) fn fill(sql: &str, schema: Option<&str>, table: &str) -> String {
    sql.replace("{blind_index}", &qualified(schema, table)).replace("{name}", table)
}
