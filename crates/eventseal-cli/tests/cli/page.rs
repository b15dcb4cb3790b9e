//! Runs the commands of `docs/erasure.md`, as they stand on the page.

use crate::command::{Database, Output, World, run, schemas};
use eventseal::erasure::FileCopy;
use eventseal::keys::{KeyManager, KeyManagerBuilder};
use eventseal::postgres::{PostgresKeys, PostgresStore};
use eventseal::sqlite::{SqliteKeys, SqliteStore};
use eventseal::{EventFilter, EventStore, GlobalPosition, Keyring, PersistedEvent, Result, SealedStore};
use sqlx::postgres::PgPoolOptions;
use sqlx::sqlite::SqlitePoolOptions;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const PAGE: &str = include_str!("../../../../docs/erasure.md");

/// The blocks of shell between this heading and the next one. The heading may have a number on the page.
pub(crate) fn blocks(heading: &str) -> Vec<&'static str> {
    let decoration = |c: char| matches!(c, '#' | ' ' | '.') || c.is_ascii_digit();
    let (mut found, mut rest) = (None, PAGE);
    while let Some((_, after)) = rest.split_once("\n#") {
        let (line, section) = after.split_once('\n').unwrap_or((after, ""));
        if line.trim_start_matches(decoration) == heading {
            assert!(found.replace(section).is_none(), "there are two headings {heading:?}");
        }
        rest = &rest[rest.len() - after.len()..];
    }
    let section = found.unwrap_or_else(|| panic!("there is no heading {heading:?}")).split("\n#").next().unwrap();
    let blocks: Vec<_> = section.split("```sh\n").skip(1).map(|rest| rest.split("\n```").next().unwrap()).collect();
    assert!(!blocks.is_empty(), "{heading:?} has commands");
    blocks
}

/// The block below a heading that has one for each kind of database, PostgreSQL first.
fn of_this_database(world: &World, heading: &str) -> &'static str {
    let blocks = blocks(heading);
    assert_eq!(blocks.len(), 2, "{heading}");
    blocks[usize::from(!world.is_postgres())]
}

impl World {
    /// Runs a block of shell in the folder of the keyring. The page has other names for files.
    pub(crate) fn page(&self, block: &str) -> Output {
        let mut script = block.replace("shop.keyring", "ring");
        if let Database::Sqlite(db) = &self.database {
            script = script.replace("shop.db", db.folder.path().join("test.db").to_str().unwrap());
        }
        // It stands for another machine.
        std::fs::create_dir_all(self.folder.path().join("evidence")).unwrap();
        let command = Path::new(env!("CARGO_BIN_EXE_eventseal")).parent().unwrap().display();
        let path = std::env::var("PATH").unwrap();
        let mut bash = Command::new("bash");
        bash.args(["-euo", "pipefail", "-c", &script]).env_clear().env("PATH", format!("{command}:{path}"));
        bash.env("DATABASE_URL", self.plain_url()).env("EVENTSEAL_KEYRING_FILE", "ring");
        run(bash.current_dir(self.folder.path()))
    }

    /// Runs all blocks below a heading. Each of them must succeed.
    #[track_caller]
    pub(crate) fn section(&self, heading: &str) {
        for block in blocks(heading) {
            self.page(block).ended(0);
        }
    }

    /// A URL that the tools of PostgreSQL understand too.
    fn plain_url(&self) -> String {
        let Database::Postgres(db) = &self.database else { return self.url() };
        let (user, port, name) = (db.options.get_username(), db.options.get_port(), db.options.get_database().unwrap());
        match db.options.get_socket() {
            Some(socket) => format!("postgres://{user}@localhost:{port}/{name}?host={}", socket.display()),
            None => self.url(),
        }
    }

    /// Makes a backup as the page says. Nobody has the database open meanwhile.
    pub(crate) async fn back_up(&mut self) {
        self.close().await;
        self.page(of_this_database(self, "Make a backup")).ended(0);
        self.connect().await;
    }

    /// Restores the backup of this folder as the page says.
    pub(crate) async fn restore(&mut self) {
        self.close().await;
        self.page(of_this_database(self, "Restore it")).ended(0);
        self.connect().await;
    }

    async fn close(&self) {
        match &self.database {
            Database::Sqlite(db) => db.pool.close().await,
            Database::Postgres(db) => db.pool.close().await,
        }
    }

    async fn connect(&mut self) {
        let url = self.url();
        match &mut self.database {
            Database::Sqlite(db) => db.pool = SqlitePoolOptions::new().connect(&url).await.unwrap(),
            Database::Postgres(db) => {
                db.pool = PgPoolOptions::new().connect_with(db.options.clone()).await.unwrap();
            }
        }
    }

    /// The event at this position, as an application that starts now reads it with this keyring. It may require a copy
    /// of the shred log.
    pub(crate) async fn event(&self, position: i64, keyring: &Path, copy: Option<&Path>) -> Result<PersistedEvent> {
        let ring = Keyring::from_file(keyring)?;
        let (after, filter) = (GlobalPosition::try_from(position - 1)?, EventFilter::default());
        let page = match &self.database {
            Database::Sqlite(db) => {
                let keys = required(KeyManager::builder(SqliteKeys::new(), ring), copy);
                let store = SealedStore::with_keys(SqliteStore::new(), keys, schemas());
                store.read_events(&mut *db.pool.acquire().await.unwrap(), after, 1, &filter).await?
            }
            Database::Postgres(db) => {
                let keys = required(KeyManager::builder(PostgresKeys::new(), ring), copy);
                let store = SealedStore::with_keys(PostgresStore::new(), keys, schemas());
                store.read_events(&mut *db.pool.acquire().await.unwrap(), after, 1, &filter).await?
            }
        };
        Ok(page.events.into_iter().next().expect("an event is there"))
    }
}

fn required<Tx: Send + 'static>(keys: KeyManagerBuilder<Tx>, copy: Option<&Path>) -> KeyManager<Tx> {
    match copy {
        Some(copy) => keys.require_shred_log(FileCopy::new(copy), Duration::from_secs(3_600)).build(),
        None => keys.build(),
    }
}
