//! The warnings that a person may have other scopes, or that another scope was meant.

use crate::command::{World, eventseal};
use serde_json::{Value, json};

crate::on_both! {
    other_scopes_under_the_same_id_are_named,
    a_kind_that_the_schemas_do_not_know_is_named,
    an_id_that_the_schemas_spell_otherwise_is_named,
}

/// Adds another scope with keys, as an application whose schemas have this kind would.
fn add(world: &World, kind: &str, id: &str) {
    world.run(&["shred", kind, id, "--reason", "made", "--yes", "--allow-unknown"]).ended(0);
    world.run(&["reopen", kind, id, "--reason", "made"]).ended(0);
}

const SHRED: [&str; 6] = ["shred", "Customer", "cust_1", "--reason", "request 118", "--yes"];

async fn other_scopes_under_the_same_id_are_named(world: World) {
    let world = world.with_keys(0..3).await;
    let quiet = world.run(&["keys", "show", "Customer", "cust_1"]).ended(0);
    assert_eq!(quiet.err, "", "nothing to warn of");
    assert_eq!(world.json(&["keys", "show", "Customer", "cust_1"])["similar"], json!([]));

    add(&world, "customer", "cust_1");
    // White space inside of an id is not found, and neither is a longer id.
    add(&world, "Customer", "cust _1");
    add(&world, "Customer", "cust_1\u{a0}2");
    let shown = world.run(&["keys", "show", "Customer", "cust_1"]).ended(0);
    let said = "WARNING: Customer cust_1 is not the only scope under this id: customer cust_1 (live). A shred";
    assert!(shown.err.starts_with(said) && shown.out.starts_with("Customer cust_1: live"), "{shown:?}");
    add(&world, "Customer", "cust_1\n");
    // This differs in case and in white space.
    add(&world, "Customer", "CuSt_1\r\n");
    let shredded = world.run(&SHRED).ended(0);
    let said = said.replace("id: ", "id: Customer 'CuSt_1\\r\\n' (live), Customer 'cust_1\\n' (live), ");
    assert!(shredded.err.starts_with(&said), "before anything is done: {shredded:?}");
    assert!(shredded.err.contains("shred each of them.\nShredding Customer cust_1 for good"), "{shredded:?}");
    let similar = json!([
        { "kind": "Customer", "id": "CuSt_1\r\n", "state": "live" },
        { "kind": "Customer", "id": "cust_1\n", "state": "live" },
        { "kind": "customer", "id": "cust_1", "state": "live" },
    ]);
    for command in [&SHRED[..], &["keys", "show", "Customer", "cust_1"]] {
        let output = world.run(&[command, &["--json"]].concat()).ended(0);
        assert_eq!(
            (&output.json()["similar"], &output.json()["kind_known"], &output.err[..]),
            (&similar, &Value::Null, "")
        );
    }

    // For an unknown scope, the error names the other scopes, and nothing is done.
    for command in
        [&["keys", "show", "Customer", "CUST_1"][..], &["shred", "Customer", "CUST_1", "--reason", "r", "--yes"]]
    {
        let refused =
            world.run(&[command, &["--json"]].concat()).refused(4, "unknown_scope").error()["message"].clone();
        let others = concat!(
            r"under this id there is Customer 'CuSt_1\r\n' (live), Customer 'cust_1' (shredded), ",
            r"Customer 'cust_1\n' (live), customer 'cust_1' (live)"
        );
        assert!(refused.as_str().unwrap().contains(others), "{refused}");
    }
    assert!(!world.run(&["keys", "show", "Customer", "cust_99"]).ended(4).err.contains("under this id"));

    // Once all of them are shredded, there is no warning any more.
    world.run(&["shred", "customer", "cust_1", "--reason", "request 118", "--yes"]).ended(0);
    for id in ["cust_1\n", "CuSt_1\r\n"] {
        world.run(&["shred", "Customer", id, "--reason", "request 118", "--yes"]).ended(0);
    }
    assert_eq!(world.run(&["keys", "show", "Customer", "cust_1"]).ended(0).err, "");
    assert_eq!(world.json(&["keys", "show", "Customer", "cust_1"])["similar"][1]["state"], "shredded");
}

