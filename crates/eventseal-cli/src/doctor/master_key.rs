//! Checks that the master key opens the key-encryption keys.

use super::checks::Checks;
use super::keys::integrity;
use crate::connect::{Backend, Db};
use crate::keks::is_needed;
use crate::output::{Failure, count};
use crate::{args, master_key};
use eventseal::error::{KeyFault, StorageFault};
use eventseal::keys::KekUsage;
use eventseal::kms::{KekContext, Kms};
use eventseal::{Error, Namespace};
use std::sync::Arc;

pub(super) async fn open(args: &args::MasterKey, checks: &mut Checks) -> Option<Arc<dyn Kms>> {
    match master_key::open(args).await {
        Ok(kms) => return Some(kms),
        Err(Failure::Library(error)) => checks.failed("master key", &error, "correct the keyring, or name another one"),
        Err(failure) => checks.problem("master key", "not tried", failure.message()),
    }
    None
}

/// Opens every key-encryption key that is in use, and the integrity key.
pub(super) async fn round_trips<C: Backend>(
    db: &mut Db<C>,
    kms: Arc<dyn Kms>,
    namespace: &Namespace,
    usage: Vec<KekUsage>,
    checks: &mut Checks,
) {
    let mut opened = 0_u64;
    for kek in usage.into_iter().filter(is_needed).map(|usage| usage.kek) {
        if kek.provider != kms.provider() {
            let found = format!("{} was wrapped by {}, not by {}", kek.kek_id, kek.provider, kms.provider());
            checks.problem("master key", found, "name that provider, or run eventseal move-master-key --from-…");
            continue;
        }
        let context = KekContext { namespace: namespace.clone(), kek_id: kek.kek_id };
        match kms.unwrap_kek(&kek.wrapped, &context).await {
            Ok(_) => opened += 1,
            Err(error) => {
                checks.failed("master key", &error, "do what it says; applications can't open these keys either");
            }
        }
    }
    if opened > 0 {
        checks.good("master key", format!("{} opens {}", kms.provider(), count(opened, "key-encryption key")));
    }
    // All keys are there, so `prepare` creates nothing. It opens the integrity key.
    if opened > 0 && matches!(integrity(db).await, Ok(true)) {
        match db.manager(kms).prepare(&mut db.connection).await {
            Ok(()) => checks.good("data keys", "the integrity key opens"),
            Err(error @ (Error::Keys(KeyFault::WrongKey { .. }) | Error::Storage(StorageFault::InvalidRow { .. }))) => {
                checks.failed("data keys", &error, "restore the row of the integrity key from a backup, and no other");
            }
            Err(error) => checks.failed("data keys", &error, "do what it says"),
        }
    }
}
