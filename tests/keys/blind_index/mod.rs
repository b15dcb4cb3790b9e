//! Blind indexes, on every database: who has a value is found by its hash alone (I1 to I9).

mod erasure;
mod plans;
mod races;
mod rotation;
mod tables;

use async_trait::async_trait;
use eventseal::blind_index::{BlindIndex, BlindIndexTable, BlindLookup, Spelling};
use eventseal::error::{BlindIndexFault, InputFault, KeyFault, SetUpFault};
use eventseal::memory::MemoryBlindIndex;
use eventseal::postgres::PostgresBlindIndex;
use eventseal::split::{SplitKeys, SplitStore, SplitTx};
use eventseal::sqlite::{SqliteBlindIndex, SqliteKeys, SqliteStore};
use eventseal::{Error, KeyScope, Keyring, Normalize, Result, Schemas, SealedStore, event, subject};
use std::collections::HashSet;
use std::sync::Arc;
use support::backend::Backend;
use support::sealing::CANARY;
use support::{KEYRING, Memory, Postgres, Sqlite, customer, customer_scope, on_every_database, whole};

on_every_database! {
    a_value_is_found_in_every_spelling_of_its_index,
    a_unique_value_has_one_owner,
    a_shared_value_has_many_owners,
    values_are_replaced_and_removed,
    i2_a_table_holds_no_value,
    i3_hashes_are_of_one_index_and_one_namespace,
    i6_an_entry_and_its_key_are_committed_together,
    i9_nothing_shows_a_value_or_a_hash,
    entries_of_every_spelling_of_an_id_belong_to_one_owner,
    what_can_not_be_indexed_is_refused,
    hashes_can_be_kept_elsewhere,
    the_longest_names_are_possible,
}

/// A database that can have a table of blind indexes.
#[async_trait]
trait Indexed: Backend {
    type Table: BlindIndexTable<Tx = Self::Tx> + Clone + Default + 'static;

    async fn migrate_index(&self);

    fn lookup(&self, index: BlindIndex) -> BlindLookup<Self::Tx> {
        BlindLookup::unique(Self::Table::default(), index)
    }

    async fn try_add(
        &self,
        store: &SealedStore<Self::Store>,
        lookup: &BlindLookup<Self::Tx>,
        id: &str,
        value: &str,
    ) -> Result<()> {
        let mut transaction = self.begin().await?;
        let added = store.lookup(lookup).add(self.tx(&mut transaction), &customer_scope(id), value).await;
        self.end(transaction, added).await
    }

    async fn add(&self, store: &SealedStore<Self::Store>, lookup: &BlindLookup<Self::Tx>, id: &str, value: &str) {
        self.try_add(store, lookup, id, value).await.unwrap();
    }

    async fn try_find(
        &self,
        store: &SealedStore<Self::Store>,
        lookup: &BlindLookup<Self::Tx>,
        value: &str,
    ) -> Result<Option<String>> {
        let mut connection = self.connect().await?;
        let found = store.lookup(lookup).find(self.connection(&mut connection), value).await?;
        Ok(found.map(|scope| scope.id().to_owned()))
    }

    async fn find(
        &self,
        store: &SealedStore<Self::Store>,
        lookup: &BlindLookup<Self::Tx>,
        value: &str,
    ) -> Option<String> {
        self.try_find(store, lookup, value).await.unwrap()
    }

    /// The ids of the owners that have entries in the table.
    async fn owners(&self) -> Vec<String> {
        let mut connection = self.connect().await.unwrap();
        let scopes = Self::Table::default().scopes_after(self.connection(&mut connection), None, 1_000).await;
        scopes.unwrap().into_iter().map(|scope| scope.id().to_owned()).collect()
    }
}

#[async_trait]
impl Indexed for Memory {
    type Table = MemoryBlindIndex;

    async fn migrate_index(&self) {}
}

#[async_trait]
impl Indexed for Sqlite {
    type Table = SqliteBlindIndex;

    async fn migrate_index(&self) {
        SqliteBlindIndex::new().migrate(&mut self.pool.acquire().await.unwrap()).await.unwrap();
    }
}

#[async_trait]
impl Indexed for Postgres {
    type Table = PostgresBlindIndex;

