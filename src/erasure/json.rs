//! How certificates are written as JSON: times, ids and hashes as text.

use crate::event::{EventVersion, GlobalPosition};
use crate::keys::names::{KeyScope, Namespace};
use crate::keys::shred_log::CopyReport;
use crate::keys::{ScopeAction, ScopeState};
use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};
use std::fmt::{Display, Write as _};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// A time as RFC 3339, in UTC.
pub(super) fn in_rfc3339(at: OffsetDateTime) -> String {
    // Times of databases are within the years that RFC 3339 has.
    at.to_offset(time::UtcOffset::UTC).format(&Rfc3339).unwrap_or_default()
}

pub(super) fn time<S: Serializer>(at: &OffsetDateTime, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&in_rfc3339(*at))
}

pub(super) fn optional_time<S: Serializer>(at: &Option<OffsetDateTime>, to: S) -> Result<S::Ok, S::Error> {
    at.map(in_rfc3339).serialize(to)
}

pub(super) fn text<T: Display, S: Serializer>(value: &T, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(value)
}

pub(super) fn optional_text<T: Display, S: Serializer>(value: &Option<T>, to: S) -> Result<S::Ok, S::Error> {
    value.as_ref().map(ToString::to_string).serialize(to)
}

pub(super) fn texts<T: Display, S: Serializer>(values: &[T], to: S) -> Result<S::Ok, S::Error> {
    to.collect_seq(values.iter().map(ToString::to_string))
}

pub(super) fn hash<S: Serializer>(hash: &[u8; 32], to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&in_hex(hash))
}

pub(super) fn copies<S: Serializer>(copies: &[CopyReport], to: S) -> Result<S::Ok, S::Error> {
    to.collect_seq(copies.iter().map(Copied))
}

struct Copied<'c>(&'c CopyReport);

impl Serialize for Copied<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut object = to.serialize_struct("copy", 4)?;
        object.serialize_field("copy", &self.0.name)?;
        object.serialize_field("seq", &self.0.seq)?;
        object.serialize_field("hash", &in_hex(&self.0.hash))?;
        object.serialize_field("state", self.0.state.as_str())?;
        object.end()
    }
}

fn in_hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

pub(super) fn scope<S: Serializer>(scope: &KeyScope, to: S) -> Result<S::Ok, S::Error> {
    let mut object = to.serialize_struct("scope", 2)?;
    object.serialize_field("kind", scope.kind())?;
    object.serialize_field("id", scope.id())?;
    object.end()
}

pub(super) fn namespace<S: Serializer>(namespace: &Namespace, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(namespace.as_str())
}

pub(super) fn state<S: Serializer>(state: &ScopeState, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(state.as_str())
}

pub(super) fn action<S: Serializer>(action: &ScopeAction, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(action.as_str())
}

pub(super) fn position<S: Serializer>(position: &GlobalPosition, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_i64(position.get())
}

pub(super) fn event_version<S: Serializer>(version: &EventVersion, to: S) -> Result<S::Ok, S::Error> {
    version.get().serialize(to)
}
