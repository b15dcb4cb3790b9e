//! What guards for CI need of a registry.

use crate::error::Result;
use crate::event::{EventType, EventVersion, PersistedEvent};
use crate::schema::Schemas;
use crate::schema::step::Step;
use crate::shape::{Shape, sample_of};
use serde::de::DeserializeOwned;
use serde_json::Value;

/// What is known of a Rust type that payloads are read into.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reads {
    /// What the type is called.
    pub(crate) name: &'static str,
    pub(crate) shape: fn() -> Shape,
    /// JSON that it can be read from.
    pub(crate) sample: fn() -> Option<Value>,
    /// Can an event be read into it?
    pub(crate) decode: fn(&PersistedEvent) -> Result<()>,
}

impl Reads {
    pub(crate) fn of<T: DeserializeOwned>() -> Self {
        Self {
            name: std::any::type_name::<T>(),
            shape: Shape::of::<T>,
            sample: sample_of::<T>,
            decode: |event| event.decode::<T>().map(drop),
        }
    }
}

impl Schemas {
    /// The same registry, in which old versions can be appended: a guard seals what was stored years ago.
    pub(crate) fn for_guards(mut self) -> Self {
        self.allow_older_appends = true;
        self
    }

    /// The version that a stored one stands for: another one only for events that were stored without.
    pub(crate) fn stands_for(&self, event_type: &EventType, stored: EventVersion) -> EventVersion {
        let legacy = self.types.get(event_type).and_then(|schema| schema.legacy);
        legacy.filter(|_| stored.get() == 0).unwrap_or(stored)
    }

    /// What payloads of this type and version are read into: by the step from there, or by who decodes them.
    pub(crate) fn reads(&self, event_type: &EventType, event_version: EventVersion) -> Option<Reads> {
        self.all_reads(event_type, event_version).next()
    }

    /// All of them.
    pub(crate) fn all_reads(&self, event_type: &EventType, event_version: EventVersion) -> impl Iterator<Item = Reads> {
        let schema = self.types.get(event_type).and_then(|schema| schema.version(event_version));
        let by_step = match schema.and_then(|schema| schema.step.as_ref()) {
            Some(Step::Next(function)) => Some(function.reads),
            _ => None,
        };
        by_step.into_iter().chain(schema.into_iter().flat_map(move |_| self.decoders(event_type, event_version)))
    }

    /// The Rust types that events of this type and version are decoded into.
    pub(crate) fn decoders(&self, event_type: &EventType, event_version: EventVersion) -> impl Iterator<Item = Reads> {
        let is_decoded = move |read: &&(EventType, EventVersion, Reads)| read.0 == *event_type && read.1 == event_version;
        self.decoded.iter().filter(is_decoded).map(|(.., reads)| *reads)
    }
}
