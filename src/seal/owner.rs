//! Finds out whose keys protect a value: where an event names the owner, and how its id is read.

use crate::error::{Error, EventFault, Result};
use crate::event::{EventDocument, EventRef, MAX_TEXT, NOT_JSON};
use crate::json::pointer::{Bound, JsonPointer, Pattern, Token};
use crate::json::scan::{Hit, MAX_DEPTH, ScanError, scan, unescape};
use crate::json::wanted::Target;
use crate::keys::names::KeyScope;
use crate::seal::format::{Entry, Header};
use crate::seal::in_the_clear::{Clear, Hidden, OwnerFn};
use crate::seal::named::read_header;
use crate::seal::normalize::NotNormalized;
use crate::seal::plan::{Field, FieldOwner, Plan};
use std::borrow::Cow;
use std::cell::OnceCell;
use std::collections::HashMap;
use std::sync::Arc;
use uuid::Uuid;

/// The hits that name subjects in a document.
pub(super) struct Names<'f> {
    plan: &'f Plan,
    hits: &'f [Hit],
    /// The same hits by capture, and by elements and members. Made if there are too many to search them one by one.
    index: Option<HashMap<(usize, &'f [Bound]), &'f Hit>>,
}

impl<'f> Names<'f> {
    pub(super) fn new(plan: &'f Plan, hits: &'f [Hit]) -> Self {
        let captured = |hit: &'f Hit| match hit.target {
            Target::Capture(capture) => Some(((capture, &hit.bound[..]), hit)),
            Target::Field(_) => None,
        };
        let index = (hits.len() > 32).then(|| hits.iter().filter_map(captured).collect());
        Self { plan, hits, index }
    }

    /// The hit that names the owner of a field. `None` if the owner is the aggregate, or if the subject is not named.
    pub(super) fn owner_of(&self, field: &Field, hit: &Hit) -> Option<&'f Hit> {
        let FieldOwner::Subject { capture, .. } = &field.owner else { return None };
        let bound = hit.bound.get(..self.plan.captures[*capture].stars())?;
        match &self.index {
            Some(index) => index.get(&(*capture, bound)).copied(),
            None => self.hits.iter().find(|named| named.target == Target::Capture(*capture) && named.bound == bound),
        }
    }
}

/// The ids that the other document of an event, or functions of what is in the clear, name. Both are read when the
/// first id is asked for.
pub(super) struct Beside<'e> {
    plan: &'e Plan,
    event: EventRef<'e>,
    /// The ids that the other document has, and its header if it is sealed.
    found: OnceCell<(Vec<Hit>, Option<Header>)>,
    clear: OnceCell<Option<Clear<'e>>>,
}

impl<'e> Beside<'e> {
    pub(super) fn new(plan: &'e Plan, event: EventRef<'e>) -> Self {
        Self { plan, event, found: OnceCell::new(), clear: OnceCell::new() }
    }

    /// The id that a function names.
    fn named_by(&self, function: &OwnerFn) -> std::result::Result<String, &'static str> {
        let clear = self.clear.get_or_init(|| Clear::of(self.plan, self.event, &Hidden::default()));
        let clear = clear.as_ref().ok_or("the payload or the metadata is not JSON that serde_json can hold")?;
        let id = clear.id(function)?;
        check_id(&id).map(|()| id)
    }

    /// Refuses to take ciphertext, or what stands in a sealed value's place, for an id. An older schema may have sealed
    /// what names an owner now.
    fn check_in_the_clear(&self, kind: &str, pointer: usize, header: &Header) -> Result<()> {
        let id = &self.plan.beside[pointer];
        let covers = |entry: &Entry| {
            let place = JsonPointer::new_unchecked(header.pointer(*entry));
            id.overlaps(&Pattern::from_tokens(place.tokens().map(Token::Name).collect()))
        };
        if !header.entries.iter().any(covers) {
            return Ok(());
        }
        let pointer = id.as_str().to_owned() + self.plan.beside_is();
        let problem =
            "is sealed in this event, so it names no owner: append such events anew, or leave them as they are";
        let fault = EventFault::InvalidScopeId { kind: kind.to_owned(), pointer, problem };
        Err(Error::Event { event_id: self.event.event_id, fault })
    }

    /// The JSON text at a pointer of the plan into the other document; `None` if there is none.
    fn id(&self, kind: &str, pointer: usize) -> Result<Option<&'e [u8]>> {
        let Some(beside) = self.event.beside else { return Ok(None) };
        let (hits, header) = match self.found.get() {
            Some(found) => found,
            None => {
                let fault = |error| Error::Event {
                    event_id: self.event.event_id,
                    fault: match self.event.document {
                        EventDocument::Payload => unreadable_metadata(&error),
                        EventDocument::Metadata => EventFault::InvalidScopeId {
                            kind: kind.to_owned(),
                            pointer: self.plan.beside[pointer].as_str().to_owned() + self.plan.beside_is(),
                            problem: "can't be looked for: the payload is not JSON, or has a member twice there",
                        },
                    },
                };
                let found = scan(beside, &self.plan.in_beside).map_err(fault)?;
                let other = EventRef { document: self.event.document.other(), ..self.event };
                let header = found.seal.map(|seal| read_header(other, seal.value.of(beside))).transpose()?;
                self.found.get_or_init(|| (found.hits, header))
            }
        };
        if let Some(header) = header {
            self.check_in_the_clear(kind, pointer, header)?;
        }
        let hit = hits.iter().find(|hit| hit.target == Target::Capture(pointer));
        Ok(hit.map(|hit| hit.span.of(beside)))
    }
}

