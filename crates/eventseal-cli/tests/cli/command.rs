//! Runs the `eventseal` command as a process, on a database of either kind.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use eventseal::ExpectedVersion::Any;
use eventseal::postgres::{PostgresKeys, PostgresStore};
use eventseal::sqlite::{SqliteKeys, SqliteStore};
use eventseal::{
    EventFilter, EventStore, GlobalPosition, Keyring, NewEvent, Result, Schemas, SealedStore, aggregate, event, subject,
};
use serde_json::Value;
use sqlx::ConnectOptions;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use support::{Postgres, Sqlite};

/// Secrets that the tests use. The command must never print any of them.
pub(crate) const SECRET: &str = "Y2FuYXJ5LWNhbmFyeS1jYW5hcnktY2FuYXJ5LWNhbmE=";
pub(crate) const OTHER_SECRET: &str = "b3RoZXItY2FuYXJ5LW90aGVyLWNhbmFyeS1vdGhlciE=";
pub(crate) const PASSWORD: &str = "canary-password";

pub(crate) enum Database {
    Sqlite(Sqlite),
    Postgres(Box<Postgres>),
}

pub(crate) struct World {
    pub(crate) database: Database,
    pub(crate) folder: tempfile::TempDir,
}

#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Output {
    /// The standard output, as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The error that a failure printed on standard error, as JSON.
    pub(crate) fn error(&self) -> Value {
        assert_eq!(self.out, "", "a failure has no result");
        serde_json::from_str::<Value>(&self.err).unwrap_or_else(|error| panic!("{error}: {self:?}"))["error"].clone()
    }

    #[track_caller]
    pub(crate) fn ended(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self:?}");
        self
    }

    /// Asserts a failure with `--json` of this kind and with this exit code.
    #[track_caller]
    pub(crate) fn refused(self, code: i32, kind: &str) -> Self {
        assert_eq!((self.code, self.error()["kind"].as_str()), (code, Some(kind)), "{self:?}");
        assert_eq!(self.error()["exit_code"], code);
        assert_eq!(self.error()["retryable"], code == 3);
        self
    }
}

/// Runs a command to its end, and asserts that it printed no secret.
#[track_caller]
pub(crate) fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    let output = Output {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    };
    for secret in [SECRET, OTHER_SECRET, PASSWORD] {
        assert!(!output.out.contains(secret) && !output.err.contains(secret), "I9: a secret was printed: {output:?}");
    }
    assert!(!output.err.contains("panicked"), "{output:?}");
    // A message for operators must not name Rust methods. SQL and scripts contain calls of their own.
    let prose = command.get_args().next().is_some_and(|name| {
        ["doctor", "status", "keys", "shred", "census", "certificate"].iter().any(|of| name == *of)
    });
    let said = if prose { [&output.err[..], &output.out].concat() } else { output.err.clone() };
    assert!(!said.contains("()") && !said.contains("Keyring::"), "a message speaks of calls: {output:?}");
    output
}

/// The command in an empty environment.
pub(crate) fn eventseal(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_eventseal"));
    command.args(arguments).env_clear().stdin(Stdio::null());
    command
}

