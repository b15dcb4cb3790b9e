//! Blind indexes: look up who has a value, though the value itself is sealed.
//!
//! A blind index stores a keyed hash of a value beside its owner: HMAC-SHA256 under a key of the key database that is
//! wrapped as the others are. Whoever has the table and not the key can't tell which values are in it, nor try guesses.
//! A [`BlindLookup`] keeps the entries in a table of your database, in the transaction of the append. It can make sure
//! that a value has one owner. If it is also registered as a consumer of erasures, a shred takes the entries of its
//! scope away in the same transaction.
//!
//! ```
//! use eventseal::ExpectedVersion::NoStream;
//! use eventseal::blind_index::{BlindIndex, BlindLookup, Spelling};
//! use eventseal::keys::KeyManager;
//! use eventseal::memory::{MemoryBlindIndex, MemoryDb, MemoryKeys, MemoryStore};
//! use eventseal::{EventStore, KeyScope, Keyring, Namespace, NewEvent, Owner, Schemas, SealedStore, aggregate, event};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let index = BlindIndex::new("customer-email").spelling(Spelling::Email);
//! let emails = BlindLookup::unique(MemoryBlindIndex::new(), index);
//!
//! let schemas = Schemas::new([event("Registered").version(1).protect(&["/email"], Owner::Aggregate)])?;
//! let keys = KeyManager::builder(MemoryKeys::new(), Keyring::generate("main")?).erasure_consumer(emails.clone());
//! let store = SealedStore::with_keys(MemoryStore::new(), keys.build(), schemas);
//! # let db = MemoryDb::new(Namespace::new("shop")?);
//! # store.keys().prepare(&mut db.begin()).await?;
//!
//! // Ada registers. If her address belonged to somebody else, `add` would fail.
//! let (ada, registered) = (aggregate("Customer", "42"), r#"{"email":"ada@example.org"}"#);
//! let mut tx = db.begin();
//! store.append(&mut tx, &ada, NoStream, &[NewEvent::raw("Registered", 1, registered)]).await?;
//! store.lookup(&emails).add(&mut tx, &KeyScope::from(&ada), "ada@example.org").await?;
//! tx.commit()?;
//!
//! let taken = store.lookup(&emails).add(&mut db.begin(), &KeyScope::new("Customer", "43"), "ADA@example.org").await;
//! assert!(taken.is_err_and(|error| error.is_conflict()));
//!
//! // She logs in.
//! let found = store.lookup(&emails).find(&mut db.begin(), " Ada@Example.org").await?;
//! assert_eq!(found, Some(KeyScope::from(&ada)));
//!
//! // She is erased, and so is her entry.
//! let mut tx = db.begin();
//! store.keys().shred(&mut tx, &KeyScope::from(&ada), "erasure request 118").await?;
//! tx.commit()?;
//! assert_eq!(store.lookup(&emails).find(&mut db.begin(), "ada@example.org").await?, None);
//! # Ok(())
//! # }
//! ```
//!
//! On SQLite and PostgreSQL, the table is `SqliteBlindIndex` or `PostgresBlindIndex`, in the database of the keys. Call
//! its `migrate` once.
//!
//! `add` may come before or after the append, in the same transaction. If it fails, roll back, or the append is
//! committed without its entry. On SQLite, begin a transaction that looks up before it writes with `BEGIN IMMEDIATE`.
//!
//! To fill a new index, add the values of all owners that exist, from your read model or from the events. Until that is
//! done, `find` misses owners, and two owners may come to have one value: the second `add` is then
//! [`Taken`](crate::error::BlindIndexFault::Taken), and somebody decides whose it is.
//!
//! # What equality leaks
//! That two values are equal is what makes a look-up possible, and it is what the table tells:
//! - **To those who have the table**: which entries of an index are of the same value. In an index that is not unique,
//!   that shows how often each value occurs. The commonest hash among surnames stands for the commonest surname. Which
//!   scope has an entry in which index is in the clear, and so is when rows come and go.
//! - **To those who have the table and the key**, or who can call [`find`](Lookup::find): whether a value that they
//!   guess is in it. For a value of few possibilities, such as a date of birth, they can guess all of them. So don't
//!   index a value that nobody looks up.
//!
//! The hashes of two indexes can't be compared, because the name of the index is hashed too. Nor can those from before
//! and after a rotation, once the old entries are gone.
//!
//! **Truncation** ([`bits`](BlindIndex::bits)) saves room, and little else. With `n` values in an index of `b` bits, a
//! look-up finds about `n / 2^b` others too: with a million values and 32 bits, one look-up in 4,000 does. So open what
//! you found, and compare. A hash so short that many values share it hides a value, but each look-up then finds all of
//! these values. To do that on purpose, index something coarser with [`Spelling::by`], such as the first letters of a
//! name.
//!
//! # Erasure
//! - [`add`](Lookup::add) locks the owner's keys as an append does. So it is refused for a shredded scope, and an entry
//!   that is added while a shred runs is gone with it or was never there.
//! - [`find`](Lookup::find) looks at the state of the scope that it found. An entry of a shredded scope is not found,
//!   whatever the table holds. Nor is an entry from before the shred, if the scope was reopened since.
//! - On PostgreSQL, shred at the isolation level `READ COMMITTED`, which is the default. A transaction of `REPEATABLE
//!   READ` or `SERIALIZABLE` does not see entries that were committed after its first statement, so its shred leaves
//!   them in the table. The library can't tell this from within such a transaction.
//! - Entries can also outlive a shred that the consumer did not see: one by the command `eventseal`, a replay of the
//!   shred log, or a restore of an older table.
//! - [`drop_shredded`](Lookup::drop_shredded) drops them. Run it after a replay, and as a job, such as once a day.
//!   Until then, `find` does not find them, and `add` lets another owner have the value.
//! - Whoever has an old backup of the table **and** of the key table can go on guessing. Both expire as backups do.
//!
//! A certificate of a scope does not speak of blind indexes: the library does not know which tables there are.
//!
//! # How its key is rotated
//! The key is in the scope [`KeyScope::index`](crate::KeyScope::index), and is made when the first entry is added. Like
//! every data key it is wrapped anew by `rewrap`, and events or entries are not touched by that. A new *version* of it
//! changes all hashes. So both are used side by side for a while:
//! 1. [`rotate_index_key`](crate::keys::KeyManager::rotate_index_key). From now on, entries are added and looked for
//!    under the new and the old version, and unique values stay unique across both.
//! 2. Add every value again, from your read model or from the events: [`add`](Lookup::add) does nothing if its entries
//!    are there.
//! 3. [`drop_shredded`](Lookup::drop_shredded). Entries that outlived a shred can't be added again.
//! 4. [`finish_rotation`](Lookup::finish_rotation). It fails as long as an owner has fewer entries in an index under
//!    the new version than under an old one. Then it destroys the old version, and removes its entries.
//!
//! Nothing can be added to an owner that is disabled either. So such an owner stops the rotation: enable it and add its
//! values again, or remove its entries with [`clear`](Lookup::clear) and add them once it is enabled.
//!
//! Step 2 is what keeps values from being lost; step 4 only counts. Two values of *one* owner can have the same hash
//! under one of the keys, and are one entry there. An owner with `n` values in an index of `b` bits has such a pair
//! with a probability of about `n² / 2^(b+1)`: with 100 values and 32 bits that is one owner in about 860,000, and with
//! 64 bits one in about 4,000,000,000,000,000.
//! - If the hashes are equal under the *new* key, the owner has fewer entries there, and `finish_rotation` fails though
//!   every value was added again. Rotate once more, and add every value again: the third key tells them apart.
//! - If they are equal under the *old* key, one of the two values can be missing under the new key, and the count does
//!   not show it. That value is not found any more once the rotation is finished, until it is added again.
//!
//! Do this after somebody had the table and the key, or as often as your rules say.

