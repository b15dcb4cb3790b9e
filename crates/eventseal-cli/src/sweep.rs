//! `sweep`: shreds what has come due.

use crate::actor;
use crate::args::{Cause, Sweep};
use crate::connect::{connect_to_decide, on};
use crate::holds::{hold_json, naming};
use crate::interrupt;
use crate::keks::were;
use crate::master_key;
use crate::output::{Exit, Failure, Progress, Report, count, shown};
use eventseal::erasure::{SweepOptions, SweepProgress, Swept};
use serde_json::{Value, json};
use std::fmt::Write as _;

pub(crate) async fn sweep(args: Sweep, json: bool) -> Result<Report, Failure> {
    let actor = actor::of(&Cause { reason: String::new(), actor: args.actor })?;
    let kms = master_key::open(&args.master_key).await?;
    on!(connect_to_decide(&args.database, &args.copying).await?, db => {
        let namespace = db.announce(json, "Shredding what has come due").await?;
        let manager = db.manager(kms);
        let mut bar = Progress::new(json, args.progress.progress_every, "scopes");
        let mut show = |progress: SweepProgress| {
            bar.at(progress.done, progress.found);
            if progress.shredded > 0 {
                interrupt::kept(format!(
                    "{} shredded, and stay so; run it again for the others",
                    were(progress.shredded, "scope")
                ));
            }
        };
        let options = SweepOptions::default();
        let swept = manager.acting_as(&actor).sweep(&mut db.connection, &options, &mut show).await?;
        bar.finish();
        Ok(report(&swept, &db.afterwards(true)).of(&namespace, &db.place))
    })
}

fn report(swept: &Swept, afterwards: &str) -> Report {
    let mut text = match swept.shredded {
        0 => "Nothing was shredded.\n".to_owned(),
        shredded => format!(
            "Shredded {}: {} destroyed.\n{afterwards}\n",
            count(shredded, "scope"),
            count(swept.keys, "data key")
        ),
    };
    let mut exit = Exit::Done;
    if !swept.busy.is_empty() {
        let _ = writeln!(text, "\nLeft for later, because others had locked them for too long. Run it again.");
        for scope in &swept.busy {
            let _ = writeln!(text, "  {}", shown(&scope.to_string()));
        }
        exit = Exit::Retryable;
    }
    if !swept.held.is_empty() {
        let _ = writeln!(text, "\nDue and held. They stay scheduled until nothing holds them any more.");
        for held in &swept.held {
            for hold in &held.holds {
                let _ = writeln!(text, "  {}: {hold}, {}", shown(&held.scope.to_string()), shown(&hold.reason));
            }
        }
        exit = Exit::Problems;
    }
    let held: Vec<Value> = swept.held.iter().flat_map(|held| &held.holds).map(hold_json).collect();
    let busy: Vec<Value> = swept.busy.iter().map(|scope| json!({ "kind": scope.kind(), "id": scope.id() })).collect();
    let json = json!({ "shredded": swept.shredded, "keys": swept.keys, "held": held, "busy": busy });
    naming(Report::new(text.trim_end(), json).ending(exit), &swept.failed)
}
