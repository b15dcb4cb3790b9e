//! Finds out who runs this command, for the key history.

use crate::args::Cause;
use crate::output::Failure;
use std::process::{Command, Stdio};

/// Where POSIX systems have the program `id`. The path is fixed, so that the environment can't forge the answer.
const ID: [&str; 2] = ["/usr/bin/id", "/bin/id"];

/// The name for the key history: the one of `--actor`, or the user of the operating system.
pub(crate) fn of(cause: &Cause) -> Result<String, Failure> {
    if let Some(actor) = &cause.actor {
        return Ok(actor.clone());
    }
    let user = user().or_else(number).ok_or_else(|| {
        Failure::Usage("the operating system does not say who runs this: name the actor with --actor".into())
    })?;
    // For root, sudo says who called it. This can't be verified, and neither can --actor.
    match std::env::var("SUDO_USER") {
        Ok(before) if user == "root" && !before.is_empty() && before != user => Ok(format!("{before} (as root)")),
        _ => Ok(user),
    }
}

/// The name of the effective user. `id` asks every configured directory service.
fn user() -> Option<String> {
    let ask = |path: &&str| Command::new(path).arg("-un").stdin(Stdio::null()).stderr(Stdio::null()).output().ok();
    let output = ID.iter().find_map(ask).filter(|output| output.status.success())?;
    let name = String::from_utf8(output.stdout).ok()?;
    Some(name.trim_end().to_owned()).filter(|name| !name.is_empty())
}

/// The number of the user, because in a container the user may have no name.
#[cfg(unix)]
fn number() -> Option<String> {
    let own = std::fs::metadata("/proc/self").ok()?;
    Some(format!("uid {}", std::os::unix::fs::MetadataExt::uid(&own)))
}

#[cfg(not(unix))]
fn number() -> Option<String> {
    None
}
