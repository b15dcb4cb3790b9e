//! What a stored payload is, by the plan of its version: without keys.

use crate::error::{Error, EventFault};
use crate::event::{EventType, EventVersion, PersistedEvent};
use crate::schema::{ReadAs, Schemas};
use crate::seal::opening::inspect;
use crate::seal::plan::Plan;
use uuid::Uuid;

/// How a stored payload lies there.
pub(super) enum Look {
    /// A header covers every protected value. Whether it is authentic is not known.
    Sealed,
    /// There is a header, and a protected value that it does not cover.
    Partly,
    /// There is no header, and a protected value.
    Plaintext,
    /// There is neither a header nor a protected value: `null` is none.
    Nothing,
    /// It can't be told.
    Unreadable(Error),
}

/// Looks at what is stored: read errors are those of a reader that accepts no plaintext.
pub(super) fn look(plan: &Plan, event: &PersistedEvent) -> Look {
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

/// How events of a stored type and version are read, and as which version; `None` if they are not, or are unknown.
pub(super) fn read_as<'s>(schemas: &'s Schemas, event_type: &EventType, version: EventVersion) -> Option<ReadAs<'s>> {
    schemas.for_read(Uuid::nil(), event_type, version).ok().flatten()
}
