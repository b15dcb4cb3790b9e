//! Checks that the keys agree with the shred log. A restore of a part of the key tables makes them disagree.

use super::checks::Checks;
use crate::connect::{Backend, Db};
use crate::output::number;
use eventseal::keys::KeyTable;

/// After a restore of everything, the keys agree with a log that is too short.
const LATER: &str = "whether it ended later, only a copy knows: shred-log verify COPY";
/// How many scopes are named at most.
const SHOWN: u32 = 5;

pub(super) async fn agrees<C: Backend>(db: &mut Db<C>, checks: &mut Checks) {
    const NAME: &str = "shred log";
    let (head, found) = match db.keys.log_head(&mut db.connection).await {
        Ok(head) => (head, db.keys.log_disagreements(&mut db.connection, SHOWN).await),
        Err(error) => return checks.failed(NAME, &error, "let this user read the tables of the shred log"),
    };
    match found {
        Ok(found) if found.is_empty() && head.unsealed => {
            let found = format!("it ends at entry {}, and newer entries are not in the chain yet", number(head.seq));
            checks.good(NAME, format!("{found}: exporting does it; {LATER}"));
        }
        Ok(found) if found.is_empty() => {
            checks.good(NAME, format!("it ends at entry {}, and the keys agree with it; {LATER}", number(head.seq)));
        }
        Ok(found) => {
            let found = found.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
            let remedy = "look for a restore, and replay a copy of the log: eventseal shred-log replay FILE";
            checks.problem(NAME, found, remedy);
        }
        Err(error) => checks.failed(NAME, &error, "let this user read the key tables"),
    }
}
