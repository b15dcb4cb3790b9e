//! Whole payloads.

use super::{Dice, config, is_base64url, order, print, schemas};
use eventseal::NewEvent;
use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::Value;
use support::sealing::{CANARY, DIGITS, SealerWorld, holds_canary, with_payload};

fn check_whole(world: &SealerWorld, event_type: &str, payload: &[u8]) {
    let stored = world.seal(&order(), NewEvent::raw(event_type, 1, payload)).unwrap();
    let sealed: Value = serde_json::from_slice(&stored.payload).unwrap();
    let members: Vec<&String> = sealed.as_object().unwrap().keys().collect();
    assert_eq!(members, ["$seal", "$sealed"]);
    assert!(sealed.as_object().unwrap().values().all(|value| is_base64url(value.as_str().unwrap())));
    assert!(!holds_canary(&stored.payload));
    assert_eq!(world.open(&stored).unwrap().payload, payload);
    // And after a JSONB column has had its way.
    for (reverse, spaces) in [(false, true), (true, false), (true, true)] {
        let reprinted = with_payload(&stored, print(&sealed, reverse, spaces));
        assert_eq!(world.open(&reprinted).unwrap().payload, payload);
    }
}

#[test]
fn i1_whole_payloads_are_any_bytes() {
    let world = SealerWorld::new(schemas());
    for payload in [
        &b""[..],
        b"\0",
        b"\x80",
        b"\x80\0\0",
        &[0xff; 100],
        b"{",
        b"null",
        b"{}",
        b"{\"$sealed\":1}",
        b"c4n4ry",
        &[0; 4096],
    ] {
        check_whole(&world, "Whole", payload);
    }
    check_whole(&world, "Whole", "[".repeat(1_000).as_bytes());
    check_whole(&world, "Whole", &CANARY.repeat(40_000).into_bytes());
    proptest!(config(500), |(payload in vec(any::<u8>(), 0..300))| {
        check_whole(&world, "Whole", &payload);
    });
}

#[test]
fn i1_whole_payloads_are_json_of_a_subject() {
    let world = SealerWorld::new(schemas());
    proptest!(config(300), |(bytes in vec(any::<u8>(), 0..300))| {
        let mut dice = Dice { bytes: &bytes, tame: false };
        let id = dice.id();
        let text = format!("{{\"customer\" : {{ \"id\":{id} }},\"x\": [{}, \"{CANARY}\", {DIGITS}] }}", dice.plain(4));
        check_whole(&world, "WholeOfSubject", text.as_bytes());
    });
}
