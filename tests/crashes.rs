//! Connections and processes that end in the middle of something, on PostgreSQL: nothing is left half done
//! (invariants I5, I6 and I11). The file is long because all of it is one procedure on one proxy.
//!
//! A client talks to the server through a proxy that counts what it asks for. At each of its statements in turn, just
//! before the server gets it and just after the server has done it, the connection is terminated by the server, cut, or
//! the client process is killed. Afterwards the tables are as they were before or, if the commit had been done, as they
//! are when all went well.

use eventseal::ExpectedVersion::Any;
use eventseal::erasure::{FileCopy, ReplayOptions, Replayed};
use eventseal::keys::KeyStore;
use eventseal::keys::ScopeAction;
use eventseal::maintenance::{BackfillOptions, IndexSealsOptions, RewriteOptions, Rewritten, index_seals};
use eventseal::postgres::{PostgresKeys, PostgresStore, PostgresTables};
use eventseal::store::EventTable;
use eventseal::{
    Changes, EventFilter, EventStore, EventStoreExt, GlobalPosition, KeyScope, Keyring, Namespace, NewEvent,
    PersistedEvent, Result, Schemas, SealedStore, Sealer, aggregate, event, subject,
};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, Connection};
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use support::{Deadline, Postgres};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::process::Command;
use tokio::sync::Notify;
use uuid::Uuid;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kill {
    /// The server ends the connection, as an administrator makes it.
    Terminate,
    /// The network connection is cut.
    Cut,
    /// The client process is killed.
    Process,
}

/// Where a client is stopped.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Point {
    /// The number of its request, from 0.
    request: usize,
    /// Has the server carried out the request?
    done: bool,
}

const OPERATIONS: [&str; 10] = [
    "prepare",
    "append",
    "append with the index",
    "first append",
    "shred",
    "shred of a stranger",
    "reopen",
    "rotate",
    "backfill",
    "index",
];

fn keyring() -> Keyring {
    Keyring::parse("main:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=").unwrap()
}

fn store(prefix: &str) -> SealedStore<PostgresStore> {
    let placed = event("Placed").version(1).protect(&["/name"], subject("Customer", "/customer"));
    let schemas = Schemas::builder([placed]).accept_plaintext("Placed").build().unwrap();
    let keys = if prefix.is_empty() { PostgresKeys::new() } else { PostgresKeys::new().with_prefix(prefix).unwrap() };
    SealedStore::new(PostgresStore::new(), keys, keyring(), schemas)
}

/// A store whose appends keep the index of seals.
fn keeping() -> SealedStore<PostgresStore> {
    let placed = event("Placed").version(1).protect(&["/name"], subject("Customer", "/customer"));
    let tables = PostgresStore::with_tables(PostgresTables::new().index_seals()).unwrap();
    SealedStore::new(tables, PostgresKeys::new(), keyring(), Schemas::new([placed]).unwrap())
}

