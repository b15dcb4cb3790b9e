//! The contents of the vector files of format version 1, case by case.
//!
//! Expectations are written by hand, so that they are claims about the engine and not its echo; what the engine can't
//! be made to write (headers of an attacker, void entries) is put together here.

mod forged;
mod headers;
pub(super) mod indexes;
pub(super) mod later;
pub(super) mod log;
mod making;
pub(super) mod metadata;
mod opens;
mod seals;
pub(super) mod snapshots;
mod values;
pub(super) mod values_outside;
mod wrapped;

use super::case::Vectors;

pub(super) fn pass() -> Vectors {
    Vectors {
        about: "eventseal, sealed payload format version 1: payloads that open. Frozen: see docs/format.md.".into(),
        format: 1,
        cases: opens::all(),
        wrapped_keys: wrapped::opening(),
    }
}

pub(super) fn fail() -> Vectors {
    Vectors {
        about: "eventseal, sealed payload format version 1: payloads that must not open. Frozen: see docs/format.md."
            .into(),
        format: 1,
        cases: [headers::all(), forged::all(), values::all(), seals::all()].concat(),
        wrapped_keys: wrapped::refused(),
    }
}
