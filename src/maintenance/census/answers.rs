//! The questions that a census answers: may a step or a policy be removed?

use crate::event::{EventType, EventVersion};
use crate::maintenance::census::{Census, CensusRow, Registration};
use crate::schema::SchemaVersion;

/// The answer to the question whether something may be removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It may be removed.
    Yes,
    /// It must stay.
    No {
        /// The reason.
        because: String,
    },
    /// This census can't tell.
    Unknown {
        /// The reason, and what to do.
        because: &'static str,
    },
}

impl Answer {
    /// May it be removed?
    #[must_use]
    pub fn is_yes(&self) -> bool {
        *self == Self::Yes
    }
}

impl std::fmt::Display for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Yes => f.write_str("yes"),
            Self::No { because } => write!(f, "no: {because}"),
            Self::Unknown { because } => write!(f, "unknown: {because}"),
        }
    }
}

impl Census {
    /// May the step from this version be removed, and the version's declaration with it? It may if no stored event
    /// needs it.
    ///
    /// If the log holds versions that the registry can't read, of any type, the answer is `Unknown`: their steps could
    /// lead through this version.
    ///
    /// "Yes" is about stored events only. If a process still appends this version, its events need the step.
    #[must_use]
    pub fn may_delete_step(&self, event_type: &str, from: u32) -> Answer {
        let Some(registered) = &self.registered else { return NO_REGISTRY };
        let from = EventVersion::new(from);
        let step = registered.iter().find(|known| known.event_type == event_type && known.event_version == from);
        if step.is_none_or(|known| known.step.is_none()) {
            return Answer::Unknown { because: "no step from this version is registered" };
        }
        let needs = |row: &&CensusRow| row.steps.iter().any(|(name, version)| *name == event_type && *version == from);
        match self.rows.iter().find(needs) {
            Some(row) => {
                let (first, last) = row.positions;
                let because = format!(
                    "{} stored events of {} version {} need it (positions {first} to {last})",
                    row.events, row.event_type, row.event_version
                );
                Answer::No { because }
            }
            None if self.is_partial => PARTIAL,
            None if self.rows.iter().any(CensusRow::is_unreadable) => Answer::Unknown {
                because: "events are stored in versions that are not registered, and what these need is not known",
            },
            None => Answer::Yes,
        }
    }

    /// May [`accept_plaintext`](crate::schema::SchemasBuilder::accept_plaintext) be removed for this type? It may if
    /// every event of the type is sealed, or has nothing to protect. Otherwise, reads of the other events would fail.
    ///
    /// Only a census of [every payload](crate::maintenance::CensusOptions::every_payload) that is
    /// [settled](Self::is_settled) says "yes".
    #[must_use]
    pub fn may_refuse_plaintext(&self, event_type: &str) -> Answer {
        if self.registered.is_none() {
            return NO_REGISTRY;
        }
        let mut reasons = Vec::new();
        for row in self.rows.iter().filter(|row| row.event_type == event_type) {
            match (row.registration, row.protection) {
                (_, Some(protection)) if protection.open() > 0 => {
                    let at = protection.first_open.map_or(row.positions.0, |(position, _)| position);
                    reasons.push(format!(
                        "of {} version {}, {} stored events are plaintext, {} partly sealed, {} unreadable (the first \
                         at position {at})",
                        row.event_type,
                        row.event_version,
                        protection.plaintext,
                        protection.partly_sealed,
                        protection.unreadable
                    ));
                }
                (Some(Registration::Current | Registration::Outdated), _) => {}
                _ => {
                    reasons.push(format!(
                        "{} stored events are of version {}, which is not registered: nobody knows what is protected \
                         in them",
                        row.events, row.event_version
                    ));
                }
            }
        }
        if !reasons.is_empty() {
            Answer::No { because: reasons.join("; ") }
        } else if self.is_partial {
            PARTIAL
        } else if !self.every_payload {
            Answer::Unknown { because: "sealed payloads were not looked into: take a census of every payload" }
        } else if !self.is_settled {
            NOT_SETTLED
        } else {
            Answer::Yes
        }
    }

    /// The registered types and versions whose steps no stored event needs. The list is empty if
    /// [`may_delete_step`](Self::may_delete_step) can't tell: the census is of a part of the log, has no registry, or
    /// met versions that the registry does not know.
    #[must_use]
    pub fn unneeded_steps(&self) -> Vec<(EventType, EventVersion)> {
        let registered = self.registered.as_deref().unwrap_or_default();
        let steps = registered
            .iter()
            .filter(|known| self.may_delete_step(known.event_type.as_str(), known.event_version.get()).is_yes());
        steps.map(|known| (known.event_type.clone(), known.event_version)).collect()
    }

    /// The registered types and versions of which no event is stored. An event without a version counts for the version
    /// as which it is read.
    #[must_use]
    pub fn not_stored(&self) -> Vec<(EventType, EventVersion)> {
        let is_of = |row: &CensusRow, known: &SchemaVersion| {
            row.event_version == known.event_version || known.is_legacy && row.event_version.get() == 0
        };
        let is_stored =
            |known: &SchemaVersion| self.rows.iter().any(|row| row.event_type == known.event_type && is_of(row, known));
        let registered = self.registered.iter().flatten().filter(|known| !is_stored(known));
        registered.map(|known| (known.event_type.clone(), known.event_version)).collect()
    }
}

const NO_REGISTRY: Answer =
    Answer::Unknown { because: "the census was taken without a registry: take it with SealedStore::census" };
const NOT_SETTLED: Answer = Answer::Unknown {
    because: "transactions in flight may have appended what the census did not see: take it again when they have \
        ended, on the primary, on a connection that is not in a transaction and may lock the events",
};
const PARTIAL: Answer = Answer::Unknown { because: "the census is of a part of the log: take it of all of it" };
