//! A key table that does not say where its tables are, so that appends and reads take the two steps of every store that
//! is not beside its keys.

use crate::faults::{Faulty, KeyFaults};
use async_trait::async_trait;
use eventseal::keys::KeyTable;

#[derive(Clone, Default)]
pub struct TwoSteps<K>(K);

impl<K> TwoSteps<K> {
    pub fn over(keys: K) -> Faulty<Self> {
        Faulty(Self(keys))
    }
}

#[async_trait]
impl<K: KeyTable> KeyFaults for TwoSteps<K> {
    type Inner = K;

    fn inner(&self) -> &K {
        &self.0
    }
}
