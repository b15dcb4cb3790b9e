//! A version of an event type. Steps lead from one to another.

use crate::event::{EventType, EventVersion};
use crate::schema::{TypeSchema, VersionSchema};
use std::collections::HashMap;

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct TypeVersion {
    pub(crate) event_type: EventType,
    pub(crate) event_version: EventVersion,
}

impl TypeVersion {
    pub(crate) fn new(event_type: EventType, event_version: u32) -> Self {
        Self { event_type, event_version: EventVersion::new(event_version) }
    }

    /// The next version of the same type.
    pub(crate) fn next(&self) -> Self {
        Self::new(self.event_type.clone(), self.number().saturating_add(1))
    }

    pub(crate) fn number(&self) -> u32 {
        self.event_version.get()
    }

    /// The schema of this version, if it is registered.
    pub(crate) fn find<'t>(&self, types: &'t HashMap<EventType, TypeSchema>) -> Option<&'t VersionSchema> {
        types.get(&self.event_type)?.version(self.event_version)
    }
}

impl TypeSchema {
    /// The versions of this type, each with its schema. `name` is the name of this type.
    pub(crate) fn numbered<'t>(
        &'t self,
        name: &'t EventType,
    ) -> impl Iterator<Item = (TypeVersion, &'t VersionSchema)> {
        (self.first..=u32::MAX)
            .zip(&self.versions)
            .map(|(number, schema)| (TypeVersion::new(name.clone(), number), schema))
    }
}
