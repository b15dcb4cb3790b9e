//! `shred`: destroys the keys of a scope, or of many, once the operator has confirmed it.

pub(crate) mod list;
mod many;

use crate::actor;
use crate::args::{Shred, Shredded};
use crate::connect::{connect_to_decide, on};
use crate::doubts::Doubts;
use crate::master_key;
use crate::output::{Failure, Report, count, exact_time, shown, tell, time};
use crate::scopes::{describe, unknown};
use eventseal::erasure::Hold;
use eventseal::error::KeyFault;
use eventseal::keys::{KeyHistory, KeyId, KeyInfo, KeyStore, Shredding};
use eventseal::{Error, KeyScope};
use serde_json::json;
use std::fmt::Write as _;
use std::io::{BufRead, IsTerminal};

pub(crate) async fn shred(args: Shred, json: bool) -> Result<Report, Failure> {
    let cause = args.cause();
    let actor = actor::of(&cause)?;
    let kms = master_key::open(&args.master_key).await?;
    let Shredded::One(scope) = args.what() else {
        let db = connect_to_decide(&args.database, &args.copying).await?;
        return on!(db, db => many::shred(&mut db, &args, &actor, kms, json).await);
    };
    let doubts = Doubts::of_kind(&scope, args.schemas.as_deref())?;
    on!(connect_to_decide(&args.database, &args.copying).await?, db => {
        let namespace = db.namespace().await?;
        let before = db.keys.history(&mut db.connection, &scope).await?;
        let doubts = doubts.and_of_id(&mut db).await?;
        if before.is_none() && !args.allow_unknown {
            let hint = doubts.hint() + "; --allow-unknown shreds it all the same, so that nothing ever will be";
            return Err(unknown(&scope, &hint));
        }
        doubts.tell(json)?;
        let manager = db.manager(kms);
        // The integrity key is opened before the transaction takes locks.
        manager.open(&mut db.connection).await?;
        check_not_held(&scope, manager.holds_of(&mut db.connection, &scope).await?)?;
        if args.yes {
            db.announce(json, &format!("Shredding {} for good", shown(&scope.to_string()))).await?;
        } else {
            confirm(&scope, before.as_ref(), &db.whereabouts(&namespace), json)?;
        }
        let reason = &cause.reason;
        let keys = manager.acting_as(&actor);
        let done = db.decide(&manager, db.begin(), async |tx| keys.shred(tx, &scope, reason).await).await?;
        let destroyed: Vec<String> = done.destroyed.iter().map(KeyId::to_string).collect();
        let json = json!({
            "kind": scope.kind(),
            "id": scope.id(),
            "destroyed": destroyed,
            "destroyed_before": done.already.len(),
            "at": exact_time(done.at),
            "reason": cause.reason,
            "actor": actor,
            "was_shredded": done.was_shredded,
        });
        Ok(Report::new(shredded(&done) + &db.afterwards(false), doubts.within(json)).of(&namespace, &db.place))
    })
}

fn shredded(done: &Shredding) -> String {
    let (was_shredded, already) = (done.was_shredded, done.already.len() as u64);
    let scope = shown(&done.scope.to_string());
    let before =
        if already == 1 { "1 data key was".to_owned() } else { format!("{} were", count(already, "data key")) };
    match (done.destroyed.len() as u64, was_shredded) {
        (0, true) if already == 0 => {
            format!("Nothing was left to do: {scope} was shredded before, and never had a key.\n")
        }
        (0, true) => format!("Nothing was left to do: {scope} was shredded before. {before} destroyed then.\n"),
        (0, false) if already == 0 => {
            format!("Shredded {scope}. Nothing was ever sealed for it, and nothing will be.\n")
        }
        (now, _) => {
            let mut text = format!("Shredded {scope}: {} destroyed at {}.\n", count(now, "data key"), time(done.at));
            for key_id in &done.destroyed {
                let _ = writeln!(text, "  {key_id}");
            }
            if already > 0 {
                let _ = writeln!(text, "{before} destroyed before.");
            }
            if was_shredded {
                text.push_str(
                    "It was shredded before, so these had come back: look for a restore of a part of the key tables.\n",
                );
            }
            text
        }
    }
}

/// Refuses what is held, before anybody is asked or told.
fn check_not_held(scope: &KeyScope, holds: Vec<Hold>) -> Result<(), Failure> {
    if holds.is_empty() {
        return Ok(());
    }
    Err(Error::Keys(KeyFault::Held { scope: scope.clone(), holds }).into())
}

/// Shows what will be destroyed, and asks the operator to type the scope's id.
fn confirm(scope: &KeyScope, history: Option<&KeyHistory>, whereabouts: &str, json: bool) -> Result<(), Failure> {
    let mut text = String::new();
    if let Some(history) = history {
        let live: Vec<&KeyInfo> = history.keys.iter().filter(|key| key.shredded_at.is_none()).collect();
        let since =
            live.first().map(|key| format!(", the oldest made at {}", time(key.created_at))).unwrap_or_default();
        let _ = writeln!(text, "{}\n", describe(history).trim_end());
        let _ = writeln!(text, "This destroys {}{since}.", count(live.len() as u64, "data key"));
    }
    let _ = writeln!(text, "It is about {whereabouts}, and can't be undone.");
    let _ = write!(text, "Type the scope's id ({}) to go on: ", shown(scope.id()));
    if asked(&text, json)? == scope.id() {
        Ok(())
    } else {
        Err(Failure::refused("not_confirmed", "that was another id: nothing was destroyed"))
    }
}

/// Asks the operator, and returns the line that was typed.
fn asked(question: &str, json: bool) -> Result<String, Failure> {
    if json || !std::io::stdin().is_terminal() {
        let problem = "a shred can't be undone, and there is nobody to ask: pass --yes".to_owned();
        return Err(Failure::refused("not_confirmed", problem));
    }
    tell(question)?;
    let mut typed = String::new();
    std::io::stdin()
        .lock()
        .read_line(&mut typed)
        .map_err(|error| Failure::failed("terminal", format!("the terminal failed: {error}")))?;
    Ok(typed.trim_end_matches(['\r', '\n']).to_owned())
}
