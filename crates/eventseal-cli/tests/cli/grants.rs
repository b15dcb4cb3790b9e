//! The roles of `docs/operations.md` on a real PostgreSQL: each role can do its job, and nothing more.

use crate::command::{Database, Output, World, run, schemas};
use eventseal::ExpectedVersion::Any;
use eventseal::error::SetUpFault;
use eventseal::postgres::{PostgresKeys, PostgresStore};
use eventseal::{Error, EventFilter, EventStore, GlobalPosition, Keyring, NewEvent, Result, SealedStore, aggregate};
use sqlx::ConnectOptions;
use sqlx::postgres::PgConnection;

const ROLES: [&str; 4] = ["reader", "service", "operator", "eraser"];

/// The SQL of the guide, with other names for its roles, because all databases of a server share its roles. A block may
/// be followed by others. With an index of seals, lines that are about it count as well.
fn grants(mark: &str, block: usize, indexed: bool) -> String {
    let guide = include_str!("../../../../docs/operations.md");
    let section = guide.split("### Grants on PostgreSQL").nth(1).expect("the guide has a section on grants");
    let sql = section.split("```sql\n").nth(block).and_then(|rest| rest.split("\n```").next()).expect("which has SQL");
    let sql = if indexed {
        sql.replace("-- GRANT", "GRANT").replace("CREATE ROLE", "-- CREATE ROLE")
    } else {
        sql.to_owned()
    };
    ROLES.iter().fold(sql, |sql, role| sql.replace(&format!("shop_{role}"), &format!("{role}_{mark}")))
}

struct Roles<'w> {
    world: &'w World,
    mark: String,
}

