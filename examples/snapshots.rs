//! Snapshots: an account with many events is loaded, decided on and appended to, and a snapshot is kept every ten
//! events. Then one of the people in it asks to be forgotten. `cargo run --example snapshots` runs it on a temporary
//! SQLite file.
//!
//! Everything that it prints is asserted too.

use eventseal::error::BoxError;
use eventseal::snapshots::{AggregateState, Rebuilt, SaveOutcome, SealedSnapshots};
use eventseal::sqlite::{SqliteKeys, SqliteSnapshots, SqliteStore};
use eventseal::{
    AggregateRef, AggregateVersion, Event, EventStore, Events, Keyring, Namespace, NewEvent, PersistedEvent, Schemas,
    Scope, SealedStore, Sensitive, aggregate,
};
use serde::{Deserialize, Serialize};
use sqlx::SqlitePool;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};

type BoxResult<T = ()> = Result<T, Box<dyn std::error::Error>>;

/// How many events are folded at most before the next snapshot is kept.
const EVERY: u64 = 10;

// ---- the events of a shared account. Each name and note belongs to the person with the id beside it.

#[derive(Scope)]
#[scope("Person")]
struct Person;

#[derive(Serialize, Deserialize, Event)]
#[event(type = "MemberJoined", version = 1, owner = Person(person))]
struct MemberJoined {
    person: String,
    name: Sensitive<String>,
}

#[derive(Serialize, Deserialize, Event)]
#[event(type = "MoneyPaidIn", version = 1, owner = Person(person))]
struct MoneyPaidIn {
    person: String,
    cents: u64,
    note: Sensitive<String>,
}

#[derive(Events)]
enum AccountEvent {
    Joined(MemberJoined),
    PaidIn(MoneyPaidIn),
}

// ---- the state that commands are decided on

#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
struct Account {
    members: Vec<(String, Sensitive<String>)>,
    cents: u64,
    last_note: Option<Sensitive<String>>,
}

impl AggregateState for Account {
    const NAME: &'static str = "account";
    /// Increased whenever this type, `apply` or a step that is a function changes.
    const VERSION: u32 = 1;

    fn apply(&mut self, event: &PersistedEvent) -> Result<(), BoxError> {
        match AccountEvent::decode(event)? {
            AccountEvent::Joined(joined) => self.members.push((joined.person, joined.name)),
            AccountEvent::PaidIn(paid) => {
                self.cents += paid.cents;
                self.last_note = Some(paid.note);
            }
        }
        Ok(())
    }
}

// ---- the service: load, decide, append, and keep a snapshot now and then

struct Service {
    pool: SqlitePool,
    store: SealedStore<SqliteStore>,
    snapshots: SealedSnapshots<SqliteSnapshots>,
}

impl Service {
    async fn handle(&self, account: &AggregateRef, command: NewEvent) -> BoxResult<Rebuilt<Account>> {
        // On SQLite, a transaction that reads first and writes then begins like this.
        let mut tx = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        let rebuilt: Rebuilt<Account> = self.snapshots.load(&mut tx, &self.store, account).await?;
        assert!(rebuilt.state().members.len() < 100, "a rule of the account");
        self.store.append(&mut tx, account, rebuilt.expected_version(), &[command]).await?;
        if self.snapshots.save_every(&mut tx, &self.store, &rebuilt, EVERY).await? == SaveOutcome::Saved {
            println!("  a snapshot of version {} is kept", rebuilt.version().map_or(0, AggregateVersion::get));
        }
        tx.commit().await?;
        Ok(rebuilt)
    }

    async fn load(&self, account: &AggregateRef) -> BoxResult<Rebuilt<Account>> {
        let mut connection = self.pool.acquire().await?;
        Ok(self.snapshots.load(&mut connection, &self.store, account).await?)
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> BoxResult {
    let folder = tempfile::tempdir()?;
    let options = SqliteConnectOptions::new().filename(folder.path().join("bank.db")).create_if_missing(true);
    let pool = SqlitePoolOptions::new().connect_with(options).await?;
    let mut connection = pool.acquire().await?;
    SqliteStore::new().migrate(&mut connection).await?;
    SqliteKeys::new().migrate(&mut connection, &Namespace::new("bank")?).await?;
    SqliteSnapshots::new().migrate(&mut connection).await?;

    let schemas = Schemas::of::<AccountEvent>().build()?;
    let store = SealedStore::new(SqliteStore::new(), SqliteKeys::new(), Keyring::generate("main")?, schemas);
    store.keys().prepare(&mut connection).await?;
    drop(connection);
    // With the version of the program, each release begins with new snapshots.
    let snapshots = SealedSnapshots::new(SqliteSnapshots::new()).code_version(env!("CARGO_PKG_VERSION"));
    let service = Service { pool, store, snapshots };

    println!("Ada and Grace share an account, and pay in 30 times:");
    let account = aggregate("Account", "acc_1");
    for (person, name) in [("p_1", "Ada"), ("p_2", "Grace")] {
        let joined = MemberJoined { person: person.into(), name: name.into() };
        service.handle(&account, NewEvent::of(&joined)?).await?;
    }
    let mut most = 0;
    for number in 0..30 {
        let person = if number % 2 == 0 { "p_1" } else { "p_2" };
        let note = format!("payment {number}").as_str().into();
        let paid = MoneyPaidIn { person: person.into(), cents: 100, note };
        most = service.handle(&account, NewEvent::of(&paid)?).await?.folded().max(most);
    }
    assert_eq!(most, EVERY);
    println!("No command had to fold more than {most} of the 32 events.");

    let rebuilt = service.load(&account).await?;
    assert_eq!(
        (rebuilt.state().cents, rebuilt.folded(), rebuilt.snapshot().map(AggregateVersion::get)),
        (3_000, 2, Some(30))
    );
    println!("{:?}", rebuilt.state());

    println!("Ada asks to be forgotten. Her data was in the snapshot, so it can't be opened any more:");
    let mut tx = service.pool.begin().await?;
    service.store.keys().shred(&mut tx, &Person::scope("p_1"), "erasure request 118").await?;
    tx.commit().await?;
    let rebuilt = service.load(&account).await?;
    let [(_, ada), (_, grace)] = &rebuilt.state().members[..] else { panic!("two members") };
    assert!(ada.is_redacted() && grace.expose().is_some_and(|name| name == "Grace"));
    assert_eq!((rebuilt.state().cents, rebuilt.folded(), rebuilt.snapshot()), (3_000, 32, None));
    println!("  it was discarded ({}), and all {} events were folded", rebuilt.discarded().unwrap(), rebuilt.folded());

    println!("The next command keeps a new one, with what is left:");
    let paid = MoneyPaidIn { person: "p_2".into(), cents: 100, note: "for Ada".into() };
    service.handle(&account, NewEvent::of(&paid)?).await?;
    let again = service.load(&account).await?;
    assert_eq!((again.folded(), again.state().cents), (1, 3_100));
    assert_eq!(again.state().members, rebuilt.state().members);
    println!("{:?}", again.state());
    Ok(())
}