    async fn migrate_index(&self) {
        PostgresBlindIndex::new().migrate(&mut self.pool.acquire().await.unwrap()).await.unwrap();
    }
}

fn schemas() -> Schemas {
    Schemas::new([event("Placed").version(1).protect(&["/name"], customer())]).unwrap()
}

fn emails() -> BlindIndex {
    BlindIndex::new("customer-email").spelling(Spelling::Email)
}

/// A database with an index of addresses, whose process drops the entries of those that it shreds.
async fn shop<B: Indexed>() -> (B, SealedStore<B::Store>, BlindLookup<B::Tx>) {
    let db = B::make().await;
    db.migrate_index().await;
    let lookup = db.lookup(emails());
    let store = db.process_over(db.keys().erasure_consumer(lookup.clone()), schemas());
    db.prepare(&store).await;
    (db, store, lookup)
}

async fn a_value_is_found_in_every_spelling_of_its_index<B: Indexed>() {
    let (db, store, emails) = shop::<B>().await;
    assert_eq!(db.find(&store, &emails, "ada@example.org").await, None, "before there is a key");
    db.add(&store, &emails, "1", "Ada@Example.org ").await;
    for process in [&store, &db.process(schemas())] {
        for spelled in ["ada@example.org", " ADA@EXAMPLE.ORG", "Ada@example.org\n"] {
            assert_eq!(db.find(process, &emails, spelled).await.as_deref(), Some("1"), "{spelled:?}");
        }
        assert_eq!(db.find(process, &emails, "ada@example.com").await, None);
    }
    let names = db.lookup(BlindIndex::new("name").spelling(Spelling::CaseFolded));
    let exact = db.lookup(BlindIndex::new("code"));
    let initial = |name: &str| name.chars().next().map(|first| first.to_uppercase().to_string());
    let initials = db.lookup(BlindIndex::new("initial").spelling(Spelling::by("initial", initial)));
    for (lookup, value, same, other) in
        [(&names, "Strauß", "STRAUSS", "Straus"), (&exact, " a", " a", "a"), (&initials, "ada", "Alan", "Bob")]
    {
        db.add(&store, lookup, "2", value).await;
        assert_eq!(db.find(&store, lookup, same).await.as_deref(), Some("2"), "{lookup:?}");
        assert_eq!(db.find(&store, lookup, other).await, None, "{lookup:?}");
    }
}

async fn a_unique_value_has_one_owner<B: Indexed>() {
    let (db, store, emails) = shop::<B>().await;
    for _ in 0..2 {
        db.add(&store, &emails, "1", "ada@example.org").await;
    }
    let mut transaction = db.begin().await.unwrap();
    let other = customer_scope("2");
    let taken = store.lookup(&emails).add(db.tx(&mut transaction), &other, "ADA@example.org").await.unwrap_err();
    assert!(matches!(taken, Error::BlindIndex { fault: BlindIndexFault::Taken, .. }), "{taken:?}");
    assert!(taken.is_conflict() && !taken.is_retryable());
    store.lookup(&emails).add(db.tx(&mut transaction), &other, "kim@example.org").await.unwrap();
    db.commit(transaction).await.unwrap();
    assert_eq!(db.find(&store, &emails, "ada@example.org").await.as_deref(), Some("1"));
    assert_eq!(db.find(&store, &emails, "kim@example.org").await.as_deref(), Some("2"), "the transaction went on");
    db.add(&store, &emails, "1", "ada@work.example").await;
    for value in ["ada@example.org", "ada@work.example"] {
        assert_eq!(db.find(&store, &emails, value).await.as_deref(), Some("1"), "an owner may have several values");
    }
}

async fn a_shared_value_has_many_owners<B: Indexed>() {
    let (db, store, _) = shop::<B>().await;
    let index = BlindIndex::new("surname").spelling(Spelling::CaseFolded).bits(32);
    let surnames = BlindLookup::shared(B::Table::default(), index);
    for id in ["3", "1", "2", "1"] {
        db.add(&store, &surnames, id, "Lovelace").await;
    }
    db.add(&store, &surnames, "1", "King").await;
    let mut connection = db.connect().await.unwrap();
    let connection = db.connection(&mut connection);
    let lookup = store.lookup(&surnames);
    let ids = |scopes: Vec<KeyScope>| scopes.iter().map(|scope| scope.id().to_owned()).collect::<Vec<_>>();
    assert_eq!(ids(lookup.find_all(connection, "LOVELACE", 10).await.unwrap()), ["1", "2", "3"]);
    assert_eq!(ids(lookup.find_all(connection, "lovelace", 2).await.unwrap()), ["1", "2"]);
    assert_eq!(ids(lookup.find_all(connection, "King", 10).await.unwrap()), ["1"]);
    assert_eq!(ids(lookup.find_all(connection, "Byron", 10).await.unwrap()), [""; 0]);
}

