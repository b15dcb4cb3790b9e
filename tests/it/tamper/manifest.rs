//! Headers that somebody wrote who knows the format.

use super::{Header, JOINED, PLACED, STATES, edited, seal, tampered, token, with_header, world};
use eventseal::*;
use serde_json::{Value, json};
use support::sealing::with_payload;

/// An alteration of a header, and of the document to go with it.
type Forgery<'a> = (&'static str, Box<dyn Fn(&mut Header) + 'a>, Box<dyn Fn(&mut Value) + 'a>);

#[test]
fn i3_i4_a_manifest_can_not_be_rewritten() {
    for state in STATES {
        let world = world();
        let stored = seal(&world, "Placed", PLACED);
        // A scope that is shredded in all three worlds, and its key.
        let gone = world.seal(&aggregate("Order", "ord-3"), NewEvent::raw("Joined", 1, JOINED.replace("cust-1", "cust-3"))).unwrap();
        let live = world.seal(&aggregate("Order", "ord-3"), NewEvent::raw("Joined", 1, JOINED.replace("cust-1", "cust-4"))).unwrap();
        world.shred("Customer", "cust-3");
        state.bring_about(&world);
        let gone_key = Header::of(&gone).keys[0];
        let live_key = Header::of(&live).keys[0];
        let nothing = || Box::new(|_: &mut Value| {});
        let forgeries: Vec<Forgery<'_>> = vec![
            (
                "the second field taken away, its key with it",
                Box::new(|header| {
                    header.entries.pop();
                    header.keys.pop();
                    header.commitments.pop();
                }),
                Box::new(|value| drop(value["courier"].as_object_mut().unwrap().remove("phone"))),
            ),
            (
                "the first field taken away, its key with it",
                Box::new(|header| {
                    header.entries.remove(0);
                    header.entries[0].0 = 0;
                    header.keys.remove(0);
                    header.commitments.remove(0);
                }),
                Box::new(|value| drop(value.as_object_mut().unwrap().remove("email"))),
            ),
            ("fields exchanged", Box::new(|header| header.entries.swap(0, 1)), nothing()),
            (
                "pointers and values exchanged",
                Box::new(|header| {
                    let first = header.entries[0].2.clone();
                    header.entries[0].2 = std::mem::replace(&mut header.entries[1].2, first);
                }),
                Box::new(|value| {
                    let email = value["email"].take();
                    value["email"] = std::mem::replace(&mut value["courier"]["phone"], email);
                }),
            ),
            ("keys exchanged", Box::new(|header| header.keys.swap(0, 1)), nothing()),
            (
                "keys exchanged with their commitments",
                Box::new(|header| {
                    header.keys.swap(0, 1);
                    header.commitments.swap(0, 1);
                }),
                nothing(),
            ),
            ("the first key is a shredded one", Box::new(move |header| header.keys[0] = gone_key), nothing()),
            ("the second key is a shredded one", Box::new(move |header| header.keys[1] = gone_key), nothing()),
            ("the first key is a live one", Box::new(move |header| header.keys[0] = live_key), nothing()),
            ("the first key is the integrity key", Box::new(|header| header.keys[0] = header.integrity_key), nothing()),
            ("the integrity key is a live data key", Box::new(move |header| header.integrity_key = live_key), nothing()),
            ("the integrity key is a shredded data key", Box::new(move |header| header.integrity_key = gone_key), nothing()),
            (
                "a void entry of a shredded key is added",
                Box::new(move |header| {
                    header.keys.push(gone_key);
                    header.entries.push((2, 1, "/total".to_owned()));
                }),
                Box::new(|value| value["total"] = Value::Null),
            ),
            (
                "a sealed entry of a shredded key is added",
                Box::new(move |header| {
                    header.keys.push(gone_key);
                    header.commitments.push([0; 32]);
                    header.entries.push((2, 0, "/total".to_owned()));
                }),
                Box::new(|value| value["total"] = value["email"].clone()),
            ),
            (
                "the first entry is void",
                Box::new(|header| {
                    header.entries[0].1 = 1;
                    header.commitments.remove(0);
                }),
                Box::new(|value| value["email"] = Value::Null),
            ),
            (
                "all entries are void, of a shredded key",
                Box::new(move |header| {
                    header.keys = vec![gone_key];
                    header.commitments.clear();
                    header.entries.iter_mut().for_each(|entry| (entry.0, entry.1) = (0, 1));
                }),
                Box::new(|value| {
                    value["email"] = Value::Null;
                    value["courier"]["phone"] = Value::Null;
                }),
            ),
            (
                "all entries are void, of their own keys",
                Box::new(|header| {
                    header.commitments.clear();
                    header.entries.iter_mut().for_each(|entry| entry.1 = 1);
                }),
                Box::new(|value| {
                    value["email"] = Value::Null;
                    value["courier"]["phone"] = Value::Null;
                }),
            ),
            ("a tag of zeros, an altered salt", Box::new(|header| (header.tag, header.salt) = ([0; 16], [0; 16])), nothing()),
            ("an entry at the root", Box::new(|header| header.entries[0].2.clear()), nothing()),
            ("an entry that is no pointer", Box::new(|header| "email".clone_into(&mut header.entries[0].2)), nothing()),
            ("an entry with a bad escape", Box::new(|header| "/~2".clone_into(&mut header.entries[0].2)), nothing()),
            (
                "an entry of the header itself",
                Box::new(|header| "/$seal".clone_into(&mut header.entries[0].2)),
                Box::new(|value| value["email"] = Value::Null),
            ),
            ("an entry very deep down", Box::new(|header| header.entries[0].2 = "/a".repeat(200)), nothing()),
            ("an entry very long", Box::new(|header| header.entries[0].2 = format!("/{}", "a".repeat(5_000))), nothing()),
            ("entries twice", Box::new(|header| header.entries.push(header.entries[0].clone())), nothing()),
            ("no entries", Box::new(|header| header.entries.clear()), nothing()),
            ("no keys", Box::new(|header| (header.keys, header.commitments) = (Vec::new(), Vec::new())), nothing()),
            ("whole mode", Box::new(|header| header.fixed[3] = 1), nothing()),
        ];
        for (what, forge, edit) in &forgeries {
            let mut header = Header::of(&stored);
            forge(&mut header);
            let forged = with_header(&edited(&stored, edit), &header.bytes());
            let result = world.open(&forged);
            assert!(tampered(&result), "{state:?}, {what}: {result:?}");
        }
        // A shortened manifest beside the field that it no longer covers.
        let mut header = Header::of(&stored);
        header.entries.pop();
        header.keys.pop();
        header.commitments.pop();
        for phone in [json!("c4n4ry"), json!(token(&stored, "/courier/phone"))] {
            let forged = with_header(&edited(&stored, |value| value["courier"]["phone"] = phone), &header.bytes());
            let result = world.open(&forged);
            assert!(matches!(&result, Err(Error::Unsealed { pointer, .. }) if pointer.as_str() == "/courier/phone"), "{result:?}");
        }
        let forged = with_header(&edited(&stored, |value| value["courier"]["phone"] = Value::Null), &header.bytes());
        assert!(tampered(&world.open(&forged)));
    }
}

