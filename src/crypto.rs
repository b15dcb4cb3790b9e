//! The primitives: keys that are wiped, random bytes, the key of an event, and keys wrapped by keys. Knows nothing of
//! JSON.

pub(crate) mod primitives;
pub(crate) mod random;
pub(crate) mod secret;
pub(crate) mod wrap;