fn placed(name: &str) -> NewEvent {
    NewEvent::raw("Placed", 1, format!(r#"{{"customer":"{name}","name":"Ada"}}"#))
}

fn is_plain(event: &PersistedEvent) -> bool {
    String::from_utf8_lossy(&event.payload).contains("Ada")
}

/// One operation, as a process that has just started does it.
async fn act(
    options: &PgConnectOptions,
    operation: &str,
    name: &str,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let mut connection = PgConnection::connect_with(options).await?;
    if operation == "prepare" {
        store(name).keys().prepare(&mut connection).await?;
        return Ok(());
    }
    let (store, scope) = (store(""), KeyScope::new("Customer", name));
    if operation == "backfill" {
        // One batch, for a subject that is new: its key is made in the same transaction.
        let done = store.backfill(&mut connection, &BackfillOptions::default(), &mut |_| {}).await?;
        assert_eq!(done.skipped, 0);
        return Ok(());
    }
    if operation == "index" {
        index_seals(store.inner(), &mut connection, &IndexSealsOptions::default(), &mut |_| {}).await?;
        return Ok(());
    }
    let mut tx = connection.begin().await?;
    match operation {
        "append" | "first append" => {
            drop(store.append(&mut tx, &aggregate("Order", name), Any, &[placed(name), placed(name)]).await?);
        }
        "append with the index" => {
            drop(keeping().append(&mut tx, &aggregate("Order", name), Any, &[placed(name), placed(name)]).await?);
        }
        "shred" | "shred of a stranger" => drop(store.keys().shred(&mut tx, &scope, "crash").await?),
        "reopen" => store.keys().reopen(&mut tx, &scope, "crash").await.map(|_| ())?,
        "rotate" => store.keys().rotate_data_key(&mut tx, &scope).await.map(|_| ())?,
        other => panic!("unknown operation {other}"),
    }
    tx.commit().await?;
    Ok(())
}

/// Brings the world to where the operation starts.
async fn set_up(db: &Postgres, operation: &str, name: &str) {
    let mut connection = db.pool.acquire().await.unwrap();
    if operation == "prepare" {
        PostgresKeys::new()
            .with_prefix(name)
            .unwrap()
            .migrate(&mut connection, &Namespace::new("conformance").unwrap())
            .await
            .unwrap();
        return;
    }
    let store = store("");
    if operation == "index" {
        // Each run begins with an index that is complete up to some event.
        let options = IndexSealsOptions::default();
        index_seals(store.inner(), &mut *connection, &options, &mut |_| {}).await.unwrap();
    }
    let mut tx = connection.begin().await.unwrap();
    if operation == "backfill" {
        PostgresStore::new()
            .append(&mut tx, &aggregate("Order", name), Any, &[placed(name), placed(name)])
            .await
            .unwrap();
        tx.commit().await.unwrap();
        return;
    }
    if !matches!(operation, "first append" | "shred of a stranger") {
        store.append(&mut tx, &aggregate("Order", name), Any, &[placed(name)]).await.unwrap();
        store.keys().rotate_data_key(&mut tx, &KeyScope::new("Customer", name)).await.unwrap();
    }
    if operation == "reopen" {
        store.keys().shred(&mut tx, &KeyScope::new("Customer", name), "before").await.unwrap();
    }
    tx.commit().await.unwrap();
}

/// The state of the tables, and what a reader sees.
async fn look(db: &Postgres, operation: &str, name: &str) -> String {
    let mut connection = db.pool.acquire().await.unwrap();
    if operation == "prepare" {
        let sql = format!(
            "SELECT (SELECT count(*) FROM {name}key_encryption_keys WHERE state = 'active') ||
                ' ' || (SELECT count(*) FROM {name}data_keys WHERE state = 'live')
                 || ' ' || (SELECT count(active_key_id) || '/' || count(*) FROM {name}key_scopes)"
        );
        return sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(&mut *connection).await.unwrap();
    }
    let scope = KeyScope::new("Customer", name);
    let history = match PostgresKeys::new().history(&mut connection, &scope).await.unwrap() {
        Some(history) => {
            let keys: Vec<(u32, bool)> =
                history.keys.iter().map(|key| (key.version, key.shredded_at.is_some())).collect();
            let active = history.keys.iter().position(|key| Some(key.key_id) == history.active_key);
            let changes: Vec<ScopeAction> = history.entries.iter().map(|change| change.action).collect();
            let wrapped: i64 = sqlx::query_scalar(
                "SELECT count(wrapped_key) FROM data_keys WHERE scope_kind = 'Customer' AND scope_id = $1",
            )
            .bind(name)
            .fetch_one(&mut *connection)
            .await
            .unwrap();
            format!(
                "{:?} generation {} keys {keys:?} active {active:?} wrapped {wrapped} {changes:?}",
                history.state, history.generation
            )
        }
        None => "never seen".to_owned(),
    };
    let head: Option<i64> = sqlx::query_scalar("SELECT aggregate_version FROM aggregate_heads WHERE aggregate_id = $1")
        .bind(name)
        .fetch_optional(&mut *connection)
        .await
        .unwrap();
    let read = store("")
        .read_stream(&mut connection, &aggregate("Order", name))
        .await
        .expect("I11: every committed event is readable");
    let events: Vec<&str> =
        read.events.iter().map(|event| if event.is_redacted() { "redacted" } else { "plain" }).collect();
    assert!(read.events.iter().all(|event| event.is_redacted() != is_plain(event)));
    let sealed: Vec<bool> = sqlx::query_scalar(
        "SELECT position('\"$seal\"'::bytea IN payload) > 0 FROM events WHERE aggregate_id = $1 ORDER BY \
         aggregate_version",
    )
    .bind(name)
    .fetch_all(&mut *connection)
    .await
    .unwrap();
    let indexed: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM sealed_events JOIN events USING (global_position) WHERE aggregate_id = $1",
    )
    .bind(name)
    .fetch_one(&mut *connection)
    .await
    .unwrap();
    format!("{history}; head {head:?}, events {events:?}, sealed {sealed:?}, indexed {indexed}")
}

/// Passes on what a client and the server say, until a point is reached.
struct Proxy {
    folder: tempfile::TempDir,
    requests: AtomicUsize,
    stop: Option<(Point, Kill)>,
    reached: Notify,
}

impl Proxy {
    async fn start(db: &Postgres, stop: Option<(Point, Kill)>) -> Arc<Self> {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join(".s.PGSQL.5432")).unwrap();
        let proxy = Arc::new(Self { folder, requests: AtomicUsize::new(0), stop, reached: Notify::new() });
        let (serving, options) = (Arc::clone(&proxy), db.options.clone());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                serving.serve(client, &options).await;
            }
        });
        proxy
    }

    fn options(&self, db: &Postgres) -> PgConnectOptions {
        through(self.folder.path(), &db.options)
    }

    /// One connection: its requests one at a time, each with its answer.
    async fn serve(&self, mut client: UnixStream, options: &PgConnectOptions) -> Option<()> {
        let mut server: Box<dyn Stream> = match options.get_socket() {
            Some(folder) => {
                Box::new(UnixStream::connect(folder.join(format!(".s.PGSQL.{}", options.get_port()))).await.ok()?)
            }
            None => Box::new(tokio::net::TcpStream::connect((options.get_host(), options.get_port())).await.ok()?),
        };
        // The startup message has no type. Its answer ends as all answers do; the backend's process id is in it.
        let startup = body(&mut client).await?;
        server.write_all(&startup).await.ok()?;
        let answer = answer(&mut server).await?;
        let pid = answer
            .iter()
            .find(|message| message[0] == b'K')
            .map(|message| i32::from_be_bytes(message[5..9].try_into().unwrap()));
        client.write_all(&answer.concat()).await.ok()?;
        loop {
            let mut request = Vec::new();
            loop {
                let kind = client.read_u8().await.ok()?;
                let message = body(&mut client).await?;
                request.push(kind);
                request.extend(message);
                if kind == b'X' {
                    return None;
                }
                if matches!(kind, b'S' | b'Q') {
                    break;
                }
            }
            let number = self.requests.fetch_add(1, Ordering::SeqCst);
            let stop = self.stop.filter(|(point, _)| point.request == number);
            if stop.is_none_or(|(point, _)| point.done) {
                server.write_all(&request).await.ok()?;
                let answer = self::answer(&mut server).await?;
                if stop.is_none() {
                    client.write_all(&answer.concat()).await.ok()?;
                    continue;
                }
            }
            self.reached.notify_one();
            match stop?.1 {
                Kill::Cut => {}
                Kill::Terminate => {
                    let mut admin = PgConnection::connect_with(options).await.unwrap();
                    sqlx::query("SELECT pg_terminate_backend($1)").bind(pid).execute(&mut admin).await.unwrap();
                    // The client is told, if the server still can.
                    let mut rest = Vec::new();
                    drop(server.read_to_end(&mut rest).await);
                    drop(client.write_all(&rest).await);
                }
                // The end of the process closes the connection.
                Kill::Process => drop(client.read_u8().await),
            }
            return None;
        }
    }
}

