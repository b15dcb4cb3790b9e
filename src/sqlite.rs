//! Events and keys in SQLite.

mod blind_index;
mod copy;
mod dialect;
mod events;
mod keys;
mod migrations;
mod own_transaction;
mod row;
mod snapshots;

pub use blind_index::SqliteBlindIndex;
pub use copy::SqliteCopy;
pub use events::SqliteStore;
pub use keys::SqliteKeys;
pub use snapshots::SqliteSnapshots;

use row::{id_text, to_text};
