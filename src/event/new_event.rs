//! An event to be appended. It remembers how its payload was made.

use crate::error::Result;
use crate::event::{AggregateRef, EventDocument, EventRef, EventType, EventVersion, microseconds, now};
use crate::keys::names::{KeyId, KeyScope};
use crate::sensitive::{self, SensitivePlace};
use serde::Serialize;
use std::fmt;
use time::OffsetDateTime;
use uuid::Uuid;

/// An event to be appended.
///
/// The event remembers where in its payload a [`Sensitive`](crate::Sensitive) stood, so the payload can't be exchanged:
/// make another event for another one.
///
/// ```
/// use eventseal::NewEvent;
///
/// let shipped = NewEvent::raw("OrderShipped", 1, r#"{"carrier":"by bike"}"#);
/// assert_eq!(shipped.payload(), br#"{"carrier":"by bike"}"#);
///
/// // Another payload is another event. What else is known of it goes along.
/// let other = NewEvent::raw("OrderShipped", 1, r#"{"carrier":"by boat"}"#).with_id(shipped.event_id);
/// assert_eq!(other.into_payload(), br#"{"carrier":"by boat"}"#);
/// ```
///
/// ```compile_fail,E0616
/// let mut event = eventseal::NewEvent::raw("OrderShipped", 1, "{}");
/// event.payload = b"{}".to_vec();
/// ```
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct NewEvent {
    /// Unique over the whole store. The constructors draw a UUIDv7.
    pub event_id: Uuid,
    /// The event's type.
    pub event_type: EventType,
    /// The version of the payload's schema, from 1 on.
    pub event_version: EventVersion,
    /// Private, so that it can't be changed without what is remembered of it in `origin`.
    pub(super) payload: Vec<u8>,
    /// A JSON document about the event. It is stored in the clear, except for what
    /// [`protect_metadata`](crate::schema::EventSchema::protect_metadata) protects. It can name the owner of protected
    /// values: see [`metadata`](crate::metadata()).
    pub metadata: Option<Vec<u8>>,
    /// The id of the request's trace.
    pub trace_id: Option<String>,
    /// An id that related events share.
    pub correlation_id: Option<String>,
    /// The id of the event or command that caused this event.
    pub causation_id: Option<String>,
    /// When it happened, kept in microseconds.
    pub created_at: OffsetDateTime,
    /// The subjects that the caller names. An append writes them into the metadata.
    subjects: Vec<KeyScope>,
    origin: Origin,
}

/// How a payload was made. It plays no part in whether two events are equal.
#[derive(Clone, Default)]
struct Origin {
    /// The places of the `Sensitive`s in the value that the payload was made of.
    sensitive: Vec<SensitivePlace>,
    /// The keys that the payload and the metadata were sealed under.
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
    /// event if the schema does not protect all of these places
    /// ([`EventFault::SensitiveInTheClear`](crate::error::EventFault::SensitiveInTheClear)). A store that is
    /// not wrapped has no schemas, and stores what it is given. If the event's type or version is changed later, the
    /// places are checked against the schema of the type and version that the event then has. An event that
    /// [`raw`](Self::raw) made of bytes remembers nothing.
    ///
    /// Values that JSON can't express are refused, so that readers get what was passed: a float that is not finite
    /// (serde_json writes `null`), a `Sensitive` that is redacted, a `Some` in or around a `Sensitive` that is written
    /// as `null`, two members of a map with one name. This check does not reach values that a `Serialize` of your own
    /// writes with another serializer.
    ///
    /// # Errors
    /// [`InputFault::Encode`](crate::error::InputFault::Encode) if serde can't write the value as JSON, or if JSON
    /// can't say it.
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
            subjects: Vec::new(),
            origin: Origin::default(),
        }
    }

    /// What happened, as bytes. It is JSON unless the application chooses another encoding, which only events without
    /// protected fields and events that are protected whole may have.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// The [`payload`](Self::payload) alone.
    #[must_use]
    pub fn into_payload(self) -> Vec<u8> {
        self.payload
    }

    /// Where a `Sensitive` stood in the value that the event was made of.
    pub(crate) fn sensitive_places(&self) -> &[SensitivePlace] {
        &self.origin.sensitive
    }

    /// The data keys that the payload and the metadata were sealed under, if this event comes from
    /// [`Sealer::seal`](crate::Sealer::seal); otherwise none, whatever the payload is. For implementers of stores that
    /// keep an [index of seals](crate::store::SealIndex).
    #[must_use]
    pub fn sealed_under(&self) -> &[KeyId] {
        &self.origin.sealed_under
    }

    /// The payload of this event, as `aggregate` is to store it.
    pub(crate) fn to_store<'a>(&'a self, aggregate: &'a AggregateRef) -> EventRef<'a> {
        EventRef {
            aggregate,
            event_id: self.event_id,
            event_type: &self.event_type,
            event_version: self.event_version,
            document: EventDocument::Payload,
            text: &self.payload,
            beside: self.metadata.as_deref(),
        }
    }

    /// The metadata of this event, as `aggregate` is to store them; `None` if it has none.
    pub(crate) fn metadata_to_store<'a>(&'a self, aggregate: &'a AggregateRef) -> Option<EventRef<'a>> {
        let text = self.metadata.as_deref()?;
        Some(EventRef {
            document: EventDocument::Metadata,
            text,
            beside: Some(&self.payload),
            ..self.to_store(aggregate)
        })
    }

    /// This event with a sealed payload and sealed metadata in place of its own, where there are some, and the keys of
    /// these seals. No place of a `Sensitive` is in the clear in them, so none is kept.
    pub(crate) fn sealed(&self, payload: Option<Vec<u8>>, metadata: Option<Vec<u8>>, keys: Vec<KeyId>) -> Self {
        Self {
            event_id: self.event_id,
            event_type: self.event_type.clone(),
            event_version: self.event_version,
            payload: payload.unwrap_or_else(|| self.payload.clone()),
            metadata: metadata.or_else(|| self.metadata.clone()),
            trace_id: self.trace_id.clone(),
            correlation_id: self.correlation_id.clone(),
            causation_id: self.causation_id.clone(),
            created_at: self.created_at,
            subjects: Vec::new(),
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

    /// For a data subject: the owner of the places that the schema gives to [`caller`](crate::caller()) of its kind.
    ///
    /// The append writes the subject's id into the metadata, at the place that the schema names, so that everything
    /// that reads the event later comes to the same owner. It refuses the event if the schema takes no subject of this
    /// kind from the caller ([`EventFault::NotFromCaller`](crate::error::EventFault::NotFromCaller)), or if something
    /// else stands at that place of the metadata
    /// ([`EventFault::OtherSubject`](crate::error::EventFault::OtherSubject)). An event may be for several subjects, if
    /// the schema takes several kinds.
    #[must_use]
    pub fn for_subject(mut self, subject: KeyScope) -> Self {
        self.subjects.push(subject);
        self
    }

    /// The subjects that nothing has written into the metadata so far.
    pub(crate) fn subjects(&self) -> &[KeyScope] {
        &self.subjects
    }

    /// This event with its subjects written into these metadata.
    pub(crate) fn with_subjects_in(&self, metadata: Vec<u8>) -> Self {
        Self { subjects: Vec::new(), metadata: Some(metadata), ..self.clone() }
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
