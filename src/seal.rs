//! The sealing engine. It turns plaintext payloads and keys into sealed payloads, and back. It does no I/O.
//!
//! - [`plan`] says what is protected, and `owner` whose keys protect it. [`normalize`] spells ids in one way.
//! - [`in_the_clear`] is what functions see that name owners or compute stand-ins.
//! - [`stand_in`] is what readers get in place of erased values.
//! - [`scan`](crate::json::scan) finds the protected values in a payload.
//! - [`sealing`] and [`opening`] replace the values where they stand.
//! - [`format`](mod@format) reads and writes the header. [`binding`] computes what the header is bound to.
//! - [`places`] says whose values are where in a payload that was opened.
//! - [`value`] seals and opens values outside of events, [`snapshot`] the states of aggregates.
//! - [`clear`] and [`detect`] refuse what must not be stored or read as it is. [`named`] says which keys a seal names.
//! - [`unsealed`] looks for protected values that no key seals.

pub(crate) mod binding;
pub(crate) mod clear;
pub(crate) mod detect;
pub(crate) mod format;
pub(crate) mod in_the_clear;
pub(crate) mod named;
pub(crate) mod normalize;
pub(crate) mod opening;
pub(crate) mod owner;
pub(crate) mod places;
pub(crate) mod plan;
pub(crate) mod sealing;
pub(crate) mod snapshot;
pub(crate) mod stand_in;
pub(crate) mod token;
pub(crate) mod unsealed;
pub(crate) mod value;
