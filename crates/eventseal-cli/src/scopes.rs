//! `keys show`, `shred`, `reopen`, `disable`, `enable` and `rotate-data-key`: the commands about one key scope.

mod doubts;

use crate::actor;
use crate::args::{Change, Reopen, RotateDataKey, Show, Shred};
use crate::connect::{Backend, Db, connect, on};
use crate::master_key::{self, NoMasterKey};
use crate::output::{Failure, Report, count, exact_time, shown, table, tell, time};
use doubts::Doubts;
use eventseal::KeyScope;
use eventseal::keys::{KeyHistory, KeyId, KeyInfo, KeyStore, ScopeAction, Shredding};
use eventseal::kms::Kms;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::io::{BufRead, IsTerminal};
use std::sync::Arc;

pub(crate) async fn show(args: Show, json: bool) -> Result<Report, Failure> {
    let scope = args.scope.key_scope();
    let doubts = Doubts::of_kind(&scope, args.schemas.as_deref())?;
    on!(connect(&args.database).await?, db => {
        let namespace = db.namespace().await?;
        let history = db.keys.history(&mut db.connection, &scope).await?;
        let doubts = doubts.and_of_id(&mut db).await?;
        let history = history.ok_or_else(|| unknown(&scope, &doubts.hint()))?;
        doubts.tell(json)?;
        Ok(Report::new(describe(&history), doubts.within(as_json(&history))).of(&namespace, &db.place))
    })
}

pub(crate) async fn shred(args: Shred, json: bool) -> Result<Report, Failure> {
    let actor = actor::of(&args.cause)?;
    let scope = args.scope.key_scope();
    let doubts = Doubts::of_kind(&scope, args.schemas.as_deref())?;
    on!(connect(&args.database).await?, db => {
        let namespace = db.namespace().await?;
        let before = db.keys.history(&mut db.connection, &scope).await?;
        let doubts = doubts.and_of_id(&mut db).await?;
        if before.is_none() && !args.allow_unknown {
            let hint = doubts.hint() + "; --allow-unknown shreds it all the same, so that nothing ever will be";
            return Err(unknown(&scope, &hint));
        }
        doubts.tell(json)?;
        if args.yes {
            db.announce(json, &format!("Shredding {} for good", shown(&scope.to_string()))).await?;
        } else {
            confirm(&scope, before.as_ref(), &db.whereabouts(&namespace), json)?;
        }
        let manager = db.manager(Arc::new(NoMasterKey));
        let reason = &args.cause.reason;
        let done = db.transact(db.begin(), async |tx| manager.acting_as(&actor).shred(tx, &scope, reason).await).await?;
        let destroyed: Vec<String> = done.destroyed.iter().map(KeyId::to_string).collect();
        let json = json!({
            "kind": scope.kind(),
            "id": scope.id(),
            "destroyed": destroyed,
            "destroyed_before": done.already.len(),
            "at": exact_time(done.at),
            "reason": args.cause.reason,
            "actor": actor,
            "was_shredded": done.was_shredded,
        });
        Ok(Report::new(shredded(&done), doubts.within(json)).of(&namespace, &db.place))
    })
}

fn shredded(done: &Shredding) -> String {
    let (was_shredded, already) = (done.was_shredded, done.already.len() as u64);
    let scope = shown(&done.scope.to_string());
    let before =
        if already == 1 { "1 data key was".to_owned() } else { format!("{} were", count(already, "data key")) };
    let mut text = match (done.destroyed.len() as u64, was_shredded) {
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
    };
    text.push_str("Backups and replicas of the key table hold the keys until they expire or catch up.");
    text
}

pub(crate) async fn reopen(args: Reopen, json: bool) -> Result<Report, Failure> {
    let actor = actor::of(&args.cause)?;
    let kms = master_key::open(&args.master_key).await?;
    let scope = args.scope.key_scope();
    on!(connect(&args.database).await?, db => {
        let partition = partition(&mut db, &scope, args.partition).await?;
        let namespace = db.announce(json, &format!("Reopening {}", shown(&scope.to_string()))).await?;
        let manager = db.manager_of(partition, kms);
        // The transaction must not take the write lock from the start, because the KMS may be asked in it.
        let reason = &args.cause.reason;
        let key = db.transact("BEGIN", async |tx| manager.acting_as(&actor).reopen(tx, &scope, reason).await).await?;
        Ok(new_key(&scope, &key, "Reopened").of(&namespace, &db.place))
    })
}

pub(crate) async fn rotate_data_key(args: RotateDataKey, json: bool) -> Result<Report, Failure> {
    let kms: Arc<dyn Kms> = master_key::open(&args.master_key).await?;
    let scope = args.scope.key_scope();
    on!(connect(&args.database).await?, db => {
        let partition = partition(&mut db, &scope, args.partition).await?;
        let namespace = db.announce(json, &format!("Giving {} a new data key", shown(&scope.to_string()))).await?;
        let manager = db.manager_of(partition, kms);
        let key = db.transact("BEGIN", async |tx| manager.rotate_data_key(tx, &scope).await).await?;
        Ok(new_key(&scope, &key, "Rotated").of(&namespace, &db.place))
    })
}

pub(crate) async fn disable(args: Change, json: bool) -> Result<Report, Failure> {
    switch(&args, ScopeAction::Disable, json).await
}

pub(crate) async fn enable(args: Change, json: bool) -> Result<Report, Failure> {
    switch(&args, ScopeAction::Enable, json).await
}

