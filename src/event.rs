//! Events and what locates them, in the words of event sourcing.
//!
//! Nothing here knows of keys, schemas or databases.

use crate::error::{Error, Result, describe_without_values};
use crate::pointer::JsonPointer;
use crate::sensitive;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt;
use std::sync::Arc;
use time::OffsetDateTime;
use uuid::Uuid;

/// Which aggregate: its type and its id, both non-empty text without NUL.
///
/// Made by [`aggregate`]. Cloning is cheap.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AggregateRef {
    aggregate_type: Arc<str>,
    aggregate_id: Arc<str>,
}

/// Names an aggregate, such as `aggregate("Order", "ord_123")`.
///
/// The names are checked by the operation that uses them.
#[must_use]
pub fn aggregate(aggregate_type: impl Into<Arc<str>>, aggregate_id: impl Into<Arc<str>>) -> AggregateRef {
    AggregateRef { aggregate_type: aggregate_type.into(), aggregate_id: aggregate_id.into() }
}

impl AggregateRef {
    /// The aggregate type.
    #[must_use]
    pub fn aggregate_type(&self) -> &str {
        &self.aggregate_type
    }

    /// The aggregate id.
    #[must_use]
    pub fn aggregate_id(&self) -> &str {
        &self.aggregate_id
    }

    fn check(&self) -> Result<()> {
        check_text("the aggregate type", &self.aggregate_type)?;
        check_text("the aggregate id", &self.aggregate_id)
    }
}

impl fmt::Display for AggregateRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.aggregate_type, self.aggregate_id)
    }
}

impl fmt::Debug for AggregateRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AggregateRef({} {})", self.aggregate_type, self.aggregate_id)
    }
}

/// The place of an event in its aggregate's stream: 1 for the first, without gaps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AggregateVersion(i64);

impl AggregateVersion {
    /// The version of an aggregate's first event.
    pub const FIRST: Self = Self(1);

    /// The number.
    #[must_use]
    pub const fn get(self) -> i64 {
        self.0
    }

    /// The version after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl TryFrom<i64> for AggregateVersion {
    type Error = Error;

    fn try_from(value: i64) -> Result<Self> {
        if value >= 1 {
            Ok(Self(value))
        } else {
            Err(Error::OutOfRange {
                what: "aggregate version",
                value,
                hint: "versions start at 1; an aggregate without events is ExpectedVersion::NoStream",
            })
        }
    }
}

impl fmt::Display for AggregateVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The place of an event in the store's log: ascending, with gaps, 0 before the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GlobalPosition(i64);

impl GlobalPosition {
    /// Before the first event: where a reader starts.
    pub const START: Self = Self(0);

    /// The number.
    #[must_use]
    pub const fn get(self) -> i64 {
        self.0
    }
}

impl TryFrom<i64> for GlobalPosition {
    type Error = Error;

    fn try_from(value: i64) -> Result<Self> {
        if value >= 0 {
            Ok(Self(value))
        } else {
            Err(Error::OutOfRange { what: "global position", value, hint: "positions are 0 (before the first event) or more" })
        }
    }
}

impl fmt::Display for GlobalPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The name of a kind of event, such as `OrderPlaced`. Cloning is cheap.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EventType(Arc<str>);

