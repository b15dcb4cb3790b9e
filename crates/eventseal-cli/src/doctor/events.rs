//! Checks that the tables of events, if they are in this database, can be read and appended to.

use super::checks::Checks;
use crate::args;
use crate::connect::{Backend, Db};
use crate::output::{Failure, causes};
use eventseal::error::SetUpFault;
use eventseal::store::EventTable;
use eventseal::{Error, EventFilter, EventStore, ExpectedVersion, GlobalPosition, NewEvent, aggregate};

/// Checks the tables through the store that applications use. `writable` says whether the database can be written to.
pub(super) async fn events<C: Backend, S: EventStore<Tx = C> + EventTable<Tx = C>>(
    db: &mut Db<C>,
    store: Result<S, Failure>,
    args: &args::Doctor,
    writable: bool,
    checks: &mut Checks,
) {
    let store = match store {
        Ok(store) => store,
        Err(failure) => {
            return checks.problem("events", failure.message(), "correct --events-table, --heads-table or --streams");
        }
    };
    if let Err(error) = store.read_events(&mut db.connection, GlobalPosition::START, 1, &EventFilter::default()).await {
        return unreadable(&error, args.names_events(), checks);
    }
    read_and_append(db, &store, writable, checks).await;
    super::seal_index::state(db, &store, checks).await;
}

/// Of tables that can be read.
async fn read_and_append<C: Backend, S: EventStore<Tx = C>>(
    db: &mut Db<C>,
    store: &S,
    writable: bool,
    checks: &mut Checks,
) {
    let last = match store.latest_global_position(&mut db.connection).await {
        Ok(last) => last,
        Err(error) => return checks.failed("events", &error, "let this user read the table of events"),
    };
    let read = format!("can be read, up to position {last}");
    if !writable {
        return checks.good("events", read);
    }
    match append(db, store).await {
        Ok(()) => checks.good("events", format!("{read}, and appended to (tried, and rolled back)")),
        Err(Error::Collision { .. }) => {
            checks.good("events", format!("{read}; whether they can be appended to is not known: others held a lock"));
        }
        Err(Error::SetUp(SetUpFault::PermissionDenied { .. })) => {
            checks.good("events", format!("{read}; this user may not append"));
        }
        Err(error) => {
            let remedy = "compare the tables with eventseal migrate --namespace NAME --events --print";
            checks.failed("events", &error, remedy);
        }
    }
}

/// Says why events can't be read. `named`: did anybody say that there are events?
fn unreadable(error: &Error, named: bool, checks: &mut Checks) {
    match error {
        // Keys may well be in a database of their own.
        error if is_missing(error) && !named => {
            checks.good("events", "there is no table of that name here; --events-table and --streams name another one");
        }
        // An operator of keys needs no events.
        Error::SetUp(SetUpFault::PermissionDenied { .. }) if !named => {
            checks.good("events", "this user may not read them");
        }
        // Many things are called events.
        error if is_of_another_shape(error) && !named => checks.good(
            "events",
            "the table of that name has other columns; --streams and --events-table name the right one",
        ),
        error if is_missing(error) => checks.failed(
            "events",
            error,
            "correct --events-table and --streams, or make it with eventseal migrate --namespace NAME --events",
        ),
        error => checks.failed(
            "events",
            error,
            "let this user read it; if a column is missing, see whether --streams is right",
        ),
    }
}

/// Tries an append to a stream of its own, and rolls it back.
async fn append<C: Backend, S: EventStore<Tx = C>>(db: &mut Db<C>, store: &S) -> Result<(), Error> {
    let failed = |source: sqlx::Error| Error::database("beginning a transaction", source);
    let stream = aggregate("$eventseal", "doctor");
    let event = NewEvent::raw("$eventseal.doctor", 1, "{}");
    let mut tx = db.connection.begin_with(C::BEGIN).await.map_err(failed)?;
    let done = store.append(&mut tx, &stream, ExpectedVersion::NoStream, std::slice::from_ref(&event)).await;
    tx.rollback().await.map_err(failed)?;
    done.map(drop)
}

/// Does the table lack a column?
fn is_of_another_shape(error: &Error) -> bool {
    matches!(error, Error::SetUp(SetUpFault::OutdatedTables { .. }))
        || code(error) == Some("42703")
        || in_words(error, "no such column")
}

/// Does an error of SQLite contain these words? SQLite has no code of its own for these errors.
fn in_words(error: &Error, words: &str) -> bool {
    code(error) == Some("1") && causes(error).iter().any(|cause| cause.contains(words))
}

fn is_missing(error: &Error) -> bool {
    // No such table or schema.
    matches!(error, Error::SetUp(SetUpFault::NoEventTables { .. }))
        || matches!(code(error), Some("42P01" | "3F000"))
        || in_words(error, "no such table")
}

fn code(error: &Error) -> Option<&str> {
    let Error::Database { source, .. } = error else { return None };
    source.code()
}