mod lookup;
mod spelling;
mod table;

pub use lookup::{BlindLookup, FinishedRotation, Lookup};
pub use spelling::{Spelling, SpellingFn};
pub use table::{BlindEntry, BlindIndexTable};

use crate::error::{BlindIndexFault, Error, InputFault, Result};
use crate::event::check_text;
use crate::keys::names::KeyId;
use std::fmt;
use std::sync::Arc;
use zeroize::Zeroizing;

/// How long the name of an index may be, in bytes.
const MAX_NAME: usize = 255;
/// The bits of a hash, if no other number is chosen.
const BITS: u16 = 128;
/// The least number of bits.
const LEAST: u16 = 32;
/// The least number of bits in a unique index. With fewer, two of many values might have the same hash.
const LEAST_UNIQUE: u16 = 96;

/// How the values of a blind index are spelled and hashed: see the [module](self).
///
/// ```
/// use eventseal::blind_index::{BlindIndex, Spelling};
///
/// let emails = BlindIndex::new("customer-email").spelling(Spelling::Email);
/// let surnames = BlindIndex::new("customer-surname").spelling(Spelling::CaseFolded).bits(64);
/// ```
///
/// The name is hashed with each value, so values of two indexes can't be compared. The name, the spelling and the
/// number of bits stay as they are as long as the index is used.
#[derive(Clone, Debug)]
pub struct BlindIndex {
    name: Arc<str>,
    spelling: Spelling,
    bits: u16,
}