impl World {
    pub(crate) async fn sqlite() -> Self {
        let db = Sqlite::empty().await;
        // The mode with which `migrate` creates the file.
        let mode = <std::fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o600);
        std::fs::set_permissions(db.folder.path().join("test.db"), mode).unwrap();
        Self::over(Database::Sqlite(db))
    }

    pub(crate) async fn postgres() -> Self {
        // With settings that doctor does not complain about.
        support::cluster::DURABLE.store(true, std::sync::atomic::Ordering::SeqCst);
        Self::over(Database::Postgres(Box::new(Postgres::empty().await)))
    }

    fn over(database: Database) -> Self {
        let world = Self { database, folder: tempfile::tempdir().unwrap() };
        world.keyring("ring", &format!("main:{SECRET}\n"));
        world
    }

    /// Adds tables, the first keys, and a data key for each of these customers.
    pub(crate) async fn with_keys(self, customers: std::ops::Range<usize>) -> Self {
        self.run(&["migrate", "--namespace", "shop", "--events"]).ended(0);
        self.run(&["prepare"]).ended(0);
        self.append(customers).await.unwrap();
        self
    }

    /// The name of a snapshot on this kind of database.
    pub(crate) fn snapshot_of(&self, name: &str) -> String {
        format!("{name}_{}", if self.is_postgres() { "postgres" } else { "sqlite" })
    }

    pub(crate) fn is_postgres(&self) -> bool {
        matches!(self.database, Database::Postgres(_))
    }

    pub(crate) fn url(&self) -> String {
        match &self.database {
            Database::Sqlite(db) => format!("sqlite://{}", db.folder.path().join("test.db").display()),
            Database::Postgres(db) => db.options.to_url_lossy().to_string(),
        }
    }

    pub(crate) fn keyring(&self, name: &str, text: &str) -> PathBuf {
        use std::os::unix::fs::PermissionsExt;
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        path
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = eventseal(arguments);
        command.env("DATABASE_URL", self.url()).env("EVENTSEAL_KEYRING_FILE", self.folder.path().join("ring"));
        command
    }

    #[track_caller]
    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        run(&mut self.command(arguments))
    }

    /// The result of a command as JSON. The command must succeed.
    #[track_caller]
    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        self.run(&[arguments, &["--json"]].concat()).ended(0).json()
    }

    pub(crate) fn kms(&self) -> Keyring {
        Keyring::from_file(self.folder.path().join("ring")).unwrap()
    }

    /// Appends an event for each customer, in one transaction.
    pub(crate) async fn append(&self, customers: std::ops::Range<usize>) -> Result<()> {
        let events: Vec<NewEvent> = customers.map(placed).collect();
        if events.is_empty() {
            return Ok(());
        }
        let order = aggregate("Order", uuid::Uuid::now_v7().to_string());
        match &self.database {
            Database::Sqlite(db) => {
                let store = SealedStore::new(SqliteStore::new(), SqliteKeys::new(), self.kms(), schemas());
                // The first append of a process reads keys before it writes.
                let mut tx = db.pool.begin_with("BEGIN IMMEDIATE").await.unwrap();
                store.append(&mut tx, &order, Any, &events).await?;
                tx.commit().await.unwrap();
            }
            Database::Postgres(db) => {
                let store = SealedStore::new(PostgresStore::new(), PostgresKeys::new(), self.kms(), schemas());
                let mut tx = db.pool.begin().await.unwrap();
                store.append(&mut tx, &order, Any, &events).await?;
                tx.commit().await.unwrap();
            }
        }
        Ok(())
    }

    /// Reads the whole log as an application would. Returns how many events are live, and how many are redacted.
    pub(crate) async fn read(&self) -> (usize, usize) {
        let (mut plain, mut redacted, mut after) = (0, 0, GlobalPosition::START);
        loop {
            let page = match &self.database {
                Database::Sqlite(db) => {
                    let store = SealedStore::new(SqliteStore::new(), SqliteKeys::new(), self.kms(), schemas());
                    let mut connection = db.pool.acquire().await.unwrap();
                    store.read_events(&mut connection, after, 5_000, &EventFilter::default()).await.unwrap()
                }
                Database::Postgres(db) => {
                    let store = SealedStore::new(PostgresStore::new(), PostgresKeys::new(), self.kms(), schemas());
                    let mut connection = db.pool.acquire().await.unwrap();
                    store.read_events(&mut connection, after, 5_000, &EventFilter::default()).await.unwrap()
                }
            };
            for event in &page.events {
                if event.redacted.is_empty() {
                    assert!(String::from_utf8_lossy(&event.payload).contains("Ada"), "I1");
                    plain += 1;
                } else {
                    redacted += 1;
                }
            }
            if page.scanned < 5_000 {
                return (plain, redacted);
            }
            after = page.next;
        }
    }

    /// The first column of all rows, as text.
    pub(crate) async fn column(&self, sql: &'static str) -> Vec<String> {
        match &self.database {
            Database::Sqlite(db) => sqlx::query_scalar(sql).fetch_all(&db.pool).await.unwrap(),
            Database::Postgres(db) => sqlx::query_scalar(sql).fetch_all(&db.pool).await.unwrap(),
        }
    }

    pub(crate) async fn execute(&self, sql: impl Into<String>) {
        let sql = sqlx::AssertSqlSafe(sql.into());
        match &self.database {
            Database::Sqlite(db) => drop(sqlx::raw_sql(sql).execute(&db.pool).await.unwrap()),
            Database::Postgres(db) => drop(sqlx::raw_sql(sql).execute(&db.pool).await.unwrap()),
        }
    }

    /// All wrapped keys, in every form in which they might be printed.
    pub(crate) async fn wrapped(&self) -> Vec<String> {
        let sql = if self.is_postgres() {
            "SELECT encode(wrapped_key, 'hex') FROM data_keys WHERE wrapped_key IS NOT NULL
             UNION ALL SELECT encode(wrapped_kek, 'hex') FROM key_encryption_keys"
        } else {
            "SELECT lower(hex(wrapped_key)) FROM data_keys WHERE wrapped_key IS NOT NULL
             UNION ALL SELECT lower(hex(wrapped_kek)) FROM key_encryption_keys"
        };
        let hex = self.column(sql).await;
        let bytes = |hex: &String| {
            (0..hex.len() / 2).map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap()).collect::<Vec<u8>>()
        };
        hex.iter()
            .flat_map(|hex| [hex.clone(), hex.to_uppercase(), STANDARD.encode(bytes(hex)), format!("{:?}", bytes(hex))])
            .collect()
    }

    /// The key-encryption keys as `status` has them, oldest first.
    pub(crate) fn keks(&self) -> Vec<Value> {
        self.json(&["status"])["keks"].as_array().unwrap().clone()
    }
}

pub(crate) fn schemas() -> Schemas {
    Schemas::new([event("Placed").version(1).protect(&["/name"], subject("Customer", "/customer"))]).unwrap()
}

fn placed(customer: usize) -> NewEvent {
    NewEvent::raw("Placed", 1, format!(r#"{{"customer":"cust_{customer}","name":"Ada"}}"#))
}

/// Runs the same test on both kinds of database.
#[macro_export]
macro_rules! on_both {
    ($($name:ident,)*) => {
        mod on_sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() { super::$name(super::World::sqlite().await).await; })*
        }
        mod on_postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() { super::$name(super::World::postgres().await).await; })*
        }
    };
}
