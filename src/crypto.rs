//! The cryptographic primitives: keys in memory, random bytes, the key of an event, and keys wrapped by keys. This
//! module knows nothing of JSON.

pub(crate) mod primitives;
pub(crate) mod random;
pub(crate) mod secret;
pub(crate) mod wrap;
