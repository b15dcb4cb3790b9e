//! [`SealedPlace`]: a value of an event that was read, and whose keys seal it in the store.

use crate::event::PersistedEvent;
use crate::json::pointer::JsonPointer;
use crate::keys::names::KeyScope;
use std::collections::HashSet;
use std::sync::Arc;

/// A place in the payload or in the metadata of an event that was read, whose value is sealed in the store: see
/// [`PersistedEvent::sealed_places`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub struct SealedPlace {
    /// The place in the document as it was handed out, after upcasting.
    pub place: JsonPointer,
    /// The owner whose keys seal the value. It is read from the key table and not from the payload.
    pub scope: KeyScope,
    /// Was the key destroyed, so that the place holds a stand-in?
    pub redacted: bool,
}

/// Says which places are sealed, when somebody asks. Most readers never do.
pub(crate) trait Seals: Send + Sync {
    fn places(&self) -> Vec<(JsonPointer, KeyScope)>;
}

impl Seals for Vec<(JsonPointer, KeyScope)> {
    fn places(&self) -> Vec<(JsonPointer, KeyScope)> {
        self.clone()
    }
}

/// What an event remembers of its seal. It plays no part in whether two events are equal: what was appended and what
/// is read back are the same event.
#[derive(Clone, Default)]
pub(crate) struct Sealed(Option<Arc<dyn Seals>>);

impl PartialEq for Sealed {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Sealed {}

impl Sealed {
    pub(crate) fn by(seals: Arc<impl Seals + 'static>) -> Self {
        Self(Some(seals))
    }

    /// The places with their owners, in no order.
    pub(crate) fn places(&self) -> Vec<(JsonPointer, KeyScope)> {
        self.0.as_ref().map(|seals| seals.places()).unwrap_or_default()
    }
}

impl PersistedEvent {
    /// The places in `payload` whose values are sealed in the store, each with its owner, sorted by place. A shred of
    /// the owner's keys redacts them.
    ///
    /// Empty if nothing in the event is sealed, if the event was appended and not read, and if it was not read through
    /// a [`SealedStore`](crate::SealedStore) or [`Sealer`](crate::Sealer). What stands in the clear in the store is not
    /// listed, even if a newer schema protects it. If the payload is protected as a whole, the only place is the root.
    ///
    /// # After upcasting
    /// Declarative steps carry the places along, wherever the values go. A function over values can't say where it puts
    /// a value. After such a step, a place is listed if
    /// - the new version protects it, and the payload names an owner there under whose keys the event is sealed, unless
    ///   the same value stood there in the clear before the step; or
    /// - it was listed before the step, and its value has not changed.
    ///
    /// So a value that a function moves to a place that the new version does not protect is not listed. Nor is a value
    /// that a function changes or moves if the payload no longer names its owner. A redacted place is listed unless its
    /// owner can't be told: [`redacted`](Self::redacted) always has all of them.
    ///
    /// ```
    /// # use eventseal::{AggregateVersion, GlobalPosition, Keyring, Namespace, NewEvent, PersistedEvent, Result};
    /// # use eventseal::{Schemas, Sealer, aggregate, event, subject};
    /// # use eventseal::memory::{MemoryDb, MemoryKeys};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<()> {
    /// let placed = event("OrderPlaced").version(1).protect(&["/email"], subject("Customer", "/customer"));
    /// let sealer = Sealer::new(MemoryKeys::new(), Keyring::generate("demo")?, Schemas::new([placed])?);
    /// # let db = MemoryDb::new(Namespace::new("demo")?);
    /// # sealer.keys().prepare(&mut db.begin()).await?;
    /// # let mut tx = db.begin();
    /// # let order = aggregate("Order", "1");
    /// # let new = [NewEvent::raw("OrderPlaced", 1, r#"{"customer":"42","email":"ada@example.org"}"#)];
    /// # let sealed = sealer.seal(&mut tx, &order, &new).await?[0].clone();
    /// # let stored = PersistedEvent::from_new(order, AggregateVersion::FIRST, GlobalPosition::START, sealed);
    /// let events = sealer.open(&mut tx, vec![stored]).await?;
    /// let places = events[0].sealed_places();
    /// assert_eq!((places[0].place.as_str(), places[0].scope.id()), ("/email", "42"));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn sealed_places(&self) -> Vec<SealedPlace> {
        marked(&self.sealed, &self.redacted)
    }

    /// As [`sealed_places`](Self::sealed_places), the places in `metadata`. If a step has changed the metadata, a place
    /// is listed if its value has not changed.
    #[must_use]
    pub fn sealed_metadata_places(&self) -> Vec<SealedPlace> {
        marked(&self.sealed_metadata, &self.redacted_metadata)
    }
}

fn marked(sealed: &Sealed, redacted: &[JsonPointer]) -> Vec<SealedPlace> {
    let erased: HashSet<&JsonPointer> = redacted.iter().collect();
    let is_redacted = |place: &JsonPointer| erased.contains(place);
    let places = sealed.places().into_iter();
    let mut places: Vec<SealedPlace> =
        places.map(|(place, scope)| SealedPlace { redacted: is_redacted(&place), place, scope }).collect();
    places.sort_unstable();
    places
}
