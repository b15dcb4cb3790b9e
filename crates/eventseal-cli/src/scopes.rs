//! `keys show`, `reopen`, `disable`, `enable` and `rotate-data-key`: the commands about one key scope.

use crate::actor;
use crate::args::{Change, Mode, Reopen, RotateDataKey, Show};
use crate::connect::{Backend, Db, connect, connect_to_decide, on};
use crate::doubts::Doubts;
use crate::master_key;
use crate::output::{Failure, Report, exact_time, shown, table, time};
use eventseal::KeyScope;
use eventseal::keys::{KeyHistory, KeyId, KeyInfo, KeyStore, ScopeAction, ScopeState};
use eventseal::kms::Kms;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::sync::Arc;
use time::OffsetDateTime;

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

pub(crate) async fn reopen(args: Reopen, json: bool) -> Result<Report, Failure> {
    let actor = actor::of(&args.cause)?;
    let kms = master_key::open(&args.master_key).await?;
    let scope = args.scope.key_scope();
    on!(connect_to_decide(&args.database, &args.copying).await?, db => {
        let partition = partition(&mut db, &scope, args.partition).await?;
        let namespace = db.announce(json, &format!("Reopening {}", shown(&scope.to_string()))).await?;
        let manager = db.manager_of(partition, kms);
        // The transaction must not take the write lock from the start, because the KMS may be asked in it.
        let reason = &args.cause.reason;
        let keys = manager.acting_as(&actor);
        let key = db.decide(&manager, "BEGIN", async |tx| keys.reopen(tx, &scope, reason).await).await?;
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
    let kms = master_key::open(&args.master_key).await?;
    on!(connect_to_decide(&args.database, &args.copying).await?, db => {
        let manager = db.manager(kms);
        let disable = action == ScopeAction::Disable;
        let doing = if disable { "Disabling" } else { "Enabling" };
        let namespace = db.announce(json, &format!("{doing} {}", shown(&scope.to_string()))).await?;
        // The integrity key is opened before the transaction takes locks.
        manager.open(&mut db.connection).await?;
        db.decide(&manager, db.begin(), async |tx| {
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

pub(crate) fn unknown(scope: &KeyScope, hint: &str) -> Failure {
    let problem = format!(
        "nothing was ever sealed for {}: look whether kind and id are spelled right{hint}",
        shown(&scope.to_string())
    );
    Failure::refused("unknown_scope", problem)
}

fn new_key(scope: &KeyScope, key: &KeyInfo, done: &str) -> Report {
    let text =
        format!("{done} {}: its data key is now version {}.\n  {}", shown(&scope.to_string()), key.version, key.key_id);
    Report::new(text, json!({ "kind": scope.kind(), "id": scope.id(), "key": key_json(key, Some(key.key_id)) }))
}

pub(crate) fn describe(history: &KeyHistory) -> String {
    let mut text = format!(
        "{}: {}, generation {}\n\n",
        shown(&history.scope.to_string()),
        history.state.as_str(),
        history.generation
    );
    text.insert_str(text.len() - 1, &before_the_shred(history));
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
    if !history.entries.is_empty() {
        let rows = history.entries.iter().map(|change| {
            let (action, who) =
                (change.action.as_str().to_owned(), change.actor.as_deref().map(shown).unwrap_or_default());
            vec![time(change.at), action, change.generation.to_string(), who, shown(&change.reason)]
        });
        text.push_str("\n\n");
        text.push_str(&table(&["WHEN", "WHAT", ">GENERATION", "WHO", "WHY"], rows));
    }
    text
}

/// The holds and the schedule, a line for each. They are as the rows say: nothing is authenticated here.
fn before_the_shred(history: &KeyHistory) -> String {
    let (mut holds, mut schedule, mut state) = (Vec::new(), None, ScopeState::Live);
    for entry in &history.entries {
        match entry.action {
            ScopeAction::Hold => holds.push(entry),
            ScopeAction::Release => holds.retain(|hold| Some(hold.entry_id) != entry.about),
            ScopeAction::Schedule => {
                schedule = Some(match (entry.state != state, entry.state) {
                    (_, ScopeState::Withheld) => Mode::Redact,
                    (true, ScopeState::Disabled) => Mode::Disable,
                    _ => Mode::KeepWorking,
                });
            }
            ScopeAction::Cancel | ScopeAction::Shred | ScopeAction::Reopen => schedule = None,
            _ => {}
        }
        state = entry.state;
    }
    let now = OffsetDateTime::now_utc();
    holds.retain(|hold| hold.until.is_none_or(|until| now < until));
    let mut text = String::new();
    for hold in holds {
        let until = hold.until.map_or_else(|| "it is released".to_owned(), time);
        let _ = writeln!(text, "Held until {until}: hold {}", hold.entry_id);
    }
    if let (Some(due), Some(mode)) = (history.due, schedule) {
        let _ = writeln!(text, "Its shred is due at {}, mode {}", time(due), mode.word());
    }
    text
}

fn as_json(history: &KeyHistory) -> Value {
    let keys: Vec<Value> = history.keys.iter().map(|key| key_json(key, history.active_key)).collect();
    let changes: Vec<Value> = history
        .entries
        .iter()
        .map(|change| {
            json!({
                "entry": change.entry_id.to_string(),
                "action": change.action.as_str(),
                "state": change.state.as_str(),
                "generation": change.generation,
                "reason": change.reason,
                "actor": change.actor,
                "at": exact_time(change.at),
                "until": change.until.map(exact_time),
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
