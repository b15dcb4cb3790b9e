//! The names, versions and positions by which events are found.

use crate::error::{Error, InputFault, Result};
use crate::event::check_text;
use std::fmt;
use std::sync::Arc;

/// The name of an aggregate: its type and its id, both non-empty text without NUL.
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

    pub(super) fn check(&self) -> Result<()> {
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
            Err(Error::Input(InputFault::OutOfRange {
                what: "aggregate version",
                value,
                hint: "versions start at 1; an aggregate without events is ExpectedVersion::NoStream",
            }))
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
    /// The position before the first event, from which a reader starts.
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
            Err(Error::Input(InputFault::OutOfRange {
                what: "global position",
                value,
                hint: "positions are 0 (before the first event) or more",
            }))
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
/// 0 means "none", in stores that were filled before schemas had versions. It can't be appended. Such an event is read
/// as the version that [`legacy_version`](crate::schema::EventSchema::legacy_version) names.
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

/// The version at which an append expects the aggregate to be: optimistic concurrency control.
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
