//! `hold`, `release` and `holds`.

use crate::actor;
use crate::args::{Hold, Holds, Release};
use crate::connect::{connect, connect_to_decide, on};
use crate::master_key;
use crate::output::{Exit, Failure, Report, count, exact_time, in_commands, shown, table, time};
use crate::scopes::unknown;
use eventseal::erasure::{self, FailedScope};
use eventseal::keys::KeyStore;
use serde_json::{Value, json};
use std::fmt::Write as _;

pub(crate) async fn hold(args: Hold, json: bool) -> Result<Report, Failure> {
    let actor = actor::of(&args.cause)?;
    let kms = master_key::open(&args.master_key).await?;
    let scope = args.scope.key_scope();
    on!(connect_to_decide(&args.database, &args.copying).await?, db => {
        db.namespace().await?;
        if !args.allow_unknown && db.keys.history(&mut db.connection, &scope).await?.is_none() {
            return Err(unknown(&scope, "; --allow-unknown holds it all the same"));
        }
        let namespace = db.announce(json, &format!("Holding {}", shown(&scope.to_string()))).await?;
        let manager = db.manager(kms);
        // The integrity key is opened before the transaction takes locks.
        manager.open(&mut db.connection).await?;
        let reason = &args.cause.reason;
        let (keys, until) = (manager.acting_as(&actor), args.until);
        let hold = db.decide(&manager, db.begin(), async |tx| keys.hold(tx, &scope, reason, until).await).await?;
        let until = hold.until.map_or_else(|| "it is released".to_owned(), time);
        let text = format!(
            "Held {} until {until}. It can't be shredded meanwhile.\n  hold {}",
            shown(&scope.to_string()),
            hold.id
        );
        Ok(Report::new(text, hold_json(&hold)).of(&namespace, &db.place))
    })
}

pub(crate) async fn release(args: Release, json: bool) -> Result<Report, Failure> {
    let actor = actor::of(&args.cause)?;
    let kms = master_key::open(&args.master_key).await?;
    let scope = args.scope.key_scope();
    on!(connect_to_decide(&args.database, &args.copying).await?, db => {
        let whose = shown(&scope.to_string());
        let namespace = db.announce(json, &format!("Releasing a hold on {whose}")).await?;
        let manager = db.manager(kms);
        manager.open(&mut db.connection).await?;
        let holds = manager.holds_of(&mut db.connection, &scope).await?;
        let Some(hold) = holds.iter().find(|hold| hold.id == args.hold) else {
            let problem =
                format!("hold {} is not in force on {whose}: eventseal holds shows those that are", args.hold);
            return Err(Failure::refused("unknown_hold", problem));
        };
        let reason = &args.cause.reason;
        db.decide(&manager, db.begin(), async |tx| manager.acting_as(&actor).release(tx, hold, reason).await).await?;
        let text = match holds.len() as u64 - 1 {
            0 => format!("Released {hold}. Nothing holds {whose} any more."),
            others => format!("Released {hold}. {} on {whose} left.", count(others, "hold")),
        };
        let json = json!({
            "kind": scope.kind(),
            "id": scope.id(),
            "hold": hold.id.to_string(),
            "left": holds.len() - 1,
            "reason": args.cause.reason,
            "actor": actor,
        });
        Ok(Report::new(text, json).of(&namespace, &db.place))
    })
}

pub(crate) async fn holds(args: Holds) -> Result<Report, Failure> {
    let kms = master_key::open(&args.master_key).await?;
    on!(connect(&args.database).await?, db => {
        let namespace = db.namespace().await?;
        let manager = db.manager(kms);
        let (mut holds, mut failed, mut after) = (Vec::new(), Vec::new(), None);
        loop {
            let page = manager.holds(&mut db.connection, after.as_ref(), PAGE).await?;
            holds.extend(page.holds);
            failed.extend(page.failed);
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        let rows = holds.iter().map(|hold| {
            let until = hold.until.map_or_else(|| "released".to_owned(), time);
            let who = hold.actor.as_deref().map(shown).unwrap_or_default();
            vec![
                shown(&hold.scope.to_string()),
                hold.id.to_string(),
                time(hold.since),
                until,
                who,
                shown(&hold.reason),
            ]
        });
        let text = match holds.len() {
            0 => "Nothing is held.".to_owned(),
            _ => table(&["SCOPE", "HOLD", "SINCE", "UNTIL", "WHO", "WHY"], rows),
        };
        let listed: Vec<Value> = holds.iter().map(hold_json).collect();
        let report = Report::new(text, json!({ "holds": listed }));
        Ok(naming(report, &failed).of(&namespace, &db.place))
    })
}

/// How many scopes are read at a time.
pub(crate) const PAGE: u32 = 500;

pub(crate) fn hold_json(hold: &erasure::Hold) -> Value {
    json!({
        "kind": hold.scope.kind(),
        "id": hold.scope.id(),
        "hold": hold.id.to_string(),
        "since": exact_time(hold.since),
        "until": hold.until.map(exact_time),
        "reason": hold.reason,
        "actor": hold.actor,
    })
}

/// Adds the scopes at which something failed.
pub(crate) fn naming(mut report: Report, failed: &[FailedScope]) -> Report {
    let listed: Vec<Value> = failed
        .iter()
        .map(|failed| {
            json!({
                "kind": failed.scope.kind(),
                "id": failed.scope.id(),
                "error": failed.error.kind().as_str(),
                "message": in_commands(&failed.error.to_string()),
            })
        })
        .collect();
    report.json["failed"] = listed.into();
    if failed.is_empty() {
        return report;
    }
    report.text.push_str("\n\nSomething is wrong with:");
    for failed in failed {
        let message = in_commands(&failed.error.to_string());
        let _ = write!(report.text, "\n  {}: {}", shown(&failed.scope.to_string()), shown(&message));
    }
    report.ending(Exit::Failed)
}
