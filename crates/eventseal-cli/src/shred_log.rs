//! `shred-log export`, `verify`, `replay` and `adopt`: the shred log, and its copies.

use crate::actor;
use crate::args::{AdoptLog, ExportLog, ReplayLog, VerifyLog};
use crate::connect::{connect, connect_to_decide, on};
use crate::copies;
use crate::interrupt;
use crate::master_key;
use crate::output::{Exit, Failure, Progress, Report, count, number, shown};
use eventseal::KeyScope;
use eventseal::erasure::{
    AdoptedEntries, CopyReport, CopyState, LogProgress, LogReport, PlannedScope, ReplayOptions, Replayed,
};
use serde_json::{Value, json};
use std::fmt::Write as _;

pub(crate) async fn export(args: ExportLog, json: bool) -> Result<Report, Failure> {
    let kms = master_key::open(&args.master_key).await?;
    let copy = copies::to_begin(&args.append, &args.database)?;
    on!(connect(&args.database).await?, db => {
        let namespace = db.namespace().await?;
        let manager = db.manager(kms);
        let mut bar = Progress::new(json, args.progress.progress_every, "entries");
        let mut show = |progress: LogProgress| {
            bar.at(progress.done, progress.total);
            if progress.done > 0 {
                interrupt::kept(format!("{} added, and stay so; run it again for the others", entries(progress.done)));
            }
        };
        let done = manager.export_log(&mut db.connection, &*copy, &mut show).await?;
        bar.finish();
        let name = shown(&copy.name());
        let began = if done.began {
            format!("A NEW COPY WAS BEGUN: {name} did not exist, or was empty. It knows nothing of earlier copies.\n")
        } else {
            String::new()
        };
        let text = format!("{began}{} added to {name}, which ends at entry {}.", entries(done.added), number(done.seq));
        let json = json!({
            "copy": copy.name(),
            "added": done.added,
            "seq": done.seq,
            "hash": hex(&done.hash),
            "began": done.began,
        });
        Ok(Report::new(text, json).of(&namespace, &db.place))
    })
}

pub(crate) async fn verify(args: VerifyLog, json: bool) -> Result<Report, Failure> {
    let kms = master_key::open(&args.master_key).await?;
    let copies = copies::all(&args.copies, &args.database)?;
    on!(connect(&args.database).await?, db => {
        let namespace = db.namespace().await?;
        let manager = db.manager(kms);
        let mut bar = Progress::new(json, args.progress.progress_every, "entries");
        let mut show = |progress: LogProgress| bar.at(progress.done, progress.total);
        let copies = copies::ports(&copies);
        let found = manager.verify_log(&mut db.connection, &copies, &mut show).await?;
        bar.finish();
        Ok(verified(&found).of(&namespace, &db.place))
    })
}

fn verified(found: &LogReport) -> Report {
    let mut text = format!("The shred log has {}, and ends with hash {}.\n", entries(found.seq), hex(&found.hash));
    if found.carried > 0 {
        let _ = writeln!(text, "{} from before there was a log, and adopted.", were(found.carried));
    }
    for copy in &found.copies {
        let state = of_copy(copy.state);
        let _ = writeln!(text, "The copy {} ends at entry {}: {state}.", shown(&copy.name), number(copy.seq));
    }
    let findings: Vec<String> = found.findings.iter().map(ToString::to_string).collect();
    for finding in &findings {
        let _ = writeln!(text, "  {}", shown(finding));
    }
    let lacks = |copy: &CopyReport| matches!(copy.state, CopyState::Empty | CopyState::Behind);
    let lacking = found.copies.iter().filter(|copy| lacks(copy)).count();
    if found.is_sound() {
        text.push_str("Nothing was altered, dropped, moved or invented, and the keys agree with it.");
    } else {
        let _ = write!(text, "{} wrong.", if found.count == 1 { "1 thing is".to_owned() } else { things(found.count) });
    }
    let copies = found.copies.iter().map(copy_json);
    let json = json!({
        "ok": found.is_sound() && lacking == 0,
        "seq": found.seq,
        "hash": hex(&found.hash),
        "carried": found.carried,
        "copies": copies.collect::<Vec<_>>(),
        "count": found.count,
        "findings": findings,
    });
    if lacking > 0 {
        text.push_str("\nA copy lacks entries, so a restore may bring back what was shredded: see above.");
    }
    let report = Report::new(text, json);
    if found.is_sound() && lacking == 0 { report } else { report.ending(Exit::Problems) }
}

pub(crate) async fn replay(args: ReplayLog, json: bool) -> Result<Report, Failure> {
    let kms = master_key::open(&args.master_key).await?;
    let copies = copies::all(&args.copies, &args.database)?;
    let mut options = ReplayOptions::default();
    options.dry_run = args.dry_run;
    on!(connect(&args.database).await?, db => {
        let namespace = if args.dry_run {
            db.namespace().await?
        } else {
            let names: Vec<String> = copies.iter().map(|copy| shown(&copy.name())).collect();
            db.announce(json, &format!("Replaying {}", names.join(", "))).await?
        };
        let manager = db.manager(kms);
        let mut bar = Progress::new(json, args.progress.progress_every, "entries");
        let mut show = |progress: LogProgress| {
            bar.at(progress.done, progress.total);
            interrupt::kept("what was replayed stays; run it again for the rest".to_owned());
        };
        let copies = copies::ports(&copies);
        let done = manager.replay_log(&mut db.connection, &copies, &options, &mut show).await?;
        bar.finish();
        Ok(replayed(&done, &args).of(&namespace, &db.place))
    })
}

