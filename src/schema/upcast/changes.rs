//! Declarative steps: what is said instead of programmed can be checked before it runs.

mod making;

pub(crate) use making::make;

use crate::event::EventType;
use crate::schema::type_version::TypeVersion;
use crate::schema::upcast::step::Mapping;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// A declarative step: a list of changes, made one after the other. See
/// [`EventSchema::change`](crate::schema::EventSchema::change).
///
/// Places are JSON Pointers in which a `*` stands for every element of an array, as in
/// [`protect`](crate::schema::EventSchema::protect). What no change names keeps its spelling: numbers of any size, the
/// order of members. Payloads may be any JSON, also such as `serde_json` can't hold.
///
/// **Protection is carried along.** Building the registry follows every protected place of the old version through the
/// changes: where it ends, the new version must protect it, or the schemas are refused.
///
/// **So are redactions.** A value that was erased is redacted at its new place, with the new version's stand-in. A
/// default never fills it, and no function is called for it. No change fails because something was erased.
///
/// **They are bounded.** Copies and defaults for the elements of arrays may make a payload larger by 64 MiB at most; by
/// 512 MiB where something in them is erased, because a stand-in may take more room than what it stands for.
///
/// ```
/// use eventseal::{Changes, Schemas, event, subject};
///
/// let customer = || subject("Customer", "/customer_id");
/// let schemas = Schemas::new([event("OrderPlaced")
///     .version(1).protect(&["/email", "/lines/*/gift_note"], customer())
///     .version(2).protect(&["/contact/email", "/lines/*/note"], customer())
///     .change(1, Changes::new()
///         .move_value("/email", "/contact/email")
///         .move_value("/lines/*/gift_note", "/lines/*/note")
///         .set_default("/currency", "EUR")
///         .map_value("/total", |euros: f64| (euros * 100.0).round() as u64)
///         .remove("/legacy_flag"))])?;
/// # Ok::<(), eventseal::schema::SchemaErrors>(())
/// ```
#[derive(Default)]
#[must_use = "pass it to EventSchema::change"]
pub struct Changes {
    pub(crate) changes: Vec<Change<String>>,
    pub(crate) renamed: Vec<TypeVersion>,
}

/// One change, with its places as `P`.
pub(crate) enum Change<P> {
    Move { from: P, to: P },
    Copy { from: P, to: P },
    Default { at: P, text: String },
    Remove { at: P },
    Map { at: P, mapping: Mapping },
}

impl Changes {
    /// No changes so far: the step leaves the payload as it is.
    pub fn new() -> Self {
        Self::default()
    }

    /// Moves the value at `from`, with everything in it, to `to`. Nothing happens where there is none.
    ///
    /// Objects that are missing on the way to `to`, or `null`, are made. Both pointers have the same `*`s, which stand
    /// for the same elements. If a value that is not `null` stands at `to` already, the step fails: nothing is
    /// overwritten silently; [`remove`](Self::remove) it first, if it may go. Elements of arrays can't be moved.
    pub fn move_value(self, from: impl Into<String>, to: impl Into<String>) -> Self {
        self.with(Change::Move { from: from.into(), to: to.into() })
    }

    /// Copies the value at `from` to `to`, in other respects as [`move_value`](Self::move_value). Where `to` has more
    /// `*`s, every element gets a copy.
    pub fn copy_value(self, from: impl Into<String>, to: impl Into<String>) -> Self {
        self.with(Change::Copy { from: from.into(), to: to.into() })
    }

    /// Puts a value where there is none. A `null` that was written is a value, and so is one that was erased: it stays
    /// redacted. Objects that are missing on the way are made, but none in place of a `null`.
    pub fn set_default(self, at: impl Into<String>, value: impl Into<Value>) -> Self {
        let text = value.into().to_string();
        self.with(Change::Default { at: at.into(), text })
    }

    /// Removes the member at this place, if there is one. Elements of arrays can't be removed.
    pub fn remove(self, at: impl Into<String>) -> Self {
        self.with(Change::Remove { at: at.into() })
    }

    /// Puts what `map` makes of it in place of the value. Not called where there is none, and not where it was erased.
    ///
    /// The step fails if the value does not decode into `A`; take an `Option<A>` where it may be `null`.
    pub fn map_value<A, B, F>(self, at: impl Into<String>, map: F) -> Self
    where
        A: DeserializeOwned + 'static,
        B: Serialize + 'static,
        F: Fn(A) -> B + Send + Sync + 'static,
    {
        self.try_map_value(at, move |value| Ok::<_, std::convert::Infallible>(map(value)))
    }

    /// The same with a function that can fail, and with it the step. Put no values into the error: see
    /// [`upcast`](crate::schema::EventSchema::upcast).
    pub fn try_map_value<A, B, E, F>(self, at: impl Into<String>, map: F) -> Self
    where
        A: DeserializeOwned + 'static,
        B: Serialize + 'static,
        E: Into<crate::error::BoxError>,
        F: Fn(A) -> Result<B, E> + Send + Sync + 'static,
    {
        self.with(Change::Map { at: at.into(), mapping: Mapping::new(map) })
    }

    /// Makes the event one of another type and version, which goes on through that type's own steps. At most once in a
    /// step, at any place in it. A type whose last version is renamed lives on in the other one only.
    ///
    /// Readers that filter by the new name see the old events too.
    pub fn rename_type(mut self, event_type: impl Into<EventType>, event_version: u32) -> Self {
        self.renamed.push(TypeVersion::new(event_type.into(), event_version));
        self
    }

    fn with(mut self, change: Change<String>) -> Self {
        self.changes.push(change);
        self
    }
}

impl std::fmt::Debug for Changes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let renamed: Vec<(&EventType, u32)> =
            self.renamed.iter().map(|target| (&target.event_type, target.number())).collect();
        f.debug_struct("Changes").field("changes", &self.changes.len()).field("renamed", &renamed).finish()
    }
}

impl<P> Change<P> {
    /// With its places read.
    pub(crate) fn try_map<Q, E>(self, mut read: impl FnMut(P) -> Result<Q, E>) -> Result<Change<Q>, E> {
        Ok(match self {
            Self::Move { from, to } => Change::Move { from: read(from)?, to: read(to)? },
            Self::Copy { from, to } => Change::Copy { from: read(from)?, to: read(to)? },
            Self::Default { at, text } => Change::Default { at: read(at)?, text },
            Self::Remove { at } => Change::Remove { at: read(at)? },
            Self::Map { at, mapping } => Change::Map { at: read(at)?, mapping },
        })
    }
}
