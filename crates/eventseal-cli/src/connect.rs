//! Connects to the database that a URL names, and hides the difference between its two kinds.

use crate::args;
use crate::copies;
use crate::interrupt;
use crate::output::{Failure, causes, in_commands, shown, tell};
use eventseal::erasure::ShredLogCopy;
use eventseal::error::{ErrorKind, KeyFault, SetUpFault, StepError};
use eventseal::keys::{KeyManager, KeyManagerBuilder, KeyStore, KeyTable};
use eventseal::kms::Kms;
use eventseal::postgres::{PostgresKeys, PostgresStore, PostgresTables};
use eventseal::sqlite::{SqliteKeys, SqliteStore};
use eventseal::{Error, KeyScope, Namespace};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions, Connection};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A connection, and the key tables behind it.
pub(crate) struct Db<C: Backend> {
    pub(crate) connection: C,
    pub(crate) keys: C::Keys,
    /// The name of the database for messages, without passwords.
    pub(crate) place: String,
    /// The file, if the database is SQLite.
    pub(crate) file: Option<PathBuf>,
    timeout: Duration,
    /// Copies of the shred log with which the key tables must agree.
    required: Vec<Arc<dyn ShredLogCopy>>,
    /// Copies that every decision goes into at once.
    appended: Vec<Arc<dyn ShredLogCopy>>,
}

pub(crate) enum AnyDb {
    Sqlite(Db<SqliteConnection>),
    Postgres(Db<PgConnection>),
}

/// Runs the same code on either kind of database.
macro_rules! on {
    ($any:expr, $db:ident => $run:expr) => {
        match $any {
            $crate::connect::AnyDb::Sqlite(mut $db) => $run,
            $crate::connect::AnyDb::Postgres(mut $db) => $run,
        }
    };
}
pub(crate) use on;

/// A kind of database.
pub(crate) trait Backend: Connection + Sized + Send + 'static {
    type Keys: KeyTable<Tx = Self> + Clone + 'static;
    /// The statement that begins a transaction that will write.
    const BEGIN: &'static str;
    /// Can only one transaction write at a time, because there is one lock for the whole database?
    const ONE_WRITER: bool;
    /// The newest migration of the key tables that this command knows.
    const NEWEST_MIGRATION: u32;
    /// The newest migration of the key tables that was run. `None` if the tables were not created by migrations.
    async fn applied_migration(db: &mut Db<Self>) -> Result<Option<u32>, Error>;
}

impl Backend for SqliteConnection {
    type Keys = SqliteKeys;
    const BEGIN: &'static str = "BEGIN IMMEDIATE";
    const ONE_WRITER: bool = true;
    const NEWEST_MIGRATION: u32 = SqliteKeys::NEWEST_MIGRATION;

    async fn applied_migration(db: &mut Db<Self>) -> Result<Option<u32>, Error> {
        db.keys.applied_migration(&mut db.connection).await
    }
}

impl Backend for PgConnection {
    type Keys = PostgresKeys;
    const BEGIN: &'static str = "BEGIN";
    const ONE_WRITER: bool = false;
    const NEWEST_MIGRATION: u32 = PostgresKeys::NEWEST_MIGRATION;

    async fn applied_migration(db: &mut Db<Self>) -> Result<Option<u32>, Error> {
        db.keys.applied_migration(&mut db.connection).await
    }
}

/// The database that a URL names, before a connection is made.
pub(crate) enum Target {
    Sqlite(Box<SqliteConnectOptions>, SqliteKeys),
    Postgres(Box<PgConnectOptions>, PostgresKeys),
}

