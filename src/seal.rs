//! The sealing engine: bytes and keys in, bytes out. Pure and synchronous.
//!
//! [`plan`] says what is protected, [`scan`](crate::json::scan) finds it, [`sealing`] and [`opening`] replace it where
//! it stands, [`format`](mod@format) is the header, [`binding`] what it is bound to,
//! [`primitives`](crate::crypto::primitives) what it is made of.

pub(crate) mod binding;
pub(crate) mod clear;
pub(crate) mod detect;
pub(crate) mod format;
pub(crate) mod opening;
mod owner;
pub(crate) mod plan;
pub(crate) mod sealing;
mod token;
#[cfg(test)]
mod vectors;