async fn values_are_replaced_and_removed<B: Indexed>() {
    let (db, store, emails) = shop::<B>().await;
    let scope = customer_scope("1");
    for value in ["old@example.org", "older@example.org"] {
        db.add(&store, &emails, "1", value).await;
    }
    db.add(&store, &emails, "2", "kim@example.org").await;
    let mut transaction = db.begin().await.unwrap();
    let tx = db.tx(&mut transaction);
    let taken = store.lookup(&emails).replace(tx, &scope, "kim@example.org").await;
    assert!(taken.is_err_and(|error| error.is_conflict()));
    assert!(store.lookup(&emails).find(tx, "old@example.org").await.unwrap().is_some(), "nothing was replaced");
    store.lookup(&emails).replace(tx, &scope, "new@example.org").await.unwrap();
    db.commit(transaction).await.unwrap();
    for (value, owner) in [
        ("new@example.org", Some("1")),
        ("old@example.org", None),
        ("older@example.org", None),
        ("kim@example.org", Some("2")),
    ] {
        assert_eq!(db.find(&store, &emails, value).await.as_deref(), owner, "{value}");
    }
    let mut transaction = db.begin().await.unwrap();
    let tx = db.tx(&mut transaction);
    store.lookup(&emails).remove(tx, &scope, "kim@example.org").await.unwrap();
    store.lookup(&emails).remove(tx, &scope, "NEW@example.org").await.unwrap();
    store.lookup(&emails).clear(tx, &customer_scope("3")).await.unwrap();
    db.commit(transaction).await.unwrap();
    assert_eq!(db.find(&store, &emails, "new@example.org").await, None);
    assert_eq!(db.find(&store, &emails, "kim@example.org").await.as_deref(), Some("2"), "only its owner's is removed");
    let mut transaction = db.begin().await.unwrap();
    store.lookup(&emails).clear(db.tx(&mut transaction), &customer_scope("2")).await.unwrap();
    db.commit(transaction).await.unwrap();
    assert_eq!(db.owners().await, [""; 0]);
}

async fn i2_a_table_holds_no_value<B: Indexed>() {
    let (db, store, emails) = shop::<B>().await;
    let mut transaction = db.begin().await.unwrap();
    let value = format!("{CANARY}@example.org");
    let scope = customer_scope("1");
    let hashes = store.blind_hashes_to_store(db.tx(&mut transaction), &scope, emails.index(), &value).await;
    let hash = hashes.unwrap().remove(0);
    assert_eq!(hash.as_bytes().len(), 16);
    assert!(!support::contains(hash.as_bytes(), CANARY) && !support::contains(hash.as_bytes(), "example"));
    let unkeyed = <sha2::Sha256 as sha2::Digest>::digest(value.as_bytes());
    assert_ne!(hash.as_bytes(), &unkeyed[..16], "nobody can make it without the key");
    db.roll_back(transaction).await;
}

