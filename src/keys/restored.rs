//! Live keys of scopes that were shredded, which a restore of a part of the key tables brings back.

use crate::keys::names::KeyScope;

/// Scopes that have live keys although the last change in their history is a shred. Somebody restored a part of the
/// tables, or wrote to them: shred these scopes again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RestoredScopes {
    /// How many there are.
    pub count: u64,
    /// The first of them, in ascending order.
    pub first: Vec<KeyScope>,
}