pub(crate) fn target(args: &args::Database) -> Result<Target, Failure> {
    let url = args.database.as_deref().filter(|url| !url.is_empty()).ok_or_else(|| {
        Failure::Usage(
            "no database: set DATABASE_URL, or pass --database sqlite://FILE or postgres://USER@HOST/NAME".into(),
        )
    })?;
    // The error repeats neither the URL nor the driver's message about it: they may hold a password.
    let unreadable = || {
        let problem = "the database's URL can't be read: write sqlite://FILE or postgres://USER@HOST/NAME, with \
            special characters percent-encoded";
        Failure::Usage(problem.into())
    };
    match url.split_once(':').map(|(scheme, _)| scheme) {
        Some("sqlite") => {
            if args.schema.is_some() {
                return Err(Failure::Usage("--schema is for PostgreSQL: SQLite has none".into()));
            }
            let options = SqliteConnectOptions::from_str(url).map_err(|_| unreadable())?;
            let options = options.busy_timeout(timeout(args));
            Ok(Target::Sqlite(Box::new(options), sqlite_keys(args)?))
        }
        Some("postgres" | "postgresql") => {
            let options = PgConnectOptions::from_str(url).map_err(|_| unreadable())?;
            Ok(Target::Postgres(Box::new(options.application_name("eventseal")), postgres_keys(args)?))
        }
        _ => Err(unreadable()),
    }
}

pub(crate) fn sqlite_keys(args: &args::Database) -> Result<SqliteKeys, Failure> {
    Ok(if args.prefix.is_empty() { SqliteKeys::new() } else { SqliteKeys::with_prefix(&args.prefix)? })
}

pub(crate) fn postgres_keys(args: &args::Database) -> Result<PostgresKeys, Failure> {
    let mut keys = PostgresKeys::new();
    if let Some(schema) = &args.schema {
        keys = keys.in_schema(schema)?;
    }
    if !args.prefix.is_empty() {
        keys = keys.with_prefix(&args.prefix)?;
    }
    Ok(keys.lock_timeout(timeout(args)))
}

/// The names of the tables of events.
pub(crate) struct EventNames<'a> {
    pub(crate) events: Option<&'a str>,
    pub(crate) heads: Option<&'a str>,
    /// The table of the index of seals.
    pub(crate) seals: Option<&'a str>,
    pub(crate) streams: bool,
    pub(crate) heads_first: bool,
}

pub(crate) fn sqlite_store(names: &EventNames<'_>) -> Result<SqliteStore, Failure> {
    if names.streams {
        return Err(Failure::Usage("--streams is for PostgreSQL".into()));
    }
    let store = SqliteStore::with_tables(names.events.unwrap_or("events"), names.heads.unwrap_or("aggregate_heads"))?;
    Ok(names.seals.map_or(Ok(store.clone()), |seals| store.sealed_events(seals))?)
}

pub(crate) fn postgres_store(args: &args::Database, names: &EventNames<'_>) -> Result<PostgresStore, Failure> {
    let mut tables = if names.streams { PostgresTables::streams() } else { PostgresTables::new() };
    if let Some(schema) = &args.schema {
        tables = tables.in_schema(schema);
    }
    if let Some(events) = names.events {
        tables = tables.events(events);
    }
    if let Some(heads) = names.heads {
        tables = tables.heads(heads);
    }
    if let Some(seals) = names.seals {
        tables = tables.sealed_events(seals);
    }
    if names.heads_first {
        tables = tables.heads_first();
    }
    Ok(PostgresStore::with_tables(tables)?)
}

fn timeout(args: &args::Database) -> Duration {
    Duration::from_secs(args.lock_timeout.into())
}

/// Creates the file of a new SQLite database, readable for its owner only, because it holds the wrapped keys. SQLite
/// gives its other files the same mode.
#[cfg(unix)]
pub(crate) fn make_file(path: &Path) {
    use std::os::unix::fs::OpenOptionsExt;
    let in_memory = path.to_str().is_some_and(|path| path.contains(":memory:") || path.starts_with("file:"));
    if !in_memory {
        // If the file exists already, nothing needs to be done. If it can't be created, opening it reports that.
        let _ = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    }
}

#[cfg(not(unix))]
pub(crate) fn make_file(_: &Path) {}

/// Connects. Refuses key tables that a newer version has changed in a way that this version can't work with.
pub(crate) async fn connect(args: &args::Database) -> Result<AnyDb, Failure> {
    let mut db = connect_to(target(args)?, args).await?;
    let applied = match &mut db {
        AnyDb::Sqlite(db) => Backend::applied_migration(db).await,
        AnyDb::Postgres(db) => Backend::applied_migration(db).await,
    };
    match applied {
        Err(error @ Error::SetUp(SetUpFault::NewerTables { .. })) => Err(error.into()),
        // A user that may not read the table of migrations can still use the keys.
        _ => Ok(db),
    }
}

