//! `--append-to`: a decision is in a copy of the shred log before the command reports it.

use super::*;
use crate::help::COMMANDS;
use serde_json::json;
use sqlx::Executor as _;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

on_both! {
    each_decision_is_in_the_copy_at_once,
    nothing_is_decided_that_no_copy_can_have,
    a_copy_that_is_lost_meanwhile_takes_nothing_back,
}

/// A file with these customers, as `shred --from` reads it.
fn requests(world: &World, customers: &[&str]) -> String {
    let lines = customers.iter().map(|id| json!({ "kind": "Customer", "id": id, "reason": "request" }).to_string());
    let path = world.folder.path().join("requests.jsonl");
    std::fs::write(&path, lines.map(|line| line + "\n").collect::<String>()).unwrap();
    path.display().to_string()
}

async fn each_decision_is_in_the_copy_at_once(world: World) {
    let world = world.with_keys(0..8).await;
    let [copy, second] = ["log", "second"].map(|name| world.folder.path().join(name).display().to_string());
    for copy in [&copy, &second] {
        world.json(&["shred-log", "export", "--append", copy]);
    }
    let why = ["--reason", "request"];
    let decide = |arguments: &[&str]| {
        let done = world.json(&[arguments, &["--append-to", &copy, "--append-to", &second]].concat());
        for copy in [&copy, &second] {
            let verified = world.run(&["shred-log", "verify", copy, "--json"]).json();
            assert_eq!((&verified["ok"], &verified["copies"][0]["state"]), (&true.into(), &"complete".into()));
        }
        done
    };
    decide(&[&["shred", "Customer", "cust_0", "--yes"], &why[..]].concat());
    decide(&[&["reopen", "Customer", "cust_0"], &why[..]].concat());
    decide(&[&["disable", "Customer", "cust_1"], &why[..]].concat());
    decide(&[&["enable", "Customer", "cust_1"], &why[..]].concat());
    let hold = decide(&[&["hold", "Customer", "cust_1"], &why[..]].concat())["hold"].as_str().unwrap().to_owned();
    decide(&[&["release", "Customer", "cust_1", &hold], &why[..]].concat());
    for (id, seconds) in [("cust_2", 4), ("cust_3", 3_600)] {
        let due = OffsetDateTime::now_utc() + time::Duration::seconds(seconds);
        let due = due.format(&Rfc3339).unwrap();
        decide(&[&["schedule-shred", "Customer", id, "--due", &due, "--mode", "keep-working"], &why[..]].concat());
    }
    decide(&[&["cancel-shred", "Customer", "cust_3"], &why[..]].concat());
    let deadline = support::Deadline::of("for a shred that comes due");
    while decide(&["sweep"])["shredded"] != 1 {
        deadline.look_again().await;
    }
    decide(&["shred", "--from", &requests(&world, &["cust_4", "cust_5"]), "--yes"]);
    decide(&["shred-log", "adopt", "--reason", "upgrade"]);
    decide(&[&["shred", "--partition", "default", "--yes"], &why[..]].concat());
    assert_eq!(world.read().await, (0, 8));
    // What a sweep and a shred say, without JSON and by the variable.
    let mut command = world.command(&["shred", "Customer", "cust_0", "--yes", "--reason", "again"]);
    let said = run(command.env("EVENTSEAL_APPEND_TO", &copy)).ended(0).out;
    assert!(said.contains(&format!("The shred log was copied to {copy}.")) && !said.contains("Next:"), "{said}");
}

/// A copy that does not exist may be the wrong one, and one that the log does not go on from shows a restore.
async fn nothing_is_decided_that_no_copy_can_have(world: World) {
    let mut world = world.with_keys(0..3).await;
    let copy = world.folder.path().join("log").display().to_string();
    let requests = requests(&world, &["cust_0", "cust_1"]);
    let commands: [&[&str]; 4] = [
        &["shred", "Customer", "cust_0", "--reason", "request", "--yes"],
        &["hold", "Customer", "cust_0", "--reason", "case 7"],
        &["shred", "--from", &requests, "--yes"],
        &["sweep"],
    ];
    let run_all = |kind: &str, says: &str| {
        for command in commands {
            let refused = world.run(&[command, &["--append-to", &copy, "--json"]].concat()).refused(1, kind);
            assert!(refused.error()["message"].as_str().unwrap().contains(says), "{command:?}: {refused:?}");
        }
    };
    run_all("log_copy", "is empty, and it is required");
    world.json(&["shred-log", "export", "--append", &copy]);
    world.back_up().await;
    world.json(&["disable", "Customer", "cust_2", "--reason", "incident", "--append-to", &copy]);
    world.restore().await;
    let commands = commands.map(<[&str]>::to_vec);
    for command in &commands {
        let refused = world.run(&[&command[..], &["--append-to", &copy, "--json"]].concat());
        refused.refused(1, "shred_log_behind");
    }
    assert_eq!(world.read().await, (3, 0));
    let blank = world.run(&[&commands[0][..], &["--append-to", " ", "--json"]].concat()).refused(2, "usage");
    assert!(blank.error()["message"].as_str().unwrap().contains("unset EVENTSEAL_APPEND_TO"), "{blank:?}");
}

