//! The cryptographic primitives: keys in memory, random bytes, the key of an event, and keys wrapped by keys. This
//! module knows nothing of JSON.
//!
//! The ciphers and hashes themselves are in [`backend`]: all of them in the crates of RustCrypto, or with the feature
//! `aws-lc-rs` all of them in AWS-LC. Nothing else of the library names one. A test says so.

#[cfg(feature = "aws-lc-rs")]
pub(crate) mod aws_lc;
#[cfg(test)]
mod backends_agree;
pub(crate) mod primitives;
pub(crate) mod random;
// Tests compare the two.
#[cfg(any(test, not(feature = "aws-lc-rs")))]
pub(crate) mod rust_crypto;
pub(crate) mod secret;
pub(crate) mod wrap;

#[cfg(feature = "aws-lc-rs")]
pub(crate) use aws_lc as backend;
#[cfg(not(feature = "aws-lc-rs"))]
pub(crate) use rust_crypto as backend;
