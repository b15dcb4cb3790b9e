//! Reads the columns of a row, whatever types its database has for them.

use crate::error::{Error, Result, StorageFault};
use time::OffsetDateTime;
use uuid::Uuid;

/// A row that a statement of this crate has selected. Columns are numbered from 0.
pub(crate) trait SqlRow {
    fn text(&self, index: usize) -> Result<&str>;
    fn optional_text(&self, index: usize) -> Result<Option<&str>>;
    fn optional_bytes(&self, index: usize) -> Result<Option<Vec<u8>>>;
    fn flag(&self, index: usize) -> Result<bool>;
    /// A whole number of any width.
    fn optional_number(&self, index: usize) -> Result<Option<i64>>;
    fn optional_id(&self, index: usize) -> Result<Option<Uuid>>;
    /// A time. `what` is its name in errors.
    fn optional_time(&self, index: usize, what: &'static str) -> Result<Option<OffsetDateTime>>;

    fn bytes(&self, index: usize) -> Result<Vec<u8>> {
        self.optional_bytes(index)?.ok_or_else(|| missing(index))
    }

    fn number(&self, index: usize) -> Result<i64> {
        self.optional_number(index)?.ok_or_else(|| missing(index))
    }

    /// A count or version. This crate keeps it in 32 bits without a sign, which databases don't have.
    fn small_number(&self, index: usize, what: &'static str) -> Result<u32> {
        small(self.number(index)?, what)
    }

    fn optional_small_number(&self, index: usize, what: &'static str) -> Result<Option<u32>> {
        self.optional_number(index)?.map(|number| small(number, what)).transpose()
    }

    fn id(&self, index: usize) -> Result<Uuid> {
        self.optional_id(index)?.ok_or_else(|| missing(index))
    }

    fn time(&self, index: usize, what: &'static str) -> Result<OffsetDateTime> {
        self.optional_time(index, what)?.ok_or_else(|| missing(index))
    }
}

fn small(number: i64, what: &'static str) -> Result<u32> {
    u32::try_from(number)
        .map_err(|_| Error::Storage(StorageFault::InvalidRow { what, problem: "is negative or too large" }))
}

/// The driver's error for a column that is missing.
fn missing(index: usize) -> Error {
    let null = sqlx::Error::ColumnDecode { index: index.to_string(), source: sqlx::error::UnexpectedNullError.into() };
    super::database("reading a column")(null)
}
