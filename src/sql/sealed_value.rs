//! A sealed value as a column of bytes: `BYTEA` in PostgreSQL, `BLOB` in SQLite.

use crate::values::SealedValue;
use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::{Database, Decode, Encode, Type};

impl<DB: Database> Type<DB> for SealedValue
where
    Vec<u8>: Type<DB>,
{
    fn type_info() -> DB::TypeInfo {
        <Vec<u8> as Type<DB>>::type_info()
    }

    fn compatible(type_info: &DB::TypeInfo) -> bool {
        <Vec<u8> as Type<DB>>::compatible(type_info)
    }
}

impl<'q, DB: Database> Encode<'q, DB> for SealedValue
where
    Vec<u8>: Encode<'q, DB>,
{
    fn encode_by_ref(&self, buffer: &mut <DB as Database>::ArgumentBuffer) -> Result<IsNull, BoxDynError> {
        self.as_bytes().to_vec().encode(buffer)
    }
}

impl<'r, DB: Database> Decode<'r, DB> for SealedValue
where
    Vec<u8>: Decode<'r, DB>,
{
    fn decode(value: <DB as Database>::ValueRef<'r>) -> Result<Self, BoxDynError> {
        <Vec<u8> as Decode<'r, DB>>::decode(value).map(Self::from_bytes)
    }
}
