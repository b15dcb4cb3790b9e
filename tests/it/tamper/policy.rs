//! Schemas that accept plaintext or unknown versions do not accept altered payloads.

use super::{
    Careless, Header, KEYRING, PLACED, Part, Seen, declared, edited, order, placed, protected, schemas, seal,
    shred_all, tampered, with_header,
};
use eventseal::error::KmsFault;
use eventseal::memory::MemoryKeys;
use eventseal::schema::EventSchema;
use eventseal::{Error, Keyring, NewEvent, Schemas, Sealer};
use serde_json::{Value, json};
use support::sealing::{SealerWorld, with_payload};

#[test]
fn i3_accepting_plaintext_does_not_accept_broken_seals() {
    let schemas = || {
        Schemas::builder(declared(&Seen::default()))
            .accept_plaintext("Placed")
            .accept_plaintext("Whole")
            .build()
            .unwrap()
    };
    for shredded in [false, true] {
        let world = SealerWorld::new(schemas());
        let stored = seal(&world, "Placed", PLACED);
        let other = seal(&world, "Placed", PLACED);
        let whole = seal(&world, "Whole", PLACED);
        if shredded {
            shred_all(&world);
        }
        let plain = world.open(&with_payload(&stored, PLACED)).unwrap();
        assert_eq!((plain.payload.as_slice(), plain.redacted.len()), (PLACED.as_bytes(), 0));
        for bytes in [&b"\xff"[..], b"{}", b"{\"a\":1}"] {
            assert_eq!(world.open(&with_payload(&whole, bytes)).unwrap().payload, bytes);
        }
        assert!(tampered(&world.open(&with_payload(&stored, other.payload.clone()))));
        assert!(tampered(&world.open(&with_header(&stored, &Header::of(&other).bytes()))));
        assert!(tampered(&world.open(&edited(&stored, |value| value["email"] = json!("c4n4ry")))));
        assert!(tampered(&world.open(&edited(&stored, |value| value["$seal"] = json!(5)))));
        assert!(tampered(&world.open(&edited(&whole, |value| value["x"] = json!(5)))));
        let header = Header::of(&stored);
        for at in 0..header.bytes().len() * 8 {
            let mut flipped = header.bytes();
            flipped[at / 8] ^= 1 << (at % 8);
            if let Ok(opened) = world.open(&with_header(&stored, &flipped)) {
                assert!(matches!(header.map()[at / 8], Part::Tag | Part::Commitment(_)));
                assert_eq!(opened.redacted.len(), if shredded { 2 } else { 0 });
            }
        }
    }
}

/// I7: what an upcaster is shown is plaintext or a stand-in, however the store was altered.
#[test]
fn i7_an_upcaster_is_never_shown_what_could_not_be_opened() {
    let seen = Seen::default();
    let world = SealerWorld::new(Schemas::builder(declared(&seen)).allow_older_appends().build().unwrap());
    let stored = seal(&world, "Evolved", PLACED);
    let open_all_flipped = || {
        for at in 0..stored.payload.len() * 8 {
            let mut payload = stored.payload.clone();
            payload[at / 8] ^= 1 << (at % 8);
            let _ = world.open(&with_payload(&stored, payload));
        }
        std::mem::take(&mut *seen.lock().unwrap())
    };
    let shown = open_all_flipped();
    assert!(!shown.is_empty());
    let plaintext = protected(PLACED.as_bytes());
    for payload in shown {
        assert_eq!(protected(payload.as_bytes()), plaintext, "{payload}");
        assert!(!payload.contains("$seal"));
    }
    shred_all(&world);
    for payload in open_all_flipped() {
        assert_eq!(protected(payload.as_bytes())[..2], [Some(Value::Null), Some(Value::Null)], "{payload}");
        assert!(!payload.contains("$seal"));
    }
}

/// A reader that does not know the version yet opens by the header alone, and is told what is redacted.
#[test]
fn i4_versions_that_are_not_known_yet_are_refused_or_opened_by_their_header() {
    let newer = |declared: EventSchema| Schemas::builder([declared]).pass_through_newer().build().unwrap();
    let world = SealerWorld::new(schemas());
    let stored = seal(&world, "Evolved", PLACED);
    let mut stored_v2 = world.seal(&order(), NewEvent::raw("Evolved", 2, PLACED)).unwrap();
    assert_eq!(world.open(&stored).unwrap().event_version.get(), 2);
    let reader = Sealer::new(MemoryKeys::new(), Careless, newer(placed("Evolved")));
    let result = futures::executor::block_on(reader.open(&mut world.db.begin(), vec![stored_v2.clone()]));
    assert!(matches!(result, Err(Error::Kms(KmsFault::Refused { .. }))), "another KMS is no erasure: {result:?}");
    let keyring = || Keyring::parse(KEYRING).unwrap();
    let writer = SealerWorld::with_keyring(keyring(), schemas());
    stored_v2 = writer.seal(&order(), NewEvent::raw("Evolved", 2, PLACED)).unwrap();
    let reader = SealerWorld::over(writer.db.clone(), MemoryKeys::new(), keyring(), newer(placed("Evolved")));
    assert_eq!(reader.open(&stored_v2).unwrap().payload, PLACED.as_bytes());
    let altered = edited(&stored_v2, |value| value["email"] = json!("c4n4ry"));
    assert!(tampered(&reader.open(&altered)));
    shred_all(&writer);
    assert_eq!(reader.open(&stored_v2).unwrap().redacted.len(), 2);
    assert!(tampered(&reader.open(&altered)));
}
