//! `eventseal verify`: what it counts, what it finds, and how it ends.

use crate::command::World;
use serde_json::{Value, json};

on_both! {
    a_sound_database_is_clean,
    the_shred_log_and_its_copy_are_verified_too,
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

async fn the_shred_log_and_its_copy_are_verified_too(world: World) {
    let world = world.with_keys(0..3).await;
    world.run(&["shred", "Customer", "cust_1", "--reason", "request", "--yes"]).ended(0);
    let copy = world.folder.path().join("shop.shredlog");
    let with_copy = ["verify", "--shred-log", copy.to_str().unwrap()];
    world.run(&["shred-log", "export", "--append", copy.to_str().unwrap()]).ended(0);
    let found = world.json(&with_copy);
    assert_eq!((&found["log_entries"], &found["copies"][0]["state"]), (&1.into(), &"complete".into()), "{found}");
    let said = world.run(&with_copy).ended(0);
    assert!(said.out.contains("shred log: 1 entry") && said.out.contains("it has every entry"), "{said:?}");

    let whole = std::fs::read_to_string(&copy).unwrap();
    std::fs::write(&copy, whole.replace("request", "another")).unwrap();
    let said = world.run(&with_copy).ended(5);
    assert!(said.out.contains("copy, once: first the shred log"), "{said:?}");
    world.run(&["verify"]).ended(0);
    std::fs::write(&copy, whole).unwrap();
    let guard = match world.is_postgres() {
        true => "DROP TRIGGER rows_stay ON shred_log",
        false => "DROP TRIGGER shred_log_stays_as_it_is",
    };
    world.execute(format!("{guard}; UPDATE shred_log SET hash = previous_hash")).await;
    let found = world.run(&["verify", "--json"]).ended(5).json();
    assert_eq!(
        (&found["findings"][0]["kind"], &found["findings"][0]["count"]),
        (&"chain".into(), &2.into()),
        "{found}"
    );
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