/// Connects for a decision, which goes into copies of the shred log at once.
pub(crate) async fn connect_to_decide(args: &args::Database, copying: &args::Copying) -> Result<AnyDb, Failure> {
    let copies = copies::all(&copying.append_to, args)?;
    let mut db = connect(args).await?;
    match &mut db {
        AnyDb::Sqlite(db) => db.appended = copies,
        AnyDb::Postgres(db) => db.appended = copies,
    }
    Ok(db)
}

/// Connects without looking at any table.
pub(crate) async fn connect_to(target: Target, args: &args::Database) -> Result<AnyDb, Failure> {
    let failed = |source: sqlx::Error| Error::database("connecting", source);
    let timeout = timeout(args);
    let required = copies::all(&args.require_shred_log, args)?;
    Ok(match target {
        Target::Sqlite(options, keys) => {
            let path = options.get_filename().to_owned();
            let connection = options.connect().await.map_err(|error| match path.try_exists() {
                Ok(false) => {
                    let problem = format!(
                        "{} does not exist: correct the path, or make it with eventseal migrate --namespace NAME",
                        shown(&path.to_string_lossy())
                    );
                    Failure::failed("no_database", problem)
                }
                _ => failed(error).into(),
            })?;
            AnyDb::Sqlite(Db {
                connection,
                keys,
                place: format!("SQLite, {}", path.display()),
                file: Some(path),
                timeout,
                required,
                appended: Vec::new(),
            })
        }
        Target::Postgres(options, keys) => {
            let host = options
                .get_socket()
                .map_or_else(|| options.get_host().to_owned(), |socket| socket.display().to_string());
            let name = options.get_database().unwrap_or_else(|| options.get_username());
            let place = format!("PostgreSQL, {name} on {host}");
            AnyDb::Postgres(Db {
                connection: options.connect().await.map_err(failed)?,
                keys,
                place,
                file: None,
                timeout,
                required,
                appended: Vec::new(),
            })
        }
    })
}

/// The failure of a decision that was not begun, because a copy that it goes into is not up to date.
fn not_begun(copy: &str, source: &StepError) -> Failure {
    let mut why = vec![in_commands(&source.to_string())];
    why.extend(causes(&**source));
    let why = why.join("; because: ");
    let copy = shown(copy);
    let problem = format!(
        "nothing was done: the decision can't be copied, because the copy of the shred log {copy} can't be brought \
         up to date: {why}. Mend the copy (eventseal shred-log verify says what is wrong), and run the command again"
    );
    match source.downcast_ref::<Error>().map(Error::kind) {
        Some(ErrorKind::ShredLogBehind) => Failure::failed("shred_log_behind", problem),
        _ => Failure::failed("log_copy", problem),
    }
}

/// Why not everything could be copied after a decision.
fn altered(scope: &KeyScope, entry: u32, problem: &str) -> String {
    let scope = shown(&scope.to_string());
    format!(
        "the decision is committed and stays, but not every entry of the shred log could be copied: entry {entry} of \
         {scope} {problem}. Run eventseal shred-log verify"
    )
}

impl<C: Backend> Db<C> {
    pub(crate) async fn namespace(&mut self) -> Result<Namespace, Failure> {
        Ok(self.keys.namespace(&mut self.connection).await?.ok_or(Error::SetUp(SetUpFault::NotMigrated))?)
    }

    /// Says on standard error which keys are about to be changed. With JSON, the result says it instead.
    pub(crate) async fn announce(&mut self, json: bool, what: &str) -> Result<Namespace, Failure> {
        let namespace = self.namespace().await?;
        if !json {
            tell(&format!("{what} in {}.\n", self.whereabouts(&namespace)))?;
        }
        Ok(namespace)
    }

    /// The name of the key database for messages, without passwords.
    pub(crate) fn whereabouts(&self, namespace: &Namespace) -> String {
        format!("namespace {} ({})", shown(namespace.as_str()), shown(&self.place))
    }

