//! `doctor`: everything that keys need, looked at one after the other, and what to do where something is missing.

use crate::args::Doctor;
use crate::connect::{AnyDb, Backend, Db, connect};
use crate::master_key;
use crate::output::{Exit, Failure, Report, causes, shown};
use eventseal::{
    Error, KekContext, KekState, KeyScope, KeyStore, Kms, Namespace, PostgresKeys, ScopeAction, ScopeChange, ScopeLock, ScopeState,
    SqliteKeys,
};
use serde_json::json;
use sqlx::postgres::PgConnection;
use sqlx::sqlite::SqliteConnection;
use std::fmt::Write as _;
use std::sync::Arc;
use time::{Duration, OffsetDateTime};

/// How far the clocks of this machine and of the database may be apart.
const MAX_DRIFT: Duration = Duration::seconds(5);

/// One thing that was looked at.
struct Check {
    name: &'static str,
    found: String,
    /// What to do; `None` if all is well.
    remedy: Option<String>,
}

#[derive(Default)]
struct Checks(Vec<Check>);

impl Checks {
    fn good(&mut self, name: &'static str, found: impl Into<String>) {
        self.0.push(Check { name, found: found.into(), remedy: None });
    }

    fn problem(&mut self, name: &'static str, found: impl Into<String>, remedy: impl Into<String>) {
        self.0.push(Check { name, found: found.into(), remedy: Some(remedy.into()) });
    }

    fn failed(&mut self, name: &'static str, error: &Error, remedy: impl Into<String>) {
        let found = std::iter::once(error.to_string()).chain(causes(error)).collect::<Vec<_>>().join(": ");
        self.problem(name, found, remedy);
    }

    fn report(self) -> Report {
        let problems = self.0.iter().filter(|check| check.remedy.is_some()).count();
        let mut text = String::new();
        for check in &self.0 {
            let word = if check.remedy.is_none() { "ok" } else { "PROBLEM" };
            let _ = writeln!(text, "{word:<8} {:<12} {}", check.name, shown(&check.found));
            if let Some(remedy) = &check.remedy {
                let _ = writeln!(text, "{:<21} -> {}", "", shown(remedy));
            }
        }
        let _ = match problems {
            0 => writeln!(text, "\nAll is well."),
            1 => writeln!(text, "\n1 problem."),
            _ => writeln!(text, "\n{problems} problems."),
        };
        let checks: Vec<_> = self
            .0
            .iter()
            .map(|check| json!({ "check": check.name, "ok": check.remedy.is_none(), "found": check.found, "remedy": check.remedy }))
            .collect();
        let report = Report::new(text, json!({ "ok": problems == 0, "checks": checks }));
        if problems == 0 { report } else { report.ending(Exit::Problems) }
    }
}

pub(crate) async fn doctor(args: Doctor) -> Result<Report, Failure> {
    let mut checks = Checks::default();
    let kms = match master_key::open(&args.master_key).await {
        Ok(kms) => Some(kms),
        Err(Failure::Library(error)) => {
            checks.failed("master key", &error, "correct the keyring, or name another one");
            None
        }
        Err(failure) => {
            checks.problem("master key", "not tried", failure.message());
            None
        }
    };
    let db = match connect(&args.database).await {
        Err(Failure::Library(error)) => {
            checks.failed("database", &error, "look whether the URL is right, the server runs, and lets this user in");
            return Ok(checks.report());
        }
        db => db?,
    };
    match db {
        AnyDb::Sqlite(mut db) => {
            sqlite(&mut db, &mut checks).await;
            if tables(&mut db, kms, &mut checks).await {
                file(&mut db, &mut checks).await;
            }
        }
        AnyDb::Postgres(mut db) => {
            postgres(&mut db, &mut checks).await;
            tables(&mut db, kms, &mut checks).await;
        }
    }
    Ok(checks.report())
}

async fn sqlite(db: &mut Db<SqliteConnection>, checks: &mut Checks) {
    let version = sqlx::query_scalar::<_, String>("SELECT sqlite_version()").fetch_one(&mut db.connection).await;
    match version {
        Ok(version) => checks.good("database", format!("{}, version {version}", db.place)),
        Err(source) => return checks.failed("database", &reading(source), "look whether the file is a SQLite database"),
    }
    migrations(checks, db.keys.applied_migration(&mut db.connection).await, SqliteKeys::NEWEST_MIGRATION);
}

