//! `prepare`, `rotate-kek`, `retire-kek` and `move-master-key`: the commands about key-encryption keys and
//! the master key that wraps them.

use crate::args::{MoveMasterKey, Prepare, RetireKek, RotateKek};
use crate::connect::{connect, on};
use crate::interrupt;
use crate::master_key::{self, NoMasterKey};
use crate::output::{Failure, Progress, Report, count, exact_time, shown};
use eventseal::keys::{KekId, KekMoves, KekRecord, KekState, KekUsage, KeyStore, KeyTable};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::sync::Arc;

pub(crate) async fn prepare(args: Prepare) -> Result<Report, Failure> {
    let kms = master_key::open(&args.master_key).await?;
    on!(connect(&args.database).await?, db => {
        let namespace = db.namespace().await?;
        let manager = db.manager(kms);
        interrupt::uncertain();
        manager.prepare(&mut db.connection).await?;
        let kek = manager.create_kek(&mut db.connection, &args.partition).await?;
        let partition = shown(&kek.partition);
        let text =
            format!("Keys can be used. Partition {partition} has the active key-encryption key\n  {}", kek.kek_id);
        Ok(Report::new(text, kek_json(&kek)).of(&namespace, &db.place))
    })
}

pub(crate) async fn rotate(args: RotateKek, json: bool) -> Result<Report, Failure> {
    let kms = master_key::open(&args.master_key).await?;
    on!(connect(&args.database).await?, db => {
        let partition = shown(&args.partition);
        let namespace = db.announce(json, &format!("Giving partition {partition} a new key-encryption key")).await?;
        let old = db.keys.active_kek(&mut db.connection, &args.partition).await?;
        let manager = db.manager(kms);
        interrupt::uncertain();
        let kek = manager.rotate_kek(&mut db.connection, &args.partition).await?;
        let text = format!(
            "Partition {} has a new key-encryption key. Active from now on:\n  {}\n\nNext: eventseal rewrap.",
            shown(&kek.partition),
            kek.kek_id
        );
        let mut json = kek_json(&kek);
        json["replaced"] = old.map(|old| old.kek_id.to_string()).into();
        Ok(Report::new(text, json).of(&namespace, &db.place))
    })
}

pub(crate) async fn retire(args: RetireKek, json: bool) -> Result<Report, Failure> {
    let kek_id = KekId(args.kek);
    on!(connect(&args.database).await?, db => {
        let namespace = db.announce(json, &format!("Retiring key-encryption key {kek_id} for good")).await?;
        interrupt::uncertain();
        db.manager(Arc::new(NoMasterKey)).retire_kek(&mut db.connection, kek_id).await?;
        let json = json!({ "kek": kek_id.to_string(), "state": "retired" });
        let report = Report::new(format!("Retired key-encryption key {kek_id}."), json);
        Ok(report.of(&namespace, &db.place))
    })
}

pub(crate) async fn move_master_key(args: MoveMasterKey, json: bool) -> Result<Report, Failure> {
    let kms = master_key::open_target(&args).await?;
    let from = match master_key::open_from(&args).await? {
        Some(from) if from.provider() != kms.provider() => Some(from),
        Some(from) if from.provider() == "keyring" => {
            let problem =
                "both are keyrings: put all entries into one, the new one first, and pass that as --keyring alone";
            return Err(Failure::Usage(problem.into()));
        }
        // AWS KMS moves between its own keys, and the target opens under the other one.
        Some(_) | None => None,
    };
    let target = kms.master_key_id().await?;
    let provider = kms.provider().to_owned();
    on!(connect(&args.database).await?, db => {
        if args.dry_run {
            let namespace = db.namespace().await?;
            let usage = db.keys.kek_usage(&mut db.connection).await?;
            let from = from.as_ref().map(|from| from.provider().to_owned());
            Ok(would_move(&usage, &provider, &target, from.as_deref())?.of(&namespace, &db.place))
        } else {
            let to = format!("{provider} {}", shown(&target));
            let namespace = db.announce(json, &format!("Moving all key-encryption keys to {to}")).await?;
            let all = db.keys.kek_usage(&mut db.connection).await?.len() as u64;
            let manager = db.manager(kms);
            let mut bar = Progress::new(json, args.progress.progress_every, "key-encryption keys");
            let mut show = |moves: &KekMoves| {
                let moved = moves.moved.len() as u64;
                bar.at(moved + moves.already.len() as u64, all);
                let kept = were(moved, "key-encryption key");
                interrupt::kept(format!("{kept} moved, and stay so; run it again for the others"));
            };
            let done = manager.move_master_key(&mut db.connection, from.as_deref(), &mut show).await?;
            bar.finish();
            Ok(moved(&done, &provider, &target).of(&namespace, &db.place))
        }
    })
}

