//! Commands on key-encryption keys and master keys.

use super::*;

on_both! {
    keys_are_rotated_rewrapped_and_retired,
    a_key_that_does_not_open_is_named,
    keys_move_to_another_master_key,
    partitions_are_kept,
}

async fn keys_are_rotated_rewrapped_and_retired(world: World) {
    let world = world.with_keys(0..1_199).await;
    let old = world.keks()[0]["kek"].as_str().unwrap().to_owned();
    world.run(&["retire-kek", &old, "--json"]).refused(4, "kek_in_use");
    assert_eq!(world.json(&["rewrap", "--dry-run"])["would_rewrap"], 0);

    let rotated = world.json(&["rotate-kek"]);
    assert_eq!(rotated["replaced"], old.as_str());
    snapshot!(world, "status_unfinished", world.run(&["status"]).ended(0));
    world.run(&["status", "--check"]).ended(5);
    world.run(&["retire-kek", &old, "--json"]).refused(4, "kek_in_use");
    let dry = run(world.command(&["rewrap", "--dry-run", "--json"]).env_remove("EVENTSEAL_KEYRING_FILE"));
    assert_eq!(dry.ended(0).json()["would_rewrap"], 1_200);
    world.run(&["rewrap", "--partition", "elsewhere", "--json"]).refused(1, "no_active_kek");
    assert_eq!(world.keks()[0]["live_keys"], 1_200);

    let done = world.run(&["rewrap", "--batch", "100"]).ended(0);
    assert_eq!(done.err, "", "no progress bar without a terminal");
    snapshot!(world, "rewrap", done);
    assert_eq!(world.json(&["rewrap"])["rewrapped"], 0);
    assert_eq!(world.read().await, (1_199, 0));
    let unfinished = world.json(&["status"])["unfinished"].clone();
    assert!(unfinished[0]["remedy"].as_str().unwrap().ends_with(&format!("retire-kek {old}")), "{unfinished}");

    let retired = run(world.command(&["retire-kek", &old, "--json"]).env_remove("EVENTSEAL_KEYRING_FILE"));
    assert_eq!(retired.ended(0).json()["state"], "retired");
    world.run(&["retire-kek", "01234567-89ab-cdef-0123-456789abcdef", "--json"]).refused(4, "kek_in_use");
    world.run(&["retire-kek", "no-id", "--json"]).refused(2, "usage");
    world.run(&["status", "--check"]).ended(0);
    world.run(&["status", "--check", "--max-age", "0"]).ended(5);
    snapshot!(world, "status_due", world.run(&["status", "--max-age", "0"]).ended(0));
    assert_eq!(world.read().await, (1_199, 0));
}

async fn a_key_that_does_not_open_is_named(world: World) {
    let world = world.with_keys(0..40).await;
    let key = world.json(&["keys", "show", "Customer", "cust_7"])["keys"][0]["key"].as_str().unwrap().to_owned();
    let random = if world.is_postgres() { "decode(repeat('01', 65), 'hex')" } else { "randomblob(65)" };
    world.execute(format!("UPDATE data_keys SET wrapped_key = {random} WHERE scope_id = 'cust_7'")).await;
    world.run(&["rotate-kek"]).ended(0);
    let done = world.run(&["rewrap", "--json"]).ended(1).json();
    assert_eq!(
        (&done["rewrapped"], &done["remaining"], &done["bad"]),
        (&40.into(), &1.into(), &vec![key.clone()].into())
    );
    assert!(world.run(&["rewrap"]).ended(1).out.contains(&key));
    world.run(&["shred", "Customer", "cust_7", "--reason", "lost anyway", "--yes"]).ended(0);
    assert_eq!(world.run(&["rewrap", "--json"]).ended(0).json()["remaining"], 0);
}

async fn keys_move_to_another_master_key(world: World) {
    let world = world.with_keys(0..3).await;
    world.run(&["rotate-kek"]).ended(0);
    let both = world.keyring("both", &format!("next:{OTHER_SECRET}\nmain:{SECRET}\n"));
    let both = ["--keyring", both.to_str().unwrap()];
    let moving = [&["move-master-key"], &both[..]].concat();
    let dry = world.json(&[&moving[..], &["--dry-run"]].concat());
    assert_eq!((dry["would_move"].as_array().unwrap().len(), &dry["master_key"]), (2, &"next".into()));
    assert!(world.keks().iter().all(|kek| kek["master_key"] == "main"), "a dry run changes nothing");

    // A keyring without the entry that wrapped the keys moves nothing.
    let alone = world.keyring("alone", &format!("next:{OTHER_SECRET}\n"));
    let alone = alone.to_str().unwrap();
    world.run(&["move-master-key", "--keyring", alone, "--json"]).refused(1, "kms_refused");
    assert!(world.keks().iter().all(|kek| kek["master_key"] == "main"));

    let moved = world.run(&moving).ended(0);
    snapshot!(world, "move_master_key", moved);
    assert!(world.keks().iter().all(|kek| kek["master_key"] == "next"));
    assert_eq!(world.json(&moving)["moved"], Value::Array(Vec::new()), "idempotent");
    assert_eq!(world.json(&["doctor", "--keyring", alone])["ok"], true, "the old master key can go");
    assert_eq!(world.run(&["doctor", "--json"]).ended(5).json()["ok"], false, "with the old one alone nothing opens");

    let from = ["move-master-key", "--from-keyring", both[1], "--keyring", alone, "--json"];
    assert!(
        world.run(&from).refused(2, "usage").error()["message"].as_str().unwrap().contains("one, the new one first")
    );

    // If another provider wrapped the keys, the command must be told which.
    world.execute("UPDATE key_encryption_keys SET provider = 'elsewhere'").await;
    world.run(&[&moving[..], &["--json"]].concat()).refused(1, "kms_refused");
    world.run(&[&moving[..], &["--dry-run", "--json"]].concat()).refused(4, "other_provider");
    world.execute("UPDATE key_encryption_keys SET provider = 'keyring'").await;
    assert_eq!(world.json(&["status"])["unfinished"].as_array().unwrap().len(), 1);
}

