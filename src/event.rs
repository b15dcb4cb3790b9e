//! Events, in the words of event sourcing.
//!
//! Nothing here knows of keys, schemas or databases.

mod names;
mod pages;
mod payload_type;
mod sealed_place;
pub(crate) mod typed;

pub use names::{
    AggregateRef, AggregateVersion, EventType, EventVersion, ExpectedVersion, GlobalPosition, VersionRange, aggregate,
};
pub use pages::{Appended, EventFilter, EventPage, OpenedPage, Stream, Unreadable};
pub use payload_type::{Answers, Asked, Given, Parts, PayloadType, Question, Refusal};
pub use sealed_place::SealedPlace;
pub(crate) use sealed_place::{Sealed, Seals};
pub use typed::{EventPayload, TypedEvent};

use crate::error::{Error, EventFault, InputFault, Result};
use crate::json::pointer::JsonPointer;
use crate::keys::names::KeyId;
use crate::seal::detect::is_sealed;
use crate::sensitive::{self, SensitivePlace, Undecodable};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt;
use time::OffsetDateTime;
use uuid::Uuid;

/// An event to be appended.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct NewEvent {
    /// Unique over the whole store. The constructors draw a UUIDv7.
    pub event_id: Uuid,
    /// The event's type.
    pub event_type: EventType,
    /// The version of the payload's schema, from 1 on.
    pub event_version: EventVersion,
    /// What happened, as bytes. It is JSON unless the application chooses another encoding, which only events without
    /// protected fields and events that are protected whole may have.
    pub payload: Vec<u8>,
    /// A JSON document about the event. It is stored in the clear.
    pub metadata: Option<Vec<u8>>,
    /// The id of the request's trace.
    pub trace_id: Option<String>,
    /// An id that related events share.
    pub correlation_id: Option<String>,
    /// The id of the event or command that caused this event.
    pub causation_id: Option<String>,
    /// When it happened, kept in microseconds.
    pub created_at: OffsetDateTime,
    origin: Origin,
}

/// How a payload was made. It plays no part in whether two events are equal.
#[derive(Clone, Default)]
struct Origin {
    /// The places of the `Sensitive`s in the value that the payload was made of.
    sensitive: Vec<SensitivePlace>,
    /// The keys that the payload was sealed under.
    sealed_under: Vec<KeyId>,
}

impl PartialEq for Origin {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Origin {}

impl NewEvent {
    /// An event whose payload is `payload` written as JSON.
    ///
    /// The event remembers where in the value a [`Sensitive`](crate::Sensitive) stood.
    /// [`Sealer::seal`](crate::Sealer::seal), and so every append to a [`SealedStore`](crate::SealedStore), refuses the
    /// event if the schema does not protect all of these places ([`EventFault::SensitiveInTheClear`]). A store that is
    /// not wrapped has no schemas, and stores what it is given. A later change of the event's public fields does not
    /// change the remembered places: they are checked against the schema of the type and version that the event then
    /// has. For other bytes, make an event with [`raw`](Self::raw), which remembers nothing.
    ///
    /// Values that JSON can't express are refused, so that readers get what was passed: a float that is not finite
    /// (serde_json writes `null`), a `Sensitive` that is redacted, a `Some` in or around a `Sensitive` that is written
    /// as `null`, two members of a map with one name. This check does not reach values that a `Serialize` of your own
    /// writes with another serializer.
    ///
    /// # Errors
    /// [`InputFault::Encode`] if serde can't write the value as JSON, or if JSON can't say it.
    pub fn json<T: Serialize + ?Sized>(event_type: impl Into<EventType>, version: u32, payload: &T) -> Result<Self> {
        let (payload, sensitive) = sensitive::write(payload)?;
        let origin = Origin { sensitive, sealed_under: Vec::new() };
        Ok(Self { origin, ..Self::raw(event_type, version, payload) })
    }

    /// An event whose payload is these very bytes.
    #[must_use]
    pub fn raw(event_type: impl Into<EventType>, version: u32, payload: impl Into<Vec<u8>>) -> Self {
        Self {
            event_id: Uuid::now_v7(),
            event_type: event_type.into(),
            event_version: EventVersion::new(version),
            payload: payload.into(),
            metadata: None,
            trace_id: None,
            correlation_id: None,
            causation_id: None,
            created_at: now(),
            origin: Origin::default(),
        }
    }

