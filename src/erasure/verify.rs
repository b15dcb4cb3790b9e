//! Verifies a store as a whole: every seal, every key row, every scope, and the shred log.
//!
//! Nothing is written, and nothing stops at the first fault: each one becomes a [`VerifyFinding`].

mod events;
mod findings;
mod keys;
mod log;

pub use findings::{FoundAt, VerifyFinding, VerifyFindingKind};

use crate::error::Result;
use crate::event::GlobalPosition;
use crate::keys::shred_log::{CopyReport, ShredLogCopy};
use crate::maintenance::PAGE_BYTES;
use crate::sealed_store::SealedStore;
use crate::store::{EventStore, EventTable, PositionRange, StoredQuery};
use crate::telemetry;
use events::EventsVerified;
use findings::Findings;
use keys::KeysVerified;
use log::LogVerified;

/// The options of a verification: see [`SealedStore::verify`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct VerifyOptions {
    /// The part of the log; all of it by default. To go on with a verification that was ended, begin
    /// [after](PositionRange::after) the [position](VerifyProgress::position) that it reached.
    pub range: PositionRange,
    /// How many stored events are looked at for a page; fewer if they have more than 64 MiB. 500 by default.
    pub batch: u32,
    /// Verifies the key tables too, the shred log among them, as it does by default. It is done before the events.
    pub keys: bool,
}

impl Default for VerifyOptions {
    fn default() -> Self {
        Self { range: PositionRange::default(), batch: 500, keys: true }
    }
}

/// The progress of a verification, after each page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct VerifyProgress {
    /// How many scopes were verified.
    pub scopes: u64,
    /// How many entries of the shred log were verified.
    pub entries: u64,
    /// How many stored events were verified.
    pub events: u64,
    /// The position up to which events were verified.
    pub position: GlobalPosition,
    /// The position at which it ends.
    pub last: GlobalPosition,
}

/// The result of a verification.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Verified {
    /// The part of the log that was verified.
    pub range: PositionRange,
    /// How many stored events were looked at.
    pub events: u64,
    /// How many of them are sealed, and are what was written.
    pub sealed: u64,
    /// How many sealed values opened.
    pub opened: u64,
    /// How many sealed values are redacted, by a tombstone and an authentic header.
    pub redacted: u64,
    /// How many events have protected values in the clear, which the schemas allow for their types.
    pub accepted_plaintext: u64,
    /// How many events are of types or versions that the schemas do not know. Their seals are verified. What they
    /// should protect is not known.
    pub unregistered: u64,
    /// How many events could not be verified, because a scope is disabled.
    pub disabled: u64,
    /// How many data keys are named by seals and have no row. A loss is no erasure.
    pub missing_keys: u64,
    /// How many scopes there are; 0 if the key tables were not verified.
    pub scopes: u64,
    /// How many data keys open.
    pub live_keys: u64,
    /// How many data keys are destroyed.
    pub destroyed_keys: u64,
    /// How many key-encryption keys open.
    pub keks: u64,
    /// How many entries the chain of the shred log has.
    pub log_entries: u64,
    /// What the copies of the shred log hold, as far as they could be checked.
    pub copies: Vec<CopyReport>,
    /// What is not as it should be: each kind once, with how often it was found, and where first.
    pub findings: Vec<VerifyFinding>,
}

impl Verified {
    /// Was nothing found?
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.findings.is_empty()
    }
}

