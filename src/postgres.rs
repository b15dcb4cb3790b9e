//! Events and keys in PostgreSQL.

mod blind_index;
mod copy;
mod dialect;
mod events;
mod keys;
mod migrations;
mod own_transaction;
mod row;
mod snapshots;

pub use blind_index::PostgresBlindIndex;
pub use copy::PostgresCopy;
pub use events::{PostgresStore, PostgresTables};
pub use keys::PostgresKeys;
pub use snapshots::PostgresSnapshots;
