//! The places that an opened seal covers, with their owners. They are worked out when somebody asks for them, because
//! most readers do not.

use crate::event::Seals;
use crate::json::pointer::JsonPointer;
use crate::keys::names::{KeyId, KeyScope};
use crate::seal::format::Header;
use std::sync::Arc;

/// An authentic header, with what the key table says about its keys.
#[derive(Clone)]
pub(crate) struct SealedPlaces {
    pub(super) header: Arc<Header>,
    /// In the order of the header's keys.
    pub(super) owners: Vec<KeyOwner>,
}

/// The owner of a data key.
#[derive(Clone)]
pub(crate) struct KeyOwner {
    pub(crate) scope: KeyScope,
    pub(crate) is_shredded: bool,
}

impl SealedPlaces {
    /// The owners of the header's keys. Each of the keys seals something.
    pub(crate) fn owners(&self) -> &[KeyOwner] {
        &self.owners
    }

    /// The data keys that the header names, each with its owner.
    pub(crate) fn keys(&self) -> impl Iterator<Item = (KeyId, &KeyOwner)> {
        self.header.keys.iter().copied().zip(&self.owners)
    }
}

impl Seals for SealedPlaces {
    fn places(&self) -> Vec<(JsonPointer, KeyScope)> {
        let entries = self.header.entries.iter();
        let places = entries.filter_map(|entry| {
            let owner = self.owners.get(usize::from(entry.key))?;
            Some((JsonPointer::new_unchecked(self.header.pointer(*entry)), owner.scope.clone()))
        });
        places.collect()
    }
}
