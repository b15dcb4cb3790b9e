//! What a certificate says in sentences: why a scope is not erased, what else the reader should know, and what was not
//! looked at.

use super::issue::Facts;
use super::log::Log;
use super::{
    Authenticity, Certificate, CertificateFinding, CertificateFindingKind as Kind, CertificateScan, KeyStanding,
    LogStanding,
};
use crate::erasure::json::in_rfc3339;
use crate::keys::{ScopeAction, ScopeState};

/// Why a scope is not erased.
pub(super) fn why_not(facts: &Facts, certificate: &Certificate, log: &Log) -> Vec<CertificateFinding> {
    let mut found = why_not_by_log(facts, log);
    let mut say = |kind, text: String| found.push(CertificateFinding::new(kind, text));
    let is_shredded = facts.history.state == ScopeState::Shredded;
    if !is_shredded {
        let reopened = certificate.entries.iter().rev().find(|entry| entry.action == ScopeAction::Reopen);
        match reopened.filter(|_| certificate.last_shred().is_some()) {
            Some(entry) => {
                let at = in_rfc3339(entry.at);
                say(Kind::Reopened, format!("The scope was reopened at {at}, for this reason: {}", entry.reason));
            }
            None => say(Kind::NeverShredded, "The scope is not shredded.".to_owned()),
        }
    }
    match (certificate.live_keys, is_shredded) {
        (0, _) => {}
        (live, true) => {
            say(Kind::KeysCameBack, format!("The scope is shredded, and has {} again.", count(live, "key")));
        }
        (live, false) => say(Kind::LiveKeys, format!("{} can still be used.", count(live, "key"))),
    }
    for (key, _) in &facts.keys {
        let version = key.version;
        match key.standing {
            KeyStanding::Missing if key.entry.is_none() => {
                say(Kind::KeyLost, format!("Key {version} has no row: it was lost, and no shred destroyed it."));
            }
            KeyStanding::Altered => {
                let text = format!("The row of key {version} was altered: it is neither a key nor a tombstone.");
                say(Kind::KeyAltered, text);
            }
            _ => {}
        }
    }
    found
}

/// What the entries of the scope, the chain and a copy contradict.
fn why_not_by_log(facts: &Facts, log: &Log) -> Vec<CertificateFinding> {
    let mut found = Vec::new();
    let mut say = |kind, text: String| found.push(CertificateFinding::new(kind, text));
    let history = &facts.history;
    match facts.fold {
        // The chain can't agree with what is not authentic.
        Err((entry, problem)) => {
            say(Kind::LogAltered, format!("Entry {entry} of the scope in the shred log {problem}."));
        }
        Ok(fold) => {
            if fold != (history.state, history.generation) {
                let text = format!(
                    "The row of the scope says {}, generation {}. Its entries in the shred log say {}, generation {}.",
                    history.state.as_str(),
                    history.generation,
                    fold.0.as_str(),
                    fold.1
                );
                say(Kind::StateDisagrees, text);
            }
            if let Some(text) = history.entries.iter().find_map(|entry| log.contradicts(entry)) {
                say(Kind::ChainDisagrees, text);
            }
        }
    }
    if let Some((name, entry)) = &log.only_in_copy {
        let text = format!(
            "The copy {name} has a decision about the scope that the shred log does not have, \"{}\" of {}: the keys \
             were restored from a backup. Replay the copy.",
            entry.action.as_str(),
            in_rfc3339(entry.at)
        );
        say(Kind::CopyDisagrees, text);
    }
    found
}

/// What the reader should know beside the counts.
pub(super) fn remarks(certificate: &Certificate, log: &Log) -> Vec<CertificateFinding> {
    let mut found = remarks_on_log(certificate, log);
    let mut say = |kind, text: String| found.push(CertificateFinding::new(kind, text));
    for key in &certificate.keys {
        let version = key.version;
        match (key.standing, key.entry) {
            (KeyStanding::Missing, Some(_)) => {
                let text = format!("Key {version} was destroyed by a shred, and its tombstone is gone since.");
                say(Kind::NoTombstone, text);
            }
            (KeyStanding::Destroyed, None) => {
                let text = format!("Key {version} is destroyed, and no authentic entry of the shred log names it.");
                say(Kind::NotNamed, text);
            }
            _ => {}
        }
    }
    let doubts = [
        (&certificate.malformed_seals, Kind::MalformedSeals, "a header that can't be read"),
        (&certificate.unknown_keys, Kind::UnknownKeys, "a key that has no row"),
    ];
    for (doubtful, kind, what) in doubts {
        if doubtful.events > 0 {
            let (events, verb) = match doubtful.events {
                1 => ("1 event".to_owned(), "has"),
                many => (count(many, "event"), "have"),
            };
            say(kind, format!("{events} {verb} {what}. Nobody knows whose values these are, so they are not counted."));
        }
    }
    let held = certificate.holds.iter().filter(|hold| hold.in_force).count() as u64;
    if held > 0 {
        say(Kind::Held, format!("The scope can't be shredded now: {} in force.", are(held, "hold")));
    }
    if let Some(schedule) = &certificate.schedule {
        say(Kind::Scheduled, format!("A shred is scheduled for {}.", in_rfc3339(schedule.due)));
    }
    found
}