async fn a_kind_that_the_schemas_do_not_know_is_named(world: World) {
    let world = world.with_keys(0..3).await;
    add(&world, "customer", "7");
    add(&world, "Order", "7");
    let path = world.folder.path().join("schemas.json");
    let path = path.to_str().unwrap();
    let lock = |owners: &[&str]| {
        let protected: serde_json::Map<String, Value> =
            owners.iter().enumerate().map(|(index, owner)| (format!("/{index}"), (*owner).into())).collect();
        let versions = json!({ "1": { "protected": protected } });
        let lock = json!({ "eventseal_schemas": 1, "types": { "Placed": { "versions": versions } } });
        std::fs::write(path, lock.to_string()).unwrap();
    };
    let show = |kind: &str, id: &str| world.run(&["keys", "show", kind, id, "--schemas", path]).ended(0).err;
    let known = |kind: &str, id: &str| world.json(&["keys", "show", kind, id, "--schemas", path])["kind_known"].clone();

    lock(&["Customer at /customer", "the aggregate as Guest"]);
    assert_eq!(
        (known("Customer", "cust_1"), known("customer", "7"), known("Order", "7")),
        (true.into(), false.into(), false.into())
    );
    assert_eq!(show("Customer", "cust_1"), "");
    let said = show("customer", "7");
    let expected = format!(
        "WARNING: the schemas in {path} name no kind customer; they name Customer, Guest.\nWARNING: customer 7 is not \
         the"
    );
    assert!(said.starts_with(&expected), "{said}");
    // It is only a warning.
    let shredded =
        world.run(&["shred", "customer", "7", "--reason", "request 118", "--yes", "--schemas", path]).ended(0);
    assert!(shredded.err.starts_with(&expected) && shredded.out.starts_with("Shredded customer 7"), "{shredded:?}");
    let again = ["shred", "customer", "7", "--reason", "request 118", "--yes", "--schemas", path];
    assert_eq!(world.json(&again)["kind_known"], false);
    let unknown =
        world.run(&["keys", "show", "Customr", "cust_1", "--schemas", path, "--json"]).refused(4, "unknown_scope");
    let message = unknown.error()["message"].to_string();
    assert!(
        message.contains("Customer cust_1 (live); the schemas in") && message.contains("name no kind Customr"),
        "{message}"
    );

    // A lock does not name the types of aggregates. But an aggregate whose type is nearly a kind would have been
    // refused.
    lock(&["Customer at /customer", "the aggregate"]);
    assert_eq!(
        (known("Order", "7"), known("customer", "7"), known("Customer", "cust_1")),
        (Value::Null, false.into(), true.into())
    );
    assert!(
        show("Order", "7")
            .contains("they name Customer. It may be the type of an aggregate, which a schema lock does not say.\n")
    );
    lock(&[]);
    assert!(show("Order", "7").contains("name no kind Order; they name no kind at all.\n"));

    std::fs::write(path, "{}").unwrap();
    for command in [&again[..7], &["keys", "show", "Order", "7"]] {
        let command: Vec<&str> = command.iter().copied().filter(|argument| *argument != "--schemas").collect();
        world.run(&[&command[..], &["--schemas", path, "--json"]].concat()).refused(1, "schemas");
    }
    // The lock is read before a connection is made.
    let alone =
        crate::command::run(&mut eventseal(&["keys", "show", "Order", "7", "--schemas", "/no/such/file", "--json"]));
    alone.refused(1, "schemas");
}

async fn an_id_that_the_schemas_spell_otherwise_is_named(world: World) {
    let world = world.with_keys(0..2).await;
    let path = world.folder.path().join("schemas.json");
    let path = path.to_str().unwrap();
    let lock = |how: &str| {
        let version = json!({
            "protected": { "/name": "Customer at /customer", "/note": "the aggregate as Order" },
            "normalized": { "/name": how },
        });
        let lock = json!({ "eventseal_schemas": 1, "types": { "Placed": { "versions": { "1": version } } } });
        std::fs::write(path, lock.to_string()).unwrap();
    };
    let show = |id: &str| world.run(&["keys", "show", "Customer", id, "--schemas", path]);
    let shred = |kind: &str, id: &str| {
        world.run(&["shred", kind, id, "--reason", "r", "--yes", "--allow-unknown", "--schemas", path]).ended(0)
    };
    lock("lower_case");
    assert_eq!(show("cust_1").ended(0).err, "");
    // An unknown scope: the error says how to spell it.
    let unknown = show("CUST_1").ended(4);
    let spelled = format!("the schemas in {path} spell this id 'cust_1': under the id as it is typed here, nothing is");
    assert!(unknown.err.contains(&spelled), "{unknown:?}");
    // It is only a warning, because the key table may have it from before it was normalized.
    let shredded = shred("Customer", "CUST_1");
    assert!(shredded.err.starts_with(&format!("WARNING: {spelled}")), "{shredded:?}");
    assert!(
        shredded.err.contains("WARNING: Customer CUST_1 is not the only scope under this id: Customer 'cust_1' (live)")
    );
    assert_eq!(world.json(&["keys", "show", "Customer", "CUST_1", "--schemas", path])["normalized"], "cust_1");
    assert_eq!(world.json(&["keys", "show", "Customer", "cust_1", "--schemas", path])["normalized"], Value::Null);
    assert!(!shred("Order", "ORD_1").err.contains("spell"), "this kind is not normalized");

    lock("uuid");
    assert!(!show("CUST_1").ended(0).err.contains("spell"));
    let uuid = "{0B9F6A9E-7D0C-4D3E-9F0E-3C1F3F0A7B11}";
    assert!(show(uuid).ended(4).err.contains("spell this id '0b9f6a9e-7d0c-4d3e-9f0e-3c1f3f0a7b11'"));
    lock("function digits");
    assert!(show("cust_1").ended(0).err.contains("with the function digits, which this command does not know"));
}