/// What was committed stays. The command says which export is missing, and one that runs later adds it.
async fn a_copy_that_is_lost_meanwhile_takes_nothing_back(world: World) {
    let world = world.with_keys(0..4).await;
    let elsewhere = support::Sqlite::empty().await;
    let copy = format!("sqlite://{}", elsewhere.folder.path().join("test.db").display());
    world.json(&["disable", "Customer", "cust_0", "--reason", "incident"]);
    world.json(&["shred-log", "export", "--append", &copy]);
    // The copy can be read, and takes no further line.
    let full = "CREATE TRIGGER full BEFORE INSERT ON shred_log_copy BEGIN SELECT raise(ABORT, 'full'); END";
    let requests = requests(&world, &["cust_2", "cust_3"]);
    for command in
        [&["shred", "Customer", "cust_1", "--reason", "request", "--yes"][..], &["shred", "--from", &requests, "--yes"]]
    {
        elsewhere.pool.execute(full).await.unwrap();
        let failed = world.run(&[command, &["--append-to", &copy, "--json"]].concat()).refused(1, "not_copied");
        let message = failed.error()["message"].as_str().unwrap().to_owned();
        assert!(message.contains("is committed and stays") && message.contains("shred-log export --append"));
        let again = world.run(&[command, &["--append-to", &copy, "--json"]].concat());
        assert!(again.error()["message"].as_str().unwrap().contains("nothing was "), "{again:?}");
        elsewhere.pool.execute("DROP TRIGGER full").await.unwrap();
        assert_eq!(world.json(&["shred-log", "export", "--append", &copy])["added"], 1, "only one was decided");
    }
    assert_eq!(world.json(&["keys", "show", "Customer", "cust_1"])["state"], "shredded");
    let done = world.json(&["shred", "--from", &requests, "--yes", "--append-to", &copy]);
    assert_eq!((&done["already"], &done["shredded"]), (&1.into(), &1.into()), "{done}");
    world.run(&["shred-log", "verify", &copy]).ended(0);
}

/// Each command that decides about a scope takes a copy. Those that decide take a reason, or are the sweep.
#[test]
fn every_command_that_decides_takes_a_copy() {
    let mut deciding = Vec::new();
    for command in COMMANDS {
        let help = run(&mut eventseal(&[command, &["--help"]].concat())).ended(0).out;
        let decides = help.contains("--reason <TEXT>") || command == ["sweep"];
        assert_eq!(help.contains("--append-to <COPY>"), decides, "{command:?}");
        deciding.extend(decides.then(|| command.join(" ")));
    }
    assert_eq!(deciding.len(), 10, "{deciding:?}");
}

/// Whoever alters the entry of a decision between its commit and its copy does not get "it was copied" as the answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i14_an_entry_that_is_altered_before_it_is_copied_is_reported() {
    let world = World::postgres().await.with_keys(0..2).await;
    let copy = world.folder.path().join("log").display().to_string();
    world.json(&["shred-log", "export", "--append", &copy]);
    world
        .execute(
            "CREATE FUNCTION alter_it() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                PERFORM set_config('session_replication_role', 'replica', true);
                UPDATE shred_entries SET reason = 'another' WHERE entry_id = NEW.entry_id;
                RETURN NULL;
            END $$;
            CREATE CONSTRAINT TRIGGER alter_it AFTER INSERT ON shred_entries DEFERRABLE INITIALLY DEFERRED
                FOR EACH ROW EXECUTE FUNCTION alter_it()",
        )
        .await;
    for id in ["cust_0", "cust_1"] {
        let shred = ["shred", "Customer", id, "--yes", "--reason", "request", "--append-to", &copy];
        let altered = world.run(&shred).ended(1);
        assert!(altered.err.contains("the decision is committed and stays"), "{altered:?}");
        assert!(!altered.out.contains("was copied"), "{altered:?}");
    }
    world.run(&["shred-log", "verify", &copy]).ended(5);
}
