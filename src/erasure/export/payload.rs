//! A payload in an export: with the values of one owner, and without those of others.

use crate::error::{Error, EventFault, Result};
use crate::event::{EventType, EventVersion, Part, PersistedEvent, SealedPlace};
use crate::json::document::Node;
use crate::json::pointer::{JsonPointer, Places};
use crate::keys::names::KeyScope;
use std::collections::HashMap;
use std::fmt;

/// A payload in an export.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExportedPayload {
    /// The type of the payload.
    pub event_type: EventType,
    /// The version of the payload.
    pub event_version: EventVersion,
    /// Which part of the stored event it is, if a step splits that.
    pub part: Part,
    /// The payload, without what is in `erased` and `left_out`: members are removed, and elements of arrays are `null`.
    /// `None` if the payload is erased as a whole.
    pub payload: Option<Vec<u8>>,
    /// The metadata, as it is at this version, without what is erased and left out in it. `None` if there is none, or
    /// if it was not asked for.
    pub metadata: Option<Vec<u8>>,
    /// The places in the metadata, as those in the payload, also if the metadata was not asked for.
    pub in_metadata: ExportedPlaces,
    /// The places of the owner's values. A function among the steps may move values to places that it does not tell:
    /// see [`PersistedEvent::sealed_places`]. In the stored version, all of them are listed.
    pub fields: Vec<JsonPointer>,
    /// The places of values of the owner that were erased.
    pub erased: Vec<JsonPointer>,
    /// The places of protected values of others, which are left out. After a function among the steps, erased values
    /// whose owner can't be told are among them.
    pub left_out: Vec<JsonPointer>,
}

/// The protected places of a document in an export.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExportedPlaces {
    /// The places of the owner's values.
    pub fields: Vec<JsonPointer>,
    /// The places of values of the owner that were erased.
    pub erased: Vec<JsonPointer>,
    /// The places of protected values of others, which are left out.
    pub left_out: Vec<JsonPointer>,
}

impl ExportedPayload {
    /// `event` was opened for this owner.
    pub(super) fn of(event: PersistedEvent, scope: &KeyScope, metadata: bool) -> Result<Self> {
        let fault = || Error::Event {
            event_id: event.event_id,
            fault: EventFault::StillSealed { event_type: event.stored_type.clone() },
        };
        let payload = without(&event.payload, &event.redacted).map_err(|()| fault())?;
        let ExportedPlaces { fields, erased, left_out } =
            ExportedPlaces::of(&event.sealed_places(), &event.redacted, scope);
        let (in_metadata, without_others) = match event.metadata.as_deref() {
            Some(stored) => (
                ExportedPlaces::of(&event.sealed_metadata_places(), &event.redacted_metadata, scope),
                without(stored, &event.redacted_metadata).map_err(|()| fault().in_metadata())?,
            ),
            None => (ExportedPlaces::default(), None),
        };
        Ok(Self {
            fields,
            erased,
            left_out,
            in_metadata,
            payload,
            metadata: without_others.filter(|_| metadata),
            event_type: event.event_type,
            event_version: event.event_version,
            part: event.part,
        })
    }
}

impl ExportedPlaces {
    fn of(places: &[SealedPlace], redacted: &[JsonPointer], scope: &KeyScope) -> Self {
        let owners: HashMap<&JsonPointer, &KeyScope> =
            places.iter().map(|sealed| (&sealed.place, &sealed.scope)).collect();
        let own = places.iter().filter(|sealed| sealed.scope == *scope && !sealed.redacted);
        let fields = own.map(|sealed| sealed.place.clone()).collect();
        let is_own = |place: &JsonPointer| owners.get(place).is_some_and(|owner| *owner == scope);
        let (erased, left_out) = redacted.iter().cloned().partition(is_own);
        Self { fields, erased, left_out }
    }
}

/// The payload without what stands at these places; `None` if nothing is left. An error if the payload can't be looked
/// through.
fn without(payload: &[u8], places: &[JsonPointer]) -> Result<Option<Vec<u8>>, ()> {
    let places = match places {
        [] => return Ok(Some(payload.to_vec())),
        places => Places::of(places),
    };
    if places.is_place() {
        return Ok(None);
    }
    let mut node = Node::Text(std::str::from_utf8(payload).map_err(drop)?);
    node.leave_out(&places).map_err(drop)?;
    Ok(Some(node.bytes().into_owned()))
}

/// Shows places and sizes, and no values.
impl fmt::Debug for ExportedPayload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExportedPayload")
            .field("event_type", &self.event_type)
            .field("event_version", &self.event_version.get())
            .field("part", &format_args!("{} of {}", self.part.index, self.part.count))
            .field("payload", &format_args!("{} bytes", self.payload.as_ref().map_or(0, Vec::len)))
            .field("fields", &self.fields)
            .field("erased", &self.erased)
            .field("left_out", &self.left_out)
            .field("in_metadata", &self.in_metadata)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_go_and_elements_become_null() {
        for (payload, places, expected) in [
            (r#"{"a":1,"b":{"c":2,"d":1.50}}"#, &["/b/c"][..], Some(r#"{"a":1,"b":{"d":1.50}}"#)),
            (
                r#"{"l":[1,2,3],"m":[{"a":1},{"a":2}]}"#,
                &["/l/1", "/m/0/a"],
                Some(r#"{"l":[1,null,3],"m":[{},{"a":2}]}"#),
            ),
            (r#"{"a~/b":1,"":2}"#, &["/a~0~1b"], Some(r#"{"":2}"#)),
            (r#"{"a":1}"#, &[""], None),
            (r#"{"a":1}"#, &["/x/y"], Some(r#"{"a":1}"#)),
            (r#"{"a":1,"\u0061":2,"b":3}"#, &["/a"], Some(r#"{"b":3}"#)),
        ] {
            let places: Vec<JsonPointer> = places.iter().map(|place| JsonPointer::parse(place).unwrap()).collect();
            let found = without(payload.as_bytes(), &places).unwrap();
            assert_eq!(found.as_deref(), expected.map(str::as_bytes), "{payload}");
        }
        assert!(without(b"\xff", &[JsonPointer::parse("/a").unwrap()]).is_err());
        assert!(without(b"{", &[JsonPointer::parse("/a").unwrap()]).is_err());
    }
}
