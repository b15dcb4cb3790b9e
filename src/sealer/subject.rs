//! Writes the subjects that the caller of an append names into the metadata. There every reader finds them.

use crate::error::{Error, EventFault, Result};
use crate::event::{NOT_JSON, NewEvent};
use crate::json::document::{Node, way};
use crate::json::pointer::Pattern;
use crate::keys::names::KeyScope;
use crate::schema::VersionSchema;
use crate::seal::owner::scope_id;
use crate::seal::plan::Plan;
use std::borrow::Cow;

/// The event with its subjects in the metadata. `schema` is that of its type and version.
pub(super) fn with_subjects<'e>(schema: &VersionSchema, event: &'e NewEvent) -> Result<Cow<'e, NewEvent>> {
    if event.subjects().is_empty() {
        return Ok(Cow::Borrowed(event));
    }
    let fault = |fault| Error::Event { event_id: event.event_id, fault };
    let stored = match event.metadata.as_deref() {
        None => "{}",
        Some(stored) => {
            std::str::from_utf8(stored).map_err(|_| fault(EventFault::InvalidMetadata { problem: NOT_JSON }))?
        }
    };
    let mut metadata = Node::Text(stored);
    for subject in event.subjects() {
        subject.check()?;
        let Some(place) = schema.caller(subject.kind()) else {
            return Err(fault(EventFault::NotFromCaller {
                event_type: event.event_type.clone(),
                event_version: event.event_version,
                kind: subject.kind().to_owned(),
            }));
        };
        if !write(&mut metadata, place, subject, &schema.plan) {
            let (kind, pointer) = (subject.kind().to_owned(), place.as_str().to_owned());
            return Err(fault(EventFault::OtherSubject { kind, pointer }));
        }
    }
    Ok(Cow::Owned(event.with_subjects_in(metadata.bytes().into_owned())))
}

/// Writes the id of a subject, unless it is there. Returns false if something else is there, or on the way.
fn write(metadata: &mut Node<'_>, place: &Pattern, subject: &KeyScope, plan: &Plan) -> bool {
    let way = way(place.tokens());
    let there = match metadata.get(&way) {
        Ok(there) => there.filter(|there| !there.is_null()).map(|there| there.clone().bytes().into_owned()),
        Err(_) => return false,
    };
    match there {
        Some(there) => scope_id(there.trim_ascii()).is_ok_and(|id| {
            let named = |id: &str| plan.normalizers.same(KeyScope::new(subject.kind(), id));
            named(&id) == named(subject.id())
        }),
        None => {
            let id = serde_json::Value::from(subject.id());
            metadata.put(&way, Node::Parsed(id)).is_ok()
        }
    }
}
