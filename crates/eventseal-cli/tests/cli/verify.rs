//! `eventseal verify`: what it counts, what it finds, and how it ends.

use crate::command::World;
use serde_json::{Value, json};

on_both! {
    a_sound_database_is_clean,
    what_is_wrong_is_found_and_named,
}

fn lock(world: &World) -> String {
    let path = world.folder.path().join("lock.json");
    let version = json!({ "protected": { "/name": "Customer at /customer" }, "step": null });
    let lock = json!({ "eventseal_schemas": 1, "types": { "Placed": { "versions": { "1": version } } } });
    std::fs::write(&path, lock.to_string()).unwrap();
    path.to_str().unwrap().to_owned()
}

async fn a_sound_database_is_clean(world: World) {
    let world = world.with_keys(0..3).await;
    world.run(&["shred", "Customer", "cust_1", "--reason", "request", "--yes"]).ended(0);
    let said = world.run(&["verify"]).ended(0);
    assert!(said.out.contains("Everything is as it should be") && said.out.contains("pass --schemas"), "{said:?}");
    let found = world.json(&["verify", "--schemas", &lock(&world)]);
    assert_eq!((&found["clean"], &found["events"], &found["sealed"]), (&true.into(), &3.into(), &3.into()));
    assert_eq!((&found["opened"], &found["redacted"], &found["scopes"]), (&2.into(), &1.into(), &3.into()));
    assert_eq!((&found["live_keys"], &found["destroyed_keys"]), (&3.into(), &1.into()));
    assert_eq!(world.json(&["verify", "--after", "2"])["events"], 1);
    // The master key is needed: everything is opened.
    let other = world.keyring("other.keyring", &format!("main:{}\n", crate::command::OTHER_SECRET));
    let found = world.run(&["verify", "--json", "--keyring", other.to_str().unwrap()]).ended(5).json();
    assert_eq!((&found["findings"][0]["kind"], &found["keks"]), (&"kek".into(), &0.into()), "{found}");
}

async fn what_is_wrong_is_found_and_named(world: World) {
    let world = world.with_keys(0..3).await;
    let clear = r#"{"customer":"cust_0","name":"canary"}"#;
    world
        .execute(match world.is_postgres() {
            true => format!("UPDATE events SET payload = convert_to('{clear}', 'UTF8') WHERE global_position = 2"),
            false => format!("UPDATE events SET payload = CAST('{clear}' AS BLOB) WHERE global_position = 2"),
        })
        .await;
    world.execute("UPDATE key_scopes SET state = 'shredded' WHERE scope_id = 'cust_2'").await;
    let lock = lock(&world);
    let found = world.run(&["verify", "--json", "--schemas", &lock]).ended(5).json();
    let of = |kind: &str| -> Value {
        let findings = found["findings"].as_array().unwrap().iter();
        findings.clone().find(|finding| finding["kind"] == kind).unwrap_or_else(|| panic!("{found}")).clone()
    };
    assert_eq!((&of("plaintext")["position"], &of("plaintext")["count"]), (&2.into(), &1.into()));
    assert!(of("not_erased")["first"].as_str().unwrap().contains("cust_2"), "{found}");
    assert!(of("shred_log")["first"].as_str().unwrap().contains("cust_2"), "{found}");
    let said = world.run(&["verify", "--schemas", &lock]).ended(5);
    assert!(said.out.contains("plaintext, once: first event") && !said.out.contains("canary"), "{said:?}");
}
