//! What `doctor` finds out about events, files, schemas and standbys.

use crate::command::{Database, Output, World, eventseal, run};
use serde_json::Value;
use sqlx::ConnectOptions;
use std::os::unix::fs::PermissionsExt;
use support::cluster::Primary;

on_both! {
    it_looks_at_events,
}

fn doctor(world: &World, arguments: &[&str]) -> Output {
    world.run(&[&["doctor", "--json"], arguments].concat())
}

/// The check of this name: whether it is ok, and what it found.
fn check(said: &Output, name: &str) -> (bool, String) {
    let json = said.json();
    let check = json["checks"].as_array().unwrap().iter().find(|check| check["check"] == name);
    let check = check.unwrap_or_else(|| panic!("no check {name}: {json:#}"));
    (check["ok"].as_bool().unwrap(), check["found"].as_str().unwrap().to_owned())
}

async fn it_looks_at_events(world: World) {
    world.run(&["migrate", "--namespace", "shop"]).ended(0);
    world.run(&["prepare"]).ended(0);
    // The keys may be in a database of their own. But a table that is named must be there.
    let (ok, found) = check(&doctor(&world, &[]).ended(0), "events");
    assert!(ok && found.contains("no table of that name"), "{found}");
    assert!(!check(&doctor(&world, &["--events-table", "log"]).ended(5), "events").0);
    if world.is_postgres() {
        assert!(!check(&doctor(&world, &["--streams"]).ended(5), "events").0);
    }
    world.run(&["migrate", "--namespace", "shop", "--events"]).ended(0);
    world.append(0..3).await.unwrap();
    let (ok, found) = check(&doctor(&world, &[]).ended(0), "events");
    assert!(ok && found == "can be read, up to position 3, and appended to (tried, and rolled back)", "{found}");
    assert_eq!(world.column("SELECT event_type FROM events").await, ["Placed"; 3], "nothing of it stays");

    // Doctor finds a table that can't be appended to before an application does.
    match &world.database {
        Database::Postgres(db) => {
            let role = format!("reader_{}", uuid::Uuid::now_v7().simple());
            world
                .execute(format!("CREATE ROLE {role} LOGIN; GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}"))
                .await;
            let url = db.options.clone().username(&role).to_url_lossy().to_string();
            let (ok, found) = check(&doctor(&world, &["--database", &url]).ended(5), "events");
            assert!(ok && found.ends_with("this user may not append"), "{found}");
            world.execute(format!("DROP OWNED BY {role}; DROP ROLE {role}")).await;
            world
                .execute("ALTER TABLE events DROP CONSTRAINT events_aggregate_type_aggregate_id_aggregate_version_key")
                .await;
        }
        Database::Sqlite(_) => {
            world
                .execute("CREATE TRIGGER closed BEFORE INSERT ON events BEGIN SELECT raise(ABORT, 'closed'); END")
                .await;
        }
    }
    assert!(!check(&doctor(&world, &[]).ended(5), "events").0);
    world.execute("ALTER TABLE events DROP COLUMN payload").await;
    assert!(!check(&doctor(&world, &["--events-table", "events"]).ended(5), "events").0);
    // Many things are called events. Only a table that is named must have the right columns.
    let (ok, found) = check(&doctor(&world, &[]), "events");
    assert!(ok && found.contains("has other columns"), "{found}");
}

#[test]
fn a_missing_file_is_a_finding() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}", folder.path().join("shop.db").display());
    let said = run(&mut eventseal(&["doctor", "--database", &url, "--json"])).ended(5);
    let (ok, found) = check(&said, "database");
    assert!(!ok && found.contains("does not exist"), "{found}");
    assert!(!folder.path().join("shop.db").exists(), "it changes nothing");
}