async fn postgres(db: &mut Db<PgConnection>, checks: &mut Checks) {
    let row = sqlx::query_as::<_, (String, i32, String, OffsetDateTime)>(
        "SELECT current_setting('server_version'), current_setting('server_version_num')::int,
             current_setting('default_transaction_isolation'), clock_timestamp()",
    );
    let (version, number, isolation, clock) = match row.fetch_one(&mut db.connection).await {
        Ok(row) => row,
        Err(source) => return checks.failed("database", &reading(source), "look at the server's log"),
    };
    let found = format!("{}, version {version}", db.place);
    if number >= 150_000 {
        checks.good("database", found);
    } else {
        checks.problem("database", found, "upgrade to PostgreSQL 15 or newer");
    }
    let drift = (OffsetDateTime::now_utc() - clock).abs();
    let found = format!("{:.1} s apart from the database's", drift.as_seconds_f64());
    if drift <= MAX_DRIFT {
        checks.good("clock", found);
    } else {
        checks.problem("clock", found, "let NTP set both clocks: times in the key history come from this machine");
    }
    if isolation == "read committed" {
        checks.good("isolation", isolation);
    } else {
        let remedy = "fine if it is meant: transactions see a shred only once they begin anew, and more of them must be repeated";
        checks.good("isolation", format!("{isolation}: {remedy}"));
    }
    migrations(checks, db.keys.applied_migration(&mut db.connection).await, PostgresKeys::NEWEST_MIGRATION);
}

fn reading(source: sqlx::Error) -> Error {
    Error::Database { operation: "looking at its settings", source: source.into() }
}

fn migrations(checks: &mut Checks, applied: Result<Option<u32>, Error>, newest: u32) {
    match applied {
        Ok(Some(applied)) if applied == newest => checks.good("migrations", format!("current ({newest})")),
        Ok(Some(applied)) if applied > newest => {
            checks.problem("migrations", format!("{applied}, and this command knows {newest}"), "use a newer eventseal");
        }
        Ok(Some(applied)) => checks.problem("migrations", format!("{applied} of {newest}"), "eventseal migrate --namespace NAME"),
        // Whether tables that were made by hand are current shows when they are read.
        Ok(None) => checks.good("migrations", "not run by eventseal"),
        Err(error) => checks.failed("migrations", &error, "let this user read the bookkeeping table"),
    }
}

/// What is the same on every database. Could the key tables be written to?
async fn tables<C: Backend>(db: &mut Db<C>, kms: Option<Arc<dyn Kms>>, checks: &mut Checks) -> bool {
    let migrate = "eventseal migrate --namespace NAME; and look whether --schema and --prefix are right";
    let namespace = match db.keys.namespace(&mut db.connection).await {
        Ok(Some(namespace)) => namespace,
        Ok(None) => {
            checks.problem("namespace", "there are no key tables, or they have no name", migrate);
            return false;
        }
        Err(error) => {
            checks.failed("namespace", &error, "let this user read the key tables");
            return false;
        }
    };
    checks.good("namespace", namespace.as_str());
    match db.keys.kek_usage(&mut db.connection).await {
        Ok(usage) => {
            let live = usage.iter().map(|usage| usage.live_keys).sum();
            checks.good(
                "reading",
                format!(
                    "{} under {}",
                    crate::output::count(live, "data key"),
                    crate::output::count(usage.len() as u64, "key-encryption key")
                ),
            );
            let active = usage.iter().any(|usage| usage.kek.state == KekState::Active && usage.kek.partition == "default");
            let integrity = integrity(db).await;
            match (active, integrity) {
                (true, Ok(true)) => checks.good("keys", "the active key-encryption key and the integrity key are there"),
                (false, _) => checks.problem("keys", "no active key-encryption key in the default partition", "eventseal prepare"),
                (true, Ok(false)) => checks.problem("keys", "no integrity key: nothing could be redacted", "eventseal prepare"),
                (true, Err(error)) => checks.failed("keys", &error, "restore its row from a backup"),
            }
            if let Some(kms) = kms {
                round_trips(db, kms, &namespace, usage, checks).await;
            }
        }
        Err(error) => checks.failed("reading", &error, format!("let this user read the key tables; if a column is missing: {migrate}")),
    }
    let written = write(db).await;
    let could_write = written.is_ok();
    match written {
        Ok(()) => checks.good("writing", "allowed (tried, and rolled back)"),
        Err(Error::Collision { .. }) => checks.problem("writing", "others held a lock all the time", "run it again"),
        Err(error) => checks.failed("writing", &error, "let this user insert into and update the key tables"),
    }
    could_write
}

