//! Examines a stored payload by the plan of its version, without keys.

use crate::error::{Error, EventFault};
use crate::event::{EventType, EventVersion, PersistedEvent};
use crate::schema::{ReadAs, Schemas};
use crate::seal::opening::inspect;
use crate::seal::plan::Plan;
use uuid::Uuid;

/// The protection that a stored payload has.
pub(crate) enum Look {
    /// A header covers every protected value. Whether it is authentic is not known.
    Sealed,
    /// There is a header, but it does not cover every protected value.
    Partly,
    /// There is no header, and a protected value.
    Plaintext,
    /// There is neither a header nor a protected value. A `null` is no protected value.
    Nothing,
    /// The payload can't be examined.
    Unreadable(Error),
}

/// Examines a stored payload. Its errors are those of a read without `accept_plaintext`.
pub(crate) fn look(plan: &Plan, event: &PersistedEvent) -> Look {
    let inspect = |accept_plaintext| inspect(plan, event.as_stored(), accept_plaintext);
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
/// is unknown.
pub(crate) fn read_as<'s>(schemas: &'s Schemas, event_type: &EventType, version: EventVersion) -> Option<ReadAs<'s>> {
    schemas.for_read(Uuid::nil(), event_type, version).ok().flatten()
}
