//! `eventseal rewrap` and `eventseal move-master-key` as processes that are killed in the middle, or that run at the
//! same time. Every key opens at any moment, and the next run completes the work (invariant I11).

use crate::command::{Database, OTHER_SECRET, SECRET, World};
use serde_json::Value;
use std::collections::BTreeMap;
use std::process::{Child, Stdio};

/// How many data keys there are: for runs that are killed, and for runs that are only watched.
const MANY: usize = 20_000;
const SOME: usize = 3_000;

on_both! {
    i11_a_rewrap_that_is_killed_is_completed_by_the_next,
    i11_a_move_that_is_killed_is_completed_by_the_next,
    two_rewraps_share_the_work,
    a_rewrap_goes_on_while_the_application_works,
}

/// Starts a command, without waiting for its end.
pub(crate) fn start(world: &World, arguments: &[&str]) -> Child {
    world.command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Waits for a command that must succeed, and returns its result.
fn result(child: Child) -> Value {
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Waits until a count in the database has reached `at_least`. Returns false if the command ended before.
pub(crate) async fn reached(world: &World, child: &mut Child, sql: &'static str, at_least: usize) -> bool {
    let deadline = support::Deadline::of("for a command to come so far");
    loop {
        let began = std::time::Instant::now();
        let count: usize = world.column(sql).await[0].parse().unwrap();
        if count >= at_least {
            return true;
        }
        if child.try_wait().unwrap().is_some() {
            return false;
        }
        // To count all rows takes a while. Whoever does nothing else takes a core from the command.
        deadline.look_again_after(3 * began.elapsed()).await;
    }
}

const REWRAPPED: &str = "SELECT CAST(count(*) AS TEXT) FROM data_keys WHERE wrapped_at IS NOT NULL";

/// The rewrapped keys, each with the time of its rewrap.
async fn rewrapped(world: &World) -> BTreeMap<String, String> {
    let rows = world
        .column(
            "SELECT CAST(key_id AS TEXT) || ' ' || CAST(wrapped_at AS TEXT) FROM data_keys WHERE wrapped_at IS NOT \
             NULL",
        )
        .await;
    rows.into_iter().map(|row| row.split_once(' ').map(|(key, at)| (key.to_owned(), at.to_owned())).unwrap()).collect()
}

async fn with_keys(world: World, keys: usize) -> World {
    let world = world.with_keys(0..0).await;
    for begin in (0..keys).step_by(1_000) {
        world.append(begin..begin + 1_000).await.unwrap();
    }
    world
}

async fn i11_a_rewrap_that_is_killed_is_completed_by_the_next(world: World) {
    let world = with_keys(world, MANY).await;
    world.run(&["rotate-kek"]).ended(0);
    let (mut before, mut interrupted) = (BTreeMap::new(), 0);
    for point in [1, 700, 4_000, 9_000, 15_000, 19_000] {
        let mut child = start(&world, &["rewrap", "--batch", "50"]);
        interrupted += usize::from(reached(&world, &mut child, REWRAPPED, point).await);
        // SIGKILL
        child.kill().unwrap();
        child.wait().unwrap();
        let now = rewrapped(&world).await;
        assert!(before.iter().all(|(key, at)| now.get(key) == Some(at)), "a key was wrapped twice over");
        assert!(now.len() >= point.min(MANY) && now.len() <= MANY + 1);
        before = now;
        assert_eq!(world.read().await, (MANY, 0), "I11: killed at {point}");
    }
    assert_eq!(interrupted, 6, "no run was faster than its killer");
    let left = world.json(&["rewrap", "--dry-run"])["would_rewrap"].as_u64().unwrap();
    assert_eq!(usize::try_from(left).unwrap() + before.len(), MANY + 1);
    let last = world.json(&["rewrap"]);
    assert_eq!(
        (&last["rewrapped"], &last["remaining"], &last["bad"]),
        (&left.into(), &0.into(), &Value::Array(Vec::new()))
    );
    let now = rewrapped(&world).await;
    assert!(
        before.iter().all(|(key, at)| now.get(key) == Some(at)) && now.len() == MANY + 1,
        "none twice over, none left behind"
    );
    let keks = world.keks();
    assert_eq!((&keks[0]["live_keys"], &keks[1]["live_keys"]), (&0.into(), &(MANY + 1).into()));
    world.run(&["retire-kek", keks[0]["kek"].as_str().unwrap()]).ended(0);
    assert_eq!(world.read().await, (MANY, 0), "I11: every key opens under the new one");
}

const MOVED: &str = "SELECT CAST(count(*) AS TEXT) FROM key_encryption_keys WHERE master_key_id = 'next'";

#[expect(clippy::too_many_lines, reason = "one run after the other")]
async fn i11_a_move_that_is_killed_is_completed_by_the_next(world: World) {
    const KEKS: usize = 12;
    let world = world.with_keys(0..0).await;
    // One data key under each key-encryption key.
    for customer in 0..KEKS - 1 {
        world.append(customer..customer + 1).await.unwrap();
        world.run(&["rotate-kek"]).ended(0);
    }
    world.append(KEKS - 1..KEKS).await.unwrap();
    let mut keks: Vec<String> = world.keks().iter().map(|kek| kek["kek"].as_str().unwrap().to_owned()).collect();
    assert_eq!(keks.len(), KEKS);
    // The active key-encryption key, which is the newest, is moved first.
    keks.rotate_right(1);
    world.keyring("ring", &format!("next:{OTHER_SECRET}\nmain:{SECRET}\n"));
    for point in [0, 1, 5, KEKS - 1] {
        // The move gets as far as this key, and no further.
        let mut lock = None;
        match &world.database {
            Database::Postgres(db) => {
                let mut tx = db.pool.begin().await.unwrap();
                let kek_id = uuid::Uuid::try_parse(&keks[point]).unwrap();
                sqlx::query("SELECT FROM key_encryption_keys WHERE kek_id = $1 FOR UPDATE")
                    .bind(kek_id)
                    .execute(&mut *tx)
                    .await
                    .unwrap();
                lock = Some(tx);
            }
            Database::Sqlite(_) => {
                let trigger = format!(
                    "CREATE TRIGGER stop_{point} BEFORE UPDATE ON key_encryption_keys WHEN old.kek_id = '{}' BEGIN
                     SELECT max(x) FROM (WITH RECURSIVE forever(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM forever)
                                         SELECT x FROM forever); END",
                    keks[point]
                );
                world.execute(trigger).await;
            }
        }
        let mut child = start(&world, &["move-master-key"]);
        assert!(reached(&world, &mut child, MOVED, point).await);
        child.kill().unwrap();
        child.wait().unwrap();
        match lock {
            Some(tx) => tx.rollback().await.unwrap(),
            None => world.execute(format!("DROP TRIGGER stop_{point}")).await,
        }
        if world.is_postgres() {
            // The server may have received one more update before its client was killed.
            let sessions = "SELECT 'x' FROM pg_stat_activity WHERE datname = current_database() AND application_name = \
                'eventseal'";
            let deadline = support::Deadline::of("for the server to end a session whose client has gone");
            while !world.column(sessions).await.is_empty() {
                deadline.look_again().await;
            }
        }
        let moved: usize = world.column(MOVED).await[0].parse().unwrap();
        assert!(
            moved == point || moved == point + 1 && world.is_postgres(),
            "killed in the middle, at {point}: {moved}"
        );
        assert_eq!(world.read().await, (KEKS, 0), "I11: killed at {point}");
    }
    let last = world.json(&["move-master-key"]);
    let [moved, already] = ["moved", "already"].map(|which| last[which].as_array().unwrap().len());
    assert!(moved <= 1 && moved + already == KEKS, "{last}");
    world.keyring("ring", &format!("next:{OTHER_SECRET}\n"));
    assert_eq!(world.read().await, (KEKS, 0), "I11: the new master key opens them all, without the old one");
}

async fn two_rewraps_share_the_work(world: World) {
    let world = with_keys(world, SOME).await;
    world.run(&["rotate-kek"]).ended(0);
    let runs = [(); 2].map(|()| start(&world, &["rewrap", "--batch", "100", "--json"]));
    let [first, second] = runs.map(result);
    let done = [&first, &second].map(|run| run["rewrapped"].as_u64().unwrap());
    assert_eq!(usize::try_from(done[0] + done[1]).unwrap(), SOME + 1, "each key once: {done:?}");
    assert!(done[0] > 0 && done[1] > 0, "both did something: {done:?}");
    assert_eq!((&first["remaining"], &second["remaining"]), (&0.into(), &0.into()));
    assert_eq!(world.read().await, (SOME, 0));
}

async fn a_rewrap_goes_on_while_the_application_works(world: World) {
    let world = with_keys(world, SOME).await;
    world.run(&["rotate-kek"]).ended(0);
    let mut child = start(&world, &["rewrap", "--batch", "20", "--json"]);
    assert!(reached(&world, &mut child, REWRAPPED, 100).await);
    let (mut appended, mut shredded) = (0, 0);
    while child.try_wait().unwrap().is_none() {
        world.append(SOME + appended..SOME + appended + 10).await.unwrap();
        appended += 10;
        let customer = format!("cust_{}", shredded * 7 % SOME);
        let shred = world.json(&["shred", "Customer", &customer, "--reason", "request", "--yes"]);
        assert_eq!(shred["destroyed"].as_array().unwrap().len(), 1);
        shredded += 1;
    }
    assert!(shredded > 0, "no run was faster than one shred");
    let done = result(child);
    assert_eq!((&done["remaining"], &done["bad"]), (&0.into(), &Value::Array(Vec::new())));
    let total = u64::try_from(SOME + 1).unwrap();
    let rewrapped = done["rewrapped"].as_u64().unwrap();
    assert!(
        rewrapped <= total && rewrapped >= total - u64::try_from(shredded).unwrap(),
        "all but what was shredded before its turn"
    );
    assert_eq!(world.read().await, (SOME + appended - shredded, shredded));
}