/// The settings of a file that keys were just written to. Every connection that does so is to overwrite what it frees.
async fn file(db: &mut Db<SqliteConnection>, checks: &mut Checks) {
    match sqlx::query_scalar::<_, String>("PRAGMA journal_mode").fetch_one(&mut db.connection).await {
        Ok(mode) if mode == "wal" => checks.good("journal", "write-ahead log: readers and the writer do not block one another"),
        Ok(mode) => checks.problem(
            "journal",
            format!("mode {mode}"),
            "run PRAGMA journal_mode = WAL once, outside of a transaction; eventseal migrate does it too",
        ),
        Err(source) => checks.failed("journal", &reading(source), "look whether the file is a SQLite database"),
    }
    match sqlx::query_scalar::<_, i64>("PRAGMA secure_delete").fetch_one(&mut db.connection).await {
        Ok(1) => checks.good("deletion", "bytes of destroyed keys are overwritten (secure_delete)"),
        Ok(_) => checks.problem("deletion", "secure_delete is off", "see whether keys can be written; if so, please report this"),
        Err(source) => checks.failed("deletion", &reading(source), "look whether the file is a SQLite database"),
    }
}

async fn integrity<C: Backend>(db: &mut Db<C>) -> Result<bool, Error> {
    let scopes = db.keys.scopes(&mut db.connection, &[KeyScope::integrity()], ScopeLock::None).await?;
    Ok(scopes.iter().any(|record| record.active.is_some()))
}

/// Opens every key-encryption key that is in use.
async fn round_trips<C: Backend>(
    db: &mut Db<C>,
    kms: Arc<dyn Kms>,
    namespace: &Namespace,
    usage: Vec<eventseal::KekUsage>,
    checks: &mut Checks,
) {
    let mut opened = 0_u64;
    let in_use = usage.into_iter().filter(|usage| usage.kek.state != KekState::Retired || usage.live_keys > 0);
    for kek in in_use.map(|usage| usage.kek) {
        if kek.provider != kms.provider() {
            let found = format!("{} was wrapped by {}, not by {}", kek.kek_id, kek.provider, kms.provider());
            checks.problem("master key", found, "name that provider, or run eventseal move-master-key --from-…");
            continue;
        }
        let context = KekContext { namespace: namespace.clone(), kek_id: kek.kek_id };
        match kms.unwrap_kek(&kek.wrapped, &context).await {
            Ok(_) => opened += 1,
            Err(error) => checks.failed("master key", &error, "do what it says; applications can't open these keys either"),
        }
    }
    if opened > 0 {
        checks.good("master key", format!("{} opens {}", kms.provider(), crate::output::count(opened, "key-encryption key")));
    }
    // With everything in place this makes nothing, and opens the integrity key.
    if opened > 0 && matches!(integrity(db).await, Ok(true)) {
        match db.manager(kms).prepare(&mut db.connection).await {
            Ok(()) => checks.good("data keys", "the integrity key opens"),
            Err(error @ (Error::WrongKey { .. } | Error::InvalidRow { .. })) => {
                checks.failed("data keys", &error, "restore the row of the integrity key from a backup, and no other");
            }
            Err(error) => checks.failed("data keys", &error, "do what it says"),
        }
    }
}

/// Writes to every table that operations write to, and takes it back.
async fn write<C: Backend>(db: &mut Db<C>) -> Result<(), Error> {
    let failed = |source: sqlx::Error| Error::Database { operation: "beginning a transaction", source: source.into() };
    let keys = db.keys.clone();
    let mut tx = db.connection.begin_with(C::BEGIN).await.map_err(failed)?;
    let done = try_writing(&keys, &mut *tx).await;
    tx.rollback().await.map_err(failed)?;
    done
}

async fn try_writing<C: Backend>(keys: &C::Keys, tx: &mut C) -> Result<(), Error> {
    let scope = KeyScope::new("$eventseal", "doctor");
    keys.create_scopes(tx, std::slice::from_ref(&scope)).await?;
    keys.scopes(tx, std::slice::from_ref(&scope), ScopeLock::Update).await?;
    keys.destroy_keys(tx, &scope, OffsetDateTime::now_utc()).await?;
    let change = ScopeChange {
        scope,
        action: ScopeAction::Shred,
        state: ScopeState::Shredded,
        generation: 1,
        reason: "tried by eventseal doctor, and rolled back".to_owned(),
        at: OffsetDateTime::now_utc(),
    };
    keys.change_scope(tx, &change).await
}
