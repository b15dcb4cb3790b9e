//! `rewrap`: wraps data keys anew, under the active key-encryption keys.

use crate::args::Rewrap;
use crate::connect::{Backend, Db, connect, on};
use crate::interrupt;
use crate::keks::were;
use crate::master_key::{self, NoMasterKey};
use crate::output::{Exit, Failure, Progress, Report, count, rate};
use eventseal::Error;
use eventseal::keys::{KeyManager, RewrapOptions, RewrapProgress, Rewrapped};
use serde_json::json;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub(crate) async fn rewrap(args: Rewrap, json: bool) -> Result<Report, Failure> {
    let mut options = RewrapOptions::default();
    options.batch = args.batch;
    options.partition = args.partition;
    options.dry_run = args.dry_run;
    if args.dry_run {
        return on!(connect(&args.database).await?, db => {
            let namespace = db.namespace().await?;
            let manager = db.manager(Arc::new(NoMasterKey));
            let found = manager.rewrap(&mut db.connection, &options, &mut |_| {}).await?;
            let text = format!("{} would be wrapped anew. Nothing was changed.", count(found.rewrapped, "data key"));
            Ok(Report::new(text, json!({ "dry_run": true, "would_rewrap": found.rewrapped })).of(&namespace, &db.place))
        });
    }
    let kms = master_key::open(&args.master_key).await?;
    on!(connect(&args.database).await?, db => {
        let namespace = db.namespace().await?;
        let manager = db.manager(kms);
        let start = Instant::now();
        let mut bar = Progress::new(json, args.progress.progress_every, "data keys");
        let done = rewrap_all(&mut db, &manager, &options, &mut bar).await?;
        Ok(rewrapped(&done, start.elapsed()).of(&namespace, &db.place))
    })
}

/// How long a rewrap waits for others without any progress before it gives up.
const PATIENCE: Duration = Duration::from_secs(30);

/// Runs until only data keys are left that do not open. If another runner holds keys, it either wraps them or releases
/// them, so this tries again.
async fn rewrap_all<C: Backend>(
    db: &mut Db<C>,
    manager: &KeyManager<C>,
    options: &RewrapOptions,
    bar: &mut Progress,
) -> Result<Rewrapped, Failure> {
    let mut all = Rewrapped::default();
    let mut last_change = Instant::now();
    loop {
        let before = all.rewrapped;
        let (mut progressed, mut began) = (before, Instant::now());
        let mut show = |progress: RewrapProgress| {
            if before + progress.rewrapped > progressed {
                progressed = before + progress.rewrapped;
                last_change = Instant::now();
            }
            bar.at(progressed + progress.bad, before + progress.total);
            if progressed > 0 {
                interrupt::kept(format!(
                    "{} wrapped anew, and stay so; run it again for the others",
                    were(progressed, "data key")
                ));
            }
            if C::ONE_WRITER {
                // A SQLite connection that waits for the write lock only looks now and then whether it is free. Give it
                // a chance.
                #[allow(
                    clippy::disallowed_methods,
                    reason = "nothing tells that another connection waits, and nothing else runs on this thread"
                )]
                std::thread::sleep(began.elapsed() / 2);
            }
            began = Instant::now();
        };
        match manager.rewrap(&mut db.connection, options, &mut show).await {
            Ok(round) => {
                all.rewrapped += round.rewrapped;
                (all.bad, all.remaining) = (round.bad, round.remaining);
                if all.remaining <= all.bad.len() as u64 {
                    break;
                }
            }
            // The batches before the collision were committed, so they count.
            Err(Error::Collision { source }) => {
                all.rewrapped = progressed;
                if last_change.elapsed() > PATIENCE {
                    return Err(Error::Collision { source }.into());
                }
            }
            Err(error) => return Err(error.into()),
        }
        if last_change.elapsed() > PATIENCE {
            break;
        }
        #[allow(clippy::disallowed_methods, reason = "nothing tells when another process releases its keys")]
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    bar.finish();
    Ok(all)
}

fn rewrapped(done: &Rewrapped, took: Duration) -> Report {
    let bad: Vec<String> = done.bad.iter().map(ToString::to_string).collect();
    let seconds = took.as_secs_f64();
    let mut text = count(done.rewrapped, "data key") + " wrapped anew";
    let _ = match done.rewrapped {
        0 => writeln!(text, "."),
        many => writeln!(text, " in {seconds:.1} s ({}).", rate(many, took)),
    };
    let held = done.remaining.saturating_sub(bad.len() as u64);
    let mut exit = Exit::Done;
    if held > 0 {
        let _ =
            writeln!(text, "{} left: others hold them, or made them meanwhile. Run it again.", count(held, "data key"));
        exit = Exit::Retryable;
    }
    if !bad.is_empty() {
        let _ = writeln!(
            text,
            "\n{} left as they are, because they do not open: restore their rows from a backup.",
            count(bad.len() as u64, "data key")
        );
        for key_id in &bad {
            let _ = writeln!(text, "  {key_id}");
        }
        exit = Exit::Failed;
    }
    if done.remaining == 0 {
        text.push_str("\nNext: eventseal status shows which key-encryption keys can be retired.");
    }
    let json = json!({ "rewrapped": done.rewrapped, "remaining": done.remaining, "bad": bad, "seconds": seconds });
    Report::new(text, json).ending(exit)
}