fn remarks_on_log(certificate: &Certificate, log: &Log) -> Vec<CertificateFinding> {
    let mut found = Vec::new();
    let mut say = |kind, text: String| found.push(CertificateFinding::new(kind, text));
    if certificate.erased && !certificate.proved {
        say(Kind::NotProved, why_not_proved(certificate, log));
    }
    if let Some(first) = &log.first {
        let text =
            format!("The shred log has {}, here or about others. The first: {first}.", count(log.wrong, "fault"));
        say(Kind::ChainAltered, text);
    }
    for problem in &log.copy_problems {
        say(Kind::CopyUnusable, format!("About a copy of the shred log: {problem}."));
    }
    if certificate.last_shred().is_some_and(|shred| shred.authenticity == Authenticity::BeforeTheLog) {
        let text =
            "The shred is older than the shred log. Nothing vouches for it but that its entry was adopted later.";
        say(Kind::NotAuthenticated, text.to_owned());
    }
    found
}

fn why_not_proved(certificate: &Certificate, log: &Log) -> String {
    let undone = "somebody who can write to the database, or a restore, could undo the shred without a trace";
    if !log.is_sound() {
        return "The erasure is not proved, because the shred log or its copy is not as it should be.".to_owned();
    }
    let shred = certificate.last_shred().map(|shred| shred.log);
    // Every copy is the beginning of the longest.
    match (log.copies.iter().max_by_key(|copy| copy.seq), shred) {
        (_, Some(LogStanding::InCopy { .. })) => {
            "The erasure is not proved: a copy has the entry of the shred, which is not authenticated.".to_owned()
        }
        (None, _) => {
            format!("No copy of the shred log was looked at. Until a copy has the entry of the shred, {undone}.")
        }
        (Some(copy), Some(LogStanding::Sealed { seq, .. })) => format!(
            "The copy {} ends at entry {} of the log, and the shred is entry {seq}. Until a copy has it, {undone}. \
            Export the log and issue the certificate again.",
            copy.name, copy.seq
        ),
        (Some(_), _) => format!(
            "The entry of the shred has no number in the log yet, so no copy has it. Until one has it, {undone}. \
            Export the log and issue the certificate again."
        ),
    }
}

pub(super) fn not_looked_at(scan: CertificateScan, log: &Log) -> Vec<String> {
    let with_index = "Events to which the index of seals does not lead: somebody wrote them past it, or their key has \
        no row.";
    let without_copy = "Copies of the shred log: none was given.";
    let of_index = scan.index_used.then_some(with_index);
    let of_copy = (log.given == 0).then_some(without_copy);
    of_index.into_iter().chain(NOT_LOOKED_AT).chain(of_copy).map(str::to_owned).collect()
}

/// What every certificate leaves out.
const NOT_LOOKED_AT: [&str; 6] = [
    "Values that were stored in the clear: no seal says whose they are. A census counts such events.",
    "Whether each seal is authentic: its header was read, and not verified.",
    "Other scopes of the same person, under another kind or another spelling of the id.",
    "Other systems: projections, search indexes, logs, exports, mails.",
    "Backups, archives and replicas of the database. The horizon rests on what was said about them.",
    "Values outside of events that the application sealed: without these keys none opens, and nobody counts them.",
];

fn count(many: u64, what: &str) -> String {
    format!("{many} {what}{}", if many == 1 { "" } else { "s" })
}

fn are(many: u64, what: &str) -> String {
    format!("{} {}", count(many, what), if many == 1 { "is" } else { "are" })
}
