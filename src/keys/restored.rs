//! What a restore of a part of the key tables leaves: keys that are there, though their scope was shredded.

use crate::keys::names::KeyScope;

/// Scopes that have live keys, though the last thing that is recorded of them is that their keys were destroyed.
/// Somebody restored a part of the tables, or wrote to them: shred these scopes again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RestoredScopes {
    /// How many there are.
    pub count: u64,
    /// The first of them, in ascending order.
    pub first: Vec<KeyScope>,
}

/// Only scopes that were shredded at some time are looked at. Names between braces are filled in; the parameter is how
/// many are wanted.
#[cfg(any(feature = "postgres", feature = "sqlite"))]
pub(crate) const RESTORED: &str = "SELECT s.scope_kind, s.scope_id, count(*) OVER ()
    FROM (
        SELECT scope_kind, scope_id FROM {key_scopes} WHERE state = 'shredded'
        UNION
        SELECT c.scope_kind, c.scope_id FROM {key_scope_changes} AS c
        WHERE c.action = 'shred' AND NOT EXISTS (
            SELECT 1 FROM {key_scope_changes} AS n
            WHERE n.scope_kind = c.scope_kind AND n.scope_id = c.scope_id AND n.change_id > c.change_id
        )
    ) AS s
    WHERE EXISTS (
        SELECT 1 FROM {data_keys} AS k
        WHERE k.scope_kind = s.scope_kind AND k.scope_id = s.scope_id AND k.wrapped_key IS NOT NULL
    )
    ORDER BY s.scope_kind, s.scope_id LIMIT $1";