/// Why metadata does not say whose values an event holds. A store may keep it in a column that parses it, and keeps the
/// last one of two members of one name. So a member that is there twice is refused.
fn unreadable_metadata(error: &ScanError) -> EventFault {
    match error {
        ScanError::Duplicate { .. } => EventFault::InvalidMetadata {
            problem: "has a member twice that names an owner, or leads to one: write it once",
        },
        ScanError::TooDeep => {
            EventFault::LimitExceeded { what: "the nesting of metadata that name an owner", limit: MAX_DEPTH }
        }
        ScanError::Syntax { .. } | ScanError::TooMany | ScanError::Shape { .. } => {
            EventFault::InvalidMetadata { problem: NOT_JSON }
        }
    }
}

/// The key scope whose keys protect a place. `named` is the hit that names the owner in the payload.
pub(super) fn scope_of(
    beside: &Beside<'_>,
    field: &Field,
    hit: &Hit,
    place: &str,
    named: Option<&Hit>,
) -> Result<KeyScope> {
    let Beside { plan, event, .. } = beside;
    let event_id = event.event_id;
    match &field.owner {
        FieldOwner::Aggregate { kind } => {
            let kind = kind.as_ref().map_or_else(|| event.aggregate.aggregate_type().into(), Arc::clone);
            normalized(plan, &kind, event.aggregate.aggregate_id(), event_id)
        }
        FieldOwner::Subject { kind, capture } => {
            let id = named.map(|named| named.span.of(event.text));
            named_scope(plan, kind, id, place, event_id, &|| {
                plan.captures[*capture].as_str().to_owned() + plan.document_is()
            })
        }
        FieldOwner::Member { kind, binding } => {
            let id = match hit.bound.get(*binding) {
                Some(Bound::Name(name)) => check_id(name).map(|()| &**name),
                Some(Bound::Index(_)) | None => Err("is not the name of a member"),
            };
            let pattern = field.pattern.as_ref().map_or("", Pattern::as_str);
            let pointer = || format!("{pattern}, by the name of a member,");
            let fault = |problem| EventFault::InvalidScopeId { kind: kind.to_string(), pointer: pointer(), problem };
            normalized(plan, kind, id.map_err(|problem| Error::Event { event_id, fault: fault(problem) })?, event_id)
        }
        FieldOwner::Function { kind, function } => {
            let id = beside.named_by(function).map_err(|problem| Error::Event {
                event_id,
                fault: EventFault::NotNamed {
                    field: JsonPointer::new_unchecked(place),
                    kind: kind.to_string(),
                    by: function.name().to_owned(),
                    problem,
                },
            })?;
            normalized(plan, kind, &id, event_id)
        }
        FieldOwner::Beside { kind, pointer } => {
            let id = beside.id(kind, *pointer)?;
            let pointer = || plan.beside[*pointer].as_str().to_owned() + plan.beside_is();
            named_scope(plan, kind, id, place, event_id, &pointer)
        }
    }
}

/// The scope of a kind that a JSON text names. `pointer` says where the text stands.
fn named_scope(
    plan: &Plan,
    kind: &Arc<str>,
    id: Option<&[u8]>,
    place: &str,
    event_id: Uuid,
    pointer: &dyn Fn() -> String,
) -> Result<KeyScope> {
    match id {
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

/// The scope under the normalized id.
fn normalized(plan: &Plan, kind: &Arc<str>, id: &str, event_id: Uuid) -> Result<KeyScope> {
    plan.normalizers.scope(Arc::clone(kind), id).map_err(|NotNormalized { by, problem }| Error::Event {
        event_id,
        fault: EventFault::NotNormalized { kind: kind.to_string(), by, problem },
    })
}

/// Reads a scope id from its JSON text: a string (decoded), or an integer (as it is spelled).
pub(crate) fn scope_id(value: &[u8]) -> Result<Cow<'_, str>, &'static str> {
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
    check_id(&id).map(|()| id)
}

fn check_id(id: &str) -> Result<(), &'static str> {
    match id.len() {
        0 => Err("is empty"),
        length if length > MAX_TEXT => Err("is longer than 1,024 bytes"),
        _ if id.contains('\0') => Err("holds a NUL character"),
        _ => Ok(()),
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
