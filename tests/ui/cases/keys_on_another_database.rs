//! Keys and events on different types of database can't share a transaction.
use eventseal::{Keyring, Schemas, SealedStore};
use eventseal::keys::KeyTable;
use eventseal::memory::MemoryStore;

struct OtherTx;

fn wrap(keys: impl KeyTable<Tx = OtherTx> + 'static) {
    let schemas = Schemas::new([]).unwrap();
    let _ = SealedStore::new(MemoryStore::new(), keys, Keyring::generate("main").unwrap(), schemas);
}

fn main() {}
