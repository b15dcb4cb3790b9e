//! Who runs this command.

use crate::args::Cause;
use crate::output::Failure;
use std::process::{Command, Stdio};

/// Where POSIX systems have it. Nothing of the environment says where to look, or who it is.
const ID: [&str; 2] = ["/usr/bin/id", "/bin/id"];

/// As the history shall name him: what `--actor` says, or the user of the operating system.
pub(crate) fn of(cause: &Cause) -> Result<String, Failure> {
    if let Some(actor) = &cause.actor {
        return Ok(actor.clone());
    }
    let user = user().or_else(number).ok_or_else(|| {
        Failure::Usage("the operating system does not say who runs this: name the actor with --actor".into())
    })?;
    // Whoever became root says who he was; nobody can check it, no more than --actor.
    match std::env::var("SUDO_USER") {
        Ok(before) if user == "root" && !before.is_empty() && before != user => Ok(format!("{before} (as root)")),
        _ => Ok(user),
    }
}

/// The name of the effective user, whichever directory service knows him.
fn user() -> Option<String> {
    let ask = |path: &&str| Command::new(path).arg("-un").stdin(Stdio::null()).stderr(Stdio::null()).output().ok();
    let output = ID.iter().find_map(ask).filter(|output| output.status.success())?;
    let name = String::from_utf8(output.stdout).ok()?;
    Some(name.trim_end().to_owned()).filter(|name| !name.is_empty())
}

/// In a container, the user may have no name.
#[cfg(unix)]
fn number() -> Option<String> {
    let own = std::fs::metadata("/proc/self").ok()?;
    Some(format!("uid {}", std::os::unix::fs::MetadataExt::uid(&own)))
}

#[cfg(not(unix))]
fn number() -> Option<String> {
    None
}
