//! The command on a terminal, without a terminal, and when it is interrupted.

use crate::command::{Output, World};
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Stdio};

/// Runs the command on a terminal of its own, 60 columns wide, and types `typed` into it.
fn on_terminal(world: &World, arguments: &str, typed: &str) -> (i32, String) {
    // The program `script` of util-linux provides the terminal.
    let command = format!("stty cols 60 rows 40; exec '{}' {arguments}", env!("CARGO_BIN_EXE_eventseal"));
    let mut script = Command::new("script");
    script
        .args(["-qec", &command, "/dev/null"])
        .env("DATABASE_URL", world.url())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    script.env("EVENTSEAL_KEYRING_FILE", world.folder.path().join("ring"));
    let mut child =
        script.spawn().expect("script (of util-linux) is needed: install it, such as: sudo apt-get install bsdutils");
    let (mut keyboard, mut screen) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let mut shown = Vec::new();
    while !typed.is_empty() && !shown.ends_with(b"to go on: ") {
        let mut next = [0];
        assert_eq!(screen.read(&mut next).unwrap(), 1, "it did not ask: {}", String::from_utf8_lossy(&shown));
        shown.push(next[0]);
    }
    keyboard.write_all(typed.as_bytes()).unwrap();
    screen.read_to_end(&mut shown).unwrap();
    // Only now: the end of the keyboard would be an answer too, which could come before a Ctrl-C is handled.
    drop(keyboard);
    let code = child.wait().unwrap().code().unwrap();
    (code, String::from_utf8(shown).unwrap().replace("\r\n", "\n"))
}

#[tokio::test]
async fn a_shred_is_confirmed_on_a_terminal() {
    let world = World::sqlite().await.with_keys(0..2).await;
    let shred = |typed: &str| on_terminal(&world, "shred Customer cust_0 --reason 'request 1'", typed);
    let (code, shown) = shred("cust_1\n");
    assert_eq!(code, 4, "{shown}");
    let words = shown.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(
        words.contains("This destroys 1 data key, the oldest made at") && words.contains("nothing was destroyed"),
        "{shown}"
    );
    assert!(
        words.contains("It is about namespace shop (SQLite, ")
            && words.contains("test.db), and can't be undone. Type the"),
        "{shown}"
    );
    assert_eq!(world.read().await, (2, 0));
    // Ctrl-C.
    let (code, shown) = shred("\u{3}");
    assert_eq!(code, 130, "{shown}");
    assert!(shown.contains("interrupted: nothing was changed"), "{shown}");
    assert_eq!(world.read().await, (2, 0));
    // What is held is refused before anybody is asked.
    let held = world.json(&["hold", "Customer", "cust_0", "--reason", "case 12"])["hold"].as_str().unwrap().to_owned();
    let (code, shown) = shred("");
    assert!(code == 4 && !shown.contains("Type the"), "{shown}");
    world.run(&["release", "Customer", "cust_0", &held, "--reason", "closed"]).ended(0);
    let (code, shown) = shred("cust_0\n");
    assert_eq!(code, 0, "{shown}");
    assert!(shown.contains("Next: eventseal shred-log export --append COPY."), "{shown}");
    assert_eq!(world.read().await, (1, 1));
}

#[tokio::test]
async fn a_shred_of_many_is_confirmed_by_their_number() {
    let world = World::sqlite().await.with_keys(0..3).await;
    let shred = |typed: &str| on_terminal(&world, "shred --partition default --reason 'contract ended'", typed);
    let (code, shown) = shred("yes\n");
    let words = shown.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(code == 4 && words.contains("that was another number: nothing was destroyed"), "{shown}");
    assert!(
        words.contains("This destroys the data keys of 3 scopes of partition default. It is about namespace shop")
            && words.contains("Type the number of scopes (3) to go on:"),
        "{shown}"
    );
    assert_eq!(world.read().await, (3, 0));
    let (code, shown) = shred("3\n");
    assert!(code == 0 && shown.contains("Shredded 3 scopes: 3 data keys destroyed"), "{shown}");
    assert_eq!(world.read().await, (0, 3));
}