async fn i3_hashes_are_of_one_index_and_one_namespace<B: Indexed>() {
    let ((db, store, _), (second, other, _)) = (shop::<B>().await, shop::<B>().await);
    let hash = async |db: &B, store: &SealedStore<B::Store>, index: &BlindIndex| {
        let mut transaction = db.begin().await.unwrap();
        let scope = customer_scope("1");
        let hashes = store.blind_hashes_to_store(db.tx(&mut transaction), &scope, index, "ada@example.org").await;
        db.end(transaction, hashes).await.unwrap().remove(0)
    };
    let mut seen = HashSet::new();
    for name in ["a", "b", "ab", "customer-email"] {
        let index = BlindIndex::new(name).bits(256);
        assert!(seen.insert(hash(&db, &store, &index).await.as_bytes().to_vec()), "{name}");
        assert!(seen.insert(hash(&second, &other, &index).await.as_bytes().to_vec()), "{name} of another key database");
    }
    let whole = hash(&db, &store, &BlindIndex::new("a").bits(256)).await;
    for bits in [32, 33, 39, 40, 128, 255] {
        let hash = hash(&db, &store, &BlindIndex::new("a").bits(bits)).await;
        assert_eq!(hash.key_id(), whole.key_id());
        let bit = |bytes: &[u8], at: u16| bytes[usize::from(at / 8)] >> (7 - at % 8) & 1;
        assert_eq!(hash.as_bytes().len(), usize::from(bits).div_ceil(8), "{bits} bits");
        for at in 0..u16::try_from(hash.as_bytes().len() * 8).unwrap() {
            let expected = if at < bits { bit(whole.as_bytes(), at) } else { 0 };
            assert_eq!(bit(hash.as_bytes(), at), expected, "bit {at} of {bits}");
        }
    }
    let mut connection = db.connect().await.unwrap();
    let index = BlindIndex::new("a").bits(256);
    let looked = store.blind_hashes(db.connection(&mut connection), &index, "ada@example.org").await;
    assert_eq!(looked.unwrap(), [whole], "a look-up makes the same hash");
}

async fn i6_an_entry_and_its_key_are_committed_together<B: Indexed>() {
    let (db, store, emails) = shop::<B>().await;
    let mut transaction = db.begin().await.unwrap();
    let (tx, scope) = (db.tx(&mut transaction), customer_scope("1"));
    store.lookup(&emails).add(tx, &scope, "ada@example.org").await.unwrap();
    assert_eq!(store.lookup(&emails).find(tx, "ada@example.org").await.unwrap(), Some(scope), "within the transaction");
    db.roll_back(transaction).await;
    assert_eq!(db.find(&store, &emails, "ada@example.org").await, None);
    assert_eq!(db.owners().await, [""; 0]);
    db.add(&store, &emails, "2", "ada@example.org").await;
    for process in [&store, &db.process(schemas())] {
        let found = db.find(process, &emails, "ada@example.org").await;
        assert_eq!(found.as_deref(), Some("2"), "a key that was rolled back is not used again");
    }
}

async fn i9_nothing_shows_a_value_or_a_hash<B: Indexed>() {
    let (db, store, emails) = shop::<B>().await;
    let value = format!("{CANARY}@example.org");
    db.add(&store, &emails, "1", &value).await;
    let mut connection = db.connect().await.unwrap();
    let hash = store.blind_hashes(db.connection(&mut connection), emails.index(), &value).await.unwrap().remove(0);
    drop(connection);
    let bytes = format!("{:?}", hash.as_bytes());
    let hex = hash.as_bytes().iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
    let shown = format!("{hash:?} {emails:?} {:?}", store.lookup(&emails));
    assert!(!shown.contains(&bytes) && !shown.contains(&hex), "{shown}");
    let mut errors = vec![
        db.try_add(&store, &emails, "2", &value).await.unwrap_err(),
        db.try_add(&store, &emails, "2", CANARY).await.unwrap_err(),
        db.try_find(&store, &emails, CANARY).await.unwrap_err(),
        db.try_add(&store, &db.lookup(emails.index().clone().bits(9)), "2", &value).await.unwrap_err(),
    ];
    db.shred(&store, "1").await;
    errors.push(db.try_add(&store, &emails, "1", &value).await.unwrap_err());
    for error in errors {
        assert!(!whole(&error).contains(CANARY), "{error:?}");
    }
}

async fn entries_of_every_spelling_of_an_id_belong_to_one_owner<B: Indexed>() {
    let (db, _, emails) = shop::<B>().await;
    let customer = subject("Customer", "/customer").normalize(Normalize::LowerCase);
    let schemas = Schemas::new([event("Placed").version(1).protect(&["/name"], customer)]).unwrap();
    let store = db.process_over(db.keys().erasure_consumer(emails.clone()), schemas);
    db.add(&store, &emails, "ADA", "ada@example.org").await;
    db.add(&store, &emails, "Ada", "ada@example.org").await;
    assert_eq!(db.find(&store, &emails, "ada@example.org").await.as_deref(), Some("ada"));
    db.shred(&store, "ada").await;
    assert_eq!(db.owners().await, [""; 0]);
}

