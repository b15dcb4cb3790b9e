//! An expected version can't be a sentinel.
use eventseal::ExpectedVersion;

fn main() {
    let _ = ExpectedVersion::Exact(-1);
}
