//! Commands on the keys of one scope.

use super::help::with_password;
use super::*;

on_both! {
    a_scope_is_shown_shredded_and_reopened,
    the_history_names_who_did_it,
    keys_are_put_out_of_use_and_back,
    what_is_about_to_change_is_named_first,
    a_lock_that_others_hold_is_not_waited_for_for_ever,
}

#[expect(clippy::too_many_lines, reason = "one life of a scope")]
async fn a_scope_is_shown_shredded_and_reopened(world: World) {
    let world = world.with_keys(0..3).await;
    let scope = ["Customer", "cust_1"];
    let key = world.json(&[&["keys", "show"], &scope[..]].concat())["keys"][0]["key"].clone();
    world.run(&["keys", "show", "Customer", "cust_99", "--json"]).refused(4, "unknown_scope");

    // Nobody can be asked to confirm, so nothing is done.
    world.run(&["shred", "Customer", "cust_1", "--reason", "request 118"]).ended(4);
    world.run(&["shred", "Customer", "cust_1", "--reason", "request 118", "--json"]).refused(4, "not_confirmed");
    // A misspelled id must not look like an erasure.
    world
        .run(&["shred", "Customer", "cust_99", "--reason", "request 118", "--yes", "--json"])
        .refused(4, "unknown_scope");
    world
        .run(&["shred", "$eventseal", "integrity", "--reason", "why not", "--yes", "--json"])
        .refused(4, "scope_state");
    world.run(&["shred", "Customer", "cust_1", "--reason", "", "--yes", "--json"]).refused(2, "invalid_text");
    world
        .run(&["shred", "Customer", "cust_1", "--reason", "r", "--actor", "", "--yes", "--json"])
        .refused(2, "invalid_text");
    world.run(&["shred", "Customer", "cust_1", "--yes", "--json"]).refused(2, "usage");
    assert_eq!(world.read().await, (3, 0), "nothing was shredded so far");

    world.run(&["rotate-data-key", "Customer", "cust_1"]).ended(0);
    let shred = ["shred", "Customer", "cust_1", "--reason", "request 118", "--yes", "--actor", "clerk 7"];
    // The entry in the log is authenticated, so the master key is needed.
    let refused = run(world.command(&shred).arg("--json").env_remove("EVENTSEAL_KEYRING_FILE"));
    refused.refused(2, "usage");
    assert_eq!(world.read().await, (3, 0), "nothing was shredded so far");
    snapshot!(world, "shred", world.run(&shred).ended(0));
    assert_eq!(world.read().await, (2, 1));
    let again = world.json(&["shred", "Customer", "cust_1", "--reason", "request 118", "--yes"]);
    assert_eq!((&again["destroyed"], &again["was_shredded"]), (&Value::Array(Vec::new()), &true.into()));
    assert_eq!((&again["destroyed_before"], &again["namespace"]), (&2.into(), &"shop".into()));
    let again = world.run(&["shred", "Customer", "cust_1", "--reason", "request 118", "--yes"]).ended(0);
    assert!(
        again.out.starts_with(
            "Nothing was left to do: Customer cust_1 was shredded before. 2 data keys were destroyed then."
        ),
        "{again:?}"
    );
    assert!(again.err.starts_with("Shredding Customer cust_1 for good in namespace shop ("), "{again:?}");

    let reopened =
        world.json(&["reopen", "Customer", "cust_1", "--reason", "came back\nwith\u{1b}[2J", "--actor", "clerk\n8"]);
    assert_eq!(reopened["key"]["version"], 3);
    world.run(&["reopen", "Customer", "cust_1", "--reason", "again", "--json"]).refused(4, "scope_state");
    world.run(&["reopen", "Customer", "cust_99", "--reason", "again", "--json"]).refused(4, "unknown_scope");
    world.append(1..2).await.unwrap();
    assert_eq!(world.read().await, (3, 1), "what was shredded stays shredded");
    let shown = world.run(&["keys", "show", "Customer", "cust_1"]).ended(0);
    assert!(!shown.out.contains('\u{1b}'), "reasons and ids are somebody else's words");
    snapshot!(world, "keys_show", shown);
    let history = world.json(&["keys", "show", "Customer", "cust_1"]);
    assert_eq!(history["keys"][0]["key"], key);
    assert_eq!(
        history["changes"].as_array().unwrap().iter().map(|change| change["action"].clone()).collect::<Vec<_>>(),
        ["shred", "reopen"]
    );
    assert!(history["keys"].as_array().unwrap()[..2].iter().all(|key| key["shredded_at"].is_string()));

    let tombstone =
        world.json(&["shred", "Customer", "cust_99", "--reason", "request 119", "--yes", "--allow-unknown"]);
    assert_eq!(tombstone["destroyed"], Value::Array(Vec::new()));
    let unknown =
        world.run(&["shred", "Customer", "cust_98", "--reason", "request 120", "--yes", "--allow-unknown"]).ended(0);
    assert!(unknown.out.contains("Nothing was ever sealed for it, and nothing will be."), "{unknown:?}");
    let once_more = world.run(&["shred", "Customer", "cust_98", "--reason", "request 120", "--yes"]).ended(0);
    assert!(
        once_more.out.contains("Nothing was left to do") && once_more.out.contains("never had a key"),
        "{once_more:?}"
    );
    assert!(world.append(99..100).await.unwrap_err().is_shredded());
}