impl EventType {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<T: Into<Arc<str>>> From<T> for EventType {
    fn from(name: T) -> Self {
        Self(name.into())
    }
}

impl std::borrow::Borrow<str> for EventType {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl PartialEq<str> for EventType {
    fn eq(&self, other: &str) -> bool {
        &*self.0 == other
    }
}

impl PartialEq<&str> for EventType {
    fn eq(&self, other: &&str) -> bool {
        &*self.0 == *other
    }
}

/// The version of an event type's payload schema: 1 for the first.
///
/// 0 stands for "none" in stores that were filled before schemas had versions; it can't be appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EventVersion(u32);

impl EventVersion {
    /// Version `number`.
    #[must_use]
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for EventVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What the appender believes of the aggregate: optimistic concurrency control.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpectedVersion {
    /// No check.
    Any,
    /// The aggregate has no events.
    NoStream,
    /// The aggregate's last event has this version.
    Exact(AggregateVersion),
}

impl ExpectedVersion {
    /// Does an aggregate at `current` (`None`: no events) satisfy this?
    #[must_use]
    pub fn accepts(self, current: Option<AggregateVersion>) -> bool {
        match self {
            Self::Any => true,
            Self::NoStream => current.is_none(),
            Self::Exact(version) => current == Some(version),
        }
    }
}

impl fmt::Display for ExpectedVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("any version"),
            Self::NoStream => f.write_str("no events"),
            Self::Exact(version) => write!(f, "version {version}"),
        }
    }
}

/// A part of an aggregate's stream. Both bounds are inclusive.
///
/// ```
/// use eventseal::VersionRange;
/// let whole = VersionRange::from(..);
/// let part = VersionRange::from(2..=4);
/// assert!(part.contains(2) && part.contains(4) && !part.contains(5) && whole.contains(5));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VersionRange {
    /// The first version wanted; `None` for the first there is.
    pub from: Option<i64>,
    /// The last version wanted; `None` for the last there is.
    pub to: Option<i64>,
}

impl VersionRange {
    /// Is `version` in the range?
    #[must_use]
    pub fn contains(self, version: i64) -> bool {
        self.from.is_none_or(|from| version >= from) && self.to.is_none_or(|to| version <= to)
    }
}

impl From<std::ops::RangeFull> for VersionRange {
    fn from(_: std::ops::RangeFull) -> Self {
        Self::default()
    }
}

impl From<std::ops::RangeInclusive<i64>> for VersionRange {
    fn from(range: std::ops::RangeInclusive<i64>) -> Self {
        Self { from: Some(*range.start()), to: Some(*range.end()) }
    }
}

impl From<std::ops::RangeFrom<i64>> for VersionRange {
    fn from(range: std::ops::RangeFrom<i64>) -> Self {
        Self { from: Some(range.start), to: None }
    }
}

impl From<std::ops::RangeToInclusive<i64>> for VersionRange {
    fn from(range: std::ops::RangeToInclusive<i64>) -> Self {
        Self { from: None, to: Some(range.end) }
    }
}

/// An event to be appended.
#[derive(Clone, PartialEq, Eq)]
pub struct NewEvent {
    /// Unique over the whole store. The constructors draw a UUIDv7.
    pub event_id: Uuid,
    /// The event's type.
    pub event_type: EventType,
    /// The version of the payload's schema, from 1 on.
    pub event_version: EventVersion,
    /// What happened, as the application writes it; JSON unless the application says otherwise.
    pub payload: Vec<u8>,
    /// A JSON document about the event. It is stored in the clear.
    pub metadata: Option<Vec<u8>>,
    /// Trace of the request.
    pub trace_id: Option<String>,
    /// What belongs together.
    pub correlation_id: Option<String>,
    /// What caused this event.
    pub causation_id: Option<String>,
    /// When it happened, kept in microseconds.
    pub created_at: OffsetDateTime,
}

impl NewEvent {
    /// An event whose payload is `payload` written as JSON.
    ///
    /// # Errors
    /// [`Error::Encode`] if serde can't write the value as JSON.
    pub fn json<T: Serialize + ?Sized>(event_type: impl Into<EventType>, version: u32, payload: &T) -> Result<Self> {
        let payload = serde_json::to_vec(payload)
            .map_err(|error| Error::Encode { target: std::any::type_name::<T>(), problem: describe_without_values(&error) })?;
        Ok(Self::raw(event_type, version, payload))
    }

