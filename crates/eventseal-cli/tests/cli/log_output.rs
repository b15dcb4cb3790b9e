//! What the commands of the shred log print: texts, JSON and errors, as snapshots.

use super::*;
use std::fmt::Write as _;

on_both! {
    what_the_commands_of_the_log_say,
    what_the_commands_of_the_log_print_as_json,
    what_the_commands_of_the_log_say_about_errors,
}

/// Runs commands on a world, and writes down what they print.
struct Session {
    world: World,
    folder: tempfile::TempDir,
    json: bool,
    printed: String,
}

impl Session {
    fn new(world: World, json: bool) -> Self {
        Self { world, folder: tempfile::tempdir().unwrap(), json, printed: String::new() }
    }

    fn copy(&self) -> String {
        self.folder.path().join("log").display().to_string()
    }

    /// Runs `shred-log`. `COPY` is the file of the copy.
    fn log(&mut self, arguments: &[&str], code: i32) {
        let copy = self.copy();
        let own: Vec<&str> =
            arguments.iter().map(|argument| if *argument == "COPY" { &copy } else { *argument }).collect();
        let json: &[&str] = if self.json { &["--json"] } else { &[] };
        let output = self.world.run(&[&["shred-log"], &own[..], json].concat()).ended(code);
        let _ = writeln!(self.printed, "$ eventseal shred-log {}", arguments.join(" "));
        let text = [output.out, output.err].concat();
        let _ = writeln!(self.printed, "{}\n[{code}]\n", text.trim_end().replace(&copy, "COPY"));
    }

    fn matches(&self, name: &str) {
        let folder = match &self.world.database {
            Database::Sqlite(db) => db.folder.path().display().to_string(),
            Database::Postgres(_) => "no folder".to_owned(),
        };
        insta::with_settings!({
            filters => vec![
                (ID, NO_ID),
                (r"[0-9a-f]{64}", "HASH"),
                (r"PostgreSQL, [^\s]+ on [^\s<]+", "PostgreSQL, NAME on HOST"),
            ],
            omit_expression => true,
            prepend_module_to_snapshot => false,
        }, { insta::assert_snapshot!(self.world.snapshot_of(name), self.printed.replace(&folder, "FOLDER")) });
    }
}

/// A log, its copy, a restore and the replay.
async fn from_the_first_export_to_the_replay(session: &mut Session) {
    session.world.json(&["shred", "Customer", "cust_1", "--reason", "request 118", "--yes"]);
    session.log(&["verify"], 0);
    session.log(&["export", "--append", "COPY"], 0);
    session.world.json(&["disable", "Customer", "cust_2", "--reason", "incident 3"]);
    session.log(&["verify", "COPY"], 5);
    session.log(&["export", "--append", "COPY"], 0);
    session.log(&["verify", "COPY"], 0);
    session.world.back_up().await;
    session.world.json(&["shred", "Customer", "cust_0", "--reason", "request 119", "--yes"]);
    session.log(&["export", "--append", "COPY"], 0);
    session.world.restore().await;
    session.log(&["verify", "COPY"], 5);
    session.log(&["replay", "COPY", "--dry-run"], 0);
    session.log(&["replay", "COPY"], 0);
    session.log(&["replay", "COPY"], 0);
    session.log(&["verify", "COPY"], 0);
    session.log(&["adopt", "--reason", "change 77"], 0);
}

async fn what_the_commands_of_the_log_say(world: World) {
    let mut session = Session::new(world.with_keys(0..3).await, false);
    from_the_first_export_to_the_replay(&mut session).await;
    session.matches("shred_log");
}

async fn what_the_commands_of_the_log_print_as_json(world: World) {
    let mut session = Session::new(world.with_keys(0..3).await, true);
    from_the_first_export_to_the_replay(&mut session).await;
    session.matches("shred_log_json");
}

async fn what_the_commands_of_the_log_say_about_errors(world: World) {
    let mut session = Session::new(world.with_keys(0..4).await, false);
    session.log(&["verify", "COPY"], 5);
    session.log(&["replay", "COPY"], 1);
    session.world.json(&["shred", "Customer", "cust_1", "--reason", "request 118", "--yes"]);
    session.log(&["export", "--append", "COPY"], 0);
    let written = std::fs::read_to_string(session.copy()).unwrap();
    for (from, to) in [
        ("request 118", "request 119"),
        ("\"shred_log\":1", "\"shred_log\":9"),
        ("\"namespace\":\"", "\"namespace\":\"other-"),
    ] {
        std::fs::write(session.copy(), written.replacen(from, to, 1)).unwrap();
        for json in [false, true] {
            session.json = json;
            session.log(&["verify", "COPY"], 5);
            session.log(&["replay", "COPY"], 1);
        }
    }
    session.json = false;
    std::fs::write(session.copy(), written).unwrap();
    // Somebody who can write to the table invents a decision.
    let invented = "INSERT INTO shred_entries (entry_id, scope_kind, scope_id, scope_seq, decided_at, action, state,
            generation, reason)
        VALUES ('00000000-0000-4000-8000-000000000001', 'Customer', 'cust_2', 1, '2026-01-02T03:04:05.000000Z',
            'enable', 'live', 1, 'no')";
    session.log(&["adopt", "--reason", "before it was invented"], 0);
    session.world.execute(invented).await;
    session.log(&["verify", "COPY"], 5);
    session.log(&["export", "--append", "COPY"], 1);
    session.log(&["adopt", "--reason", "too late"], 1);
    session.matches("shred_log_errors");
}
