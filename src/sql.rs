//! The work that the SQL adapters share. Each part that differs between databases is a trait that the adapter
//! implements: [`OwnTransaction`](own_transaction::OwnTransaction), [`Migrating`](migrations::Migrating), [`SqlRow`],
//! [`Dialect`].

pub(crate) mod blind_index;
pub(crate) mod copy;
mod dialect;
pub(crate) mod errors;
pub(crate) mod events;
pub(crate) mod keys;
pub(crate) mod migrations;
pub(crate) mod own_transaction;
mod row;
mod sealed_value;
pub(crate) mod snapshots;

pub(crate) use dialect::{Dialect, Statement, query};
pub(crate) use errors::{after_commit, blind_index_database, committing, database, event_database, key_database};
pub(crate) use row::SqlRow;

use crate::error::{Error, InputFault, Result, StorageFault, TransactionFault};
use sqlx::Connection;

/// Checks that the table has all events that were written. A trigger that is not this crate's may leave a row out
/// without an error.
pub(crate) fn check_stored(stored: usize, events: usize, operation: &'static str) -> Result<()> {
    if stored == events { Ok(()) } else { Err(Error::Storage(StorageFault::NoEffect { operation, table: "events" })) }
}

/// Checks the name of a table, a column, a schema or a channel.
pub(crate) fn check_name(what: &'static str, name: &str) -> Result<()> {
    let problem = match name.as_bytes() {
        [] => "is empty: name it",
        [first, ..] if first.is_ascii_digit() => "starts with a digit: begin it with a letter",
        bytes if bytes.len() > 32 => "is longer than 32 bytes: shorten it",
        bytes if !bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_') => {
            "may hold letters, digits and '_' only"
        }
        _ => return Ok(()),
    };
    Err(Error::Input(InputFault::InvalidText { what, problem }))
}

/// A name with its schema, quoted. Both must have been checked.
pub(crate) fn qualified(schema: Option<&str>, name: &str) -> String {
    schema.map_or_else(|| format!(r#""{name}""#), |schema| format!(r#""{schema}"."{name}""#))
}

/// Fills the `{name}`s of which `value` knows something into a SQL text, in one pass. What is filled in is filled as
/// well.
pub(crate) fn fill(sql: &str, value: &dyn Fn(&str) -> Option<String>) -> String {
    let (mut filled, mut rest) = (String::with_capacity(2 * sql.len()), sql);
    while let Some((before, after)) = rest.split_once('{') {
        filled.push_str(before);
        match after.split_once('}').and_then(|(name, after)| Some((value(name)?, after))) {
            Some((value_of_name, after)) => {
                filled.push_str(&fill(&value_of_name, value));
                rest = after;
            }
            None => {
                filled.push('{');
                rest = after;
            }
        }
    }
    filled.push_str(rest);
    filled
}

pub(crate) fn in_transaction(connection: &impl Connection, operation: &'static str) -> Result<()> {
    if connection.is_in_transaction() {
        Ok(())
    } else {
        Err(Error::Transaction(TransactionFault::NotInTransaction { operation }))
    }
}

pub(crate) fn not_in_transaction(connection: &impl Connection, operation: &'static str) -> Result<()> {
    if connection.is_in_transaction() {
        Err(Error::Transaction(TransactionFault::InTransaction { operation }))
    } else {
        Ok(())
    }
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
