//! Examines what is stored by the plans of its version, without keys.

use crate::error::{Error, EventFault};
use crate::event::{EventRef, EventType, EventVersion, PersistedEvent};
use crate::schema::{ReadAs, Schemas, VersionSchema};
use crate::seal::opening::inspect;
use crate::seal::plan::Plan;
use uuid::Uuid;

/// The protection that a stored document has, or a stored event.
pub(crate) enum Look {
    /// A header covers every protected value. Whether it is authentic is not known.
    Sealed,
    /// There is a header, but it does not cover every protected value.
    Partly,
    /// There is no header, and a protected value.
    Plaintext,
    /// There is neither a header nor a protected value. A `null` is no protected value.
    Nothing,
    /// It can't be examined.
    Unreadable(Error),
}

impl Look {
    /// The protection of an event whose other document is protected like this.
    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Unreadable(error), _) | (_, Self::Unreadable(error)) => Self::Unreadable(error),
            (Self::Partly, _) | (_, Self::Partly) => Self::Partly,
            (Self::Plaintext, Self::Sealed) | (Self::Sealed, Self::Plaintext) => Self::Partly,
            (Self::Plaintext, _) | (_, Self::Plaintext) => Self::Plaintext,
            (Self::Sealed, _) | (_, Self::Sealed) => Self::Sealed,
            (Self::Nothing, Self::Nothing) => Self::Nothing,
        }
    }
}

/// Examines both documents of a stored event.
pub(crate) fn look_at_both(schema: &VersionSchema, event: &PersistedEvent) -> Look {
    look(&schema.plan, event.as_stored()).and(look_at_metadata(schema, event))
}

/// Examines the metadata of a stored event.
pub(crate) fn look_at_metadata(schema: &VersionSchema, event: &PersistedEvent) -> Look {
    match event.stored_metadata().map(|stored| look(&schema.metadata_plan, stored)) {
        Some(Look::Unreadable(error)) => Look::Unreadable(error.in_metadata()),
        Some(look) => look,
        None => Look::Nothing,
    }
}

/// Examines a stored document. Its errors are those of a read without `accept_plaintext`.
pub(crate) fn look(plan: &Plan, stored: EventRef<'_>) -> Look {
    let inspect = |accept_plaintext| inspect(plan, stored, accept_plaintext);
    match inspect(false) {
        Ok(Some(_)) => Look::Sealed,
        Ok(None) => Look::Nothing,
        Err(Error::Event { fault: EventFault::Unsealed { .. }, .. }) => match inspect(true) {
            Ok(Some(_)) => Look::Partly,
            Ok(None) => Look::Plaintext,
            Err(error) => Look::Unreadable(error),
        },
        Err(error) => Look::Unreadable(error),
    }
}

/// The schema and the version as which events of a stored type and version are read. `None` if the type or the version
/// is unknown, and nothing of its metadata is protected.
pub(crate) fn read_as<'s>(schemas: &'s Schemas, event_type: &EventType, version: EventVersion) -> Option<ReadAs<'s>> {
    match schemas.for_read(Uuid::nil(), event_type, version).ok()? {
        Some(known) => Some(known),
        None => Some(schemas.unregistered(version)).filter(|of_all| of_all.schema.protects()),
    }
}
