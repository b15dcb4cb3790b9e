//! `doctor`: checks everything that keys need, and says what to do about each problem.
//!
//! This file has the list of checks. Each check is a function in a file of `doctor/`. It gets the database and the
//! [`Checks`], looks at one thing, and notes what it found. To add a check, write such a function and add a line here.

mod checks;
mod database;
mod durability;
mod events;
mod keys;
mod master_key;
mod migrations;
mod place;
mod pooler;
mod restored;
mod seal_index;
mod shred_log;
mod write_order;
mod writing;

use crate::args::Doctor;
use crate::connect::{AnyDb, Backend, Db, connect_to, postgres_store, sqlite_store, target};
use crate::output::{Failure, Report};
use checks::Checks;
use eventseal::kms::Kms;
use std::sync::Arc;

pub(crate) async fn doctor(args: Doctor) -> Result<Report, Failure> {
    let mut checks = Checks::default();
    let kms = master_key::open(&args.master_key, &mut checks).await;
    let db = match connect_to(target(&args.database)?, &args.database).await {
        Err(Failure::Library(error)) => {
            checks.failed("database", &error, "look whether the URL is right, the server runs, and lets this user in");
            return Ok(checks.report());
        }
        Err(Failure::Failed { problem, .. }) => {
            checks.problem("database", problem, "correct the URL, or eventseal migrate --namespace NAME");
            return Ok(checks.report());
        }
        db => db?,
    };
    match db {
        AnyDb::Sqlite(mut db) => {
            database::sqlite(&mut db, &mut checks).await;
            durability::sqlite(&mut db, &mut checks).await;
            if let Some(file) = db.file.clone() {
                place::file_mode(&file, &mut checks);
            }
            let writable = tables(&mut db, kms, true, &mut checks).await;
            if writable {
                database::file(&mut db, &mut checks).await;
            }
            let store = sqlite_store(&args.names());
            events::events(&mut db, store, &args, writable, &mut checks).await;
        }
        AnyDb::Postgres(mut db) => {
            pooler::statements(&args.database, &mut checks).await;
            database::postgres(&mut db, &mut checks).await;
            durability::postgres(&mut db, &mut checks).await;
            place::search_path(&mut db, &args.database, &mut checks).await;
            let primary = database::is_primary(&mut db, &mut checks).await;
            tables(&mut db, kms, primary, &mut checks).await;
            write_order::postgres(&mut db, &args, &mut checks).await;
            let store = postgres_store(&args.database, &args.names());
            events::events(&mut db, store, &args, primary, &mut checks).await;
        }
    }
    Ok(checks.report())
}

/// The checks of the key tables, which are the same on every database. Returns whether the tables can be written to;
/// this is not tried on a standby.
async fn tables<C: Backend>(db: &mut Db<C>, kms: Option<Arc<dyn Kms>>, primary: bool, checks: &mut Checks) -> bool {
    migrations::applied(db, checks).await;
    let Some(namespace) = keys::namespace(db, checks).await else { return false };
    if let Some(usage) = keys::reading(db, checks).await {
        keys::in_place(db, &usage, checks).await;
        restored::restored(db, checks).await;
        shred_log::agrees(db, checks).await;
        if let Some(kms) = kms {
            master_key::round_trips(db, kms, &namespace, usage, checks).await;
        }
    }
    primary && writing::writing(db, checks).await
}
