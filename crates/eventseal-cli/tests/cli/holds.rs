//! Holds, scheduled shreds and the sweep.

use super::*;
use std::time::Duration;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

on_both! {
    i12_a_held_scope_is_not_shredded_by_the_command,
    what_has_come_due_is_swept,
    times_and_ids_that_make_no_sense_are_refused,
}

/// Half a second from now, and how to write it.
fn soon() -> (OffsetDateTime, String) {
    let soon = OffsetDateTime::now_utc() + Duration::from_millis(500);
    (soon, soon.format(&Rfc3339).unwrap())
}

async fn until(time: OffsetDateTime) {
    support::deadline::passed(time).await;
}

async fn i12_a_held_scope_is_not_shredded_by_the_command(world: World) {
    let world = world.with_keys(0..3).await;
    let (reason, actor) = (["--reason", "case 12/2026"], ["--actor", "clerk 7"]);
    let hold = |customer, more: &[&'static str]| [&["hold", "Customer", customer][..], &reason, &actor, more].concat();
    let first = world.json(&hold("cust_0", &[]))["hold"].as_str().unwrap().to_owned();
    snapshot!(world, "hold", world.run(&hold("cust_1", &["--until", "2999-01-31"])).ended(0));
    let shred = ["shred", "Customer", "cust_0", "--reason", "request 1", "--yes"];
    let refused = world.run(&[&shred[..], &["--json"]].concat()).refused(4, "held");
    assert!(refused.error()["message"].as_str().unwrap().contains(&first), "{refused:?}");
    let refused = world.run(&shred).ended(4);
    assert!(!refused.err.contains("for good"), "it must not say so before it knows: {refused:?}");
    assert_eq!(world.read().await, (3, 0), "a held scope was shredded");
    snapshot!(world, "holds", world.run(&["holds"]).ended(0));
    assert_eq!(world.json(&["holds"])["holds"][0]["hold"], *first);
    // The hold shows in the history.
    assert_eq!(world.json(&["keys", "show", "Customer", "cust_0"])["changes"][0]["action"], "hold");

    let (due, written) = soon();
    let schedule = ["schedule-shred", "Customer", "cust_0", "--due", &written, "--mode", "keep-working"];
    let scheduled = world.run(&[&schedule[..], &reason].concat()).ended(0);
    assert!(scheduled.out.contains("Customer cust_0 is held (1 hold): the sweep leaves it"), "{scheduled:?}");
    let shows = world.run(&["keys", "show", "Customer", "cust_0"]).ended(0).out;
    assert!(shows.contains(&format!("Held until it is released: hold {first}\n")), "{shows}");
    assert!(shows.contains(&format!("Its shred is due at {}", &written[..19])), "{shows}");
    assert!(shows.contains(", mode keep-working\n"), "{shows}");
    let shows = world.run(&["keys", "show", "Customer", "cust_1"]).ended(0).out;
    assert!(shows.contains("Held until 2999-01-31T00:00:00Z: hold ") && !shows.contains("due at"), "{shows}");
    let status = ["status", "--check"];
    world.run(&status).ended(0);
    until(due).await;
    let overdue = world.run(&status).ended(5).out;
    assert!(overdue.contains("Shreds overdue\n  1 scheduled shred is due, the first since 2"), "{overdue}");
    let swept = world.run(&["sweep", "--json"]).ended(5).json();
    assert_eq!((&swept["shredded"], &swept["held"][0]["hold"]), (&0.into(), &first.as_str().into()));
    snapshot!(world, "sweep_held", world.run(&["sweep"]).ended(5));
    assert_eq!(world.read().await, (3, 0), "a held scope was shredded");

    let release = ["release", "Customer", "cust_0", &first, "--reason", "case closed"];
    let released = world.run(&release).ended(0);
    assert!(released.out.ends_with("Nothing holds Customer cust_0 any more.\n"), "{released:?}");
    world.run(&[&release[..], &["--json"]].concat()).refused(4, "unknown_hold");
    world.run(&shred).ended(0);
    assert_eq!(world.read().await, (2, 1));
    let nothing = world.run(&["sweep"]).ended(0);
    assert!(nothing.out.starts_with("Nothing was shredded."), "{nothing:?}");
}

async fn what_has_come_due_is_swept(world: World) {
    let world = world.with_keys(0..4).await;
    let (due, written) = soon();
    let schedule = |customer, mode| {
        let arguments = ["schedule-shred", "Customer", customer, "--due", &written, "--mode", mode];
        world.run(&[&arguments[..], &["--reason", "request 118", "--actor", "clerk 7"]].concat()).ended(0)
    };
    snapshot!(world, "schedule_shred", schedule("cust_0", "redact"));
    schedule("cust_1", "keep-working");
    schedule("cust_2", "disable");
    snapshot!(world, "schedules", world.run(&["schedules"]).ended(0));
    let cancel = ["cancel-shred", "Customer", "cust_2", "--reason", "withdrawn"];
    snapshot!(world, "cancel_shred", world.run(&cancel).ended(0));
    world.run(&[&cancel[..], &["--json"]].concat()).refused(4, "scope_state");
    assert_eq!(world.read().await, (3, 1), "the first one is redacted already");
    assert_eq!(world.json(&["keys", "show", "Customer", "cust_0"])["state"], "withheld");
    // It comes back with the end of its schedule only.
    let enable = ["enable", "Customer", "cust_0", "--reason", "r", "--json"];
    let refused = world.run(&enable).refused(4, "scope_state");
    let message = "is disabled or withheld by a scheduled shred: eventseal cancel-shred makes its keys usable again";
    assert!(refused.error()["message"].as_str().unwrap().contains(message), "{refused:?}");
    let refused = world.run(&["export", "Customer", "cust_0", "--json"]).refused(4, "disabled");
    assert!(refused.error()["message"].as_str().unwrap().contains("or eventseal cancel-shred if"), "{refused:?}");
    assert_eq!(world.read().await, (3, 1));
    until(due).await;
    snapshot!(world, "sweep", world.run(&["sweep", "--actor", "timer"]).ended(0));
    assert_eq!(world.read().await, (2, 2));
    let history = world.json(&["keys", "show", "Customer", "cust_1"]);
    let last = &history["changes"][1];
    assert_eq!(
        (&last["action"], &last["reason"], &last["actor"]),
        (&"shred".into(), &"request 118".into(), &"timer".into())
    );
    assert_eq!(world.json(&["schedules"])["schedules"], Value::Array(Vec::new()));
    assert_eq!(world.json(&["sweep"])["shredded"], 0);
}

async fn times_and_ids_that_make_no_sense_are_refused(world: World) {
    let world = world.with_keys(0..2).await;
    let hold = ["hold", "Customer", "cust_0", "--reason", "r", "--json"];
    for until in ["tomorrow", "31.1.2027", "2027-02-30"] {
        world.run(&[&hold[..], &["--until", until]].concat()).refused(2, "usage");
    }
    let passed = world.run(&[&hold[..], &["--until", "2020-01-31"]].concat()).refused(2, "invalid_input");
    let message = "the end of the hold is 2020-01-31T00:00:00Z, which has passed: ";
    assert!(passed.error()["message"].as_str().unwrap().contains(message), "{passed:?}");
    // A misspelled id must not look like a hold.
    world.run(&["hold", "Customer", "cust_99", "--reason", "r", "--json"]).refused(4, "unknown_scope");
    world.run(&["hold", "Customer", "cust_99", "--reason", "r", "--allow-unknown"]).ended(0);
    let schedule = ["schedule-shred", "Customer", "cust_0", "--reason", "r", "--json"];
    for wrong in [
        &["--mode", "redact"][..],
        &["--in", "30d"],
        &["--in", "30", "--mode", "redact"],
        &["--in", "30d", "--due", "2999-01-31", "--mode", "redact"],
    ] {
        world.run(&[&schedule[..], wrong].concat()).refused(2, "usage");
    }
    world.run(&[&schedule[..], &["--due", "2020-01-31", "--mode", "redact"]].concat()).refused(2, "invalid_input");
    let unknown =
        ["schedule-shred", "Customer", "cust_98", "--in", "30d", "--mode", "redact", "--reason", "r", "--json"];
    world.run(&unknown).refused(4, "scope_state");
    assert_eq!(world.json(&["schedules"])["schedules"], Value::Array(Vec::new()));
}