async fn switch(args: &Change, action: ScopeAction, json: bool) -> Result<Report, Failure> {
    let scope = args.scope.key_scope();
    let actor = actor::of(&args.cause)?;
    on!(connect(&args.database).await?, db => {
        let manager = db.manager(Arc::new(NoMasterKey));
        let disable = action == ScopeAction::Disable;
        let doing = if disable { "Disabling" } else { "Enabling" };
        let namespace = db.announce(json, &format!("{doing} {}", shown(&scope.to_string()))).await?;
        db.transact(db.begin(), async |tx| {
            let keys = manager.acting_as(&actor);
            let reason = &args.cause.reason;
            if disable { keys.disable(tx, &scope, reason).await } else { keys.enable(tx, &scope, reason).await }
        })
        .await?;
        let (done, state) = if disable {
            ("Disabled", "Its reads and appends are errors until it is enabled again; nothing is redacted.")
        } else {
            ("Enabled", "Its keys can be used again.")
        };
        let json = json!({
            "kind": scope.kind(),
            "id": scope.id(),
            "state": if disable { "disabled" } else { "live" },
            "reason": args.cause.reason,
            "actor": actor,
        });
        Ok(Report::new(format!("{done} {}. {state}", shown(&scope.to_string())), json).of(&namespace, &db.place))
    })
}

/// The partition for a scope's new key. Only the application knows how it chooses partitions, so this takes the
/// partition of the scope's newest key.
async fn partition<C: Backend>(db: &mut Db<C>, scope: &KeyScope, chosen: Option<String>) -> Result<String, Failure> {
    db.namespace().await?;
    if let Some(partition) = chosen {
        return Ok(partition);
    }
    let history = db.keys.history(&mut db.connection, scope).await?.ok_or_else(|| unknown(scope, ""))?;
    let newest: Vec<_> = history.keys.last().map(|key| key.kek_id).into_iter().collect();
    let kek = db.keys.keks(&mut db.connection, &newest).await?.pop();
    Ok(kek.map_or_else(|| "default".to_owned(), |kek| kek.partition))
}

fn unknown(scope: &KeyScope, hint: &str) -> Failure {
    let problem = format!(
        "nothing was ever sealed for {}: look whether kind and id are spelled right{hint}",
        shown(&scope.to_string())
    );
    Failure::refused("unknown_scope", problem)
}

/// Shows what will be destroyed, and asks the operator to type the scope's id.
fn confirm(scope: &KeyScope, history: Option<&KeyHistory>, whereabouts: &str, json: bool) -> Result<(), Failure> {
    if json || !std::io::stdin().is_terminal() {
        let problem = "a shred can't be undone, and there is nobody to ask: pass --yes".to_owned();
        return Err(Failure::refused("not_confirmed", problem));
    }
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
    tell(&text)?;
    let mut typed = String::new();
    std::io::stdin()
        .lock()
        .read_line(&mut typed)
        .map_err(|error| Failure::failed("terminal", format!("the terminal failed: {error}")))?;
    if typed.trim_end_matches(['\r', '\n']) == scope.id() {
        Ok(())
    } else {
        Err(Failure::refused("not_confirmed", "that was another id: nothing was destroyed"))
    }
}

fn new_key(scope: &KeyScope, key: &KeyInfo, done: &str) -> Report {
    let text =
        format!("{done} {}: its data key is now version {}.\n  {}", shown(&scope.to_string()), key.version, key.key_id);
    Report::new(text, json!({ "kind": scope.kind(), "id": scope.id(), "key": key_json(key, Some(key.key_id)) }))
}

fn describe(history: &KeyHistory) -> String {
    let mut text = format!(
        "{}: {}, generation {}\n\n",
        shown(&history.scope.to_string()),
        history.state.as_str(),
        history.generation
    );
    let rows = history.keys.iter().rev().map(|key| {
        let state = match key.shredded_at {
            Some(at) => format!("destroyed {}\nmade {}", time(at), time(key.created_at)),
            None if history.active_key == Some(key.key_id) => format!("active, made {}", time(key.created_at)),
            None => format!("opens, made {}", time(key.created_at)),
        };
        vec![key.version.to_string(), key.key_id.to_string(), state]
    });
    text.push_str(&if history.keys.is_empty() {
        "It never had a key.".to_owned()
    } else {
        table(&[">KEY", "ID", "STATE"], rows)
    });
    if !history.changes.is_empty() {
        let rows = history.changes.iter().map(|change| {
            let (action, who) =
                (change.action.as_str().to_owned(), change.actor.as_deref().map(shown).unwrap_or_default());
            vec![time(change.at), action, change.generation.to_string(), who, shown(&change.reason)]
        });
        text.push_str("\n\n");
        text.push_str(&table(&["WHEN", "WHAT", ">GENERATION", "WHO", "WHY"], rows));
    }
    text
}

fn as_json(history: &KeyHistory) -> Value {
    let keys: Vec<Value> = history.keys.iter().map(|key| key_json(key, history.active_key)).collect();
    let changes: Vec<Value> = history
        .changes
        .iter()
        .map(|change| {
            json!({
                "action": change.action.as_str(),
                "state": change.state.as_str(),
                "generation": change.generation,
                "reason": change.reason,
                "actor": change.actor,
                "at": exact_time(change.at),
            })
        })
        .collect();
    json!({
        "kind": history.scope.kind(),
        "id": history.scope.id(),
        "state": history.state.as_str(),
        "generation": history.generation,
        "keys": keys,
        "changes": changes,
    })
}

fn key_json(key: &KeyInfo, active: Option<KeyId>) -> Value {
    json!({
        "key": key.key_id.to_string(),
        "version": key.version,
        "kek": key.kek_id.to_string(),
        "active": active == Some(key.key_id),
        "created_at": exact_time(key.created_at),
        "shredded_at": key.shredded_at.map(exact_time),
    })
}
