//! Verifies the shred log as a whole: its chain, the tombstones of what was destroyed, and a copy.

use crate::erasure::verify::findings::{Findings, FoundAt, VerifyFindingKind};
use crate::erasure::verify::keys::{KeysVerified, is_fault};
use crate::error::{Error, KeyFault, Result};
use crate::keys::names::KeyScope;
use crate::keys::shred_log::{CopyReport, LogFinding, LogProgress, ShredLogCopy};
use crate::keys::{LogDisagreement, LogProblem};
use crate::sealed_store::SealedStore;
use crate::store::EventStore;
use std::collections::HashSet;

/// What the shred log came to.
#[derive(Default)]
pub(super) struct LogVerified {
    pub(super) entries: u64,
    pub(super) copies: Vec<CopyReport>,
}

impl<S: EventStore> SealedStore<S> {
    /// Verifies the chain, compares its entries with the rows, and with copies. `of` is what was found scope by scope.
    /// `progress` gets the number of entries. Nothing is sealed, because nothing is written.
    pub(super) async fn verify_shred_log(
        &self,
        connection: &mut S::Tx,
        copies: &[&dyn ShredLogCopy],
        of: &KeysVerified,
        findings: &mut Findings,
        progress: &mut (dyn FnMut(u64) + Send),
    ) -> Result<LogVerified> {
        let keys = self.keys();
        let mut verified = LogVerified::default();
        for disagreement in keys.store.log_disagreements(connection, u32::MAX).await? {
            if !of.disagreements.contains(&disagreement) {
                add(findings, &LogFinding::Disagreement(disagreement));
            }
        }
        let by = match keys.log_sealer(connection).await {
            Ok(by) => by,
            Err(error) if is_fault(&error) => {
                // Without keys there can't be a log.
                let head = keys.store.log_head(connection).await?;
                let is_empty = head.seq == 0 && !head.unsealed && copies.is_empty();
                if !(is_empty && matches!(error, Error::Keys(KeyFault::NoActiveKek { .. }))) {
                    let problem = format!("it can't be verified: {error}");
                    findings.add(VerifyFindingKind::Chain, FoundAt::ShredLog, problem);
                }
                return Ok(verified);
            }
            Err(error) => return Err(error),
        };
        let mut found = |finding| add(findings, &finding);
        let mut tell = |told: LogProgress| progress(told.done);
        let copies = keys.check_copies(connection, &by, copies, &mut |_| {}).await?;
        let chain = keys.look_at_chain(connection, &by, &HashSet::new(), &mut found, &mut tell).await?;
        verified.entries = chain.end.0;
        let looked = chain.compare(copies, &mut found);
        verified.copies = looked.into_iter().map(|looked| looked.report).collect();
        Ok(verified)
    }
}

fn add(findings: &mut Findings, finding: &LogFinding) {
    let problem = finding.to_string();
    let of_scope = |scope: &KeyScope| FoundAt::Scope(scope.clone());
    let (kind, at) = match finding {
        LogFinding::Entry { seq, .. } | LogFinding::CutOff { seq, .. } => {
            (VerifyFindingKind::Chain, FoundAt::LogEntry { seq: *seq })
        }
        LogFinding::Unsealed { scope, .. } => (VerifyFindingKind::ShredLog, of_scope(scope)),
        LogFinding::Disagreement(LogDisagreement { scope, problem }) => {
            let kind = match problem {
                LogProblem::KeyCameBack => VerifyFindingKind::NotErased,
                LogProblem::NoTombstone => VerifyFindingKind::NoTombstone,
                LogProblem::State => VerifyFindingKind::ShredLog,
                LogProblem::NotInChain => VerifyFindingKind::Chain,
            };
            (kind, of_scope(scope))
        }
        LogFinding::Copy { .. } => (VerifyFindingKind::Copy, FoundAt::ShredLog),
    };
    findings.add(kind, at, problem);
}
