//! The columns of a [row](SqlRow) in SQLite, which has no types for times and ids: they are text.

use crate::error::{Error, Result, StorageFault};
use crate::sql::{SqlRow, database};
use sqlx::sqlite::SqliteRow;
use sqlx::{Decode, Row, Sqlite, Type};
use time::format_description::BorrowedFormatItem;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;
use time::{OffsetDateTime, UtcOffset};
use uuid::Uuid;

pub(crate) fn column<'r, T: Decode<'r, Sqlite> + Type<Sqlite>>(row: &'r SqliteRow, index: usize) -> Result<T> {
    row.try_get(index).map_err(database("reading a column"))
}

impl SqlRow for SqliteRow {
    fn text(&self, index: usize) -> Result<&str> {
        column(self, index)
    }

    fn optional_text(&self, index: usize) -> Result<Option<&str>> {
        column(self, index)
    }

    fn optional_bytes(&self, index: usize) -> Result<Option<Vec<u8>>> {
        column(self, index)
    }

    fn flag(&self, index: usize) -> Result<bool> {
        column(self, index)
    }

    fn optional_number(&self, index: usize) -> Result<Option<i64>> {
        column(self, index)
    }

    fn optional_id(&self, index: usize) -> Result<Option<Uuid>> {
        let id = column::<Option<&str>>(self, index)?.map(Uuid::try_parse).transpose();
        id.map_err(|_| Error::Storage(StorageFault::InvalidRow { what: "an id", problem: "is not a UUID" }))
    }

    fn optional_time(&self, index: usize, what: &'static str) -> Result<Option<OffsetDateTime>> {
        column::<Option<&str>>(self, index)?.map(|at| from_text(at, what)).transpose()
    }
}

/// An id as text.
pub(crate) fn id_text(id: Uuid) -> String {
    id.hyphenated().to_string()
}

/// A time as text that sorts by time: in UTC, with microseconds.
pub(crate) fn to_text(at: OffsetDateTime) -> String {
    const FORMAT: &[BorrowedFormatItem<'_>] =
        format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]Z");
    // Neither call fails for times that were read from here or that pass `check_append`: they are in UTC, in the years
    // 0 to 9999.
    at.checked_to_offset(UtcOffset::UTC).unwrap_or(at).format(FORMAT).unwrap_or_default()
}

/// Reads a time, in UTC. A time in the years 0 to 9999 may lie outside of them in UTC (`9999-12-31T23:59:59-01:00`).
/// Code that relies on the range would panic, so such a time is refused.
fn from_text(text: &str, what: &'static str) -> Result<OffsetDateTime> {
    let invalid = |problem| Error::Storage(StorageFault::InvalidRow { what, problem });
    let at = OffsetDateTime::parse(text, &Rfc3339).map_err(|_| invalid("is not a time"))?;
    let at = at.checked_to_offset(UtcOffset::UTC).filter(|at| (0..=9999).contains(&at.year()));
    at.ok_or_else(|| invalid("is a time of a year that is not 0 to 9999 in UTC"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_survive_as_text_and_sort() {
        let at = OffsetDateTime::from_unix_timestamp_nanos(1_700_000_000_000_001_000).unwrap();
        assert_eq!(to_text(at), "2023-11-14T22:13:20.000001Z");
        assert_eq!(from_text(&to_text(at), "created_at").unwrap(), at);
        assert!(from_text("yesterday", "created_at").is_err());
    }

    #[test]
    fn times_that_are_none_in_utc_are_refused() {
        for text in [
            "9999-12-31T23:59:59-23:59",
            "9999-12-31T23:59:59.999999-00:01",
            "0000-01-01T00:00:00+00:01",
            "",
            "infinity",
            "0",
        ] {
            assert!(
                matches!(
                    from_text(text, "created_at"),
                    Err(Error::Storage(StorageFault::InvalidRow { what: "created_at", .. }))
                ),
                "{text}"
            );
        }
        for (text, written) in [
            ("9999-12-31T23:59:59.999999Z", "9999-12-31T23:59:59.999999Z"),
            ("9999-12-31T23:59:59+00:01", "9999-12-31T23:58:59.000000Z"),
            ("0000-01-01T00:00:00-00:01", "0000-01-01T00:01:00.000000Z"),
        ] {
            let at = from_text(text, "created_at").unwrap();
            assert_eq!((to_text(at).as_str(), at.offset()), (written, UtcOffset::UTC));
        }
    }
}