#[tokio::test]
async fn everything_fits_sixty_columns() {
    let world = World::postgres().await.with_keys(0..40).await;
    world.run(&["rotate-kek"]).ended(0);
    world
        .run(&["shred", "Customer", "cust_0", "--reason", "request 1 of the second of January 2026", "--yes"])
        .ended(0);
    world.run(&["reopen", "Customer", "cust_0", "--reason", "came back"]).ended(0);
    for arguments in
        ["status", "keys show Customer cust_0", "census", "doctor", "rewrap", "status --max-age 0", "move-master-key"]
    {
        let (code, shown) = on_terminal(&world, arguments, "");
        assert_eq!(code, 0, "{shown}");
        // The progress bar overwrites its own line.
        for line in shown.lines().filter(|line| !line.contains('\r')) {
            // The name of the server's folder can't be broken.
            let is_one_word = line.trim_start().split(' ').count() == 1;
            assert!(line.chars().count() <= 60 || is_one_word, "{arguments}: {line:?}\n{shown}");
        }
        let hyphens = shown.lines().filter(|line| line.ends_with('-')).count();
        assert_eq!(hyphens, 0, "{arguments}: an id in pieces\n{shown}");
    }
    // Without a terminal, lines are not broken.
    let (_, shown) = on_terminal(&world, "migrate --namespace shop --print=postgres", "");
    assert!(shown.lines().any(|line| line.chars().count() > 100), "{shown}");
}

#[tokio::test]
async fn without_a_terminal_long_work_says_how_far_it_is() {
    let world = World::sqlite().await.with_keys(0..40).await;
    world.run(&["rotate-kek"]).ended(0);
    let said = world.run(&["rewrap", "--batch", "10", "--progress-every", "0"]).ended(0).err;
    let lines: Vec<&str> = said.lines().collect();
    assert!(lines.len() >= 4 && lines[1].starts_with("10 of 41 data keys, "), "{said}");
    assert!(lines.iter().all(|line| line.ends_with("/s") || line.ends_with("/min")), "{said}");
    let counted = world.run(&["census", "--batch", "10", "--progress-every", "0"]).ended(0).err;
    assert!(counted.lines().last().unwrap().starts_with("40 of 40 positions, "), "{counted}");
    let moved = world
        .run(&["move-master-key", "--keyring", two_entries(&world).as_str(), "--progress-every", "0"])
        .ended(0)
        .err;
    assert!(moved.contains("2 of 2 key-encryption keys, "), "{moved}");
    // With --json, there is no progress on standard error, where programs read failures.
    world.run(&["rotate-kek"]).ended(0);
    assert_eq!(world.run(&["rewrap", "--batch", "10", "--progress-every", "0", "--json"]).ended(0).err, "");
}

fn two_entries(world: &World) -> String {
    let text = format!("next:{}\nmain:{}\n", crate::OTHER_SECRET, crate::SECRET);
    world.keyring("ring", &text).to_str().unwrap().to_owned()
}

/// Starts a rewrap, and ends it by a signal. A transaction holds one of the keys, so the rewrap can't finish by itself.
async fn interrupted(signal: &str, json: bool) -> Output {
    let world = World::postgres().await.with_keys(0..40).await;
    let crate::Database::Postgres(db) = &world.database else { unreachable!() };
    world.run(&["rotate-kek"]).ended(0);
    let mut holder = db.pool.begin().await.unwrap();
    sqlx::query("SELECT FROM data_keys WHERE scope_id = 'cust_7' FOR UPDATE").execute(&mut *holder).await.unwrap();
    let mut command = world.command(&["rewrap", "--batch", "10", "--progress-every", "0"]);
    if json {
        command.arg("--json");
    }
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    while world.keks()[1]["live_keys"] != 40 {
        assert!(child.try_wait().unwrap().is_none(), "it ended by itself");
    }
    let mut err = BufReader::new(child.stderr.take().unwrap());
    let mut first = String::new();
    // All other keys are rewrapped, and the progress was reported.
    while !json && !first.starts_with("40 of") {
        first.clear();
        assert!(err.read_line(&mut first).unwrap() > 0, "it ended by itself");
    }
    let output = ended_by(signal, child, err);
    holder.rollback().await.unwrap();
    assert_eq!(world.keks()[1]["live_keys"], 40, "what was done stays");
    assert_eq!(world.json(&["rewrap"])["rewrapped"], 1);
    output
}

fn ended_by(signal: &str, mut child: Child, mut err: impl Read) -> Output {
    assert!(Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap().success());
    let mut output = Output { code: -1, out: String::new(), err: String::new() };
    err.read_to_string(&mut output.err).unwrap();
    child.stdout.take().unwrap().read_to_string(&mut output.out).unwrap();
    output.code = child.wait().unwrap().code().unwrap_or(-1);
    output
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interrupted_command_says_what_was_done_and_stays() {
    let said = interrupted("-INT", false).await.ended(130);
    let sentence = "interrupted: 40 data keys were wrapped anew, and stay so; run it again for the others\n";
    assert!(said.err.ends_with(sentence), "{said:?}");
    let said = interrupted("-TERM", true).await.ended(143);
    assert_eq!((&said.error()["kind"], &said.error()["exit_code"]), (&"interrupted".into(), &143.into()), "{said:?}");
}