async fn the_history_names_who_did_it(world: World) {
    let world = world.with_keys(0..2).await;
    let user = run(Command::new("id").arg("-un").stdin(Stdio::null())).out.trim_end().to_owned();
    // The user of the operating system, whatever the environment says.
    let disable = ["disable", "Customer", "cust_0", "--reason", "incident 3"];
    run(world.command(&disable).env("USER", "somebody").env("LOGNAME", "somebody")).ended(0);
    run(world.command(&["enable", "Customer", "cust_0", "--reason", "over"]).env("SUDO_USER", "ada")).ended(0);
    let shredded = world.json(&["shred", "Customer", "cust_0", "--reason", "request 1", "--yes", "--actor", "clerk 7"]);
    assert_eq!(shredded["actor"], "clerk 7");
    // Versions of eventseal before the log, and before actors, have left such entries.
    let now = if world.is_postgres() { "now()" } else { "'2026-01-02T03:04:05.000000Z'" };
    let older = "INSERT INTO shred_entries (entry_id, scope_kind, scope_id, scope_seq, action, state, generation,
        reason, decided_at)";
    let id = "'0199d5d0-7a3e-7c11-9f3c-1d2e3f405162'";
    world
        .execute(format!("{older} VALUES ({id}, 'Customer', 'cust_0', 4, 'reopen', 'live', 2, 'from before', {now})"))
        .await;
    let history = world.json(&["keys", "show", "Customer", "cust_0"]);
    let actors: Vec<Value> =
        history["changes"].as_array().unwrap().iter().map(|change| change["actor"].clone()).collect();
    let with_sudo = if user == "root" { "ada (as root)".to_owned() } else { user.clone() };
    assert_eq!(actors, [Value::from(user), with_sudo.into(), "clerk 7".into(), Value::Null]);
    world.run(&["keys", "show", "Customer", "cust_0"]).ended(0);
}

async fn keys_are_put_out_of_use_and_back(world: World) {
    let world = world.with_keys(0..2).await;
    world.run(&["enable", "Customer", "cust_0", "--reason", "why not", "--json"]).refused(4, "scope_state");
    let disable = ["disable", "Customer", "cust_0", "--reason", "incident 3"];
    run(world.command(&disable).arg("--json").env_remove("EVENTSEAL_KEYRING_FILE")).refused(2, "usage");
    assert_eq!(world.run(&disable).ended(0).out.lines().count(), 1);
    world.run(&["disable", "Customer", "cust_0", "--reason", "incident 3", "--json"]).refused(4, "scope_state");
    world.run(&["rotate-data-key", "Customer", "cust_0", "--json"]).refused(4, "disabled");
    assert_eq!(world.json(&["keys", "show", "Customer", "cust_0"])["state"], "disabled");
    assert_eq!(world.json(&["enable", "Customer", "cust_0", "--reason", "over"])["state"], "live");
    assert_eq!(world.json(&["rotate-data-key", "Customer", "cust_0"])["key"]["version"], 2);
    world.run(&["rotate-data-key", "Customer", "cust_99", "--json"]).refused(4, "unknown_scope");
    assert_eq!(world.read().await, (2, 0));
}

/// An operator with the wrong database in his environment can see that. The password in the URL is not shown.
async fn what_is_about_to_change_is_named_first(world: World) {
    let world = world.with_keys(0..2).await;
    let place = match &world.database {
        Database::Sqlite(db) => format!("(SQLite, {}", db.folder.path().display()),
        Database::Postgres(db) => format!("(PostgreSQL, {} on ", db.options.get_database().unwrap()),
    };
    let old = world.keks()[0]["kek"].as_str().unwrap().to_owned();
    let commands: [&[&str]; 9] = [
        &["rotate-kek"],
        &["rewrap"],
        &["retire-kek", &old],
        &["move-master-key"],
        &["rotate-data-key", "Customer", "cust_1"],
        &["disable", "Customer", "cust_1", "--reason", "r"],
        &["enable", "Customer", "cust_1", "--reason", "r"],
        &["shred", "Customer", "cust_1", "--reason", "r", "--yes"],
        &["reopen", "Customer", "cust_1", "--reason", "r"],
    ];
    for arguments in commands {
        let said = match &world.database {
            Database::Postgres(_) => run(world.command(arguments).env("DATABASE_URL", with_password(&world.url()))),
            Database::Sqlite(_) => world.run(arguments),
        };
        let said = said.ended(0);
        // A rewrap is not announced, because nothing is lost by it.
        let named = said.err.contains("in namespace shop ") && said.err.contains(&place);
        assert!(named || arguments == ["rewrap"], "{arguments:?}: {said:?}");
    }
    let disabled = world.json(&["disable", "Customer", "cust_0", "--reason", "r"]);
    assert_eq!(disabled["namespace"], "shop");
    assert!(disabled["database"].as_str().unwrap().starts_with(&place[1..]), "{disabled}");
}

async fn a_lock_that_others_hold_is_not_waited_for_for_ever(world: World) {
    let world = world.with_keys(0..2).await;
    let shred = ["shred", "Customer", "cust_0", "--reason", "request 1", "--yes", "--lock-timeout", "1", "--json"];
    match &world.database {
        Database::Sqlite(db) => {
            let tx = db.pool.begin_with("BEGIN IMMEDIATE").await.unwrap();
            world.run(&shred).refused(3, "collision");
            tx.rollback().await.unwrap();
        }
        Database::Postgres(db) => {
            let mut tx = db.pool.begin().await.unwrap();
            sqlx::query("SELECT FROM key_scopes FOR SHARE").execute(&mut *tx).await.unwrap();
            world.run(&shred).refused(3, "collision");
            tx.rollback().await.unwrap();
        }
    }
    assert_eq!(world.json(&shred[..8])["destroyed"].as_array().unwrap().len(), 1);
}
