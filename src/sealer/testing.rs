//! What guards for CI look at: events that are opened and not upcast, and whose keys seal them.

use crate::error::Result;
use crate::event::{NewEvent, PersistedEvent};
use crate::key::KeyScope;
use crate::seal::sealing::Draft;
use crate::sealer::stored::readable;
use crate::sealer::{Reader, Reading, Sealer};

impl<Tx: Send + 'static> Sealer<Tx> {
    /// Opens an event, and leaves it at its stored version.
    pub(crate) async fn open_as_stored(&self, tx: &mut Tx, event: &PersistedEvent) -> Result<PersistedEvent> {
        let opened = match self.open_rows(tx, std::slice::from_ref(event), Reading::AsReaders, Reader::User).await?.pop() {
            Some(row) => row?.opened,
            None => None,
        };
        Ok(readable(event.clone(), opened).event)
    }

    /// Whose keys an event would be sealed under, each once.
    pub(crate) fn owners(&self, event: &PersistedEvent, new: &NewEvent) -> Result<Vec<KeyScope>> {
        let Some(plan) = self.schemas.for_append(new)? else { return Ok(Vec::new()) };
        Ok(Draft::new(plan, new.to_store(&event.aggregate))?.map(|draft| draft.scopes).unwrap_or_default())
    }
}
