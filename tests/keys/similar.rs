//! One person may have keys under several scopes: a shred of one does not reach the others, so they can be found.

use eventseal::conformance::Database;
use eventseal::error::InputFault;
use eventseal::keys::{KeyManager, KeyTable};
use eventseal::memory::MemoryKeys;
use eventseal::postgres::PostgresKeys;
use eventseal::sqlite::SqliteKeys;
use eventseal::{Error, KeyScope, Keyring};
use support::{Memory, Postgres, Sqlite};

const HYPHENATED: &str = "0b9f6a9e-7d0c-4d3e-9f0e-3c1f3f0a7b11";

async fn other_scopes_of_a_person_are_found<D: Database>(db: D, store: impl KeyTable<Tx = D::Tx> + 'static)
where
    D::Tx: Send,
{
    let keys = KeyManager::new(store, Keyring::generate("main").unwrap());
    keys.prepare(db.connection(&mut db.connect().await.unwrap())).await.unwrap();
    let scope = |kind: &str, id: &str| KeyScope::new(kind, id);
    let simple = HYPHENATED.replace('-', "").to_uppercase();
    let with_keys: [(&str, &str); 10] = [
        ("Customer", "Mixed"),
        ("Customer", "cust_42"),
        ("customer", "cust_42"),
        ("Order", "cust_42"),
        ("Customer", "CUST_42"),
        ("Guest", "cust_42\r\n"),
        ("Customer", "cust_421"),
        ("Customer", HYPHENATED),
        ("Person", &simple),
        ("Customer", "integrity"),
    ];
    let mut transaction = db.begin().await.unwrap();
    let tx = db.tx(&mut transaction);
    for (kind, id) in with_keys {
        keys.shred(tx, &scope(kind, id), "made").await.unwrap();
        keys.reopen(tx, &scope(kind, id), "made").await.unwrap();
    }
    keys.shred(tx, &scope("Shredded", "cust_42"), "request 118").await.unwrap();
    db.commit(transaction).await.unwrap();

    let mut connection = db.connect().await.unwrap();
    let mut similar = async |kind: &str, id: &str| {
        let found = keys.similar_scopes(db.connection(&mut connection), &scope(kind, id)).await.unwrap();
        found.iter().map(|scope| (scope.kind().to_owned(), scope.id().to_owned())).collect::<Vec<_>>()
    };
    let named = |scopes: &[(&str, &str)]| {
        scopes.iter().map(|(kind, id)| ((*kind).to_owned(), (*id).to_owned())).collect::<Vec<_>>()
    };
    let others = [
        ("Customer", "CUST_42"),
        ("Guest", "cust_42\r\n"),
        ("Order", "cust_42"),
        ("Shredded", "cust_42"),
        ("customer", "cust_42"),
    ];
    assert_eq!(similar("Customer", "cust_42").await, named(&others));
    // A misspelt id finds the scope that was meant, too.
    assert!(similar("Customer", " Cust_42").await.contains(&("Customer".to_owned(), "cust_42".to_owned())));
    assert!(similar("Customer", "cUsT_42").await.contains(&("Customer".to_owned(), "CUST_42".to_owned())));
    assert_eq!(similar("Customer", "MIXED").await, named(&[("Customer", "Mixed")]));
    assert_eq!(similar("Customer", "mIXED").await, named(&[("Customer", "Mixed")]));
    assert_eq!(similar("Customer", HYPHENATED).await, named(&[("Person", &simple)]));
    assert_eq!(
        similar("Person", &format!("{{{HYPHENATED}}}")).await,
        named(&[("Customer", HYPHENATED), ("Person", &simple)])
    );
    assert_eq!(similar("Customer", "cust_4").await, []);
    assert_eq!(similar("Customer", "integrity").await, [], "scopes of the crate's own are nobody's");

    for id in ["", "a\0b"] {
        let refused = keys.similar_scopes(db.connection(&mut connection), &scope("Customer", id)).await;
        assert!(matches!(refused, Err(Error::Input(InputFault::InvalidText { .. }))), "{refused:?}");
    }
}

#[tokio::test]
async fn other_scopes_of_a_person_are_found_in_memory() {
    other_scopes_of_a_person_are_found(Memory::new(), MemoryKeys::new()).await;
}

#[tokio::test]
async fn other_scopes_of_a_person_are_found_on_sqlite() {
    other_scopes_of_a_person_are_found(Sqlite::new().await, SqliteKeys::new()).await;
}

#[tokio::test]
async fn other_scopes_of_a_person_are_found_on_postgres() {
    other_scopes_of_a_person_are_found(Postgres::new().await, PostgresKeys::new()).await;
}
