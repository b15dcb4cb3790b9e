//! A PgBouncer in transaction mode before the server of the tests. It goes with the value, and with the process.

use sqlx::postgres::PgConnectOptions;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};

pub struct PgBouncer {
    folder: PathBuf,
    /// It ends when this pipe closes, which the end of this process does.
    _guard: ChildStdin,
}

const GUARD: &str = r#"
    bin=$1 folder=$2
    "$bin" "$folder/pgbouncer.ini" >"$folder/log" 2>&1 & pid=$!
    tries=0
    until [ -S "$folder/.s.PGSQL.6432" ]; do
        tries=$((tries + 1))
        if [ $tries -gt 400 ] || ! kill -0 $pid 2>/dev/null; then cat "$folder/log" >&2; echo failed; exit; fi
        sleep 0.05
    done
    echo ready
    cat >/dev/null
    kill $pid; wait $pid
    cd / && rm -rf "$folder"
"#;

impl PgBouncer {
    /// In front of the server of `options`, with that many connections to it, and these settings besides.
    #[allow(clippy::zombie_processes, reason = "the guard outlives this value, to clean up after it")]
    pub fn start(bin: &Path, options: &PgConnectOptions, connections: u32, settings: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("eventseal-").tempdir().expect("a temporary folder").keep();
        let host =
            options.get_socket().map_or_else(|| options.get_host().to_owned(), |socket| socket.display().to_string());
        let mut ini = String::new();
        writeln!(ini, "[databases]\n* = host={host} port={} user={}", options.get_port(), options.get_username())
            .unwrap();
        writeln!(ini, "[pgbouncer]\nlisten_addr =\nunix_socket_dir = {}\nlisten_port = 6432", folder.display())
            .unwrap();
        writeln!(ini, "pool_mode = transaction\nauth_type = any\ndefault_pool_size = {connections}").unwrap();
        // The driver sends it with every connection.
        writeln!(ini, "ignore_startup_parameters = extra_float_digits\n{settings}").unwrap();
        std::fs::write(folder.join("pgbouncer.ini"), ini).expect("writing the settings");
        let mut guard = Command::new("sh");
        guard.args(["-c", GUARD, "guard"]).arg(bin).arg(&folder).current_dir(&folder);
        guard.stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0);
        if let Some((user, group)) = super::cluster::unprivileged() {
            for path in [folder.clone(), folder.join("pgbouncer.ini")] {
                chown(path, Some(user), Some(group)).expect("giving the folder to PgBouncer's user");
            }
            guard.uid(user).gid(group);
        }
        let mut guard = guard.spawn().expect("starting sh");
        let mut word = String::new();
        BufReader::new(guard.stdout.take().expect("a pipe"))
            .read_line(&mut word)
            .expect("reading from PgBouncer's guard");
        assert_eq!(word, "ready\n", "PgBouncer did not start: its log is above");
        Self { folder, _guard: guard.stdin.take().expect("a pipe") }
    }

    /// The same database, through it.
    pub fn options(&self, direct: &PgConnectOptions) -> PgConnectOptions {
        direct.clone().socket(&self.folder).port(6432)
    }
}

/// `PGBOUNCER`, or the one that is installed, and its version.
pub fn binary() -> (PathBuf, (u32, u32)) {
    let on_path =
        std::env::var_os("PATH").map(|path| std::env::split_paths(&path).collect::<Vec<_>>()).unwrap_or_default();
    let installed = on_path.into_iter().chain(["/usr/sbin".into()]).map(|folder| folder.join("pgbouncer"));
    let mut candidates = std::env::var_os("PGBOUNCER").map(PathBuf::from).into_iter().chain(installed);
    let bin = candidates.find(|path| path.is_file());
    let bin = bin.expect(
        "PgBouncer is needed: install it (on Debian and Ubuntu: sudo apt-get install pgbouncer), or name it with \
         PGBOUNCER",
    );
    let output = Command::new(&bin).arg("--version").output().expect("running PgBouncer");
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    let version = text.split_whitespace().find_map(|word| {
        let mut parts = word.split('.');
        Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
    });
    (bin, version.unwrap_or_else(|| panic!("which version is that? {text}")))
}
