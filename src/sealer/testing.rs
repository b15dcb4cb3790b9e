//! What guards for CI look at: events that are opened and not upcast, and whose keys seal them.

use crate::error::Result;
use crate::event::{NewEvent, PersistedEvent};
use crate::key::KeyScope;
use crate::seal::sealing::Draft;
use crate::sealer::{Sealer, readable};

impl<Tx: Send + 'static> Sealer<Tx> {
    /// Opens an event, and leaves it at its stored version.
    pub(crate) async fn open_as_stored(&self, tx: &mut Tx, event: &PersistedEvent) -> Result<PersistedEvent> {
        let opened = match self.unseal(tx, std::slice::from_ref(event)).await?.pop() {
            Some(unsealed) => unsealed?.0,
            None => None,
        };
        Ok(readable(event.clone(), opened).event)
    }

    /// Whose keys an event would be sealed under, each once.
    pub(crate) fn owners(&self, event: &PersistedEvent, new: &NewEvent) -> Result<Vec<KeyScope>> {
        let Some(plan) = self.schemas.for_append(new)? else { return Ok(Vec::new()) };
        Ok(Draft::new(plan, &event.aggregate, new)?.map(|draft| draft.scopes).unwrap_or_default())
    }
}