    /// Where a `Sensitive` stood in the value that the event was made of.
    pub(crate) fn sensitive_places(&self) -> &[SensitivePlace] {
        &self.origin.sensitive
    }

    /// The data keys that the payload was sealed under, if this event comes from [`Sealer::seal`](crate::Sealer::seal);
    /// otherwise none, whatever the payload is. For implementers of stores that keep an
    /// [index of seals](crate::store::SealIndex).
    #[must_use]
    pub fn sealed_under(&self) -> &[KeyId] {
        &self.origin.sealed_under
    }

    /// This event as `aggregate` is to store it.
    pub(crate) fn to_store<'a>(&'a self, aggregate: &'a AggregateRef) -> EventRef<'a> {
        EventRef {
            aggregate,
            event_id: self.event_id,
            event_type: &self.event_type,
            event_version: self.event_version,
            payload: &self.payload,
        }
    }

    /// This event with a payload that is sealed under these keys, in place of its own. Nothing is in the clear in that
    /// one, so no places of `Sensitive`s are kept.
    pub(crate) fn sealed(&self, payload: Vec<u8>, keys: Vec<KeyId>) -> Self {
        Self {
            event_id: self.event_id,
            event_type: self.event_type.clone(),
            event_version: self.event_version,
            payload,
            metadata: self.metadata.clone(),
            trace_id: self.trace_id.clone(),
            correlation_id: self.correlation_id.clone(),
            causation_id: self.causation_id.clone(),
            created_at: self.created_at,
            origin: Origin { sensitive: Vec::new(), sealed_under: keys },
        }
    }

    /// With this event id instead of a drawn one.
    #[must_use]
    pub fn with_id(mut self, event_id: Uuid) -> Self {
        self.event_id = event_id;
        self
    }

    /// With metadata: a JSON document.
    #[must_use]
    pub fn with_metadata(mut self, metadata: impl Into<Vec<u8>>) -> Self {
        self.metadata = Some(metadata.into());
        self
    }

    /// With a correlation id.
    #[must_use]
    pub fn with_correlation_id(mut self, id: impl Into<String>) -> Self {
        self.correlation_id = Some(id.into());
        self
    }

    /// With a causation id.
    #[must_use]
    pub fn with_causation_id(mut self, id: impl Into<String>) -> Self {
        self.causation_id = Some(id.into());
        self
    }

    /// With a trace id.
    #[must_use]
    pub fn with_trace_id(mut self, id: impl Into<String>) -> Self {
        self.trace_id = Some(id.into());
        self
    }

    /// With this time instead of now.
    #[must_use]
    pub fn with_created_at(mut self, at: OffsetDateTime) -> Self {
        self.created_at = microseconds(at);
        self
    }
}

/// Shows sizes, and no contents: a payload may hold values that must not be logged.
impl fmt::Debug for NewEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewEvent")
            .field("event_id", &self.event_id)
            .field("event_type", &self.event_type)
            .field("event_version", &self.event_version.get())
            .field("payload", &format_args!("{} bytes", self.payload.len()))
            .finish_non_exhaustive()
    }
}

/// An event as it is stored, or is to be stored: the payload that a seal covers, and the names that the seal is bound
/// to.
#[derive(Clone, Copy)]
pub(crate) struct EventRef<'a> {
    pub(crate) aggregate: &'a AggregateRef,
    pub(crate) event_id: Uuid,
    /// The stored type, not the one that readers see.
    pub(crate) event_type: &'a EventType,
    /// The stored version, not the one that readers see.
    pub(crate) event_version: EventVersion,
    pub(crate) payload: &'a [u8],
}

impl<'a> EventRef<'a> {
    /// This event with another payload.
    pub(crate) fn with_payload(self, payload: &'a [u8]) -> Self {
        Self { payload, ..self }
    }
}

/// The number of an event among those that an upcaster made of one stored event: `0 of 1` unless it was split.
///
/// Parts share the stored event's id, version and position. To tell them apart, for instance when a projection
/// remembers the events that it has handled, use `(aggregate_version, part.index)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Part {
    /// From 0.
    pub index: u32,
    /// How many parts there are.
    pub count: u32,
}

impl Part {
    /// The only part of an event that was not split.
    pub const WHOLE: Self = Self { index: 0, count: 1 };
}

