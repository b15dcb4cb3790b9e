//! Finds out whose keys protect a value: where the payload names the owner, and how its id is read.

use crate::error::{Error, EventFault, Result};
use crate::event::{EventRef, MAX_TEXT};
use crate::json::pointer::JsonPointer;
use crate::json::scan::{Hit, unescape};
use crate::json::wanted::Target;
use crate::keys::names::KeyScope;
use crate::seal::normalize::NotNormalized;
use crate::seal::plan::{Field, FieldOwner, Plan};
use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use uuid::Uuid;

/// The hits that name subjects in a document.
pub(super) struct Names<'f> {
    plan: &'f Plan,
    hits: &'f [Hit],
    /// The same hits by capture and array elements. Made if there are too many to search them one by one.
    index: Option<HashMap<(usize, &'f [u32]), &'f Hit>>,
}

impl<'f> Names<'f> {
    pub(super) fn new(plan: &'f Plan, hits: &'f [Hit]) -> Self {
        let captured = |hit: &'f Hit| match hit.target {
            Target::Capture(capture) => Some(((capture, &hit.indexes[..]), hit)),
            Target::Field(_) => None,
        };
        let index = (hits.len() > 32).then(|| hits.iter().filter_map(captured).collect());
        Self { plan, hits, index }
    }

    /// The hit that names the owner of a field. `None` if the owner is the aggregate, or if the subject is not named.
    pub(super) fn owner_of(&self, field: &Field, hit: &Hit) -> Option<&'f Hit> {
        let FieldOwner::Subject { capture, .. } = &field.owner else { return None };
        let elements = hit.indexes.get(..self.plan.captures[*capture].stars())?;
        match &self.index {
            Some(index) => index.get(&(*capture, elements)).copied(),
            None => {
                self.hits.iter().find(|named| named.target == Target::Capture(*capture) && named.indexes == elements)
            }
        }
    }
}

/// The key scope whose keys protect a place. `named` is the hit that names the owner.
pub(super) fn scope_of(
    plan: &Plan,
    field: &Field,
    place: &str,
    named: Option<&Hit>,
    event: EventRef<'_>,
) -> Result<KeyScope> {
    let event_id = event.event_id;
    match &field.owner {
        FieldOwner::Aggregate { kind } => {
            let kind = kind.as_ref().map_or_else(|| event.aggregate.aggregate_type().into(), Arc::clone);
            normalized(plan, &kind, event.aggregate.aggregate_id(), event_id)
        }
        FieldOwner::Subject { kind, capture } => {
            let pointer = || plan.captures[*capture].as_str().to_owned();
            match named.map(|named| named.span.of(event.payload)) {
                None | Some(b"null") => Err(Error::Event {
                    event_id,
                    fault: EventFault::MissingScopeId {
                        field: JsonPointer::new_unchecked(place),
                        kind: kind.to_string(),
                        pointer: pointer(),
                    },
                }),
                Some(id) => match scope_id(id) {
                    Ok(id) => normalized(plan, kind, &id, event_id),
                    Err(problem) => Err(Error::Event {
                        event_id,
                        fault: EventFault::InvalidScopeId { kind: kind.to_string(), pointer: pointer(), problem },
                    }),
                },
            }
        }
    }
}

/// The scope under the normalized id.
fn normalized(plan: &Plan, kind: &Arc<str>, id: &str, event_id: Uuid) -> Result<KeyScope> {
    plan.normalizers.scope(Arc::clone(kind), id).map_err(|NotNormalized { by, problem }| Error::Event {
        event_id,
        fault: EventFault::NotNormalized { kind: kind.to_string(), by, problem },
    })
}

/// Reads a scope id from its JSON text: a string (decoded), or an integer (as it is spelled).
fn scope_id(value: &[u8]) -> Result<Cow<'_, str>, &'static str> {
    let id = match value {
        [b'"', inner @ .., b'"'] if inner.contains(&b'\\') => {
            Cow::Owned(unescape(inner).ok_or("is not valid Unicode")?)
        }
        [b'"', inner @ .., b'"'] => String::from_utf8_lossy(inner),
        [b'-' | b'0'..=b'9', ..] => {
            let digits = value.strip_prefix(b"-").unwrap_or(value);
            let is_integer = digits.iter().all(u8::is_ascii_digit) && value != b"-0";
            is_integer.then(|| String::from_utf8_lossy(value)).ok_or("is a number that is not an integer")?
        }
        _ => return Err("is neither a string nor an integer"),
    };
    match id.len() {
        0 => Err("is empty"),
        length if length > MAX_TEXT => Err("is longer than 1,024 bytes"),
        _ if id.contains('\0') => Err("holds a NUL character"),
        _ => Ok(id),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scope_ids_are_strings_and_integers() {
        assert_eq!(scope_id(br#""a\u0062""#).unwrap(), "ab");
        assert_eq!(scope_id(b"-12").unwrap(), "-12");
        assert_eq!(scope_id(b"1234567890123456789012345").unwrap(), "1234567890123456789012345");
        for wrong in [&b"1.0"[..], b"1e3", b"-0", b"true", b"[]", b"\"\"", b"\"\\u0000\"", b"\"\\ud800\"", b"{}"] {
            assert!(scope_id(wrong).is_err(), "{}", String::from_utf8_lossy(wrong));
        }
    }
}
