//! Events and keys in PostgreSQL.

mod copy;
mod dialect;
mod events;
mod keys;
mod migrations;
mod own_transaction;
mod row;
mod snapshots;

pub use copy::PostgresCopy;
pub use events::{PostgresStore, PostgresTables};
pub use keys::PostgresKeys;
pub use snapshots::PostgresSnapshots;
