//! Secrets on the command line, which are refused.

use super::DATABASE_URL;
use crate::output::Failure;
use clap::parser::ValueSource;

/// Refuses a password on the command line: every user of the machine can read it there, and shells keep it.
pub(crate) fn check_secrets(matches: &clap::ArgMatches) -> Result<(), Failure> {
    let mut matches = matches;
    while let Some((_, inner)) = matches.subcommand() {
        matches = inner;
    }
    let given = matches.ids().any(|id| id.as_str() == "database")
        && matches.value_source("database") == Some(ValueSource::CommandLine);
    let url =
        matches.ids().any(|id| id.as_str() == "database").then(|| matches.get_one::<String>("database")).flatten();
    match url {
        Some(url) if given && has_password(url) => Err(Failure::Usage(format!(
            "--database has a password in it, which others can read on the command line: set {DATABASE_URL}, or leave \
             the password to PGPASSWORD or ~/.pgpass; and change this one, if others use the machine"
        ))),
        _ => Ok(()),
    }
}

pub(crate) fn has_password(url: &str) -> bool {
    let Some((_, rest)) = url.split_once("://") else { return false };
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    // The last `@` ends the user's part, because a password may hold a slash that was not escaped.
    let user = rest.rsplit_once('@').map_or("", |(user, _)| user);
    user.contains(':') || query.split('&').any(|parameter| parameter.starts_with("password="))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_found() {
        for url in [
            "postgres://u:p@h/d",
            "postgres://u:a/b@h/d",
            "postgres://h/d?sslmode=require&password=p",
            "postgresql://:p@h",
        ] {
            assert!(has_password(url), "{url}");
        }
        for url in [
            "postgres://u@h:5432/d",
            "postgres://h:5432/d",
            "sqlite://a:b.db",
            "sqlite::memory:",
            "postgres:///d?host=/tmp",
        ] {
            assert!(!has_password(url), "{url}");
        }
    }
}