impl BlindIndex {
    /// An index of this name: 1 to 255 bytes without NUL, which the calls that use it check. Values are hashed as
    /// they are, to 128 bits.
    #[must_use]
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self { name: name.into(), spelling: Spelling::Exact, bits: BITS }
    }

    /// Spells values in this way before they are hashed.
    #[must_use]
    pub fn spelling(self, spelling: Spelling) -> Self {
        Self { spelling, ..self }
    }

    /// Truncates hashes to this many bits: 32 to 256, and at least 96 in a [unique](BlindLookup::unique) index. The
    /// calls that use it check that. See [what truncation does](self#what-equality-leaks).
    #[must_use]
    pub fn bits(self, bits: u16) -> Self {
        Self { bits, ..self }
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Checks the settings, and spells a value.
    pub(crate) fn spell(&self, value: &str, unique: bool) -> Result<Zeroizing<String>> {
        self.check_name()?;
        let least = if unique { LEAST_UNIQUE } else { LEAST };
        if !(least..=256).contains(&self.bits) {
            return Err(self.fault(BlindIndexFault::InvalidBits { bits: self.bits, least }));
        }
        self.spelling.spell(value).map_err(|problem| self.fault(BlindIndexFault::InvalidValue { problem }))
    }

    /// Checks the name. A name, together with a scope, is a key of a B-tree in every supported database.
    pub(crate) fn check_name(&self) -> Result<()> {
        const WHAT: &str = "the name of a blind index";
        check_text(WHAT, &self.name)?;
        if self.name.len() > MAX_NAME {
            let problem = "is longer than 255 bytes: shorten it";
            return Err(Error::Input(InputFault::InvalidText { what: WHAT, problem }));
        }
        Ok(())
    }

    pub(crate) fn size(&self) -> u16 {
        self.bits
    }

    /// An error about this index.
    pub(crate) fn fault(&self, fault: BlindIndexFault) -> Error {
        Error::BlindIndex { index: Arc::clone(&self.name), fault }
    }
}

/// The hash of a value in a blind index, under one key. Two of them are equal if the values, the index and the key are.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct BlindHash {
    pub(crate) key_id: KeyId,
    pub(crate) version: u32,
    pub(crate) bytes: Vec<u8>,
}

impl BlindHash {
    /// The key under which the value was hashed. Store it beside the hash.
    #[must_use]
    pub fn key_id(&self) -> KeyId {
        self.key_id
    }

    /// The version of that key, from 1 on.
    #[must_use]
    pub fn version(&self) -> u32 {
        self.version
    }

    /// The hash: as many bytes as its bits need. The bits that are left of the last byte are zero.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// Leaves the hash out: equal values would show in a log.
impl fmt::Debug for BlindHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlindHash")
            .field("key_id", &self.key_id)
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}
