//! What the figures were measured with: the machine, what it did besides, and the versions of everything.

use crate::bench::Scale;
use crate::database;
use serde::{Deserialize, Serialize};
use std::fs;
use std::process::Command;
use std::sync::LazyLock;
use std::thread::available_parallelism;
use time::OffsetDateTime;
use time::macros::format_description;

/// The versions that this program was built with.
const LOCK_FILE: &str = include_str!("../../Cargo.lock");
const CRATES: [&str; 10] = [
    "eventseal",
    "aes-gcm",
    "sha2",
    "hkdf",
    "aws-lc-rs",
    "serde_json",
    "sqlx",
    "tokio",
    "libsqlite3-sys",
    "cqrs-es-crypto",
];
/// What of a processor matters to ciphers and hashes.
const ABILITIES: [&str; 6] = ["aes", "vaes", "pclmulqdq", "vpclmulqdq", "sha_ni", "avx2"];

/// All that a figure depends on, in the order in which it is shown: what, and its value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Environment {
    pub lines: Vec<(String, String)>,
    /// How busy the machine was before and after, by its load average of a minute.
    pub load: (String, String),
    /// The commit, and `+` if files differed from it.
    pub commit: String,
    pub day: String,
    pub scale: Scale,
    /// What whoever ran it says of the machine.
    pub note: Option<String>,
}

impl Environment {
    /// Before a subject is measured.
    pub fn before(scale: Scale, note: Option<String>) -> Self {
        let day = OffsetDateTime::now_utc().format(format_description!("[year]-[month]-[day]"));
        Self {
            lines: Vec::new(),
            load: (load(), String::new()),
            commit: COMMIT.clone(),
            day: day.expect("a day has a form"),
            scale,
            note,
        }
    }

    /// Afterwards: the versions of servers are known now.
    pub fn after(mut self) -> Self {
        let mut add = |what: &str, value: Option<String>| {
            self.lines.extend(value.map(|value| (what.to_owned(), value)));
        };
        add("processor", processor());
        add("cores", available_parallelism().ok().map(|cores| cores.to_string()));
        add("memory", memory());
        add("system", run("uname", &["-srm"]));
        add("Rust", run("rustc", &["--version"]).map(|version| version.trim_start_matches("rustc ").to_owned()));
        add("build", Some(if cfg!(debug_assertions) { "not optimised" } else { "release" }.to_owned()));
        add("PostgreSQL", database::postgres_version());
        let crates: Vec<String> = CRATES.iter().filter_map(|name| Some(format!("{name} {}", version(name)?))).collect();
        add("crates", Some(crates.join(", ")));
        self.load.1 = load();
        self
    }

    /// Whether figures of both can stand under one heading.
    pub fn is_like(&self, other: &Self) -> bool {
        // A run that never started PostgreSQL does not know its version.
        let of = |environment: &Self| {
            environment.lines.iter().filter(|(what, _)| what != "PostgreSQL").cloned().collect::<Vec<_>>()
        };
        (of(self), &self.commit, self.scale, &self.note) == (of(other), &other.commit, other.scale, &other.note)
    }
}

fn run(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).current_dir(env!("CARGO_MANIFEST_DIR")).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}

/// When this is first asked. Who commits during a run does not change what runs.
static COMMIT: LazyLock<String> = LazyLock::new(commit);

fn commit() -> String {
    let changed = run("git", &["status", "--porcelain", "--", ":(top)src", ":(top)benches", ":(top)Cargo.lock"]);
    let mark = if changed.is_none_or(|changed| changed.is_empty()) { "" } else { "+" };
    run("git", &["rev-parse", "--short=10", "HEAD"]).map_or("unknown".to_owned(), |commit| format!("{commit}{mark}"))
}

fn processor() -> Option<String> {
    let text = fs::read_to_string("/proc/cpuinfo").ok()?;
    let value = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name))?;
        line.split_once(": ").map(|(_, value)| value.to_owned())
    };
    let name = value("model name")?;
    let flags = value("flags").unwrap_or_default();
    let flags: Vec<&str> = flags.split(' ').filter(|flag| ABILITIES.contains(flag)).collect();
    Some(if flags.is_empty() { name } else { format!("{name} ({})", flags.join(", ")) })
}

fn memory() -> Option<String> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let kibibytes: u64 = text.lines().next()?.split_whitespace().nth(1)?.parse().ok()?;
    Some(format!("{} GiB", (kibibytes + (1 << 19)) >> 20))
}

fn load() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or_default().to_owned()
}

/// The version of a crate in the lock file. Of several, the one that eventseal itself depends on.
fn version(name: &str) -> Option<&'static str> {
    let entries = |name: &str| {
        let line = format!("\nname = \"{name}\"\n");
        LOCK_FILE.split("[[package]]").filter(move |entry| entry.contains(&line))
    };
    let after = |text: &'static str, before: &str| text.split_once(before)?.1.split('"').next();
    // A dependency's version is named only where there are several.
    let own = entries("eventseal").next().and_then(|entry| after(entry, &format!(" \"{name} ")));
    own.or_else(|| after(entries(name).next()?, "version = \""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_crate_has_a_version() {
        let missing: Vec<_> = CRATES.iter().filter(|name| version(name).is_none()).collect();
        assert!(missing.is_empty(), "{missing:?}");
        assert_eq!(version("eventseal"), Some(env!("CARGO_PKG_VERSION")));
        // Several are in the lock file: this is the one that seals.
        let own = LOCK_FILE.split("[[package]]").find(|entry| entry.contains("\nname = \"eventseal\"\n")).unwrap();
        let sha2 = format!("\n \"sha2 {}\"", version("sha2").unwrap());
        assert!(own.contains(&sha2) || own.contains("\n \"sha2\""), "{sha2} is not what eventseal depends on");
    }
}
