//! Declarative steps: lists of changes, which can be checked before they run.

mod making;

pub(crate) use making::make;

use crate::event::EventType;
use crate::schema::type_version::TypeVersion;
use crate::schema::upcast::step::Mapping;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// A declarative step: a list of changes that are made one after the other. See
/// [`EventSchema::change`](crate::schema::EventSchema::change).
///
/// Places are JSON Pointers in which a `*` stands for every element of an array, as in
/// [`protect`](crate::schema::EventSchema::protect). Values that no change names keep their spelling: numbers of any
/// size, the order of members. Payloads may be any JSON, even JSON that `serde_json` can't hold.
///
/// **Protection is carried along.** Building the registry follows every protected place of the old version through the
/// changes. The new version must protect the place where it ends, or the schemas are refused.
///
/// **Redactions are carried along too.** A value that was erased is redacted at its new place, with the new version's
/// stand-in. A default never fills it, and no function is called for it. No change fails because something was erased.
///
/// **Growth is bounded.** Copies and defaults for the elements of arrays may make a payload larger by 64 MiB at most.
/// Copies that contain something erased may make it larger by 512 MiB at most, because a stand-in may take more room
/// than the value that it stands for.
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

/// One change. `P` is the type of its places.
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

    /// Moves the value at `from`, with everything in it, to `to`. If there is no value at `from`, nothing happens.
    ///
    /// Objects on the way to `to` that are missing or `null` are created. Both pointers have the same `*`s, which stand
    /// for the same elements. If `to` already has a value other than `null`, the step fails, so that nothing is
    /// overwritten silently. [`remove`](Self::remove) that value first if it is not needed. Elements of arrays can't be
    /// moved.
    pub fn move_value(self, from: impl Into<String>, to: impl Into<String>) -> Self {
        self.with(Change::Move { from: from.into(), to: to.into() })
    }

    /// Copies the value at `from` to `to`, by the rules of [`move_value`](Self::move_value). If `to` has more `*`s than
    /// `from`, every element gets a copy.
    pub fn copy_value(self, from: impl Into<String>, to: impl Into<String>) -> Self {
        self.with(Change::Copy { from: from.into(), to: to.into() })
    }

    /// Puts a value at a place that has none. A `null` that was written is a value and stays. So is an erased value,
    /// which stays redacted. Objects that are missing on the way are created, but a `null` on the way is not replaced.
    pub fn set_default(self, at: impl Into<String>, value: impl Into<Value>) -> Self {
        let text = value.into().to_string();
        self.with(Change::Default { at: at.into(), text })
    }

    /// Removes the member at this place, if there is one. Elements of arrays can't be removed.
    pub fn remove(self, at: impl Into<String>) -> Self {
        self.with(Change::Remove { at: at.into() })
    }

    /// Replaces the value by the result of `map`. `map` is not called if there is no value, or if the value was erased.
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

    /// [`map_value`](Self::map_value) with a function that can fail. If it fails, the step fails. Put no values into
    /// the error: see [`upcast`](crate::schema::EventSchema::upcast).
    pub fn try_map_value<A, B, E, F>(self, at: impl Into<String>, map: F) -> Self
    where
        A: DeserializeOwned + 'static,
        B: Serialize + 'static,
        E: Into<crate::error::BoxError>,
        F: Fn(A) -> Result<B, E> + Send + Sync + 'static,
    {
        self.with(Change::Map { at: at.into(), mapping: Mapping::new(map) })
    }

    /// Turns the event into one of another type and version, which goes on through that type's own steps. It can be
    /// called once in a step, before or after other changes. Readers no longer see a type whose last version is
    /// renamed.
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
    /// Converts the places of the change with `read`.
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