fn would_move(usage: &[KekUsage], provider: &str, target: &str, from: Option<&str>) -> Result<Report, Failure> {
    let is_there = |kek: &KekRecord| kek.provider == provider && kek.wrapped.master_key_id == target;
    let (already, moving): (Vec<&KekRecord>, Vec<&KekRecord>) =
        usage.iter().filter(|usage| is_needed(usage)).map(|usage| &usage.kek).partition(|kek| is_there(kek));
    if let Some(kek) = moving.iter().find(|kek| kek.provider != provider && Some(kek.provider.as_str()) != from) {
        let problem = format!(
            "provider {:?} wrapped key-encryption key {}: name that one with --from-…",
            kek.provider, kek.kek_id
        );
        return Err(Failure::refused("other_provider", problem));
    }
    let mut text = format!(
        "{} would be moved to {provider} {}, {} there already. Nothing was changed.\n",
        count(moving.len() as u64, "key-encryption key"),
        shown(target),
        already.len()
    );
    for kek in &moving {
        let _ = writeln!(text, "  {} from {} {}", kek.kek_id, shown(&kek.provider), shown(&kek.wrapped.master_key_id));
    }
    let ids = |keks: &[&KekRecord]| keks.iter().map(|kek| kek.kek_id.to_string()).collect::<Vec<_>>();
    let json = json!({
        "dry_run": true,
        "provider": provider,
        "master_key": target,
        "would_move": ids(&moving),
        "already": ids(&already),
    });
    Ok(Report::new(text, json))
}

fn moved(done: &KekMoves, provider: &str, target: &str) -> Report {
    let mut text = format!(
        "{} moved to {provider} {}, {} there already.\n",
        count(done.moved.len() as u64, "key-encryption key"),
        shown(target),
        done.already.len()
    );
    for kek_id in &done.moved {
        let _ = writeln!(text, "  {kek_id}");
    }
    for kek_id in &done.dead {
        let _ = writeln!(text, "  {kek_id} stays under its master key: it is retired and wraps nothing");
    }
    text.push_str("The old master key is still needed to open backups from before.");
    let ids = |keks: &[KekId]| keks.iter().map(ToString::to_string).collect::<Vec<_>>();
    let json = json!({
        "provider": provider,
        "master_key": target,
        "moved": ids(&done.moved),
        "already": ids(&done.already),
        "dead": ids(&done.dead),
    });
    Report::new(text, json)
}

/// Can something live need the key? Nothing needs a retired key that wraps nothing.
pub(crate) fn is_needed(usage: &KekUsage) -> bool {
    usage.kek.state != KekState::Retired || usage.live_keys > 0
}

/// A count with its verb: `1 data key was`, `2,000 data keys were`.
pub(crate) fn were(how_many: u64, what: &str) -> String {
    format!("{} {}", count(how_many, what), if how_many == 1 { "was" } else { "were" })
}

fn kek_json(kek: &KekRecord) -> Value {
    json!({
        "kek": kek.kek_id.to_string(),
        "partition": kek.partition,
        "state": kek.state.as_str(),
        "provider": kek.provider,
        "master_key": kek.wrapped.master_key_id,
        "created_at": exact_time(kek.created_at),
        "wrapped_at": exact_time(kek.wrapped_at),
    })
}

/// A key-encryption key and its use, as `status` shows them in JSON.
pub(crate) fn usage_json(usage: &KekUsage) -> Value {
    let mut json = kek_json(&usage.kek);
    json["live_keys"] = usage.live_keys.into();
    json["oldest_wrap"] = usage.oldest_wrap.map(exact_time).into();
    json
}
