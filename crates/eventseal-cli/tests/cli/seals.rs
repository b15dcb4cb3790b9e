//! `eventseal events-of` and `index-seals`: what they find, with an index and without one, and how they end.

use crate::command::{Database, Output, World, run};
use serde_json::Value;

on_both! {
    events_are_listed_with_an_index_and_without,
    an_index_is_made_kept_and_checked,
    what_cannot_be_searched_is_refused,
    printed_tables_are_those_that_are_made,
}

/// With eight events of five customers.
async fn filled(world: World) -> World {
    let world = world.with_keys(0..1).await;
    world.append(0..5).await.unwrap();
    world.append(2..5).await.unwrap();
    world
}

fn positions(found: &Value) -> Vec<u64> {
    found["events"].as_array().unwrap().iter().map(|event| event["position"].as_u64().unwrap()).collect()
}

fn check(world: &World, code: i32) -> Value {
    let found = world.run(&["doctor", "--json"]).ended(code).json();
    found["checks"].as_array().unwrap().iter().find(|check| check["check"] == "seal index").unwrap().clone()
}

async fn events_are_listed_with_an_index_and_without(world: World) {
    let world = filled(world).await;
    let scan = world.json(&["events-of", "Customer", "cust_3"]);
    assert_eq!((&scan["index_used"], scan["events"].as_array().unwrap().len()), (&false.into(), 2), "{scan}");
    assert!(scan["looked_at"].as_u64().unwrap() >= 8);
    world.run(&["index-seals"]).ended(0);
    let indexed = world.json(&["events-of", "Customer", "cust_3"]);
    assert_eq!((&indexed["index_used"], &indexed["looked_at"]), (&true.into(), &2.into()));
    assert_eq!(indexed["events"], scan["events"]);
    assert_eq!(world.json(&["events-of", "Customer", "cust_3", "--scan"])["events"], scan["events"]);
    world.run(&["shred", "Customer", "cust_3", "--reason", "request 1", "--yes"]).ended(0);
    assert_eq!(world.json(&["events-of", "Customer", "cust_3"])["events"], scan["events"]);
    let second = positions(&scan)[1];
    let part = world.json(&["events-of", "Customer", "cust_3", "--after", &positions(&scan)[0].to_string()]);
    assert_eq!(positions(&part), [second]);
    let text = world.run(&["events-of", "Customer", "cust_3"]).ended(0).out;
    assert!(text.starts_with("Customer cust_3: 2 events up to position") && text.contains("by the index"), "{text}");
    assert!(text.contains(&format!("{second}")) && !text.contains("$seal"), "no payloads: {text}");
}

async fn an_index_is_made_kept_and_checked(world: World) {
    let world = filled(world).await;
    assert_eq!(world.json(&["status"])["seal_index"], Value::Null);
    assert!(check(&world, 0)["found"].as_str().unwrap().contains("there is none"));
    let made = world.json(&["index-seals", "--batch", "3"]);
    assert_eq!(
        (&made["looked_at"], &made["indexed"], &made["unreadable"]),
        (&made["complete_up_to"], &made["indexed"], &0.into())
    );
    assert_eq!(world.json(&["index-seals"])["looked_at"], 0, "again there is nothing to do");
    assert_eq!(world.json(&["status"])["seal_index"]["complete_up_to"], made["complete_up_to"]);
    assert!(world.run(&["status"]).ended(0).out.contains("Index of seals: complete up to position"));
    assert_eq!(check(&world, 0)["found"], format!("complete up to position {}", made["complete_up_to"]));
    world.append(0..2).await.unwrap();
    assert!(check(&world, 0)["found"].as_str().unwrap().contains("behind"));
    assert_eq!(world.json(&["index-seals"])["looked_at"], 2);
    // Events that were restored without the index.
    world.execute("UPDATE sealed_events_mark SET last_event = '01890000-0000-7000-8000-000000000000'").await;
    let problem = check(&world, 5);
    assert_eq!(problem["remedy"], "eventseal index-seals --anew", "{problem}");
    assert_eq!(world.json(&["events-of", "Customer", "cust_3"])["index_used"], false);
    world.run(&["index-seals", "--json"]).refused(1, "misuse");
    world.run(&["index-seals", "--anew"]).ended(0);
    check(&world, 0);
    let damaged =
        if world.is_postgres() { "'{\"$seal\":\"AQ\"}'::bytea" } else { "CAST('{\"$seal\":\"AQ\"}' AS BLOB)" };
    world.execute(format!("UPDATE events SET payload = {damaged} WHERE global_position = 1")).await;
    world.run(&["index-seals", "--anew", "--json"]).ended(5);
    let told: Output = world.run(&["events-of", "Customer", "cust_4"]).ended(5);
    assert!(told.out.contains("1 event with a header that can't be read"), "{told:?}");
}

async fn what_cannot_be_searched_is_refused(world: World) {
    let world = filled(world).await;
    world.run(&["events-of", "Customer", "cust_99", "--json"]).refused(4, "unknown_scope");
    world.run(&["events-of", "Customer", "cust_1", "--events-table", "nothing", "--json"]).refused(1, "no_events");
    world.run(&["index-seals", "--events-table", "nothing", "--json"]).refused(1, "no_events");
    world.run(&["index-seals", "--seals-table", "a b", "--json"]).refused(2, "invalid_text");
    // Nothing was made for a table of events that is not there.
    assert_eq!(world.json(&["status"])["seal_index"], Value::Null);
}

async fn printed_tables_are_those_that_are_made(world: World) {
    let world = filled(world).await;
    let kind = if world.is_postgres() { "--print=postgres" } else { "--print=sqlite" };
    let printed = run(&mut crate::command::eventseal(&["index-seals", kind])).ended(0);
    assert_eq!(world.run(&["index-seals", "--print"]).out, printed.out, "the kind of DATABASE_URL");
    world.execute(printed.out).await;
    assert_eq!(world.json(&["status"])["seal_index"]["complete_up_to"], 0);
    world.run(&["index-seals"]).ended(0);
    assert_eq!(world.json(&["events-of", "Customer", "cust_3"])["index_used"], true);
    let named = ["--seals-table", "other_seals"];
    world.run(&[&["index-seals"], &named[..]].concat()).ended(0);
    assert_eq!(world.json(&[&["events-of", "Customer", "cust_3"], &named[..]].concat())["index_used"], true);
    let Database::Sqlite(_) = &world.database else { return };
    world.run(&["index-seals", "--streams", "--json"]).refused(2, "usage");
}
