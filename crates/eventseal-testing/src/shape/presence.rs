//! Which members of a struct must be there.

use crate::shape::fill::Filling;
use crate::shape::trace::{Hop, fill_struct};
use eventseal::schema::{PayloadType, Refusal};

/// What is known of a member.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Presence {
    Required,
    MayBeAbsent,
    /// Another name of this one.
    Alias(&'static str),
    Unknown,
}

/// Must a member of the struct at the end of a path be there? Found out by leaving it out.
pub(super) fn presence(of: PayloadType, path: &[Hop], name: &'static str) -> Presence {
    let mut filling = Filling::rich();
    // With everything in it, to learn the other names of members.
    if filling.attempts(|filling| fill_struct(of, path, filling)).is_none() {
        return Presence::Unknown;
    }
    if let Some(other) = filling.alias_of(name) {
        return Presence::Alias(other);
    }
    filling.omit(name);
    let found = filling.attempts(|filling| match fill_struct(of, path, filling) {
        Ok(()) if filling.was_omitted() => Ok(Presence::MayBeAbsent),
        Err(Refusal::MissingField(missing)) if missing == name => Ok(Presence::Required),
        Ok(()) => Ok(Presence::Unknown),
        Err(refusal) => Err(refusal),
    });
    found.unwrap_or(Presence::Unknown)
}
