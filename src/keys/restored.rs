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