impl Roles<'_> {
    fn options(&self, role: &str) -> sqlx::postgres::PgConnectOptions {
        let Database::Postgres(db) = &self.world.database else { unreachable!() };
        db.options.clone().username(&format!("{role}_{}", self.mark))
    }

    async fn connect(&self, role: &str) -> PgConnection {
        self.options(role).connect().await.unwrap()
    }

    fn run(&self, role: &str, arguments: &[&str]) -> Output {
        let url = self.options(role).to_url_lossy().to_string();
        run(self.world.command(&[arguments, &["--json"]].concat()).env("DATABASE_URL", url))
    }

    /// Asserts that these commands work.
    fn may(&self, role: &str, commands: &[&[&str]]) {
        for arguments in commands {
            let said = self.run(role, arguments);
            assert_eq!(said.code, 0, "{role} may {arguments:?}: {said:?}");
        }
    }

    /// Asserts that the database refuses these commands, and that they change nothing.
    fn may_not(&self, role: &str, commands: &[&[&str]]) {
        for arguments in commands {
            let said = self.run(role, arguments);
            assert_eq!(
                (said.code, said.error()["kind"].as_str()),
                (1, Some("permission_denied")),
                "{role}, {arguments:?}: {said:?}"
            );
        }
    }

    async fn append(&self, role: &str, customer: &str) -> Result<()> {
        let store = self.store();
        let mut connection = self.connect(role).await;
        let mut tx = sqlx::Connection::begin(&mut connection).await.unwrap();
        let event = NewEvent::raw("Placed", 1, format!(r#"{{"customer":"{customer}","name":"Ada"}}"#));
        store.append(&mut tx, &aggregate("Order", uuid::Uuid::now_v7().to_string()), Any, &[event]).await?;
        tx.commit().await.unwrap();
        Ok(())
    }

    async fn read(&self, role: &str) -> Result<usize> {
        let mut connection = self.connect(role).await;
        Ok(self
            .store()
            .read_events(&mut connection, GlobalPosition::START, 100, &EventFilter::default())
            .await?
            .events
            .len())
    }

    fn store(&self) -> SealedStore<PostgresStore> {
        let ring = Keyring::from_file(self.world.folder.path().join("ring")).unwrap();
        SealedStore::new(PostgresStore::new(), PostgresKeys::new(), ring, schemas())
    }

    /// The roles end with the test.
    async fn go(&self) {
        for role in ROLES {
            self.world.execute(format!("DROP OWNED BY {role}_{0}; DROP ROLE {role}_{0}", self.mark)).await;
        }
    }

    async fn refused(&self, role: &str, sql: &'static str) {
        let mut connection = self.connect(role).await;
        let error = sqlx::raw_sql(sql).execute(&mut connection).await.expect_err(sql);
        let code = error.as_database_error().and_then(|error| error.code().map(std::borrow::Cow::into_owned));
        assert_eq!(code.as_deref(), Some("42501"), "{role}: {sql}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_role_can_do_its_job_and_no_more() {
    let world = World::postgres().await.with_keys(0..4).await;
    let mark = uuid::Uuid::now_v7().simple().to_string();
    world.execute(grants(&mark, 1, false)).await;
    let roles = Roles { world: &world, mark };

    let shred: &[&str] = &["shred", "Customer", "cust_3", "--reason", "r", "--yes"];
    let disable: &[&str] = &["disable", "Customer", "cust_3", "--reason", "r"];
    let rotate_key: &[&str] = &["rotate-data-key", "Customer", "cust_1"];
    let show: &[&str] = &["keys", "show", "Customer", "cust_1"];

    // A follower of the log.
    assert_eq!(roles.read("reader").await.unwrap(), 4);
    assert!(matches!(roles.append("reader", "cust_0").await, Err(Error::SetUp(SetUpFault::PermissionDenied { .. }))));
    roles.may("reader", &[show, &["status"], &["census"]]);
    roles.may_not("reader", &[shred, disable, rotate_key, &["rotate-kek"]]);

    // The application, which creates the keys of new customers.
    roles.append("service", "cust_0").await.unwrap();
    roles.append("service", "somebody new").await.unwrap();
    assert_eq!(roles.read("service").await.unwrap(), 6);
    roles.may("service", &[&["prepare"], show, &["status"]]);
    roles.may_not("service", &[shred, disable, &["rotate-kek"]]);
    roles.refused("service", "UPDATE data_keys SET wrapped_key = NULL").await;
    roles.refused("service", "UPDATE key_scopes SET state = 'disabled'").await;
    roles.refused("service", "DELETE FROM events").await;
    roles.refused("service", "UPDATE key_encryption_keys SET wrapped_kek = ''").await;

    // The clerk who answers erasure requests, without access to events.
    roles.may("eraser", &[show, shred, &["keys", "show", "Customer", "cust_3"]]);
    assert!(matches!(roles.append("eraser", "cust_0").await, Err(Error::SetUp(SetUpFault::PermissionDenied { .. }))));
    assert!(matches!(roles.read("eraser").await, Err(Error::SetUp(SetUpFault::PermissionDenied { .. }))));
    roles.may_not("eraser", &[rotate_key, &["rotate-kek"]]);
    roles.refused("eraser", "UPDATE key_encryption_keys SET state = 'retired'").await;
    roles.refused("eraser", "UPDATE shred_entries SET reason = ''").await;
    roles.refused("eraser", "DELETE FROM shred_entries").await;
    roles.refused("eraser", "SELECT FROM events").await;

    // The operator of keys, without access to events.
    roles.may(
        "operator",
        &[
            &["rotate-kek"],
            &["rewrap"],
            &["status"],
            rotate_key,
            &["move-master-key"],
            &["prepare", "--partition", "p"],
        ],
    );
    let old = world.keks()[0]["kek"].as_str().unwrap().to_owned();
    roles.may("operator", &[&["retire-kek", &old], &["disable", "Customer", "cust_2", "--reason", "r"]]);
    roles.may(
        "operator",
        &[&["enable", "Customer", "cust_2", "--reason", "r"], &["reopen", "Customer", "cust_3", "--reason", "r"]],
    );
    roles.may("operator", &[&["doctor"]]);
    assert!(matches!(roles.read("operator").await, Err(Error::SetUp(SetUpFault::PermissionDenied { .. }))));
    roles.refused("operator", "DELETE FROM shred_entries").await;
    for role in ROLES {
        roles.refused(role, "CREATE TABLE key_namespace_of_mine (a int)").await;
        roles.refused(role, "DROP TABLE key_scopes").await;
    }
    roles.go().await;
}

/// A certificate reads events and the log. Whoever issues it needs no right to write. The clerk who shreds has no right
/// to events, unless the guide's other grant gives it to him.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_needs_the_rights_that_the_guide_says() {
    let world = World::postgres().await.with_keys(0..4).await;
    let mark = uuid::Uuid::now_v7().simple().to_string();
    world.execute(grants(&mark, 1, false)).await;
    let roles = Roles { world: &world, mark };
    let copy = world.folder.path().join("log");
    let copy = copy.to_str().unwrap();
    for (id, indexed) in [("cust_0", false), ("cust_1", true)] {
        if indexed {
            world.run(&["index-seals"]).ended(0);
            world.execute(grants(&roles.mark, 1, true)).await;
        }
        let out = world.folder.path().join(id);
        let export = ["export", "Customer", id, "--out", out.to_str().unwrap()];
        let certificate = ["certificate", "Customer", id, "--shred-log", copy];
        roles.may("reader", &[&["events-of", "Customer", id], &export]);
        roles.may("eraser", &[&["shred", "Customer", id, "--reason", "r", "--yes"]]);
        roles.may("eraser", &[&["shred-log", "export", "--append", copy], &["shred-log", "verify", copy]]);
        roles.may_not("eraser", &[&["events-of", "Customer", id], &certificate]);
        roles.may_not("operator", &[&certificate]);
        let issued = roles.run("reader", &certificate).ended(0).json();
        assert_eq!((&issued["erased"], &issued["proved"]), (&true.into(), &true.into()), "{issued}");
        assert_eq!(issued["scan"]["index_used"], indexed, "{issued}");
    }
    // An entry that has no number yet is certified as that by whoever can't give it one.
    roles.may("eraser", &[&["shred", "Customer", "cust_2", "--reason", "r", "--yes"]]);
    let certificate = ["certificate", "Customer", "cust_2", "--shred-log", copy];
    let early = roles.run("reader", &certificate).ended(5).json();
    assert_eq!((&early["erased"], &early["proved"]), (&true.into(), &false.into()), "{early}");

    world.execute(grants(&roles.mark, 2, true)).await;
    roles.may("eraser", &[&["shred-log", "export", "--append", copy], &certificate]);
    roles.go().await;
}