    /// The statement that begins a transaction that will write.
    pub(crate) const fn begin(&self) -> &'static str {
        C::BEGIN
    }

    pub(crate) fn manager(&self, kms: Arc<dyn Kms>) -> KeyManager<C> {
        self.builder(kms).build()
    }

    fn builder(&self, kms: Arc<dyn Kms>) -> KeyManagerBuilder<C> {
        let builder = KeyManager::builder(self.keys.clone(), kms);
        // A long run looks again now and then.
        let require = |builder: KeyManagerBuilder<C>, copy: &Arc<dyn ShredLogCopy>| {
            builder.require_shred_log(Arc::clone(copy), Duration::from_secs(60))
        };
        let builder = self.required.iter().fold(builder, require);
        self.appended.iter().fold(builder, |builder, copy| builder.copy_shred_log(Arc::clone(copy)))
    }

    /// A key manager for scopes whose keys are wrapped in this partition.
    pub(crate) fn manager_of(&self, partition: String, kms: Arc<dyn Kms>) -> KeyManager<C> {
        self.builder(kms).kek_partition(move |_| partition.clone()).build()
    }

    /// Decides in a transaction, and has the entry of the decision numbered and copied. If the copies are not up to
    /// date and can't be brought there, nothing is decided.
    pub(crate) async fn decide<T>(
        &mut self,
        manager: &KeyManager<C>,
        begin: &'static str,
        work: impl AsyncFnMut(&mut C) -> Result<T, Error>,
    ) -> Result<T, Failure> {
        if !self.appended.is_empty() {
            match manager.copy_log(&mut self.connection).await {
                Err(Error::Keys(KeyFault::NotCopied { copy, source })) => return Err(not_begun(&copy, &source)),
                // Entries that were altered are left out. What is decided here can be copied all the same.
                Ok(()) | Err(Error::Keys(KeyFault::LogAltered { .. })) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let done = self.transact(begin, work).await?;
        interrupt::kept(
            "the decision is committed and stays; the copy may lack it: run eventseal shred-log export --append COPY",
        );
        match manager.copy_log(&mut self.connection).await {
            Err(error @ Error::Keys(KeyFault::NotCopied { .. })) => Err(error.into()),
            // The first entry that was altered is named. The entry of this decision may be another one.
            Err(Error::Keys(KeyFault::LogAltered { scope, entry, problem })) if !self.appended.is_empty() => {
                Err(Failure::failed("log_altered", altered(&scope, entry, problem)))
            }
            // It is committed. Should sealing fail, the next export does it.
            _ => Ok(done),
        }
    }

    /// What is left to do after a shred, or after shreds of many scopes.
    pub(crate) fn afterwards(&self, of_many: bool) -> String {
        const BACKUPS: &str = "Backups and replicas of the key table hold the keys until they expire or catch up.";
        let copies: Vec<String> = self.appended.iter().map(|copy| shown(&copy.name())).collect();
        match &copies[..] {
            [] => format!("{BACKUPS}\n\nNext: eventseal shred-log export --append COPY."),
            copies => {
                // Of many decisions, some may have entries that were altered. Of one, that is an error.
                let but = if of_many { ", but for entries that were altered, if there are any" } else { "" };
                format!("{BACKUPS}\n\nThe shred log was copied to {}{but}.", copies.join(" and "))
            }
        }
    }

    /// Runs `work` in a transaction. If it collides with others, runs it again until the lock time-out is over.
    pub(crate) async fn transact<T>(
        &mut self,
        begin: &'static str,
        mut work: impl AsyncFnMut(&mut C) -> Result<T, Error>,
    ) -> Result<T, Failure> {
        let start = Instant::now();
        loop {
            match self.attempt(begin, &mut work).await {
                Err(Error::Collision { .. }) if start.elapsed() < self.timeout => {}
                done => return Ok(done?),
            }
        }
    }

    async fn attempt<T>(
        &mut self,
        begin: &'static str,
        work: &mut impl AsyncFnMut(&mut C) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let mut tx = self
            .connection
            .begin_with(begin)
            .await
            .map_err(|error| Error::database("beginning a transaction", error))?;
        match work(&mut tx).await {
            Ok(done) => {
                interrupt::uncertain();
                tx.commit().await.map_err(|error| Error::committing("what the command did", error))?;
                Ok(done)
            }
            Err(error) => {
                // The first error is the one to report. If the rollback fails, the connection is lost and its
                // transaction with it.
                let _ = tx.rollback().await;
                Err(error)
            }
        }
    }
}
