//! Headers that somebody wrote who knows the format.

use super::{Header, JOINED, PLACED, STATES, edited, seal, tampered, token, with_header, world};
use eventseal::error::EventFault;
use eventseal::{Error, JsonPointer, KeyScope, NewEvent, aggregate};
use serde_json::{Value, json};
use support::sealing::with_payload;

/// Keys of two other scopes, one of which is shredded whatever the state is.
#[derive(Clone, Copy)]
struct Others {
    gone: [u8; 16],
    live: [u8; 16],
}

/// An alteration of a header, and of the document to go with it.
type Forgery = (&'static str, fn(&mut Header, Others), fn(&mut Value));

fn nothing(_: &mut Value) {}

const FORGERIES: &[Forgery] = &[
    (
        "the second field taken away, its key with it",
        |header, _| {
            header.entries.pop();
            header.keys.pop();
            header.commitments.pop();
        },
        |value| drop(value["courier"].as_object_mut().unwrap().remove("phone")),
    ),
    (
        "the first field taken away, its key with it",
        |header, _| {
            header.entries.remove(0);
            header.entries[0].0 = 0;
            header.keys.remove(0);
            header.commitments.remove(0);
        },
        |value| drop(value.as_object_mut().unwrap().remove("email")),
    ),
    ("fields exchanged", |header, _| header.entries.swap(0, 1), nothing),
    (
        "pointers and values exchanged",
        |header, _| {
            let first = header.entries[0].2.clone();
            header.entries[0].2 = std::mem::replace(&mut header.entries[1].2, first);
        },
        |value| {
            let email = value["email"].take();
            value["email"] = std::mem::replace(&mut value["courier"]["phone"], email);
        },
    ),
    ("keys exchanged", |header, _| header.keys.swap(0, 1), nothing),
    (
        "keys exchanged with their commitments",
        |header, _| {
            header.keys.swap(0, 1);
            header.commitments.swap(0, 1);
        },
        nothing,
    ),
    ("the first key is a shredded one", |header, others| header.keys[0] = others.gone, nothing),
    ("the second key is a shredded one", |header, others| header.keys[1] = others.gone, nothing),
    ("the first key is a live one", |header, others| header.keys[0] = others.live, nothing),
    ("the first key is the integrity key", |header, _| header.keys[0] = header.integrity_key, nothing),
    ("the integrity key is a live data key", |header, others| header.integrity_key = others.live, nothing),
    ("the integrity key is a shredded data key", |header, others| header.integrity_key = others.gone, nothing),
    (
        "a void entry of a shredded key is added",
        |header, others| {
            header.keys.push(others.gone);
            header.entries.push((2, 1, "/total".to_owned()));
        },
        |value| value["total"] = Value::Null,
    ),
    (
        "a sealed entry of a shredded key is added",
        |header, others| {
            header.keys.push(others.gone);
            header.commitments.push([0; 32]);
            header.entries.push((2, 0, "/total".to_owned()));
        },
        |value| value["total"] = value["email"].clone(),
    ),
    (
        "the first entry is void",
        |header, _| {
            header.entries[0].1 = 1;
            header.commitments.remove(0);
        },
        |value| value["email"] = Value::Null,
    ),
    (
        "all entries are void, of a shredded key",
        |header, others| {
            header.keys = vec![others.gone];
            header.commitments.clear();
            header.entries.iter_mut().for_each(|entry| (entry.0, entry.1) = (0, 1));
        },
        |value| {
            value["email"] = Value::Null;
            value["courier"]["phone"] = Value::Null;
        },
    ),
    (
        "all entries are void, of their own keys",
        |header, _| {
            header.commitments.clear();
            header.entries.iter_mut().for_each(|entry| entry.1 = 1);
        },
        |value| {
            value["email"] = Value::Null;
            value["courier"]["phone"] = Value::Null;
        },
    ),
    ("a tag of zeros, an altered salt", |header, _| (header.tag, header.salt) = ([0; 16], [0; 16]), nothing),
    ("an entry at the root", |header, _| header.entries[0].2.clear(), nothing),
    ("an entry that is no pointer", |header, _| "email".clone_into(&mut header.entries[0].2), nothing),
    ("an entry with a bad escape", |header, _| "/~2".clone_into(&mut header.entries[0].2), nothing),
    (
        "an entry of the header itself",
        |header, _| "/$seal".clone_into(&mut header.entries[0].2),
        |value| value["email"] = Value::Null,
    ),
    ("an entry very deep down", |header, _| header.entries[0].2 = "/a".repeat(200), nothing),
    ("an entry very long", |header, _| header.entries[0].2 = format!("/{}", "a".repeat(5_000)), nothing),
    ("entries twice", |header, _| header.entries.push(header.entries[0].clone()), nothing),
    ("no entries", |header, _| header.entries.clear(), nothing),
    ("no keys", |header, _| (header.keys, header.commitments) = (Vec::new(), Vec::new()), nothing),
    ("whole mode", |header, _| header.fixed[3] = 1, nothing),
];

#[test]
fn i3_i4_a_manifest_can_not_be_rewritten() {
    for state in STATES {
        let world = world();
        let stored = seal(&world, "Placed", PLACED);
        // A scope that is shredded in all three worlds, and its key.
        let gone = world
            .seal(&aggregate("Order", "ord-3"), NewEvent::raw("Joined", 1, JOINED.replace("cust-1", "cust-3")))
            .unwrap();
        let live = world
            .seal(&aggregate("Order", "ord-3"), NewEvent::raw("Joined", 1, JOINED.replace("cust-1", "cust-4")))
            .unwrap();
        world.shred("Customer", "cust-3");
        state.bring_about(&world);
        let others = Others { gone: Header::of(&gone).keys[0], live: Header::of(&live).keys[0] };
        for (what, forge, edit) in FORGERIES {
            let mut header = Header::of(&stored);
            forge(&mut header, others);
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
            assert!(
                matches!(
                    &result,
                    Err(Error::Event { fault: EventFault::Unsealed { pointer, .. }, .. })
                        if pointer.as_str() == "/courier/phone"
                ),
                "{result:?}"
            );
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
    futures::executor::block_on(world.sealer.keys().reopen(&mut tx, &KeyScope::new("Customer", "cust-1"), "came back"))
        .unwrap();
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