trait Stream: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send {}
impl<T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send> Stream for T {}

/// A message without its type, length included.
async fn body(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> Option<Vec<u8>> {
    let length = stream.read_u32().await.ok()?;
    let mut message = length.to_be_bytes().to_vec();
    message.resize(length as usize, 0);
    stream.read_exact(&mut message[4..]).await.ok()?;
    Some(message)
}

/// Messages up to the one that says that the server is ready for the next request.
async fn answer(server: &mut Box<dyn Stream>) -> Option<Vec<Vec<u8>>> {
    let mut messages = Vec::new();
    loop {
        let kind = server.read_u8().await.ok()?;
        let mut message = vec![kind];
        message.extend(body(server).await?);
        messages.push(message);
        if kind == b'Z' {
            return Some(messages);
        }
    }
}

fn through(folder: &Path, options: &PgConnectOptions) -> PgConnectOptions {
    let database = options.get_database().unwrap();
    let options = options.clone().socket(folder).port(5432).database(database);
    options.ssl_mode(sqlx::postgres::PgSslMode::Disable)
}

/// Runs the operation through the proxy until it is stopped, or to its end.
async fn run(db: &Postgres, proxy: &Proxy, operation: &str, name: &str) {
    let killed = proxy.stop.map(|(_, kill)| kill);
    if killed == Some(Kill::Process) {
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", "i5_i6_i11_whatever_ends_in_the_middle_leaves_nothing_half_done"]);
        child.env("EVENTSEAL_CHILD", operation).env("EVENTSEAL_NAME", name).env("EVENTSEAL_PROXY", proxy.folder.path());
        if std::env::var_os("DATABASE_URL").is_none() {
            child.env(
                "DATABASE_URL",
                format!("postgres://postgres@localhost?host={}", db.options.get_socket().unwrap().display()),
            );
        }
        child.env("EVENTSEAL_DATABASE", db.options.get_database().unwrap());
        let mut child = child.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        tokio::select! {
            () = proxy.reached.notified() => child.kill().await.unwrap(),
            ended = child.wait() => panic!("the child ended by itself: {ended:?}"),
        }
    } else {
        let done = act(&proxy.options(db), operation, name).await;
        assert_eq!(done.is_err(), killed.is_some(), "{done:?}");
    }
}

/// Waits until the server has noticed that clients went, and rolled back what they had begun.
async fn settle(db: &Postgres) {
    let mut connection = db.pool.acquire().await.unwrap();
    let deadline = Deadline::of("for transactions to end whose client has gone");
    loop {
        deadline.check();
        let busy: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() AND \
             xact_start IS NOT NULL",
        )
        .fetch_one(&mut *connection)
        .await
        .unwrap();
        if busy == 0 {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i5_i6_i11_whatever_ends_in_the_middle_leaves_nothing_half_done() {
    if let Ok(operation) = std::env::var("EVENTSEAL_CHILD") {
        // This process is the client that another one is going to kill.
        let options = support::cluster::server().database(&std::env::var("EVENTSEAL_DATABASE").unwrap());
        let options = through(Path::new(&std::env::var_os("EVENTSEAL_PROXY").unwrap()), &options);
        act(&options, &operation, &std::env::var("EVENTSEAL_NAME").unwrap()).await.unwrap();
        return;
    }
    let db = Postgres::new().await;
    store("").keys().prepare(&mut *db.pool.acquire().await.unwrap()).await.unwrap();
    PostgresStore::new().seal_index().unwrap().make(&mut *db.pool.acquire().await.unwrap()).await.unwrap();
    let fresh = || format!("x{}_", &Uuid::now_v7().simple().to_string()[12..]);
    let mut stopped = 0;
    for operation in OPERATIONS {
        let (calm, name) = (Proxy::start(&db, None).await, fresh());
        set_up(&db, operation, &name).await;
        run(&db, &calm, operation, &name).await;
        let (requests, after) = (calm.requests.load(Ordering::SeqCst), look(&db, operation, &name).await);
        assert!(requests >= 5, "{operation}: the proxy saw {requests} requests");
        for request in 0..requests {
            for done in [false, true] {
                for kill in [Kill::Terminate, Kill::Cut, Kill::Process] {
                    let (point, name) = (Point { request, done }, fresh());
                    set_up(&db, operation, &name).await;
                    let before = look(&db, operation, &name).await;
                    let proxy = Proxy::start(&db, Some((point, kill))).await;
                    run(&db, &proxy, operation, &name).await;
                    settle(&db).await;
                    let left = look(&db, operation, &name).await;
                    let what = format!("{operation}, {kill:?} at {point:?} of {requests}");
                    if operation == "prepare" {
                        // Each of its statements is committed on its own, in an order that leaves none half done.
                        assert!(["0 0 0/0", "1 0 0/0", "1 1 1/1"].contains(&&*left), "{what}: {left}");
                    } else {
                        // Maintenance commits by itself, and afterwards asks whether the commit was done.
                        let commit = requests - if ["backfill", "index"].contains(&operation) { 2 } else { 1 };
                        let committed = (request, done) >= (commit, true);
                        assert_eq!(left, if committed { &*after } else { &*before }, "{what}");
                    }
                    // The operation runs again without a disturbance, and completes.
                    if left == before || operation == "prepare" {
                        act(&db.options, operation, &name).await.unwrap();
                    }
                    assert_eq!(look(&db, operation, &name).await, after, "{what}");
                    stopped += 1;
                }
            }
        }
    }
    println!("stopped {stopped} times");
}

/// If a committed rotation were called retryable, a caller that tries again would rotate twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_committed_is_never_called_retryable() {
    let db = Postgres::new().await;
    store("").keys().prepare(&mut *db.pool.acquire().await.unwrap()).await.unwrap();
    let active = async || {
        let kek = PostgresKeys::new().active_kek(&mut db.pool.acquire().await.unwrap(), "default").await.unwrap();
        kek.unwrap().kek_id
    };
    let rotate = async |proxy: &Proxy| {
        let mut connection = PgConnection::connect_with(&proxy.options(&db)).await.unwrap();
        let before = proxy.requests.load(Ordering::SeqCst);
        store("").keys().rotate_kek(&mut connection, "default").await.map(|_| before)
    };
    let calm = Proxy::start(&db, None).await;
    let first = rotate(&calm).await.unwrap();
    for request in first..calm.requests.load(Ordering::SeqCst) {
        for done in [false, true] {
            let (before, point) = (active().await, Point { request, done });
            let proxy = Proxy::start(&db, Some((point, Kill::Cut))).await;
            let error = rotate(&proxy).await.unwrap_err();
            settle(&db).await;
            assert!(error.is_outage(), "{point:?}: {error:?}");
            assert!(!error.is_retryable() || active().await == before, "{point:?}: {error:?}");
        }
    }
}

/// A rewrite has two connections. If either is lost, at any statement, each batch is copied as a whole or not at all,
/// and running the rewrite again completes it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i8_i11_a_rewrite_that_loses_a_connection_is_completed() {
    let (db, copy) = (Postgres::new().await, Postgres::new().await);
    store("").keys().prepare(&mut db.pool.acquire().await.unwrap()).await.unwrap();
    set_up(&db, "reopen", "shredded").await;
    let mut options = RewriteOptions::default();
    options.batch = 1_000;
    let rewrite =
        async |source: &PgConnectOptions, target: &PgConnectOptions| -> Result<Rewritten, Box<dyn std::error::Error>> {
            let (mut source, mut target) =
                (PgConnection::connect_with(source).await?, PgConnection::connect_with(target).await?);
            Ok(evolved().rewrite(&mut source, &PostgresStore::new(), &mut target, &options, &mut |_| {}).await?)
        };
    let read = async || {
        let (mut source, mut target) = (db.pool.acquire().await.unwrap(), copy.pool.acquire().await.unwrap());
        let all = EventFilter::default();
        let stored =
            PostgresStore::new().read_events(&mut target, GlobalPosition::START, 1_000, &all).await.unwrap().events;
        let sealer = Sealer::new(PostgresKeys::new(), keyring(), evolved_schemas());
        let copied = sealer.open(&mut source, stored).await.expect("I11: every committed event is readable");
        let original = evolved().read_events(&mut source, GlobalPosition::START, 1_000, &all).await.unwrap().events;
        let seen = |event: PersistedEvent| {
            (event.global_position, event.event_id, event.event_version, event.payload, event.redacted)
        };
        (copied.into_iter().map(seen).collect::<Vec<_>>(), original.into_iter().map(seen).collect::<Vec<_>>())
    };
    let mut stopped = 0;
    for on_source in [true, false] {
        for request in 0.. {
            let mut reached = false;
            for (done, kill) in [(false, Kill::Terminate), (true, Kill::Cut)] {
                // One that is new each time, whose key has to be made before it is copied.
                set_up(&db, "backfill", &format!("new {on_source} {request} {done} {kill:?}")).await;
                sqlx::query("TRUNCATE events, aggregate_heads RESTART IDENTITY").execute(&copy.pool).await.unwrap();
                let stop = Some((Point { request, done }, kill));
                let (source, target) = (
                    Proxy::start(&db, stop.filter(|_| on_source)).await,
                    Proxy::start(&copy, stop.filter(|_| !on_source)).await,
                );
                let ended = rewrite(&source.options(&db), &target.options(&copy)).await;
                let requests = if on_source { &source } else { &target }.requests.load(Ordering::SeqCst);
                let was_reached = requests > request;
                let what = format!("{} {request}, done: {done}, {kill:?}", if on_source { "source" } else { "target" });
                assert_eq!(ended.is_err(), was_reached, "{what}: {ended:?}");
                settle(&db).await;
                settle(&copy).await;
                let (copied, original) = read().await;
                assert!(copied.is_empty() || copied == original, "{what}: a part of a batch was committed");
                rewrite(&db.options, &copy.options).await.unwrap();
                let (copied, original) = read().await;
                assert!(copied == original, "{what}: it was not completed");
                reached |= was_reached;
                stopped += usize::from(was_reached);
            }
            if !reached {
                break;
            }
        }
    }
    assert!(stopped > 60, "{stopped}");
    println!("stopped {stopped} times");
}

fn evolved_schemas() -> Schemas {
    let customer = || subject("Customer", "/customer");
    let placed =
        event("Placed").version(1).protect(&["/name"], customer()).version(2).protect(&["/full_name"], customer());
    let placed = placed.change(1, Changes::new().move_value("/name", "/full_name"));
    Schemas::builder([placed]).accept_plaintext("Placed").build().unwrap()
}

fn evolved() -> SealedStore<PostgresStore> {
    SealedStore::new(PostgresStore::new(), PostgresKeys::new(), keyring(), evolved_schemas())
}

const SAVE: &str = "CREATE TABLE saved_keys AS SELECT * FROM data_keys;
    CREATE TABLE saved_scopes AS SELECT * FROM key_scopes; CREATE TABLE saved_entries AS SELECT * FROM shred_entries;
    CREATE TABLE saved_log AS SELECT * FROM shred_log; CREATE TABLE saved_head AS SELECT * FROM shred_log_head";
const RESTORE: &str = "BEGIN; SET LOCAL session_replication_role = replica;
    DELETE FROM shred_log; DELETE FROM shred_entries; DELETE FROM shred_log_head; DELETE FROM data_keys;
    DELETE FROM key_scopes; INSERT INTO key_scopes SELECT * FROM saved_scopes;
    INSERT INTO data_keys SELECT * FROM saved_keys; INSERT INTO shred_entries SELECT * FROM saved_entries;
    INSERT INTO shred_log SELECT * FROM saved_log; INSERT INTO shred_log_head SELECT * FROM saved_head; COMMIT";

/// A sealing or a replay that loses its connection, at any statement, leaves a log that holds, and running it again
/// completes it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i11_i13_a_replay_that_loses_its_connection_is_completed() {
    let db = Postgres::new().await;
    let keys = || store("");
    keys().keys().prepare(&mut db.pool.acquire().await.unwrap()).await.unwrap();
    set_up(&db, "shred", "first").await;
    set_up(&db, "reopen", "second").await;
    sqlx::raw_sql(SAVE).execute(&db.pool).await.unwrap();
    act(&db.options, "shred", "first").await.unwrap();
    act(&db.options, "reopen", "second").await.unwrap();
    set_up(&db, "reopen", "third").await;
    let folder = tempfile::tempdir().unwrap();
    let copy = FileCopy::new(folder.path().join("log"));
    let mut connection = db.pool.acquire().await.unwrap();
    assert_eq!(keys().keys().export_log(&mut connection, &copy, &mut |_| {}).await.unwrap().seq, 4);
    drop(connection);
    let replay = async |options: &PgConnectOptions| -> Result<Replayed, Box<dyn std::error::Error>> {
        let mut connection = PgConnection::connect_with(options).await?;
        let mut batches = ReplayOptions::default();
        batches.batch = 2;
        Ok(keys().keys().replay_log(&mut connection, &[&copy], &batches, &mut |_| {}).await?)
    };
    let mut stopped = 0;
    // Without a fork, and with one.
    for own in ["", "fourth"] {
        for request in 0.. {
            let mut reached = false;
            for (done, kill) in [(false, Kill::Terminate), (true, Kill::Cut)] {
                sqlx::raw_sql(RESTORE).execute(&db.pool).await.unwrap();
                if !own.is_empty() {
                    set_up(&db, "reopen", &format!("{own} {request} {done}")).await;
                    keys().keys().seal_log(&mut db.pool.acquire().await.unwrap()).await.unwrap();
                }
                let proxy = Proxy::start(&db, Some((Point { request, done }, kill))).await;
                let ended = replay(&proxy.options(&db)).await;
                let was_reached = proxy.requests.load(Ordering::SeqCst) > request;
                let what = format!("{own:?}, {request}, done: {done}, {kill:?}");
                assert_eq!(ended.is_err(), was_reached, "{what}: {ended:?}");
                settle(&db).await;
                let done = replay(&db.options).await.unwrap();
                assert!(done.is_complete() && done.forked != own.is_empty(), "{what}: {done:?}");
                let mut connection = db.pool.acquire().await.unwrap();
                let report = keys().keys().verify_log(&mut connection, &[&copy], &mut |_| {}).await.unwrap();
                assert!(report.is_sound(), "{what}: {report:?}");
                let left: i64 =
                    sqlx::query_scalar("SELECT count(wrapped_key) FROM data_keys WHERE scope_id IN ('first', 'third')")
                        .fetch_one(&mut *connection)
                        .await
                        .unwrap();
                assert_eq!(left, 0, "I13, {what}");
                reached |= was_reached;
                stopped += usize::from(was_reached);
            }
            if !reached {
                break;
            }
        }
    }
    assert!(stopped > 100, "{stopped}");
    println!("stopped {stopped} times");
}
