//! The columns of a [row](SqlRow) in PostgreSQL.

use crate::error::{Error, Result, StorageFault};
use crate::sql::{SqlRow, database};
use sqlx::error::BoxDynError;
use sqlx::postgres::{PgRow, PgTypeInfo, PgValueFormat, PgValueRef};
use sqlx::{Column as _, Decode, Postgres, Row, Type, TypeInfo};
use time::OffsetDateTime;
use uuid::Uuid;

pub(crate) fn column<'r, T: Decode<'r, Postgres> + Type<Postgres>>(row: &'r PgRow, index: usize) -> Result<T> {
    row.try_get(index).map_err(database("reading a column"))
}

impl SqlRow for PgRow {
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
        match self.columns().get(index).map(|column| column.type_info().name()) {
            Some("INT2") => Ok(column::<Option<i16>>(self, index)?.map(i64::from)),
            Some("INT4") => Ok(column::<Option<i32>>(self, index)?.map(i64::from)),
            _ => column(self, index),
        }
    }

    fn optional_id(&self, index: usize) -> Result<Option<Uuid>> {
        column(self, index)
    }

    fn optional_time(&self, index: usize, what: &'static str) -> Result<Option<OffsetDateTime>> {
        let out_of_range = Error::Storage(StorageFault::InvalidRow { what, problem: "is out of range" });
        column::<Option<Timestamp>>(self, index)?.map(|at| at.0.ok_or(out_of_range)).transpose()
    }
}

/// A time. PostgreSQL has later times than the crate `time`, and `infinity`. The decoder of `time` would panic at them.
struct Timestamp(Option<OffsetDateTime>);

impl Type<Postgres> for Timestamp {
    fn type_info() -> PgTypeInfo {
        <OffsetDateTime as Type<Postgres>>::type_info()
    }
}

impl<'r> Decode<'r, Postgres> for Timestamp {
    fn decode(value: PgValueRef<'r>) -> Result<Self, BoxDynError> {
        const EPOCH: OffsetDateTime = time::macros::datetime!(2000-01-01 00:00 UTC);
        if value.format() == PgValueFormat::Text {
            return <OffsetDateTime as Decode<'r, Postgres>>::decode(value).map(|at| Self(Some(at)));
        }
        let microseconds: [u8; 8] = value.as_bytes()?.try_into()?;
        Ok(Self(EPOCH.checked_add(time::Duration::microseconds(i64::from_be_bytes(microseconds)))))
    }
}