async fn partitions_are_kept(world: World) {
    let world = world.with_keys(0..2).await;
    let tenant = world.json(&["prepare", "--partition", "tenant_7"])["kek"].clone();
    world.run(&["shred", "Customer", "cust_0", "--reason", "request 1", "--yes"]).ended(0);
    let key = world.json(&["reopen", "Customer", "cust_0", "--reason", "moved", "--partition", "tenant_7"]);
    assert_eq!(key["key"]["kek"], tenant);
    // From now on the scope's own rows tell its partition.
    assert_eq!(world.json(&["rotate-data-key", "Customer", "cust_0"])["key"]["kek"], tenant);
    assert_ne!(world.json(&["rotate-data-key", "Customer", "cust_1"])["key"]["kek"], tenant);
    world.run(&["rotate-data-key", "Customer", "cust_1", "--partition", "none", "--json"]).refused(1, "no_active_kek");
    world.json(&["rotate-kek", "--partition", "tenant_7"]);
    assert_eq!(world.json(&["rewrap", "--partition", "tenant_7"])["rewrapped"], 2);
}

/// Moves keys from a keyring to AWS KMS, to another key there, and back, as `docs/operations.md` describes it.
#[cfg(feature = "aws-kms")]
#[tokio::test]
async fn keys_move_to_aws_and_back() {
    let moto = support::moto::Moto::shared();
    let (first, second) = (moto.key().await, moto.key().await);
    let world = World::sqlite().await.with_keys(0..3).await;
    let ring = world.folder.path().join("ring");
    let ring = ring.to_str().unwrap();
    let aws = |arguments: &[&str]| {
        let mut command = world.command(&[arguments, &["--json"]].concat());
        command.env_remove("EVENTSEAL_KEYRING_FILE").env("AWS_ENDPOINT_URL", format!("http://127.0.0.1:{}", moto.port));
        command
            .env("AWS_REGION", "eu-central-1")
            .env("AWS_ACCESS_KEY_ID", "test")
            .env("AWS_SECRET_ACCESS_KEY", PASSWORD);
        run(&mut command)
    };
    aws(&["move-master-key", "--aws-kms-key", &first, "--dry-run"]).refused(4, "other_provider");
    let there = ["move-master-key", "--from-keyring", ring, "--aws-kms-key", &first];
    assert_eq!(aws(&[&there[..], &["--dry-run"]].concat()).ended(0).json()["would_move"].as_array().unwrap().len(), 1);
    assert_eq!(aws(&there).ended(0).json()["moved"].as_array().unwrap().len(), 1);
    assert_eq!(world.keks()[0]["master_key"], first.as_str());
    assert_eq!(aws(&["doctor", "--aws-kms-key", &first]).ended(0).json()["ok"], true);
    assert_eq!(world.run(&["doctor", "--json"]).ended(5).json()["ok"], false, "the keyring alone opens nothing now");
    aws(&["rotate-kek", "--aws-kms-key", &first]).ended(0);
    assert_eq!(aws(&["rewrap", "--aws-kms-key", &first]).ended(0).json()["rewrapped"], 4);

    // A flag wins over an environment variable that names another provider.
    let elsewhere = ["move-master-key", "--aws-kms-key", &second];
    let unnamed = aws(&elsewhere).refused(1, "kms_refused");
    assert!(
        unnamed.error()["message"].as_str().unwrap().contains("--from-aws-kms-key"),
        "what a row names is not opened unasked"
    );
    let named = aws(&[&elsewhere[..], &["--from-aws-kms-key", &first]].concat());
    assert_eq!(named.ended(0).json()["moved"].as_array().unwrap().len(), 2);
    let missing = "arn:aws:kms:eu-central-1:123456789012:key/11111111-2222-3333-4444-555555555555";
    aws(&["rotate-kek", "--aws-kms-key", missing]).refused(1, "kms_refused");
    let back = aws(&["move-master-key", "--from-aws-kms-key", &second, "--keyring", ring]);
    assert_eq!(back.ended(0).json()["moved"].as_array().unwrap().len(), 2);
    assert_eq!(world.read().await, (3, 0));

    // An outage is retryable, and is not a refusal.
    let away = run(world
        .command(&["rotate-kek", "--aws-kms-key", &second, "--json"])
        .env("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
        .env("AWS_REGION", "eu-central-1")
        .env("AWS_ACCESS_KEY_ID", "test")
        .env("AWS_SECRET_ACCESS_KEY", PASSWORD)
        .env("AWS_MAX_ATTEMPTS", "1"));
    away.refused(3, "kms_unavailable");
}
