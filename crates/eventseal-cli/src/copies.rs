//! Copies of the shred log, as arguments name them: a file, or the URL of a database, after which a `#` may name the
//! table.

use crate::args::{self, has_password};
use crate::connect::make_file;
use crate::output::Failure;
use eventseal::erasure::{FileCopy, ShredLogCopy};
use eventseal::postgres::PostgresCopy;
use eventseal::sqlite::SqliteCopy;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

/// Opens copies that must be there.
pub(crate) fn all(named: &[PathBuf], args: &args::Database) -> Result<Vec<Arc<dyn ShredLogCopy>>, Failure> {
    named.iter().map(|name| open(name, args, false)).collect()
}

/// Opens a copy that is begun if it does not exist.
pub(crate) fn to_begin(name: &Path, args: &args::Database) -> Result<Arc<dyn ShredLogCopy>, Failure> {
    open(name, args, true)
}

/// The copies, as the library takes them.
pub(crate) fn ports(copies: &[Arc<dyn ShredLogCopy>]) -> Vec<&dyn ShredLogCopy> {
    copies.iter().map(|copy| &**copy).collect()
}

fn open(name: &Path, args: &args::Database, may_begin: bool) -> Result<Arc<dyn ShredLogCopy>, Failure> {
    let timeout = Duration::from_secs(args.lock_timeout.into());
    let named = name.to_str().unwrap_or_default();
    let (url, table) = named.rsplit_once('#').map_or((named, None), |(url, table)| (url, Some(table)));
    if has_password(url) {
        let problem = "the URL of a copy has a password in it, which others can read on the command line: leave the \
            password to PGPASSWORD or ~/.pgpass; and change this one, if others use the machine";
        return Err(Failure::Usage(problem.into()));
    }
    Ok(match url.split_once(':').map(|(scheme, _)| scheme) {
        Some("sqlite") => {
            let options = SqliteConnectOptions::from_str(url).map_err(|_| unreadable())?;
            if may_begin {
                make_file(options.get_filename());
            }
            let options = options.busy_timeout(timeout).create_if_missing(may_begin);
            let pool = SqlitePoolOptions::new().max_connections(1).acquire_timeout(timeout);
            let copy = SqliteCopy::new(pool.connect_lazy_with(options));
            Arc::new(table.map_or(Ok(copy.clone()), |table| copy.table(table))?)
        }
        Some("postgres" | "postgresql") => {
            let options = PgConnectOptions::from_str(url).map_err(|_| unreadable())?.application_name("eventseal");
            let pool = PgPoolOptions::new().max_connections(1).acquire_timeout(timeout);
            Arc::new(in_table(PostgresCopy::new(pool.connect_lazy_with(options)), table)?)
        }
        _ => Arc::new(FileCopy::new(name)),
    })
}

/// The copy in a table that may be named with its schema.
fn in_table(copy: PostgresCopy, table: Option<&str>) -> Result<PostgresCopy, Failure> {
    let Some(table) = table else { return Ok(copy) };
    Ok(match table.split_once('.') {
        Some((schema, table)) => copy.in_schema(schema)?.table(table)?,
        None => copy.table(table)?,
    })
}

/// The text repeats neither the URL nor the driver's message about it: they may hold a password.
fn unreadable() -> Failure {
    let problem = "the URL of a copy can't be read: write sqlite://FILE or postgres://USER@HOST/NAME, with special \
        characters percent-encoded, and #TABLE after it for another table than shred_log_copy";
    Failure::Usage(problem.into())
}
