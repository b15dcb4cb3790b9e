//! `migrate`: creates or updates the key tables, and with `--events` the tables of events.

use crate::args::{Dialect, Migrate};
use crate::connect::{
    AnyDb, Target, connect_to, make_file, postgres_keys, postgres_store, sqlite_keys, sqlite_store, target,
};
use crate::interrupt;
use crate::output::{Failure, Report, shown};
use crate::pooler::{self, Sessions};
use eventseal::postgres::PostgresKeys;
use eventseal::sqlite::SqliteKeys;
use serde_json::json;

pub(crate) async fn migrate(args: Migrate) -> Result<Report, Failure> {
    if let Some(dialect) = args.print {
        return print(&args, dialect);
    }
    let target = match target(&args.database)? {
        Target::Sqlite(options, keys) => {
            make_file(options.get_filename());
            Target::Sqlite(Box::new(options.create_if_missing(true)), keys)
        }
        postgres @ Target::Postgres(..) => postgres,
    };
    if let Target::Postgres(options, _) = &target
        && pooler::sessions(options).await.is_ok_and(|sessions| sessions != Sessions::Own)
    {
        let problem = "a pooler gives transactions to different sessions, and migrate locks others out by a lock of \
            its session: let --database name the database itself. Nothing was done";
        return Err(Failure::refused("pooler", problem));
    }
    interrupt::kept("every migration that was finished stays; run it again for the others");
    let (place, applied, known) = match connect_to(target, &args.database).await? {
        AnyDb::Sqlite(mut db) => {
            if args.events {
                sqlite_store(&args.names())?.migrate(&mut db.connection).await?;
            }
            db.keys.migrate(&mut db.connection, &args.namespace).await?;
            (db.place, db.keys.applied_migration(&mut db.connection).await?, SqliteKeys::NEWEST_MIGRATION)
        }
        AnyDb::Postgres(mut db) => {
            if args.events {
                postgres_store(&args.database, &args.names())?.migrate(&mut db.connection).await?;
            }
            db.keys.migrate(&mut db.connection, &args.namespace).await?;
            (db.place, db.keys.applied_migration(&mut db.connection).await?, PostgresKeys::NEWEST_MIGRATION)
        }
    };
    let what = if args.events { "The tables of keys and events are" } else { "The key tables are" };
    let newer = applied.filter(|applied| *applied > known).map(|applied| {
        format!(
            "\nThe key tables are at migration {applied} of a newer version. This command knows {known}, and left \
            them as they are."
        )
    });
    let text = format!(
        "{what} up to date, in namespace {}.\n{}{}\n\nNext: eventseal prepare, or start the application.",
        shown(args.namespace.as_str()),
        shown(&place),
        newer.unwrap_or_default()
    );
    let json = json!({ "migration": applied, "known_migration": known, "events": args.events });
    Ok(Report::new(text, json).of(&args.namespace, &place))
}

fn print(args: &Migrate, dialect: Dialect) -> Result<Report, Failure> {
    let sqlite = match dialect {
        Dialect::Sqlite => true,
        Dialect::Postgres => false,
        Dialect::Database => matches!(target(&args.database)?, Target::Sqlite(..)),
    };
    let (events, keys) = if sqlite {
        let events = if args.events { sqlite_store(&args.names())?.migration_sql() + "\n" } else { String::new() };
        let journal = "-- Once, and not in a transaction: PRAGMA journal_mode = WAL;\n\n".to_owned();
        (journal + &events, sqlite_keys(&args.database)?.migration_sql(&args.namespace))
    } else {
        let mut events = if args.events {
            postgres_store(&args.database, &args.names())?.migration_sql() + "\n"
        } else {
            String::new()
        };
        if let Some(schema) = &args.database.schema {
            events.insert_str(0, &format!("CREATE SCHEMA IF NOT EXISTS \"{schema}\";\n\n"));
        }
        (events, postgres_keys(&args.database)?.migration_sql(&args.namespace))
    };
    let sql = events + &keys;
    let json = json!({ "sql": sql });
    Ok(Report::verbatim(sql, json))
}
