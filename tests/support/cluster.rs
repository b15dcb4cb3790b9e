//! A PostgreSQL server for tests, benchmarks and examples: the one that `DATABASE_URL` names, or a throw-away
//! cluster that is made here and goes with the process, however the process ends.

use sqlx::postgres::PgConnectOptions;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};
use std::str::FromStr;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};

/// If this is set before the first use of the server, its commits outlast a crash.
pub static DURABLE: AtomicBool = AtomicBool::new(false);

static SERVER: LazyLock<Server> = LazyLock::new(|| match std::env::var("DATABASE_URL") {
    Ok(url) if url.starts_with("postgres") => Server {
        options: PgConnectOptions::from_str(&url).expect("DATABASE_URL must be a postgres:// URL"),
        guard: None,
    },
    _ => start(),
});

struct Server {
    options: PgConnectOptions,
    /// The server stops when this pipe closes, which the end of this process does.
    guard: Option<ChildStdin>,
}

/// The options to connect to the server as a user who may create databases.
pub fn server() -> PgConnectOptions {
    SERVER.options.clone()
}

/// Does the server go with this process?
pub fn is_throw_away() -> bool {
    SERVER.guard.is_some()
}

/// Starts PostgreSQL, waits for the pipe to close, and leaves nothing behind. It does not wait for the disk, unless
/// `EVENTSEAL_DURABLE=on`. Nothing is vacuumed but by a test: a vacuum at some moment locks tables, so that an
/// operation has now one statement more and now one less. What stands behind an end of line in the server's options
/// would be lost.
const GUARD: &str = r#"
    bin=$1 folder=$2 durable=${EVENTSEAL_DURABLE:-off}
    "$bin/initdb" -D "$folder/data" -U postgres -A trust -E UTF8 --locale=C --no-sync --no-instructions \
        >"$folder/log" 2>&1 &&
    "$bin/pg_ctl" -D "$folder/data" -l "$folder/log" -w -o "-k '$folder' -c listen_addresses= -c fsync=$durable \
        -c full_page_writes=$durable -c synchronous_commit=$durable -c max_connections=300 -c shared_buffers=256MB \
        -c max_wal_size=2GB -c deadlock_timeout=10ms -c autovacuum=off -c jit=off" \
        start >>"$folder/log" 2>&1 &&
        echo ready || { cat "$folder/log" >&2; echo failed; }
    cat >/dev/null
    "$bin/pg_ctl" -D "$folder/data" -m immediate stop >/dev/null 2>&1
    cd / && rm -rf "$folder"
"#;

/// A copy of a cluster that follows it, and can only be read.
const STANDBY: &str = r#"
    bin=$1 folder=$2 primary=$3
    # Some link only the server's programs to their PATH.
    copy=$bin/pg_basebackup
    [ -x "$copy" ] || copy=$(dirname "$(readlink -f "$bin/postgres")")/pg_basebackup
    [ -x "$copy" ] || copy=$(pg_config --bindir)/pg_basebackup
    "$copy" -h "$primary" -U postgres -D "$folder/data" -R -X stream -c fast --no-sync >"$folder/log" 2>&1 &&
    "$bin/pg_ctl" -D "$folder/data" -l "$folder/log" -w -o "-k '$folder' -c listen_addresses= \
        -c fsync=${EVENTSEAL_DURABLE:-off} -c max_connections=300" start >>"$folder/log" 2>&1 &&
        echo ready || { cat "$folder/log" >&2; echo failed; }
    cat >/dev/null
    "$bin/pg_ctl" -D "$folder/data" -m immediate stop >/dev/null 2>&1
    cd / && rm -rf "$folder"
"#;

/// All processes of the server are stopped before the first is killed: one that noticed would still write. Their shared
/// memory must be free before the next server starts.
const CRASH: &str = r#"
    bin=$1 folder=$2
    first=$(head -n 1 "$folder/data/postmaster.pid")
    kill -STOP $first || exit
    all="$first $(cat /proc/$first/task/*/children)"
    kill -STOP $all && kill -KILL $all || exit
    # What nobody has waited for has ended too, and would be taken for a server that runs.
    for pid in $all; do
        while [ -d /proc/$pid ] && ! grep -q '^State:.[ZX]' /proc/$pid/status 2>/dev/null; do :; done
    done
    rm -f "$folder/data/postmaster.pid" "$folder"/.s.PGSQL.*
    "$bin/pg_ctl" -D "$folder/data" -l "$folder/log" -w restart >>"$folder/log" 2>&1 &&
        echo ready || cat "$folder/log" >&2
"#;

/// A cluster of the test's own, of which standbys can be made.
pub struct Primary(Server);

/// Follows a [`Primary`] for as long as it lives.
pub struct Standby(Server);

impl Primary {
    pub fn start() -> Self {
        Self(start())
    }

    /// Waits for the disk, whatever [`DURABLE`] says.
    pub fn durable() -> Self {
        Self(start_with(GUARD, &[], true))
    }

    /// Ends all processes of this server at the same moment, so that none of them writes anything more, and starts it
    /// again with the options that it had.
    pub fn crash(&self) {
        let folder = self.0.options.get_socket().expect("a throw-away cluster has a socket");
        let mut script = Command::new("sh");
        script.args(["-c", CRASH, "crash"]).arg(binaries().expect("it was started")).arg(folder).current_dir(folder);
        if let Some((user, group)) = unprivileged() {
            script.uid(user).gid(group);
        }
        let output = script.stdin(Stdio::null()).stderr(Stdio::inherit()).output().expect("running sh");
        assert!(output.stdout.ends_with(b"ready\n"), "{output:?}");
    }