/// Every user who can read the file has all wrapped keys and the ids of all scopes.
#[tokio::test]
async fn a_sqlite_file_is_for_its_owner() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("shop.db");
    let url = format!("sqlite://{}", path.display());
    let script = "umask 022; exec \"$0\" migrate --namespace shop --database \"$1\"";
    let mut migrate = std::process::Command::new("sh");
    run(migrate.args(["-c", script, env!("CARGO_BIN_EXE_eventseal"), &url])).ended(0);
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o600);
    let connection = sqlx::sqlite::SqliteConnectOptions::new().filename(&path).connect().await.unwrap();
    for file in std::fs::read_dir(folder.path()).unwrap() {
        assert_eq!(mode(&file.unwrap().path()), 0o600);
    }
    sqlx::Connection::close(connection).await.unwrap();
    let found = |expected: bool| {
        let said = run(&mut eventseal(&["doctor", "--database", &url, "--json"]));
        let (ok, found) = check(&said, "file mode");
        assert_eq!(ok, expected, "{said:?}");
        // The problem names the database, and not the files beside it, to which SQLite gives the same mode.
        assert!(ok || found.contains("shop.db is open"), "{said:?}");
    };
    found(true);
    for (mode, ok) in [(0o644, false), (0o604, false), (0o602, false), (0o660, true)] {
        // A connection that was just closed may still remove one of the files.
        for file in std::fs::read_dir(folder.path()).unwrap() {
            let _ = std::fs::set_permissions(file.unwrap().path(), std::fs::Permissions::from_mode(mode));
        }
        found(ok);
    }
}

#[tokio::test]
async fn key_tables_that_are_shadowed_are_found() {
    let world = World::postgres().await.with_keys(0..1).await;
    assert_eq!(check(&doctor(&world, &[]).ended(0), "schema").1, "public, by search_path \"$user\", public");
    world.run(&["migrate", "--namespace", "other", "--schema", "elsewhere"]).ended(0);
    let (ok, found) = check(&doctor(&world, &[]).ended(5), "schema");
    assert!(!ok && found.ends_with("there are key tables in elsewhere, public too"), "{found}");
    doctor(&world, &["--schema", "public"]).ended(0);
    // The search_path leads to the other tables. Doctor says so.
    let Database::Postgres(db) = &world.database else { unreachable!() };
    let name = db.options.get_database().unwrap();
    world.execute(format!("ALTER DATABASE {name} SET search_path = elsewhere")).await;
    let said = doctor(&world, &[]).ended(5);
    assert_eq!(check(&said, "namespace"), (true, "other".to_owned()));
    assert!(!check(&said, "schema").0);
    world.execute(format!("ALTER DATABASE {name} SET search_path = nowhere")).await;
    let said = doctor(&world, &[]).ended(5);
    assert!(check(&said, "schema").1.contains("does not lead to the key tables in elsewhere, public"), "{said:?}");
}

#[tokio::test]
async fn a_standby_says_that_it_is_one() {
    let primary = Primary::start();
    let url = primary.options().to_url_lossy().to_string();
    let folder = tempfile::tempdir().unwrap();
    let ring = folder.path().join("ring");
    eventseal::Keyring::create_file(&ring, "main").unwrap();
    let ring = ring.to_str().unwrap();
    run(&mut eventseal(&["migrate", "--namespace", "shop", "--events", "--database", &url])).ended(0);
    run(&mut eventseal(&["prepare", "--database", &url, "--keyring", ring])).ended(0);
    let standby = primary.standby();
    let url = standby.options().to_url_lossy().to_string();
    let said = run(&mut eventseal(&["doctor", "--database", &url, "--keyring", ring, "--json"])).ended(0);
    let (ok, found) = check(&said, "standby");
    assert!(ok && found.starts_with("this is a standby") && found.contains("on the primary"), "{found}");
    assert_eq!(check(&said, "events").1, "can be read, up to position 0");
    assert!(check(&said, "data keys").0);
    let named: Vec<Value> =
        said.json()["checks"].as_array().unwrap().iter().map(|check| check["check"].clone()).collect();
    assert!(!named.contains(&"writing".into()), "it can't be tried there: {named:?}");
}

/// `migrate` needs a namespace: advice that leaves it out is a command that fails.
#[test]
fn advice_to_migrate_is_a_command_that_runs() {
    let mut folders = vec![std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    let mut advice = 0;
    while let Some(folder) = folders.pop() {
        for path in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            // A text may go on in the next line.
            let source = std::fs::read_to_string(&path).unwrap().replace('\\', " ");
            let words: Vec<_> = source.split_whitespace().collect();
            for said in words.windows(4).filter(|said| said[0].ends_with("eventseal") && said[1] == "migrate") {
                let [_, _, option, name] = said else { unreachable!() };
                if option.starts_with("--") {
                    assert!(*option == "--namespace" && !name.starts_with("--"), "{}: {said:?}", path.display());
                    advice += 1;
                }
            }
        }
    }
    assert!(advice >= 8, "{advice}");
}
