//! What all SQL adapters share: names that can't smuggle SQL, and the transaction that the driver knows of.

use crate::error::{Error, Result};
use sqlx::Connection;

/// Checks the name of a table, a column, a schema or a channel.
pub(crate) fn check_name(what: &'static str, name: &str) -> Result<()> {
    let problem = match name.as_bytes() {
        [] => "is empty: name it",
        [first, ..] if first.is_ascii_digit() => "starts with a digit: begin it with a letter",
        bytes if bytes.len() > 32 => "is longer than 32 bytes: shorten it",
        bytes if !bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_') => "may hold letters, digits and '_' only",
        _ => return Ok(()),
    };
    Err(Error::InvalidText { what, problem })
}

pub(crate) fn in_transaction(connection: &impl Connection, operation: &'static str) -> Result<()> {
    if connection.is_in_transaction() { Ok(()) } else { Err(Error::NotInTransaction { operation }) }
}

pub(crate) fn not_in_transaction(connection: &impl Connection, operation: &'static str) -> Result<()> {
    if connection.is_in_transaction() { Err(Error::InTransaction { operation }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_can_not_smuggle_sql() {
        assert!(check_name("the table name", "Events_2").is_ok());
        for name in ["", "1a", "a\"b", "a b", "a;--", "ä", "a\0", "{heads}", &"x".repeat(33)] {
            assert!(check_name("the table name", name).is_err(), "{name}");
        }
    }
}