async fn what_can_not_be_indexed_is_refused<B: Indexed>() {
    let (db, store, emails) = shop::<B>().await;
    let (of, a) = (|index: BlindIndex| db.lookup(index), "a@b");
    for (lookup, scope, value, fault) in [
        (emails.clone(), customer_scope("1"), "ada", "InvalidValue"),
        (emails.clone(), customer_scope("1"), "", "InvalidValue"),
        (of(BlindIndex::new("")), customer_scope("1"), a, "InvalidText"),
        (of(BlindIndex::new("a\0")), customer_scope("1"), a, "InvalidText"),
        (of(BlindIndex::new("é".repeat(128))), customer_scope("1"), a, "InvalidText"),
        (of(emails.index().clone().bits(95)), customer_scope("1"), a, "InvalidBits"),
        (of(emails.index().clone().bits(257)), customer_scope("1"), a, "InvalidBits"),
        (
            BlindLookup::shared(B::Table::default(), emails.index().clone().bits(31)),
            customer_scope("1"),
            a,
            "InvalidBits",
        ),
        (emails.clone(), KeyScope::new("customer", "1"), a, "SimilarKind"),
        (emails.clone(), KeyScope::index(), a, "InvalidText"),
        (emails.clone(), KeyScope::new("Customer", ""), a, "InvalidText"),
    ] {
        let mut transaction = db.begin().await.unwrap();
        let error = store.lookup(&lookup).add(db.tx(&mut transaction), &scope, value).await.unwrap_err();
        db.roll_back(transaction).await;
        assert!(support::fault(&error).starts_with(fault), "{error:?}");
    }
    let shared = BlindLookup::shared(B::Table::default(), emails.index().clone().bits(32));
    db.add(&store, &shared, "1", a).await;
    let other = db.process_with(B::Keys::default(), Keyring::generate("other").unwrap(), schemas());
    assert!(matches!(db.try_add(&other, &emails, "9", a).await, Err(Error::Kms(_))), "no key, no hash");
    assert!(matches!(db.try_find(&other, &emails, a).await, Err(Error::Kms(_))), "an outage is not an empty index");
}

async fn hashes_can_be_kept_elsewhere<B: Indexed>() {
    let (db, store, _) = shop::<B>().await;
    let index = emails().bits(64);
    let mut transaction = db.begin().await.unwrap();
    let (tx, scope) = (db.tx(&mut transaction), customer_scope("1"));
    assert!(store.blind_hashes(tx, &index, "ada@example.org").await.unwrap().is_empty(), "nothing was stored");
    let stored = store.blind_hashes_to_store(tx, &scope, &index, "ada@example.org").await.unwrap();
    db.commit(transaction).await.unwrap();
    let mut connection = db.connect().await.unwrap();
    let connection = db.connection(&mut connection);
    assert_eq!(store.blind_hashes(connection, &index, "ADA@example.org").await.unwrap(), stored);
    assert_eq!((stored.len(), stored[0].version(), stored[0].as_bytes().len()), (1, 1, 8));
    db.shred(&store, "1").await;
    let mut transaction = db.begin().await.unwrap();
    let refused = store.blind_hashes_to_store(db.tx(&mut transaction), &scope, &index, "ada@example.org").await;
    assert!(refused.is_err_and(|error| error.is_shredded()));
    db.roll_back(transaction).await;
    if let Err(error) = store.blind_hashes_to_store(connection, &scope, &index, "ada@example.org").await {
        assert!(error.is_shredded() || support::fault(&error).starts_with("NotInTransaction"), "{error:?}");
    }
}