fn replayed(done: &Replayed, args: &ReplayLog) -> Report {
    let scopes = |scopes: &[KeyScope], why: &str| -> Vec<Value> {
        scopes.iter().map(|scope| json!({ "kind": scope.kind(), "id": scope.id(), "why": why })).collect()
    };
    let left = [scopes(&done.held, "held"), scopes(&done.undecided, "undecided")].concat();
    let json = json!({
        "dry_run": args.dry_run,
        "copy": done.copy,
        "entries": done.entries,
        "missing": done.missing,
        "scopes": done.disagreed,
        "destroyed": done.destroyed,
        "tombstones": done.tombstones,
        "forked": done.forked,
        "planned": done.planned.iter().map(planned_json).collect::<Vec<_>>(),
        "left": left,
    });
    if args.dry_run {
        return Report::new(would_replay(done), json);
    }
    let mut text = String::new();
    let _ = writeln!(
        text,
        "{} put back, {} set right: {} destroyed again, {} made.",
        entries(done.missing),
        count(done.disagreed, "scope"),
        count(done.destroyed, "key"),
        count(done.tombstones, "tombstone")
    );
    if done.forked {
        text.push_str("The log went on in another way since the restore. ");
        text.push_str(if done.held.is_empty() {
            "Keep this copy as evidence, and begin a new one: eventseal shred-log export --append NEWFILE\n"
        } else {
            "Release the holds, and replay this copy again: until then no new one is begun, and nothing is opened \
             where a copy is required.\n"
        });
    }
    for (scopes, why) in [
        (&done.held, "was put on hold since the restore, and is left as it is"),
        (&done.undecided, "was shredded, and something was sealed for it since: shred it again, or leave it"),
    ] {
        for scope in scopes {
            let _ = writeln!(text, "  {} {why}", shown(&scope.to_string()));
        }
    }
    let report = Report::new(text, json);
    if done.is_complete() { report } else { report.ending(Exit::Problems) }
}

/// What a dry run tells people.
fn would_replay(done: &Replayed) -> String {
    let mut text = format!(
        "{} of the copy's {} are missing, and {} with what is there. Nothing was changed.\n",
        number(done.missing),
        entries(done.entries),
        disagree(done.disagreed)
    );
    if done.forked {
        text.push_str("The log went on in another way since the restore, so missing entries get new numbers.\n");
    }
    for planned in &done.planned {
        let (scope, state) = (shown(&planned.scope.to_string()), planned.state.as_str());
        let _ = if planned.is_held {
            writeln!(text, "  {scope} was put on hold since the restore, and would be left as it is")
        } else if planned.is_undecided {
            writeln!(text, "  {scope} has a key that was made since the restore: you would have to decide")
        } else {
            writeln!(text, "  {scope} would be {state}")
        };
    }
    text
}

fn planned_json(planned: &PlannedScope) -> Value {
    let (scope, state) = (&planned.scope, planned.state.as_str());
    let (held, undecided) = (planned.is_held, planned.is_undecided);
    json!({ "kind": scope.kind(), "id": scope.id(), "state": state, "held": held, "undecided": undecided })
}

pub(crate) async fn adopt(args: AdoptLog, json: bool) -> Result<Report, Failure> {
    let actor = actor::of(&args.cause)?;
    let kms = master_key::open(&args.master_key).await?;
    on!(connect_to_decide(&args.database, &args.copying).await?, db => {
        let namespace = db.announce(json, "Adopting what was changed before there was a log").await?;
        let manager = db.manager(kms);
        let done = manager.acting_as(&actor).adopt_entries(&mut db.connection, &args.cause.reason).await?;
        Ok(adopted(&done).of(&namespace, &db.place))
    })
}

fn adopted(done: &AdoptedEntries) -> Report {
    let left: Vec<Value> = done.left.iter().map(|scope| json!({ "kind": scope.kind(), "id": scope.id() })).collect();
    let json = json!({ "entries": done.entries, "scopes": done.scopes, "left": left });
    let mut text = format!("{} of {} adopted.", entries(done.entries), count(done.scopes, "scope"));
    for scope in &done.left {
        let scope = shown(&scope.to_string());
        let _ =
            write!(text, "\n  {scope} was left alone: its row and its entries do not agree. See 'shred-log verify'");
    }
    if done.left.is_empty() {
        text.push_str(" From now on, an entry without a MAC is never adopted.");
    }
    let report = Report::new(text, json);
    if done.left.is_empty() { report } else { report.ending(Exit::Problems) }
}

pub(crate) fn copy_json(copy: &CopyReport) -> Value {
    json!({ "copy": copy.name, "seq": copy.seq, "hash": hex(&copy.hash), "state": copy.state.as_str() })
}

/// What a copy is to the log, for people.
pub(crate) fn of_copy(state: CopyState) -> &'static str {
    match state {
        CopyState::Complete => "it has every entry",
        CopyState::Behind => "the log has gone on since: export again",
        CopyState::Empty => "it does not exist, or is empty: look whether that is the right one, or export to begin it",
        CopyState::Replayed => "it was replayed to its end, and the log went on in another way: begin a new copy",
        CopyState::Ahead => "the log ends before it",
        _ => "the log went on in another way",
    }
}

pub(crate) fn entries(count: u64) -> String {
    if count == 1 { "1 entry".to_owned() } else { format!("{} entries", number(count)) }
}

fn were(count: u64) -> String {
    format!("{} {}", entries(count), if count == 1 { "is" } else { "are" })
}

fn things(count: u64) -> String {
    format!("{} things are", number(count))
}

fn disagree(scopes: u64) -> String {
    format!("{} {}", count(scopes, "scope"), if scopes == 1 { "disagrees" } else { "disagree" })
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