/// An event as a reader sees it.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
#[allow(missing_docs, reason = "documented below where it needs more than its name")]
pub struct PersistedEvent {
    pub aggregate: AggregateRef,
    pub aggregate_version: AggregateVersion,
    pub global_position: GlobalPosition,
    pub event_id: Uuid,
    /// The type of `payload`, after upcasting.
    pub event_type: EventType,
    /// The version of `payload`, after upcasting.
    pub event_version: EventVersion,
    /// The type under which the event lies in the store.
    pub stored_type: EventType,
    /// The version under which the event lies in the store.
    pub stored_version: EventVersion,
    pub payload: Vec<u8>,
    /// Equal to what was appended as a JSON value; a database may re-space or re-order it.
    pub metadata: Option<Vec<u8>>,
    pub trace_id: Option<String>,
    pub correlation_id: Option<String>,
    pub causation_id: Option<String>,
    /// In microseconds.
    pub created_at: OffsetDateTime,
    pub part: Part,
    /// The places in `payload` whose keys were shredded, and that hold a stand-in.
    pub redacted: Vec<JsonPointer>,
    pub(crate) sealed: Sealed,
}

impl PersistedEvent {
    /// An event as it was appended, with the version and the position that the store assigned. For implementers of
    /// stores.
    #[must_use]
    pub fn from_new(
        aggregate: AggregateRef,
        version: AggregateVersion,
        position: GlobalPosition,
        event: NewEvent,
    ) -> Self {
        Self {
            aggregate,
            aggregate_version: version,
            global_position: position,
            event_id: event.event_id,
            stored_type: event.event_type.clone(),
            event_type: event.event_type,
            stored_version: event.event_version,
            event_version: event.event_version,
            payload: event.payload,
            metadata: event.metadata,
            trace_id: event.trace_id,
            correlation_id: event.correlation_id,
            causation_id: event.causation_id,
            created_at: microseconds(event.created_at),
            part: Part::WHOLE,
            redacted: Vec::new(),
            sealed: Sealed::default(),
        }
    }

    /// This event as it is stored.
    pub(crate) fn as_stored(&self) -> EventRef<'_> {
        EventRef {
            aggregate: &self.aggregate,
            event_id: self.event_id,
            event_type: &self.stored_type,
            event_version: self.stored_version,
            payload: &self.payload,
        }
    }

    /// Reads the payload into a Rust type.
    ///
    /// A [`Sensitive`](crate::Sensitive) field is redacted exactly if its place is in [`redacted`](Self::redacted),
    /// whatever its stand-in is. If an object has a member twice, the last one is read.
    ///
    /// # Errors
    /// [`EventFault::Decode`] if the payload does not fit the type. It names the place, never a value.
    /// [`EventFault::PrivateMember`] if a member, at any depth, has a name that serde_json keeps for itself.
    /// [`EventFault::StillSealed`] if the event was not read through the [`SealedStore`](crate::SealedStore), so that
    /// its payload is ciphertext.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T> {
        if self.is_sealed() {
            return Err(Error::Event {
                event_id: self.event_id,
                fault: EventFault::StillSealed { event_type: self.event_type.clone() },
            });
        }
        sensitive::decode(&self.payload, &self.redacted).map_err(|error| match error {
            Undecodable::Private(pointer) => {
                Error::Event { event_id: self.event_id, fault: EventFault::PrivateMember { pointer } }
            }
            error => Error::Event {
                event_id: self.event_id,
                fault: EventFault::Decode {
                    event_type: self.event_type.clone(),
                    event_version: self.event_version,
                    target: std::any::type_name::<T>(),
                    problem: error.describe(&self.payload) + &self.say_what_is_redacted(),
                },
            },
        })
    }

    /// Is the payload ciphertext, or could it be? It is if the event was read from the wrapped store and not through
    /// the [`SealedStore`](crate::SealedStore).
    #[must_use]
    pub fn is_sealed(&self) -> bool {
        // A payload that is nested too deep to be checked counts as sealed, so that nobody takes it for plaintext.
        !matches!(is_sealed(&self.payload), Ok(false))
    }

    /// Names the redacted places. A redaction is the most frequent reason why a payload that used to fit does not fit
    /// any more.
    fn say_what_is_redacted(&self) -> String {
        match self.redacted.as_slice() {
            [] => String::new(),
            [first, others @ ..] => {
                let others = if others.is_empty() { String::new() } else { format!(" and {} more", others.len()) };
                format!("; {first}{others} is redacted in it: read what can be erased as a Sensitive<T>")
            }
        }
    }

    /// Is anything in the payload redacted?
    #[must_use]
    pub fn is_redacted(&self) -> bool {
        !self.redacted.is_empty()
    }
}