/// Names that can't be compressed are the hardest for a database.
async fn the_longest_names_are_possible<B: Indexed>() {
    let (db, store, _) = shop::<B>().await;
    let random = |of: u8, bytes: u16| {
        let part = |part: u16| <sha2::Sha256 as sha2::Digest>::digest([&[of], &part.to_be_bytes()[..]].concat());
        let name = (0..bytes).flat_map(part).map(|byte| char::from(b'0' + byte % 64));
        name.take(bytes.into()).collect::<String>()
    };
    let lookup = BlindLookup::shared(B::Table::default(), BlindIndex::new(random(1, 255)).bits(256));
    let scope = KeyScope::new(random(2, 1_024), random(3, 1_024));
    let mut transaction = db.begin().await.unwrap();
    let tx = db.tx(&mut transaction);
    store.lookup(&lookup).add(tx, &scope, "Lovelace").await.unwrap();
    assert_eq!(store.lookup(&lookup).find(tx, "Lovelace").await.unwrap(), Some(scope.clone()));
    store.lookup(&lookup).clear(tx, &scope).await.unwrap();
    let long = BlindLookup::shared(B::Table::default(), BlindIndex::new(random(1, 256)));
    for refused in [
        store.lookup(&long).find(tx, "Lovelace").await.map(drop),
        store.lookup(&long).remove(tx, &scope, "Lovelace").await,
        store.lookup(&long).clear(tx, &scope).await,
    ] {
        assert!(matches!(refused, Err(Error::Input(InputFault::InvalidText { .. }))), "{refused:?}");
    }
}

/// A row that lost its active key is a loss, and no empty index.
#[tokio::test]
async fn a_lost_index_key_is_told_from_nobody() {
    let (db, store, emails) = shop::<Sqlite>().await;
    db.add(&store, &emails, "1", "ada@example.org").await;
    let lost = "UPDATE key_scopes SET active_key_id = NULL WHERE scope_kind = '$eventseal' AND scope_id = 'index'";
    assert_eq!(sqlx::query(lost).execute(&db.pool).await.unwrap().rows_affected(), 1);
    for process in [&store, &db.process(schemas())] {
        let refused = db.try_find(process, &emails, "ada@example.org").await;
        let Err(Error::Keys(KeyFault::ScopeState { scope, .. })) = refused else { panic!("{refused:?}") };
        assert_eq!(scope, KeyScope::index());
    }
    let mut tx = db.pool.begin().await.unwrap();
    let refused = store.lookup(&emails).remove(&mut tx, &customer_scope("1"), "ada@example.org").await;
    assert!(matches!(refused, Err(Error::Keys(KeyFault::ScopeState { .. }))), "{refused:?}");
}

/// With keys in another database, a key of the indexes that is made for an entry is committed before the entry, as a
/// data key is for an event.
#[tokio::test]
async fn i6_keys_in_another_database_are_committed_first() {
    let (rows, keys) = (Sqlite::make().await, Sqlite::make().await);
    let (events, tables) = (SplitStore::new(SqliteStore::new()), SplitKeys::new(SqliteKeys::new()));
    let store = SealedStore::new(events, tables, Arc::clone(&KEYRING), schemas());
    let begin = async || SplitTx::begin(&rows.pool, &keys.pool).await.unwrap();
    store.keys().prepare(&mut begin().await).await.unwrap();
    let (scope, index) = (customer_scope("1"), emails());
    let mut tx = begin().await;
    store.seal_value(&mut tx, &scope, ["a"], "Ada").await.unwrap();
    tx.commit().await.unwrap();
    // The owner has a key, and the indexes have none yet.
    let mut tx = begin().await;
    let stored = store.blind_hashes_to_store(&mut tx, &scope, &index, "ada@example.org").await.unwrap();
    let found = store.blind_hashes(&mut begin().await, &index, "ada@example.org").await.unwrap();
    assert_eq!(found, stored, "others see the key before the entry is committed");
    store.seal_value(&mut tx, &scope, ["a"], "Ada").await.unwrap();
    tx.commit().await.unwrap();
}

#[tokio::test]
async fn a_missing_table_is_named() {
    let missing = |error: Error| matches!(error, Error::SetUp(SetUpFault::NoBlindIndex));
    let (sqlite, postgres) = (Sqlite::make().await, Postgres::make().await);
    let store = sqlite.prepared(schemas()).await;
    assert!(missing(sqlite.try_add(&store, &sqlite.lookup(emails()), "1", "a@b").await.unwrap_err()));
    let store = postgres.prepared(schemas()).await;
    assert!(missing(postgres.try_add(&store, &postgres.lookup(emails()), "1", "a@b").await.unwrap_err()));
    for name in ["", "a b", "1a"] {
        let refused =
            PostgresBlindIndex::new().table(name).map(drop).and(SqliteBlindIndex::new().table(name).map(drop));
        assert!(matches!(refused, Err(Error::Input(InputFault::InvalidText { .. }))), "{name:?}");
    }
}
