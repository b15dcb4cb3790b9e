//! Finds out what PostgreSQL's errors mean, and which parts of them may be shown.

use crate::error::Failure;
use sqlx::postgres::PgDatabaseError;

/// `unique_violation`
pub(crate) const UNIQUE_VIOLATION: &str = "23505";
/// `invalid_column_reference`: among others, ON CONFLICT names columns that no unique constraint has.
pub(crate) const NO_SUCH_CONSTRAINT: &str = "42P10";
/// `undefined_table`
pub(crate) const UNDEFINED_TABLE: &str = "42P01";
/// `duplicate_table`
pub(crate) const DUPLICATE_TABLE: &str = "42P07";
/// `restrict_violation`: the triggers of this crate raise it, and PostgreSQL itself does not.
const RESTRICT_VIOLATION: &str = "23001";

/// The meaning of an error.
pub(crate) fn failure(error: &PgDatabaseError) -> Failure {
    match (error.code(), error.routine()) {
        // protocol_violation, invalid_binary_representation: the parameters that the driver sends are not those of the
        // statement that has its name in this session. A pooler that gives out another session causes it.
        ("08P01" | "22P03", Some("exec_bind_message")) => Failure::LostStatement,
        (state, _) => of_state(state),
    }
}

/// The meaning of an SQLSTATE.
fn of_state(state: &str) -> Failure {
    match state {
        // serialization_failure, deadlock_detected, lock_not_available: the transaction can be run again.
        "40001" | "40P01" | "55P03" => Failure::Collision,
        // read_only_sql_transaction: the server is a standby, or the transaction is read-only.
        "25006" => Failure::ReadOnly,
        // The server ended an idle session. Its transaction was rolled back.
        "25P03" | "57P05"
        // disk_full, out_of_memory, too_many_connections
        | "53100" | "53200" | "53300"
        // admin_shutdown, crash_shutdown, cannot_connect_now
        | "57P01" | "57P02" | "57P03"
        // io_error
        | "58030" => Failure::Outage,
        // insufficient_privilege, row-level security too
        "42501" => Failure::Permission,
        // undefined_table, invalid_schema_name
        UNDEFINED_TABLE | "3F000" => Failure::MissingTable,
        // undefined_column
        "42703" => Failure::MissingColumn,
        // invalid_sql_statement_name, duplicate_prepared_statement
        "26000" | "42P05" => Failure::LostStatement,
        // Connection exceptions. PgBouncer returns 08P01 when it can't reach the server, or accepts no connections.
        state if state.starts_with("08") => Failure::Outage,
        _ => Failure::Other,
    }
}

/// The message of an error, without the values that some messages quote. Details are left out altogether, because they
/// quote rows.
pub(crate) fn shown(error: &PgDatabaseError) -> String {
    let (state, message) = (error.code(), error.message());
    if error.routine() == Some("exec_stmt_raise") && state != RESTRICT_VIOLATION {
        // A trigger or function that is not this crate's may quote anything in its message, even rows.
        return "a function of the database raised an error".to_owned();
    }
    if state.starts_with("22") {
        // Messages of data exceptions quote the data.
        let values = message.find(['"', ':', '\'', '«', '„', '“', '‘']).unwrap_or(message.len());
        return if values < message.len() { format!("{}…", &message[..values]) } else { message.to_owned() };
    }
    message.to_owned()
}

pub(crate) fn sql_state(error: &sqlx::Error) -> Option<&str> {
    Some(error.as_database_error()?.try_downcast_ref::<PgDatabaseError>()?.code())
}

/// The columns of the unique constraint that was violated, separated by commas. The constraint may have any name, and
/// the transaction is aborted, so nothing can be looked up. The columns are in the first parentheses of the detail, in
/// every language. Their values, which may hold any text, come after them. `None` if the server sends no detail,
/// because the user may not read the columns.
pub(crate) fn violated_columns(error: &sqlx::Error) -> Option<&str> {
    columns_in(error.as_database_error()?.try_downcast_ref::<PgDatabaseError>()?.detail()?)
}

fn columns_in(detail: &str) -> Option<&str> {
    let (_, columns) = detail.split_once('(')?;
    columns.split_once(")=(").map(|(columns, _)| columns)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_told_from_values() {
        for (detail, columns) in [
            ("Key (global_position)=(5) already exists.", Some("global_position")),
            ("Schlüssel »(global_position)=(5)« existiert bereits.", Some("global_position")),
            ("La clé « (stream_type, \"Id\")=((global_position)=(, 1) » existe déjà.", Some("stream_type, \"Id\"")),
            ("Key (lower(correlation_id))=((global_position)=(7)) already exists.", Some("lower(correlation_id)")),
            ("Duplicate keys exist.", None),
        ] {
            assert_eq!(columns_in(detail), columns, "{detail}");
        }
    }
}
