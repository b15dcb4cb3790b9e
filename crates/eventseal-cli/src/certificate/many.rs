//! The certificates of a list of scopes.

use super::{Issued, describe, exit};
use crate::output::{Exit, Report, causes, count, in_commands, shown};
use eventseal::erasure::FailedScope;
use serde_json::{Value, json};
use std::fmt::Write as _;

/// All certificates, and the scopes that have none.
pub(super) fn report(issued: &Issued, place: &str, has_copy: bool) -> Report {
    let exits: Vec<Exit> = issued.certificates.iter().map(|(certificate, _)| exit(certificate, has_copy)).collect();
    let mut text = String::new();
    for (certificate, document) in &issued.certificates {
        let _ = writeln!(text, "{}\n{}", describe(certificate, document), "-".repeat(72));
    }
    let of = |erased, proved| {
        let all = issued.certificates.iter().map(|(certificate, _)| certificate);
        all.filter(|certificate| (certificate.erased, certificate.proved) == (erased, proved)).count()
    };
    let all = count(exits.len() as u64, "certificate");
    let _ = writeln!(
        text,
        "{all}: {} erased and proved, {} erased and NOT PROVED YET, {} NOT ERASED",
        of(true, true),
        of(true, false),
        exits.iter().filter(|exit| **exit == Exit::NotErased).count()
    );
    for failed in &issued.failed {
        let _ = writeln!(text, "  NO CERTIFICATE of {}: {}", shown(&failed.scope.to_string()), shown(&why(failed)));
    }
    let json = json!({
        "certificates": issued.certificates.iter().map(|(_, document)| document).collect::<Vec<_>>(),
        "failed": issued.failed.iter().map(as_json).collect::<Vec<_>>(),
    });
    // An erasure without a certificate must not look like one that has it.
    let worst = if issued.failed.is_empty() { Exit::Done } else { Exit::NotErased };
    let worst = exits.into_iter().fold(worst, |worst, exit| if exit as u8 > worst as u8 { exit } else { worst });
    Report::new(text, json).of(&issued.namespace, place).ending(worst)
}

fn why(failed: &FailedScope) -> String {
    let causes = causes(&failed.error).into_iter().map(|cause| format!("; because: {cause}"));
    in_commands(&failed.error.to_string()) + &causes.collect::<String>()
}

fn as_json(failed: &FailedScope) -> Value {
    json!({
        "kind": failed.scope.kind(),
        "id": failed.scope.id(),
        "error": failed.error.kind().as_str(),
        "message": why(failed),
    })
}