    /// An event whose payload is these very bytes.
    #[must_use]
    pub fn raw(event_type: impl Into<EventType>, version: u32, payload: impl Into<Vec<u8>>) -> Self {
        Self {
            event_id: Uuid::now_v7(),
            event_type: event_type.into(),
            event_version: EventVersion(version),
            payload: payload.into(),
            metadata: None,
            trace_id: None,
            correlation_id: None,
            causation_id: None,
            created_at: now(),
        }
    }

    /// The same event around another payload.
    pub(crate) fn with_payload(&self, payload: Vec<u8>) -> Self {
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

/// Shows sizes, not contents: a payload may hold what must not be logged.
impl fmt::Debug for NewEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewEvent")
            .field("event_id", &self.event_id)
            .field("event_type", &self.event_type)
            .field("event_version", &self.event_version.0)
            .field("payload", &format_args!("{} bytes", self.payload.len()))
            .finish_non_exhaustive()
    }
}

/// Which of several events an upcaster made of one stored event: `0 of 1` unless it was split.
///
/// Parts share the stored event's id, version and position. An idempotence mark that tells them
/// apart is `(aggregate_version, part.index)`.
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
}

impl PersistedEvent {
    /// An event just as it was appended, with what the store assigned. For implementers of stores.
    #[must_use]
    pub fn from_new(aggregate: AggregateRef, version: AggregateVersion, position: GlobalPosition, event: NewEvent) -> Self {
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
        }
    }

    /// Reads the payload into a Rust type.
    ///
    /// A [`Sensitive`](crate::Sensitive) field is redacted exactly if its place is in
    /// [`redacted`](Self::redacted), whatever stands in for it there.
    ///
    /// # Errors
    /// [`Error::Decode`] if the payload does not fit the type. It names the place, never a value.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T> {
        sensitive::decode(&self.payload, &self.redacted).map_err(|error| Error::Decode {
            event_id: self.event_id,
            event_type: self.event_type.clone(),
            event_version: self.event_version,
            target: std::any::type_name::<T>(),
            problem: describe_without_values(&error),
        })
    }

    /// Is anything in the payload redacted?
    #[must_use]
    pub fn is_redacted(&self) -> bool {
        !self.redacted.is_empty()
    }
}

/// Shows where the event is, not what it says: a payload may hold what must not be logged.
impl fmt::Debug for PersistedEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PersistedEvent")
            .field("aggregate", &self.aggregate)
            .field("aggregate_version", &self.aggregate_version.0)
            .field("global_position", &self.global_position.0)
            .field("event_id", &self.event_id)
            .field("event_type", &self.event_type)
            .field("event_version", &self.event_version.0)
            .field("payload", &format_args!("{} bytes", self.payload.len()))
            .field("part", &format_args!("{} of {}", self.part.index, self.part.count))
            .field("redacted", &self.redacted)
            .finish_non_exhaustive()
    }
}

/// What an append did: the events as the caller passed them, with what the store assigned.
///
/// Never empty, and in the order in which they were passed.
#[derive(Clone, Debug)]
pub struct Appended {
    /// The events.
    pub events: Vec<PersistedEvent>,
}

impl Appended {
    /// The aggregate's version after the append: the next [`ExpectedVersion::Exact`].
    #[must_use]
    pub fn last_version(&self) -> AggregateVersion {
        self.events.last().map_or(AggregateVersion::FIRST, |event| event.aggregate_version)
    }

    /// The position of the last event.
    #[must_use]
    pub fn last_position(&self) -> GlobalPosition {
        self.events.last().map_or(GlobalPosition::START, |event| event.global_position)
    }
}

/// A part of one aggregate's history, in order of version.
#[derive(Clone, Debug)]
pub struct Stream {
    /// Whose history.
    pub aggregate: AggregateRef,
    /// The events, after upcasting: one stored event may appear as several, or as none.
    pub events: Vec<PersistedEvent>,
    /// The version of the last *stored* event in the range; `None` if there is none.
    pub last_version: Option<AggregateVersion>,
}

