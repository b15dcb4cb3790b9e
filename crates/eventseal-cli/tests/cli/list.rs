//! `keys list`.

use super::*;
use serde_json::json;

on_both! {
    scopes_are_listed_in_pages,
}

fn ids(listed: &Value) -> Vec<(&str, &str)> {
    let scopes = listed["scopes"].as_array().unwrap();
    scopes.iter().map(|scope| (scope["kind"].as_str().unwrap(), scope["id"].as_str().unwrap())).collect()
}

async fn scopes_are_listed_in_pages(world: World) {
    world.run(&["keys", "list", "--json"]).refused(1, "not_migrated");
    let world = world.with_keys(0..0).await;
    let empty = world.json(&["keys", "list"]);
    assert_eq!((&empty["scopes"], &empty["next"], &empty["namespace"]), (&json!([]), &Value::Null, &"shop".into()));
    assert_eq!(world.run(&["keys", "list"]).ended(0).out, "No scope yet.\n");
    assert_eq!(world.run(&["keys", "list", "--kind", "Guest"]).ended(0).out, "There is no such scope.\n");

    world.append(0..3).await.unwrap();
    world.run(&["prepare", "--partition", "tenant_7"]).ended(0);
    for (kind, id) in [("Customer", "Ada's\n\u{1b}[2J"), ("Guest", "-7")] {
        world.run(&["shred", "--reason", "made", "--yes", "--allow-unknown", kind, "--", id]).ended(0);
        world.run(&["reopen", "--reason", "made", "--partition", "tenant_7", kind, "--", id]).ended(0);
    }
    world.run(&["disable", "Customer", "cust_1", "--reason", "incident 3"]).ended(0);
    world.run(&["shred", "Customer", "cust_2", "--reason", "request 118", "--yes"]).ended(0);
    world.run(&["shred", "Guest", "never", "--reason", "request 119", "--yes", "--allow-unknown"]).ended(0);

    // There is no master key here, and none is needed.
    let listed = run(world.command(&["keys", "list"]).env_remove("EVENTSEAL_KEYRING_FILE")).ended(0);
    assert!(!listed.out.contains('\u{1b}'), "ids are somebody else's words");
    snapshot!(world, "keys_list", listed);
    snapshot!(world, "keys_list_page", world.run(&["keys", "list", "--limit", "1"]).ended(0));

    let all = world.json(&["keys", "list"]);
    let odd = ("Customer", "Ada's\n\u{1b}[2J");
    let expected = [
        odd,
        ("Customer", "cust_0"),
        ("Customer", "cust_1"),
        ("Customer", "cust_2"),
        ("Guest", "-7"),
        ("Guest", "never"),
    ];
    assert_eq!((ids(&all), &all["next"]), (expected.to_vec(), &Value::Null));
    let never = json!({ "kind": "Guest", "id": "never", "state": "shredded", "generation": 1, "last_version": null,
        "partition": null });
    assert_eq!(all["scopes"][5], never);
    assert_eq!((&all["scopes"][4]["partition"], &all["scopes"][4]["generation"]), (&"tenant_7".into(), &2.into()));

    let of = |arguments: &[&str]| world.json(&[&["keys", "list"], arguments].concat());
    assert_eq!(ids(&of(&["--kind", "Guest"])), expected[4..]);
    assert_eq!(ids(&of(&["--state", "disabled"])), [expected[2]]);
    assert_eq!(ids(&of(&["--partition", "tenant_7", "--kind", "Customer"])), [odd]);
    assert_eq!(ids(&of(&["--partition", "default", "--state", "shredded"])), [expected[3]]);
    assert_eq!(ids(&of(&["--partition", "nobody"])), []);
    let mut after: Vec<String> = Vec::new();
    for page in expected.chunks(4) {
        let mut arguments = vec!["--limit", "4"];
        arguments.extend(after.iter().map(String::as_str));
        let found = of(&arguments);
        assert_eq!(ids(&found), page);
        let next = &found["next"];
        after = ["--after", next["kind"].as_str().unwrap_or(""), next["id"].as_str().unwrap_or("")]
            .map(str::to_owned)
            .into();
    }
    assert_eq!(after[1..], ["", ""], "the last page has no next one");
    assert_eq!(ids(&of(&["--after", "Guest", "-7"])), [expected[5]], "an id may begin with a hyphen");

    for wrong in [&["--limit", "0"][..], &["--state", "gone"], &["--after", "Guest"]] {
        world.run(&[&["keys", "list", "--json"], wrong].concat()).refused(2, "usage");
    }
}
