//! `eventseal shred-log replay` as a process that is killed in the middle. Nothing that was shredded opens where the
//! copy is required, and the next run completes the replay (invariants I11 and I13).

use crate::command::{Database, World};
use crate::rewrap_process::{reached, start};
use eventseal::Error;
use eventseal::error::KeyFault;
use std::fmt::Write as _;
use std::ops::Range;

on_both! {
    i11_i13_a_replay_that_is_killed_is_completed_by_the_next,
}

/// The customers who are shredded after the backup: three batches of a replay, in the order of their names.
const SHREDDED: Range<usize> = 100..400;

/// Where a replay is killed.
#[derive(Clone, Copy, Debug, PartialEq)]
enum At {
    /// It has put in the first batch of entries, and is at the second.
    Entries,
    /// It has put in all entries and destroyed the keys of two batches, and is at the third.
    Keys,
}

impl At {
    /// The customer at whom it comes to a halt.
    fn customer(self) -> &'static str {
        if self == Self::Entries { "cust_250" } else { "cust_350" }
    }

    /// How much was committed before, at least. A batch has up to two rows that are about no customer.
    fn reached(self) -> (&'static str, usize) {
        match self {
            Self::Entries => ("SELECT CAST(count(*) AS TEXT) FROM shred_entries WHERE action = 'shred'", 98),
            Self::Keys => ("SELECT CAST(count(*) AS TEXT) FROM data_keys WHERE state = 'shredded'", 196),
        }
    }
}

/// Runs a replay up to this point, and kills it there. Returns how much was committed.
async fn killed(world: &World, copy: &str, at: At) -> u64 {
    let (mut lock, customer) = (None, at.customer());
    match &world.database {
        Database::Postgres(db) => {
            let mut tx = db.pool.begin().await.unwrap();
            let row = if at == At::Entries { "key_scopes" } else { "data_keys" };
            let sql = format!("SELECT FROM {row} WHERE scope_id = '{customer}' FOR UPDATE");
            sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut *tx).await.unwrap();
            lock = Some(tx);
        }
        Database::Sqlite(_) => {
            let change = if at == At::Entries { "INSERT ON shred_entries" } else { "UPDATE ON data_keys" };
            let trigger = format!(
                "CREATE TRIGGER stop BEFORE {change} WHEN new.scope_id = '{customer}' BEGIN
                 SELECT max(x) FROM (WITH RECURSIVE forever(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM forever)
                                     SELECT x FROM forever); END"
            );
            world.execute(trigger).await;
        }
    }
    let mut child = start(world, &["shred-log", "replay", copy]);
    let (done, count) = at.reached();
    assert!(reached(world, &mut child, done, count).await, "{at:?}: it ended by itself");
    // SIGKILL
    child.kill().unwrap();
    child.wait().unwrap();
    match lock {
        Some(tx) => tx.rollback().await.unwrap(),
        None => world.execute("DROP TRIGGER stop").await,
    }
    if world.is_postgres() {
        let sessions =
            "SELECT 'x' FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'eventseal'";
        let deadline = support::Deadline::of("for the server to end a session whose client has gone");
        while !world.column(sessions).await.is_empty() {
            deadline.look_again().await;
        }
    }
    let left: usize = world.column(done).await[0].parse().unwrap();
    assert!((count..=count + 4).contains(&left), "{at:?}: {left}, but a batch is there as a whole, or not at all");
    left as u64
}

async fn i11_i13_a_replay_that_is_killed_is_completed_by_the_next(world: World) {
    let mut world = world.with_keys(90..410).await;
    let path = world.folder.path().join("log");
    let copy = path.to_str().unwrap();
    world.back_up().await;
    let requests = world.folder.path().join("requests.jsonl");
    let mut lines = String::new();
    for customer in SHREDDED {
        writeln!(lines, r#"{{"kind": "Customer", "id": "cust_{customer}"}}"#).unwrap();
    }
    std::fs::write(&requests, lines).unwrap();
    world.json(&["shred", "--from", requests.to_str().unwrap(), "--reason", "request 118", "--yes"]);
    world.json(&["shred-log", "export", "--append", copy]);
    let all = SHREDDED.len() as u64;
    // Without decisions since the restore, and with one, which makes a fork. No new copy is begun in its middle.
    for (at, forked) in [(At::Entries, false), (At::Keys, false), (At::Entries, true), (At::Keys, true)] {
        let what = format!("{at:?}, forked: {forked}");
        world.restore().await;
        if forked {
            world.json(&["disable", "Customer", "cust_95", "--reason", "incident 3"]);
            // It gets its number.
            world.run(&["shred-log", "verify"]).ended(0);
        }
        let before = killed(&world, copy, at).await;
        // The customers of the first batch, of the last one, and one who was not shredded.
        for position in [11, 310, 1] {
            let error = world.event(position, &world.ring(), Some(&path)).await.unwrap_err();
            assert!(matches!(error, Error::Keys(KeyFault::ShredLogBehind { .. })), "I13, {what}: {error:?}");
        }
        world.run(&["shred-log", "verify", copy]).ended(5);
        let new = world.folder.path().join(format!("new copy of {at:?} {forked}"));
        let begin = ["shred-log", "export", "--append", new.to_str().unwrap(), "--json"];
        if forked {
            world.run(&begin).refused(1, "log_copy");
        }

        let done = world.json(&["shred-log", "replay", copy]);
        let (missing, destroyed) = if at == At::Entries { (all - before, all) } else { (0, all - before) };
        assert_eq!((&done["missing"], &done["destroyed"]), (&missing.into(), &destroyed.into()), "{what}: {done}");
        assert_eq!((&done["forked"], done["left"].as_array().unwrap().len()), (&forked.into(), 0), "{what}: {done}");
        world.run(&["shred-log", "verify", copy]).ended(0);
        let required = if forked { &new } else { &path };
        if forked {
            world.run(&begin).ended(0);
        }
        for (position, erased) in [(11, true), (310, true), (1, false)] {
            let event = world.event(position, &world.ring(), Some(required)).await;
            assert_eq!(event.unwrap().is_redacted(), erased, "I11, {what}: {position}");
        }
        let again = world.json(&["shred-log", "replay", copy]);
        assert_eq!((&again["missing"], &again["destroyed"]), (&0.into(), &0.into()), "{what}: {again}");
    }
}
