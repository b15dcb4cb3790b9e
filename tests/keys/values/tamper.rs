//! I3 for values: what was altered or moved is refused, while its key is live and after it was shredded.

use super::{EMAIL, open, schemas, seal};
use eventseal::values::{SealedValue, StoredValue, ValueContext};
use eventseal::{Error, KeyScope, Namespace};
use support::backend::Backend;
use support::{KEYRING, Memory, customer_scope, on_every_database};

on_every_database! {
    i3_a_value_opens_in_its_own_place_only,
}

/// Every bit of a value is looked at, while its key is live and once it is shredded. Two things are known exceptions:
/// the tag while the key is live, and the ciphertext once it is shredded, which nobody can authenticate any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i3_no_bit_of_a_value_can_be_altered() {
    const TAG: std::ops::Range<usize> = 61..77;
    const COMMITMENT: std::ops::Range<usize> = 77..109;
    let db = Memory::make().await;
    let store = db.prepared(schemas()).await;
    let value = seal(&db, &store, "1", b"Ada").await.unwrap();
    let length = value.as_bytes().len();
    let altered: Vec<SealedValue> = (0..length * 8)
        .map(|bit| {
            let mut bytes = value.as_bytes().to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            SealedValue::from_bytes(bytes)
        })
        .collect();
    let cut: Vec<SealedValue> =
        (0..length).map(|length| SealedValue::from_bytes(&value.as_bytes()[..length])).collect();
    let longer = [1, 16, 32, 64].map(|more| SealedValue::from_bytes([value.as_bytes(), &vec![0; more]].concat()));
    for shredded in [false, true] {
        if shredded {
            db.shred(&store, "1").await;
        }
        for (bit, altered) in altered.iter().enumerate() {
            let opened = open(&db, &store, "1", altered).await;
            let byte = bit / 8;
            match opened {
                // What vouches for the value is the commitment while it can be opened, and the tag afterwards.
                Ok(opened) if shredded => assert!(opened.is_redacted() && byte >= COMMITMENT.start, "bit {bit}"),
                Ok(opened) => assert!(opened.into_exposed().unwrap() == b"Ada" && TAG.contains(&byte), "bit {bit}"),
                Err(error) => {
                    let expected = match byte {
                        0..4 => ["tampered", "schemas"],
                        // Without the integrity key that the header names, nobody can tell whether the tag is right.
                        20..36 if shredded => ["missing_key"; 2],
                        _ => ["tampered"; 2],
                    };
                    assert!(expected.contains(&error.kind().as_str()), "bit {bit}: {error:?}");
                    assert!(!shredded || byte < COMMITMENT.start, "bit {bit} was altered after the shred");
                }
            }
        }
        for cut in &cut {
            let opened = open(&db, &store, "1", cut).await;
            assert!(opened.is_err(), "{cut:?} was opened: {opened:?}");
        }
        for longer in &longer {
            let opened = open(&db, &store, "1", longer).await;
            assert!(opened.as_ref().map_or_else(Error::is_tampered, |opened| shredded && opened.is_redacted()));
        }
    }
}

async fn i3_a_value_opens_in_its_own_place_only<B: Backend>() {
    let db = B::make().await;
    let store = db.prepared(schemas()).await;
    let value = seal(&db, &store, "1", b"Ada").await.unwrap();
    seal(&db, &store, "2", b"Grace").await.unwrap();
    let elsewhere: [(&str, ValueContext); 8] = [
        ("1", ["customers", "email", "row 8"].into()),
        ("1", ["customers", "phone", "row 7"].into()),
        ("1", ["customers", "email"].into()),
        ("1", ["customers/email/row 7"].into()),
        ("1", ["customers", "emailrow 7"].into()),
        ("1", ["email", "customers", "row 7"].into()),
        ("2", EMAIL.into()),
        ("never seen", EMAIL.into()),
    ];
    for state in ["live", "disabled", "shredded"] {
        for (id, context) in &elsewhere {
            let mut transaction = db.begin().await.unwrap();
            let stored = [StoredValue::new(&customer_scope(id), context, &value)];
            let opened = store.open_values(db.tx(&mut transaction), &stored).await.unwrap().remove(0);
            db.roll_back(transaction).await;
            let refused = opened.as_ref().is_err_and(Error::is_tampered);
            assert!(refused, "{state}, for {id} in {context}: {opened:?}");
        }
        let mut transaction = db.begin().await.unwrap();
        let kind = KeyScope::new("Supplier", "1");
        let opened = store.open_value(db.tx(&mut transaction), &kind, EMAIL, &value).await;
        db.roll_back(transaction).await;
        assert!(opened.as_ref().is_err_and(Error::is_tampered), "{state}: {opened:?}");
        match state {
            "live" => db.disable(&store, "1").await,
            _ => drop(db.shred(&store, "1").await),
        }
    }
}

/// The same keys under another name: as if the rows of one key database had been copied into another.
#[tokio::test]
async fn i3_a_value_of_another_namespace_is_refused() {
    use eventseal::memory::{MemoryDb, MemoryKeys, MemoryStore};
    use eventseal::{Keyring, SealedStore};
    let store = |ring: &std::sync::Arc<Keyring>| {
        SealedStore::new(MemoryStore::new(), MemoryKeys::new(), std::sync::Arc::clone(ring), schemas())
    };
    let mut values = Vec::new();
    let dbs = ["one", "two"].map(|name| MemoryDb::new(Namespace::new(name).unwrap()));
    let stores = [store(&KEYRING), store(&KEYRING)];
    for (db, store) in dbs.iter().zip(&stores) {
        store.keys().prepare(&mut db.begin()).await.unwrap();
        let mut tx = db.begin();
        values.push(store.seal_value(&mut tx, &customer_scope("1"), EMAIL, "Ada").await.unwrap());
        tx.commit().unwrap();
    }
    for (db, store, foreign) in [(&dbs[0], &stores[0], &values[1]), (&dbs[1], &stores[1], &values[0])] {
        let refused = store.open_value(&mut db.begin(), &customer_scope("1"), EMAIL, foreign).await;
        assert_eq!(refused.unwrap_err().kind().as_str(), "missing_key", "the other database has other keys");
    }
}
