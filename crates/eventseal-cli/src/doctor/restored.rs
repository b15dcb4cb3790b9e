//! Checks that no destroyed key has come back. A restore of only some of the key tables brings keys back.

use super::checks::Checks;
use crate::connect::{Backend, Db};
use crate::output::count;
use eventseal::keys::KeyTable;

/// How many scopes are named at most.
const SHOWN: u32 = 5;

pub(super) async fn restored<C: Backend>(db: &mut Db<C>, checks: &mut Checks) {
    match db.keys.restored_scopes(&mut db.connection, SHOWN).await {
        Ok(restored) if restored.count == 0 => checks.good("erasures", "no key is left of a scope that was shredded"),
        Ok(restored) => {
            let mut named = restored.first.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            if restored.count > restored.first.len() as u64 {
                named.push_str(", …");
            }
            let found = format!(
                "{} shredded, and {} keys again: {named}",
                count(restored.count, "scope"),
                if restored.count == 1 { "has" } else { "have" }
            );
            let remedy = "a part of the tables was restored, or written to: shred each of them again with eventseal \
                shred, and find out how";
            checks.problem("erasures", found, remedy);
        }
        Err(error) => checks.failed("erasures", &error, "let this user read the key tables"),
    }
}
