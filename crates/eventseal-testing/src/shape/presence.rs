//! Finds out which members of a struct are required.

use crate::shape::fill::Filling;
use crate::shape::trace::{Hop, fill_struct};
use eventseal::schema::{PayloadType, Refusal};

/// What was found out about a member.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Presence {
    Required,
    MayBeAbsent,
    /// This name is an alias of that member.
    Alias(&'static str),
    Unknown,
}

/// Is a member of the struct at the end of a path required? This is found out by leaving it out.
pub(super) fn presence(of: PayloadType, path: &[Hop], name: &'static str) -> Presence {
    let mut filling = Filling::rich();
    // First with all members, which tells the aliases.
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
