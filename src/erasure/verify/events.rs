//! Verifies stored events.

use crate::erasure::verify::findings::{Findings, VerifyFindingKind, at, kind_of};
use crate::error::{Error, ErrorKind, EventFault, Result};
use crate::event::PersistedEvent;
use crate::keys::names::KeyId;
use crate::maintenance::{Look, look_at_both, read_as};
use crate::sealed_store::SealedStore;
use crate::sealer::{Accepts, OpenedRow, Reader};
use crate::store::{EventStore, EventTable};
use std::collections::HashSet;

/// What the events came to.
#[derive(Default)]
pub(super) struct EventsVerified {
    pub(super) events: u64,
    pub(super) sealed: u64,
    pub(super) opened: u64,
    pub(super) redacted: u64,
    pub(super) accepted_plaintext: u64,
    pub(super) unregistered: u64,
    pub(super) disabled: u64,
    /// The keys that have no row.
    pub(super) missing: HashSet<KeyId>,
}

impl<S> SealedStore<S>
where
    S: EventStore + EventTable<Tx = <S as EventStore>::Tx>,
{
    /// Verifies a page of events.
    pub(super) async fn verify_events(
        &self,
        connection: &mut <S as EventStore>::Tx,
        events: &[PersistedEvent],
        verified: &mut EventsVerified,
        findings: &mut Findings,
    ) -> Result<()> {
        let rows = match self.open_to_verify(connection, events).await {
            // One key-encryption key that the KMS refuses must not hide what else is wrong.
            Err(error) if error.kind() == ErrorKind::KmsRefused => {
                let mut rows = Vec::with_capacity(events.len());
                for event in events {
                    rows.push(match self.open_to_verify(connection, std::slice::from_ref(event)).await {
                        Ok(mut row) => row.remove(0),
                        Err(error) if error.kind() == ErrorKind::KmsRefused => Err(error),
                        Err(error) => return Err(error),
                    });
                }
                rows
            }
            rows => rows?,
        };
        for (event, row) in events.iter().zip(rows) {
            verified.events += 1;
            self.judge(event, row, verified, findings)?;
        }
        Ok(())
    }

    async fn open_to_verify(
        &self,
        connection: &mut <S as EventStore>::Tx,
        events: &[PersistedEvent],
    ) -> Result<Vec<Result<OpenedRow<'_>>>> {
        self.sealer().open_rows(connection, events, Accepts::Plaintext, Reader::Verifier).await
    }

    fn judge(
        &self,
        event: &PersistedEvent,
        row: Result<OpenedRow<'_>>,
        verified: &mut EventsVerified,
        findings: &mut Findings,
    ) -> Result<()> {
        let schemas = self.sealer().schemas();
        let known = read_as(schemas, &event.stored_type, event.stored_version);
        verified.unregistered += u64::from(!known.is_some_and(|known| schemas.is_registered(known)));
        match known {
            None => {}
            Some(known) if known.schema.protects() => match look_at_both(known.schema, event) {
                Look::Partly | Look::Plaintext if schemas.accepts_plaintext(&event.stored_type) => {
                    verified.accepted_plaintext += 1;
                }
                Look::Partly => {
                    findings.add(
                        VerifyFindingKind::Plaintext,
                        at(event),
                        "its seal does not cover every protected value",
                    );
                }
                Look::Plaintext => findings.add(
                    VerifyFindingKind::Plaintext,
                    at(event),
                    "a protected value is in the clear, and nothing is sealed",
                ),
                // What opening finds as well is counted there, once.
                Look::Unreadable(error) if row.is_ok() => {
                    findings.add(VerifyFindingKind::UnreadablePayload, at(event), error.to_string());
                }
                Look::Unreadable(_) | Look::Sealed | Look::Nothing => {}
            },
            Some(_) => {}
        }
        match row {
            Ok(row) => {
                verified.sealed += u64::from(row.opened.is_some() || row.metadata.is_some());
                let documents = [(row.opened, row.coverage), (row.metadata, row.metadata_coverage)];
                for (opened, coverage) in documents {
                    let redacted = opened.map_or(0, |opened| opened.redacted.len());
                    verified.redacted += redacted as u64;
                    verified.opened += (coverage.places.len() - redacted) as u64;
                }
            }
            Err(Error::Disabled { .. }) => verified.disabled += 1,
            Err(error) => {
                if let Error::Event { fault, .. } = &error
                    && let EventFault::MissingKey { key_id } = fault.bare()
                {
                    verified.missing.insert(*key_id);
                }
                match kind_of(&error) {
                    Some(kind) => findings.add(kind, at(event), error.to_string()),
                    None => return Err(error),
                }
            }
        }
        Ok(())
    }
}
