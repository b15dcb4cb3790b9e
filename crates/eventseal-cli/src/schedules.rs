//! `schedule-shred`, `cancel-shred` and `schedules`.

use crate::actor;
use crate::args::{CancelShred, Mode, ScheduleShred, Schedules};
use crate::connect::{connect, connect_to_decide, on};
use crate::holds::{PAGE, naming};
use crate::master_key;
use crate::output::{Failure, Report, count, exact_time, shown, table, time};
use eventseal::erasure::Schedule;
use serde_json::{Value, json};
use time::OffsetDateTime;

pub(crate) async fn schedule_shred(args: ScheduleShred, json: bool) -> Result<Report, Failure> {
    let actor = actor::of(&args.cause)?;
    let kms = master_key::open(&args.master_key).await?;
    let scope = args.scope.key_scope();
    let due = args.due.or_else(|| OffsetDateTime::now_utc().checked_add(args.within?));
    let due = due.ok_or_else(|| Failure::Usage("--in leads beyond the times that there are".into()))?;
    on!(connect_to_decide(&args.database, &args.copying).await?, db => {
        let whose = shown(&scope.to_string());
        let namespace = db.announce(json, &format!("Scheduling the shred of {whose}")).await?;
        let manager = db.manager(kms);
        // The integrity key is opened before the transaction takes locks.
        manager.open(&mut db.connection).await?;
        let (reason, mode) = (&args.cause.reason, args.mode.in_library());
        let schedule = db
            .decide(&manager, db.begin(), async |tx| {
                manager.acting_as(&actor).schedule_shred(tx, &scope, due, mode, reason).await
            })
            .await?;
        let held = manager.holds_of(&mut db.connection, &scope).await?.len() as u64;
        let held = match held {
            0 => String::new(),
            holds => format!(
                "\n{whose} is held ({}): the sweep leaves it until nothing holds it any more.",
                count(holds, "hold")
            ),
        };
        let meanwhile = match args.mode {
            Mode::KeepWorking => "Until then, appends and reads go on.",
            Mode::Disable => "From now on, its appends and reads are errors.",
            Mode::Redact => "From now on, readers get stand-ins, and its appends are errors.",
        };
        let text = format!(
            "Scheduled the shred of {whose} for {}. {meanwhile}\neventseal sweep does it from that time on, and \
             eventseal cancel-shred prevents it.{held}",
            time(schedule.due)
        );
        Ok(Report::new(text, schedule_json(&schedule)).of(&namespace, &db.place))
    })
}

pub(crate) async fn cancel_shred(args: CancelShred, json: bool) -> Result<Report, Failure> {
    let actor = actor::of(&args.cause)?;
    let kms = master_key::open(&args.master_key).await?;
    let scope = args.scope.key_scope();
    on!(connect_to_decide(&args.database, &args.copying).await?, db => {
        let whose = shown(&scope.to_string());
        let namespace = db.announce(json, &format!("Cancelling the scheduled shred of {whose}")).await?;
        let manager = db.manager(kms);
        manager.open(&mut db.connection).await?;
        let reason = &args.cause.reason;
        let state = db
            .decide(&manager, db.begin(), async |tx| {
                manager.acting_as(&actor).cancel(tx, &scope, reason).await?;
                Ok(manager.key_history(tx, &scope).await?.map(|history| history.state.as_str()))
            })
            .await?;
        let json = json!({
            "kind": scope.kind(),
            "id": scope.id(),
            "state": state,
            "reason": args.cause.reason,
            "actor": actor,
        });
        let text = format!("Cancelled the scheduled shred of {whose}. It is {} now.", state.unwrap_or_default());
        Ok(Report::new(text, json).of(&namespace, &db.place))
    })
}

pub(crate) async fn schedules(args: Schedules) -> Result<Report, Failure> {
    let kms = master_key::open(&args.master_key).await?;
    on!(connect(&args.database).await?, db => {
        let namespace = db.namespace().await?;
        let manager = db.manager(kms);
        let (mut schedules, mut failed, mut after) = (Vec::new(), Vec::new(), None);
        loop {
            let page = manager.schedules(&mut db.connection, after.as_ref(), PAGE).await?;
            schedules.extend(page.schedules);
            failed.extend(page.failed);
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        let rows = schedules.iter().map(|schedule| {
            let who = schedule.actor.as_deref().map(shown).unwrap_or_default();
            vec![
                time(schedule.due),
                shown(&schedule.scope.to_string()),
                Mode::of(schedule.mode).word().to_owned(),
                who,
                shown(&schedule.reason),
            ]
        });
        let text = match schedules.len() {
            0 => "Nothing is scheduled.".to_owned(),
            _ => table(&["DUE", "SCOPE", "MODE", "WHO", "WHY"], rows),
        };
        let listed: Vec<Value> = schedules.iter().map(schedule_json).collect();
        let report = Report::new(text, json!({ "schedules": listed }));
        Ok(naming(report, &failed).of(&namespace, &db.place))
    })
}

fn schedule_json(schedule: &Schedule) -> Value {
    json!({
        "kind": schedule.scope.kind(),
        "id": schedule.scope.id(),
        "schedule": schedule.id.to_string(),
        "due": exact_time(schedule.due),
        "mode": Mode::of(schedule.mode).word(),
        "since": exact_time(schedule.since),
        "reason": schedule.reason,
        "actor": schedule.actor,
    })
}