impl<S> SealedStore<S>
where
    S: EventStore + EventTable<Tx = <S as EventStore>::Tx>,
{
    /// Verifies everything that is stored, and changes nothing:
    /// - every seal parses and is authentic: its tag, the commitments and the values whose keys are live, and it was
    ///   made for this very event;
    /// - no place that a registered version protects is in the clear;
    /// - every key row is in a state that exists: a data key is wrapped, or it was destroyed at a known time; its
    ///   key-encryption key exists and opens it;
    /// - scopes and keys agree: the active key is the scope's own and its newest, and a shredded scope has no key left;
    /// - the entries of every scope in the shred log are authentic, and agree with the scope and its keys: every key
    ///   that a shred destroyed is a tombstone;
    /// - the chain of the shred log holds, from its first entry to its last;
    /// - of the `copies` that are given, each is whole, the beginning of this log, and the beginning of the longest.
    ///   Only a copy shows that the last entries were dropped, or that everything was restored.
    ///
    /// Values whose keys are destroyed can't be authenticated any more: of these, the header and the shape are checked.
    /// Entries of the shred log that have no number yet get none here.
    ///
    /// It is for a store that is at rest. If others append and shred meanwhile, what they do may be looked at half
    /// done: verify what was found again. `connection` need not be in a transaction. In a transaction with a snapshot,
    /// everything is verified as of one moment.
    ///
    /// # Errors
    /// Faults of what is stored are not errors: they are [findings](Verified::findings). Errors are those of the
    /// database, of a KMS that does not answer, and of a copy that can't be read.
    pub async fn verify(
        &self,
        connection: &mut <S as EventStore>::Tx,
        copies: &[&dyn ShredLogCopy],
        options: &VerifyOptions,
        progress: &mut (dyn FnMut(VerifyProgress) + Send),
    ) -> Result<Verified> {
        let call = telemetry::verify(self.keys().known_namespace());
        call.run(|| self.verify_everything(connection, copies, options, progress)).await
    }

    async fn verify_everything(
        &self,
        connection: &mut <S as EventStore>::Tx,
        copies: &[&dyn ShredLogCopy],
        options: &VerifyOptions,
        progress: &mut (dyn FnMut(VerifyProgress) + Send),
    ) -> Result<Verified> {
        let last = self.inner().last_position(connection).await?;
        let after = options.range.after;
        let last = options.range.up_to.map_or(last, |up_to| up_to.min(last)).max(after);
        let mut told = VerifyProgress { position: after, last, ..VerifyProgress::default() };
        let mut findings = Findings::default();
        let (keys, log) = match options.keys {
            true => self.verify_key_tables(connection, copies, &mut findings, &mut told, progress).await?,
            false => (KeysVerified::default(), LogVerified::default()),
        };
        let mut verified = EventsVerified::default();
        let range = PositionRange { after, up_to: Some(last) };
        let mut query =
            StoredQuery { range, limit: options.batch.max(1), max_bytes: PAGE_BYTES, ..StoredQuery::default() };
        loop {
            let events = self.inner().stored_events(connection, &query).await?;
            let Some(last) = events.last().map(|event| event.global_position) else { break };
            self.verify_events(connection, &events, &mut verified, &mut findings).await?;
            query.range.after = last;
            (told.events, told.position) = (verified.events, last);
            progress(told);
        }
        let EventsVerified { events, sealed, opened, redacted, accepted_plaintext, unregistered, disabled, missing } =
            verified;
        let missing_keys = missing.len() as u64;
        let KeysVerified { scopes, live_keys, destroyed_keys, keks, .. } = keys;
        Ok(Verified {
            range,
            events,
            sealed,
            opened,
            redacted,
            accepted_plaintext,
            unregistered,
            disabled,
            missing_keys,
            scopes,
            live_keys,
            destroyed_keys,
            keks,
            log_entries: log.entries,
            copies: log.copies,
            findings: findings.into_vec(),
        })
    }

    async fn verify_key_tables(
        &self,
        connection: &mut <S as EventStore>::Tx,
        copies: &[&dyn ShredLogCopy],
        findings: &mut Findings,
        told: &mut VerifyProgress,
        progress: &mut (dyn FnMut(VerifyProgress) + Send),
    ) -> Result<(KeysVerified, LogVerified)> {
        let mut tell = |scopes| {
            told.scopes = scopes;
            progress(*told);
        };
        let keys = self.verify_keys(connection, findings, &mut tell).await?;
        let mut tell = |entries| {
            told.entries = entries;
            progress(*told);
        };
        let log = self.verify_shred_log(connection, copies, &keys, findings, &mut tell).await?;
        Ok((keys, log))
    }
}
