//! Keys and events on different types of database can't share a transaction.
use eventseal::{Keyring, MemoryStore, Schemas, SealedStore, SqliteKeys};

fn main() {
    let schemas = Schemas::new([]).unwrap();
    let _ = SealedStore::new(MemoryStore::new(), SqliteKeys::new(), Keyring::generate("main").unwrap(), schemas);
}