impl Stream {
    /// What to expect when appending to this aggregate next, if the whole stream was read.
    #[must_use]
    pub fn expected_version(&self) -> ExpectedVersion {
        self.last_version.map_or(ExpectedVersion::NoStream, ExpectedVersion::Exact)
    }
}

impl<'a> IntoIterator for &'a Stream {
    type Item = &'a PersistedEvent;
    type IntoIter = std::slice::Iter<'a, PersistedEvent>;

    fn into_iter(self) -> Self::IntoIter {
        self.events.iter()
    }
}

impl IntoIterator for Stream {
    type Item = PersistedEvent;
    type IntoIter = std::vec::IntoIter<PersistedEvent>;

    fn into_iter(self) -> Self::IntoIter {
        self.events.into_iter()
    }
}

/// One page of the store's log.
#[derive(Clone, Debug)]
pub struct EventPage {
    /// The events, after upcasting: fewer or more than were scanned.
    pub events: Vec<PersistedEvent>,
    /// How many *stored* events matched. Fewer than the limit means that the end was reached.
    pub scanned: u32,
    /// Where to go on: the position of the last stored event scanned, or `after` if there was none.
    pub next: GlobalPosition,
}

/// Which events of the log are wanted. Empty lists mean all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventFilter {
    /// Only of these aggregate types.
    pub aggregate_types: Vec<String>,
    /// Only of these *stored* event types.
    pub event_types: Vec<String>,
}

impl EventFilter {
    /// Does an event of this aggregate type and stored event type match?
    #[must_use]
    pub fn matches(&self, aggregate_type: &str, event_type: &str) -> bool {
        let wanted = |list: &[String], name: &str| list.is_empty() || list.iter().any(|wanted| wanted == name);
        wanted(&self.aggregate_types, aggregate_type) && wanted(&self.event_types, event_type)
    }
}

/// The checks that every store makes before it appends anything. For implementers of stores.
///
/// # Errors
/// [`Error::EmptyAppend`], [`Error::InvalidText`] (a name or id is empty or holds NUL),
/// [`Error::OutOfRange`] (event version 0 or over 2³¹-1), [`Error::DuplicateEventId`] (within the
/// batch), [`Error::InvalidMetadata`].
pub fn check_append(aggregate: &AggregateRef, events: &[NewEvent]) -> Result<()> {
    aggregate.check()?;
    if events.is_empty() {
        return Err(Error::EmptyAppend);
    }
    for event in events {
        check_text("the event type", event.event_type.as_str())?;
        if i32::try_from(event.event_version.0).is_err() || event.event_version.0 == 0 {
            return Err(Error::OutOfRange {
                what: "event version",
                value: event.event_version.0.into(),
                hint: "event versions are 1 to 2147483647",
            });
        }
        let ids =
            [("the trace id", &event.trace_id), ("the correlation id", &event.correlation_id), ("the causation id", &event.causation_id)];
        for (what, id) in ids {
            if id.as_ref().is_some_and(|id| id.contains('\0')) {
                return Err(Error::InvalidText { what, problem: "holds a NUL character: remove it" });
            }
        }
        if let Some(metadata) = &event.metadata
            && serde_json::from_slice::<serde::de::IgnoredAny>(metadata).is_err()
        {
            return Err(Error::InvalidMetadata { event_id: event.event_id });
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
    Err(Error::InvalidText { what, problem })
}

/// What a B-tree key of two such names can hold in every supported database.
pub(crate) const MAX_TEXT: usize = 1_024;

pub(crate) fn now() -> OffsetDateTime {
    microseconds(OffsetDateTime::now_utc())
}

/// What databases keep of a time.
pub(crate) fn microseconds(at: OffsetDateTime) -> OffsetDateTime {
    at.replace_nanosecond(at.nanosecond() / 1_000 * 1_000).unwrap_or(at)
}
