//! `shred --from` and `shred --partition`: many scopes, each in a transaction of its own.

use super::asked;
use crate::args::{Shred, Shredded};
use crate::connect::{Backend, Db};
use crate::interrupt;
use crate::keks::were;
use crate::output::{Exit, Failure, Progress, Report, causes, count, in_commands, number, shown, tell};
use crate::shred::list;
use eventseal::keys::{
    KeyManager, KeyStore, ScopeLock, ScopeQuery, ScopeState, ShredProgress, ShreddedMany, SkippedScope,
};
use eventseal::kms::Kms;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

/// How many skipped scopes are named to people. The JSON has all of them.
const NAMED: usize = 20;

pub(super) async fn shred<C: Backend>(
    db: &mut Db<C>,
    args: &Shred,
    actor: &str,
    kms: Arc<dyn Kms>,
    json: bool,
) -> Result<Report, Failure> {
    let namespace = db.namespace().await?;
    let manager = db.manager(kms);
    let (cause, what) = (args.cause(), args.what());
    let requests = match what {
        Shredded::List(file) => list::read(file, &cause.reason)?,
        _ => Vec::new(),
    };
    let (total, shreds) = match what {
        Shredded::Partition(partition) => {
            let scopes = left_in(db, &manager, partition).await?;
            let shreds = format!("{} of partition {}", count(scopes, "scope"), shown(partition));
            (scopes, shreds)
        }
        _ => {
            if !args.allow_unknown {
                check_known(db, &requests).await?;
            }
            (requests.len() as u64, count(requests.len() as u64, "scope"))
        }
    };
    if args.yes {
        db.announce(json, &format!("Shredding {shreds} for good")).await?;
    } else {
        confirm(&shreds, total, &db.whereabouts(&namespace), json)?;
    }
    let start = Instant::now();
    let mut bar = Progress::new(json, args.progress.progress_every, "scopes");
    let mut show = |progress: ShredProgress| {
        bar.at(progress.scopes, total.max(progress.scopes));
        if progress.shredded > 0 {
            let done = were(progress.shredded, "scope");
            interrupt::kept(format!("{done} shredded, and stay so; run it again for the others"));
        }
    };
    let keys = manager.acting_as(actor);
    let done = match what {
        Shredded::Partition(partition) => {
            keys.shred_partition(&mut db.connection, partition, &cause.reason, &mut show).await?
        }
        _ => keys.shred_many(&mut db.connection, &requests, &mut show).await?,
    };
    bar.finish();
    let seconds = start.elapsed().as_secs_f64();
    Ok(report(&done, actor, &db.afterwards(true), seconds).of(&namespace, &db.place))
}

/// How many scopes of a partition are not shredded.
async fn left_in<C: Backend>(db: &mut Db<C>, manager: &KeyManager<C>, partition: &str) -> Result<u64, Failure> {
    let mut query = ScopeQuery::default();
    (query.partition, query.limit) = (Some(partition.to_owned()), 10_000);
    let mut found = 0;
    loop {
        let page = manager.scopes(&mut db.connection, &query).await?;
        found += page.scopes.iter().filter(|info| info.state != ScopeState::Shredded).count() as u64;
        query.after = page.next;
        if query.after.is_none() {
            return Ok(found);
        }
    }
}

/// Refuses scopes for which nothing was ever sealed. A misspelled id must not look like an erasure.
async fn check_known<C: Backend>(db: &mut Db<C>, requests: &[eventseal::keys::ShredRequest]) -> Result<(), Failure> {
    let mut unknown = Vec::new();
    for some in requests.chunks(1_000) {
        let scopes: Vec<_> = some.iter().map(|request| request.scope.clone()).collect();
        let known = db.keys.scopes(&mut db.connection, &scopes, ScopeLock::None).await?;
        let known: std::collections::HashSet<_> = known.into_iter().map(|record| record.scope).collect();
        unknown.extend(scopes.into_iter().filter(|scope| !known.contains(scope)));
    }
    let Some(first) = unknown.first() else { return Ok(()) };
    let problem = format!(
        "nothing was ever sealed for {} of these, such as {}, and nothing was shredded: look whether kinds and ids are \
         spelled right; --allow-unknown shreds them all the same, so that nothing ever will be",
        number(unknown.len() as u64),
        shown(&first.to_string())
    );
    Err(Failure::refused("unknown_scope", problem))
}

/// Asks the operator to type the number of scopes.
fn confirm(shreds: &str, total: u64, whereabouts: &str, json: bool) -> Result<(), Failure> {
    let text = format!(
        "This destroys the data keys of {shreds}.\nIt is about {whereabouts}, and can't be undone.\nType the number of \
         scopes ({total}) to go on: "
    );
    if asked(&text, json)? == total.to_string() {
        return Ok(());
    }
    Err(Failure::refused("not_confirmed", "that was another number: nothing was destroyed"))
}

fn report(done: &ShreddedMany, actor: &str, afterwards: &str, seconds: f64) -> Report {
    let mut text = format!(
        "Shredded {}: {} destroyed in {seconds:.1} s.\n",
        count(done.shredded, "scope"),
        count(done.destroyed, "data key")
    );
    if done.already > 0 {
        let _ = writeln!(text, "{} shredded before.", were(done.already, "scope"));
    }
    if !done.skipped.is_empty() {
        let _ = writeln!(text, "\n{} NOT shredded:", were(done.skipped.len() as u64, "scope"));
        for skipped in done.skipped.iter().take(NAMED) {
            let _ = writeln!(text, "  {}: {}", shown(&skipped.scope.to_string()), shown(&why(skipped)));
        }
        let others = done.skipped.len().saturating_sub(NAMED) as u64;
        if others > 0 {
            let _ = writeln!(text, "  and {} more: --json names them all", number(others));
        }
        text.push('\n');
    }
    if !done.is_complete {
        text.push_str("New scopes were made all the time: stop the appends of the partition, and run it again.\n");
    }
    text.push_str(afterwards);
    let json = json!({
        "shredded": done.shredded,
        "destroyed": done.destroyed,
        "already": done.already,
        "skipped": done.skipped.iter().map(as_json).collect::<Vec<_>>(),
        "complete": done.is_complete,
        "actor": actor,
        "seconds": seconds,
    });
    let exit = match &done.skipped[..] {
        [] if done.is_complete => Exit::Done,
        skipped if skipped.iter().all(|skipped| skipped.error.is_retryable()) => Exit::Retryable,
        _ => Exit::Problems,
    };
    Report::new(text, json).ending(exit)
}

fn why(skipped: &SkippedScope) -> String {
    let causes = causes(&skipped.error).into_iter().map(|cause| format!("; because: {cause}"));
    in_commands(&skipped.error.to_string()) + &causes.collect::<String>()
}

fn as_json(skipped: &SkippedScope) -> Value {
    json!({
        "kind": skipped.scope.kind(),
        "id": skipped.scope.id(),
        "error": skipped.error.kind().as_str(),
        "message": why(skipped),
    })
}

/// Says what a file is read for, before it is read from a terminal.
pub(super) fn tell_of_terminal(file: &Path) -> Result<(), Failure> {
    use std::io::IsTerminal;
    if file == Path::new("-") && std::io::stdin().is_terminal() {
        return tell("Type JSON lines with kind, id and reason, and end them with Ctrl-D.\n");
    }
    Ok(())
}