/// Shows where the event is, and no contents: a payload may hold values that must not be logged.
impl fmt::Debug for PersistedEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PersistedEvent")
            .field("aggregate", &self.aggregate)
            .field("aggregate_version", &self.aggregate_version.get())
            .field("global_position", &self.global_position.get())
            .field("event_id", &self.event_id)
            .field("event_type", &self.event_type)
            .field("event_version", &self.event_version.get())
            .field("payload", &format_args!("{} bytes", self.payload.len()))
            .field("part", &format_args!("{} of {}", self.part.index, self.part.count))
            .field("redacted", &self.redacted)
            .finish_non_exhaustive()
    }
}

/// The checks that every store makes before it appends anything. For implementers of stores.
///
/// # Errors
/// [`InputFault::EmptyAppend`], [`InputFault::InvalidText`] (a name or id is empty or holds NUL),
/// [`InputFault::OutOfRange`] (event version 0 or over 2³¹-1, a year that no database keeps),
/// [`Error::DuplicateEventId`] (within the batch), [`EventFault::InvalidMetadata`].
pub fn check_append(aggregate: &AggregateRef, events: &[NewEvent]) -> Result<()> {
    aggregate.check()?;
    if events.is_empty() {
        return Err(Error::Input(InputFault::EmptyAppend));
    }
    for event in events {
        check_text("the event type", event.event_type.as_str())?;
        if i32::try_from(event.event_version.get()).is_err() || event.event_version.get() == 0 {
            return Err(Error::Input(InputFault::OutOfRange {
                what: "event version",
                value: event.event_version.get().into(),
                hint: "event versions are 1 to 2147483647",
            }));
        }
        let ids = [
            ("the trace id", &event.trace_id),
            ("the correlation id", &event.correlation_id),
            ("the causation id", &event.causation_id),
        ];
        for (what, id) in ids {
            if id.as_ref().is_some_and(|id| id.contains('\0')) {
                return Err(Error::Input(InputFault::InvalidText {
                    what,
                    problem: "holds a NUL character: remove it",
                }));
            }
        }
        let year = event.created_at.checked_to_offset(time::UtcOffset::UTC).map(OffsetDateTime::year);
        if !year.is_some_and(|year| (1..=9999).contains(&year)) {
            return Err(Error::Input(InputFault::OutOfRange {
                what: "the year of created_at",
                value: event.created_at.year().into(),
                hint: "years are 1 to 9999 in UTC",
            }));
        }
        if let Some(metadata) = &event.metadata
            && !std::str::from_utf8(metadata).is_ok_and(is_json)
        {
            return Err(Error::Event {
                event_id: event.event_id,
                fault: EventFault::InvalidMetadata { problem: NOT_JSON },
            });
        }
    }
    if events.len() > 1 {
        let mut seen = std::collections::HashSet::with_capacity(events.len());
        if let Some(twice) = events.iter().find(|event| !seen.insert(event.event_id)) {
            return Err(Error::DuplicateEventId { event_id: twice.event_id });
        }
    }
    Ok(())
}

/// The problem of metadata that is not JSON.
pub(crate) const NOT_JSON: &str = "is not JSON: pass a valid JSON document, or None";

/// Is this valid JSON by its grammar? Numbers of any size and any depth of nesting are.
pub(crate) fn is_json(text: &str) -> bool {
    serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok()
}

/// Checks a name or id: not empty, no NUL, at most 1,024 bytes.
pub(crate) fn check_text(what: &'static str, text: &str) -> Result<()> {
    let problem = if text.is_empty() {
        "is empty: name it"
    } else if text.contains('\0') {
        "holds a NUL character: remove it"
    } else if text.len() > MAX_TEXT {
        "is longer than 1,024 bytes: shorten it"
    } else {
        return Ok(());
    };
    Err(Error::Input(InputFault::InvalidText { what, problem }))
}

/// The longest name, in bytes. In every supported database, a key of a B-tree can hold two names of this length.
pub(crate) const MAX_TEXT: usize = 1_024;

pub(crate) fn now() -> OffsetDateTime {
    microseconds(OffsetDateTime::now_utc())
}

/// The time in whole microseconds, which is all that databases keep.
pub(crate) fn microseconds(at: OffsetDateTime) -> OffsetDateTime {
    at.replace_nanosecond(at.nanosecond() / 1_000 * 1_000).unwrap_or(at)
}