/// The one key of an event exchanged for one that is shredded: nothing live could object.
#[test]
fn i4_a_shredded_key_in_a_live_header_redacts_nothing() {
    let world = world();
    let mine = seal(&world, "Joined", JOINED);
    let gone = seal(&world, "Joined", &JOINED.replace("cust-1", "cust-2"));
    world.shred("Customer", "cust-2");
    let (of_mine, of_gone) = (Header::of(&mine), Header::of(&gone));
    for (tag, salt) in [(of_mine.tag, of_mine.salt), (of_gone.tag, of_mine.salt), (of_gone.tag, of_gone.salt)] {
        for kind in [0, 1] {
            let mut header = of_mine.clone();
            (header.keys, header.tag, header.salt) = (of_gone.keys.clone(), tag, salt);
            header.entries[0].1 = kind;
            if kind == 1 {
                header.commitments.clear();
            }
            let forged = edited(&mine, |value| {
                if kind == 1 {
                    value["email"] = Value::Null;
                }
            });
            assert!(tampered(&world.open(&with_header(&forged, &header.bytes()))));
        }
    }
    // The shredded event's header, and its payload, on the live event; and the other way round.
    assert!(tampered(&world.open(&with_header(&mine, &of_gone.bytes()))));
    assert!(tampered(&world.open(&with_payload(&mine, gone.payload.clone()))));
    assert!(tampered(&world.open(&with_header(&gone, &of_mine.bytes()))));
    assert!(tampered(&world.open(&with_payload(&gone, mine.payload.clone()))));
    let mut header = of_gone.clone();
    header.keys = of_mine.keys.clone();
    assert!(tampered(&world.open(&with_header(&gone, &header.bytes()))), "a live key in a shredded header");
    assert_eq!(world.open(&mine).unwrap().payload, JOINED.as_bytes());
    assert_eq!(world.open(&gone).unwrap().redacted, [JsonPointer::parse("/email").unwrap()]);
}

/// A reopened scope seals anew; its old key still redacts, and can't be given to a new event.
#[test]
fn i4_generations_of_one_scope_do_not_mix() {
    let world = world();
    let old = seal(&world, "Joined", JOINED);
    world.shred("Customer", "cust-1");
    let mut tx = world.db.begin();
    futures::executor::block_on(world.sealer.keys().reopen(&mut tx, &KeyScope::new("Customer", "cust-1"), "came back")).unwrap();
    tx.commit().unwrap();
    let new = seal(&world, "Joined", JOINED);
    assert_eq!(world.open(&new).unwrap().payload, JOINED.as_bytes());
    assert!(world.open(&old).unwrap().is_redacted());
    let mut header = Header::of(&new);
    header.keys = Header::of(&old).keys;
    assert!(tampered(&world.open(&with_header(&new, &header.bytes()))));
    assert!(tampered(&world.open(&with_payload(&new, old.payload.clone()))));
    assert!(tampered(&world.open(&with_payload(&old, new.payload.clone()))));
}
