//! The drill after a restore, from the commands of `docs/erasure.md` alone: a backup of the database, fifty shreds and
//! a reopening after it, the restore, the refusal, the replay, the certificate.

use crate::command::World;
use crate::page::blocks;
use eventseal::Error;
use eventseal::error::KeyFault;
use std::fmt::Write as _;

on_both! {
    i13_the_drill_of_the_page,
}

/// The customers who are shredded after the backup. The page has proofs of cust_42 and cust_7, and reopens cust_42.
const SHREDDED: std::ops::Range<i64> = 0..50;

async fn i13_the_drill_of_the_page(world: World) {
    let mut world = world.with_keys(0..60).await;
    let copy = world.folder.path().join("evidence/shop.shredlog");
    world.section("Keep a copy of the log");
    world.back_up().await;

    let mut requests = String::new();
    for customer in SHREDDED {
        writeln!(requests, r#"{{"kind": "Customer", "id": "cust_{customer}"}}"#).unwrap();
    }
    std::fs::write(world.folder.path().join("requests.jsonl"), requests).unwrap();
    world.page(blocks("Many at once")[0]).ended(0);
    world.run(&["shred-log", "verify", copy.to_str().unwrap()]).ended(0);
    world.section("Keep the proof");
    assert!(page_of(&world, "request-118.html").contains("<strong>Erased</strong>"), "cust_42 was shredded");
    world.page(blocks("Shred")[2]).ended(0);
    world.append(42..43).await.unwrap();
    world.run(&["shred-log", "verify", copy.to_str().unwrap()]).ended(0);
    assert_eq!(world.read().await, (11, 50));

    world.restore().await;
    assert_eq!(world.read().await, (60, 0), "a restore brings back what was shredded, where nothing is required");
    for position in 1..=60 {
        let error = world.event(position, &world.ring(), Some(&copy)).await.unwrap_err();
        assert!(matches!(error, Error::Keys(KeyFault::ShredLogBehind { .. })), "I13: {error:?}");
    }
    let refused = world.page(blocks("See that it is refused")[0]).ended(5);
    assert!(refused.out.contains("has entries that the log does not have"), "{refused:?}");
    let certificate = world.page(blocks("See that it is right")[1]).ended(6);
    assert!(certificate.out.starts_with("Customer cust_7: NOT ERASED\n"), "{certificate:?}");
    std::fs::remove_file(world.folder.path().join("drill.html")).unwrap();

    world.section("Replay the log");
    world.section("See that it is right");
    let certificate = page_of(&world, "drill.html");
    assert!(certificate.contains("<strong>Erased</strong>"), "the copy proves it: {certificate}");
    for position in 1..=60 {
        let redacted = world.event(position, &world.ring(), Some(&copy)).await.unwrap().is_redacted();
        assert_eq!(redacted, SHREDDED.contains(&(position - 1)), "I13: position {position}");
    }
    let again = world.json(&["shred-log", "replay", copy.to_str().unwrap()]);
    assert_eq!((&again["missing"], &again["destroyed"]), (&0.into(), &0.into()), "a second replay does nothing");

    // The customer who came back works on, under a key of the new generation. The others stay shredded.
    world.append(42..43).await.unwrap();
    let refused = world.append(8..9).await.unwrap_err();
    assert!(refused.is_shredded(), "{refused:?}");
    assert_eq!(world.read().await, (11, 50));
    world.page(blocks("See that it is right")[0]).ended(0);
    world.run(&["certificate", "Customer", "cust_42"]).ended(6);
    world.run(&["certificate", "Customer", "cust_55"]).ended(6);
}

fn page_of(world: &World, name: &str) -> String {
    std::fs::read_to_string(world.folder.path().join(name)).unwrap()
}