    pub fn options(&self) -> PgConnectOptions {
        self.0.options.clone()
    }

    /// A standby that has everything that is committed now.
    pub fn standby(&self) -> Standby {
        let folder = self.0.options.get_socket().expect("a throw-away cluster has a socket").to_owned();
        Standby(start_with(STANDBY, &[folder.as_os_str()], DURABLE.load(Ordering::SeqCst)))
    }
}

impl Standby {
    pub fn options(&self) -> PgConnectOptions {
        self.0.options.clone()
    }
}

fn start() -> Server {
    start_with(GUARD, &[], DURABLE.load(Ordering::SeqCst))
}

#[allow(clippy::zombie_processes, reason = "the guard outlives this process, to clean up after it")]
fn start_with(script: &str, arguments: &[&std::ffi::OsStr], durable: bool) -> Server {
    let bin = binaries().unwrap_or_else(|| {
        panic!(
            "PostgreSQL 15 or newer is needed: install its server (on Debian and Ubuntu: sudo apt-get install \
             postgresql), put initdb and pg_ctl on the PATH, or set DATABASE_URL to a server on which databases may be \
             created"
        )
    });
    let durable = durable || std::env::var_os("EVENTSEAL_DURABLE").is_some_and(|durable| durable == "on");
    let folder = folder(durable).keep();
    let mut guard = Command::new("sh");
    guard.args(["-c", script, "guard"]).arg(&bin).arg(&folder).args(arguments).current_dir(&folder);
    // A process group of its own: an interrupt from the keyboard must not end it before it has cleaned up.
    guard.stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0);
    if durable {
        guard.env("EVENTSEAL_DURABLE", "on");
    }
    if let Some((user, group)) = unprivileged() {
        chown(&folder, Some(user), Some(group)).expect("giving the folder to the server's user");
        guard.uid(user).gid(group);
    }
    let mut guard = guard.spawn().expect("starting sh");
    let mut word = String::new();
    BufReader::new(guard.stdout.take().expect("a pipe")).read_line(&mut word).expect("reading from the server's guard");
    assert_eq!(word, "ready\n", "PostgreSQL did not start: its log is above");
    let options = PgConnectOptions::new_without_pgpass().socket(&folder).username("postgres").database("postgres");
    Server { options, guard: guard.stdin.take() }
}

/// A folder for a cluster. In memory, the files of a database cost half of the time that they cost on a disk. What
/// waits for the disk needs one.
fn folder(durable: bool) -> tempfile::TempDir {
    const MEMORY: &str = "/dev/shm";
    let mut builder = tempfile::Builder::new();
    builder.prefix("eventseal-");
    if !durable
        && is_large(MEMORY)
        && let Ok(folder) = builder.tempdir_in(MEMORY)
    {
        return folder;
    }
    builder.tempdir().expect("a temporary folder")
}

/// Is there room for a cluster and its log in this file system, and in memory?
fn is_large(folder: &str) -> bool {
    const KIBIBYTES: u64 = 6 * 1024 * 1024;
    let number =
        |text: Option<&str>| text.and_then(|text| text.parse().ok()).is_some_and(|free: u64| free >= KIBIBYTES);
    let room = Command::new("df").args(["-Pk", folder]).output().map(|output| output.stdout).unwrap_or_default();
    let room = String::from_utf8_lossy(&room);
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    number(room.lines().nth(1).and_then(|line| line.split_whitespace().nth(3)))
        && number(memory.lines().find_map(|line| line.strip_prefix("MemAvailable:")?.split_whitespace().next()))
}

/// The folder of the newest installed server.
fn binaries() -> Option<PathBuf> {
    let of_debian = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut of_debian: Vec<PathBuf> = of_debian.map(|entry| entry.path().join("bin")).collect();
    of_debian.sort_by_key(|path| std::cmp::Reverse(version(path)));
    let configured = Command::new("pg_config").arg("--bindir").output().ok().filter(|output| output.status.success());
    let configured =
        configured.and_then(|output| String::from_utf8(output.stdout).ok()).map(|path| PathBuf::from(path.trim()));
    let on_path =
        std::env::var_os("PATH").map(|path| std::env::split_paths(&path).collect::<Vec<_>>()).unwrap_or_default();
    let mut candidates = on_path.into_iter().chain(configured).chain(of_debian);
    candidates.find(|path| version(path).is_some_and(|version| version >= 15))
}

/// The major version of the server in this folder, if all of it is there.
fn version(bin: &Path) -> Option<u32> {
    if !["initdb", "pg_ctl", "postgres"].iter().all(|name| bin.join(name).is_file()) {
        return None;
    }
    let output = Command::new(bin.join("postgres")).arg("--version").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    text.split_whitespace().find_map(|word| word.split('.').next()?.parse().ok())
}

/// PostgreSQL refuses to run as root: another user for it, if this is root.
pub fn unprivileged() -> Option<(u32, u32)> {
    let root = std::fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0);
    let users = if root { std::fs::read_to_string("/etc/passwd").expect("the user database") } else { return None };
    let ids = |name: &str| {
        let line: Vec<&str> =
            users.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|line| line[0] == name)?;
        Some((line.get(2)?.parse().ok()?, line.get(3)?.parse().ok()?))
    };
    Some(ids("postgres").or_else(|| ids("nobody")).expect("PostgreSQL does not run as root: add a user named postgres"))
}
