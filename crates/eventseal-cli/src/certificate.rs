//! `certificate`: says what is left of a scope, as text, as JSON, and as a page for people.

mod many;
mod page;

use crate::args;
use crate::census::no_table;
use crate::connect::{AnyDb, Backend, Db, connect, postgres_store, sqlite_store};
use crate::copies;
use crate::doubts::Doubts;
use crate::master_key;
use crate::output::{Exit, Failure, Progress, Report, count, number, shown, table, time};
use crate::scopes::unknown;
use crate::shred::list;
use crate::shred_log;
use eventseal::erasure::{
    Authenticity, Certificate, CertificateFindingKind, CertificateOptions, CertificateProgress, CertifiedEntry,
    EventCounts, FailedScope, Horizon, KeyStanding, LogStanding,
};
use eventseal::keys::{KeyStore as _, ScopeState};
use eventseal::kms::Kms;
use eventseal::store::EventTable;
use eventseal::{EventStore, GlobalPosition, KeyScope, Namespace, Schemas, SealedStore};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::sync::Arc;

pub(crate) async fn certificate(args: args::Certificate, json: bool) -> Result<Report, Failure> {
    if let Some(path) = &args.html {
        page::check_new(path)?;
    }
    let scopes = match (&args.from, args.scope()) {
        (Some(file), _) => list::scopes(file)?,
        (None, scope) => Vec::from_iter(scope),
    };
    let kms = master_key::open(&args.master_key).await?;
    let mut bar = Progress::new(json, args.progress.progress_every, "entries of the shred log");
    let (place, mut issued) = match connect(&args.database).await? {
        AnyDb::Sqlite(db) => {
            (db.place.clone(), issue(sqlite_store(&args.tables.names())?, db, kms, &scopes, &args, &mut bar).await?)
        }
        AnyDb::Postgres(db) => {
            let store = postgres_store(&args.database, &args.tables.names())?;
            (db.place.clone(), issue(store, db, kms, &scopes, &args, &mut bar).await?)
        }
    };
    bar.finish();
    for (_, document) in &mut issued.certificates {
        document["database"] = place.as_str().into();
    }
    if args.from.is_some() {
        return Ok(many::report(&issued, &place, !args.shred_log.is_empty()));
    }
    let Some((certificate, document)) = issued.certificates.pop() else {
        return Err(issued.failed.pop().map_or_else(none, |failed| Failure::from(failed.error)));
    };
    let mut text = describe(&certificate, &document);
    if let Some(path) = &args.html {
        page::write(path, &document)?;
        let _ = writeln!(text, "\nThe page is in {}.", shown(&path.to_string_lossy()));
    }
    Ok(Report::new(text, document).ending(exit(&certificate, !args.shred_log.is_empty())))
}

fn none() -> Failure {
    Failure::failed("other", "no certificate was issued: name a scope")
}

/// What was issued.
struct Issued {
    /// The certificates, each with its JSON.
    certificates: Vec<(Certificate, Value)>,
    failed: Vec<FailedScope>,
    namespace: Namespace,
}

fn exit(certificate: &Certificate, has_copy: bool) -> Exit {
    let is_altered = |kind| kind == CertificateFindingKind::ChainAltered;
    match certificate.erased {
        false => Exit::NotErased,
        true if has_copy && !certificate.proved => Exit::Problems,
        true if certificate.remarks.iter().any(|remark| is_altered(remark.kind)) => Exit::Problems,
        true => Exit::Done,
    }
}

async fn issue<C: Backend, S>(
    store: S,
    mut db: Db<C>,
    kms: Arc<dyn Kms>,
    scopes: &[KeyScope],
    args: &args::Certificate,
    bar: &mut Progress,
) -> Result<Issued, Failure>
where
    S: EventStore<Tx = C> + EventTable<Tx = C>,
{
    let namespace = db.namespace().await?;
    if let (None, [scope]) = (&args.from, scopes)
        && db.keys.history(&mut db.connection, scope).await?.is_none()
    {
        let doubts = Doubts::of_kind(scope, None)?.and_of_id(&mut db).await?;
        return Err(unknown(scope, &doubts.hint()));
    }
    let mut options = CertificateOptions::default();
    (options.batch, options.use_index, options.retention) = (args.batch, !args.scan, args.copies.retention());
    // A certificate opens no event, so it needs no schemas.
    let store = SealedStore::with_keys(store, db.manager(kms), Schemas::new([]).map_err(eventseal::Error::from)?);
    let mut show = |progress: CertificateProgress| show(bar, progress);
    let copies = copies::all(&args.shred_log, &args.database)?;
    let copies = copies::ports(&copies);
    let done = store.certificates(&mut db.connection, scopes, &copies, &options, &mut show).await.map_err(no_table)?;
    let mut certificates = Vec::with_capacity(done.certificates.len());
    for certificate in done.certificates {
        let doubts = Doubts::of_kind(&certificate.scope, None)?.and_of_id(&mut db).await?;
        let similar = doubts.within(Value::Object(serde_json::Map::new()))["similar"].take();
        let document = document(&certificate, similar)?;
        certificates.push((certificate, document));
    }
    Ok(Issued { certificates, failed: done.failed, namespace })
}

/// The JSON of a certificate, and what the key table says about other scopes under the id.
fn document(certificate: &Certificate, similar: Value) -> Result<Value, Failure> {
    let failed = |error: serde_json::Error| Failure::failed("other", format!("the certificate is no JSON: {error}"));
    let mut document = serde_json::to_value(certificate).map_err(failed)?;
    if let Some(remark) = remark_on_similar(&similar) {
        document["remarks"].as_array_mut().into_iter().for_each(|remarks| remarks.push(remark.clone()));
    }
    document["similar"] = similar;
    Ok(document)
}

fn show(bar: &mut Progress, progress: CertificateProgress) {
    let at = |position: GlobalPosition| position.get().unsigned_abs();
    let (unit, done, total) = match progress {
        CertificateProgress::Log(log) => ("entries of the shred log", log.done, log.total),
        CertificateProgress::Copy(copy) => ("lines of a copy", copy.done, copy.total),
        CertificateProgress::Events(events) => ("positions", at(events.position), at(events.last)),
        _ => return,
    };
    bar.count_in(unit);
    bar.at(done, total);
}

/// Other scopes under the id that are not shredded: whoever reads "erased" must not miss them.
fn remark_on_similar(similar: &Value) -> Option<Value> {
    let is_live = |other: &&Value| other["state"] != ScopeState::Shredded.as_str();
    let named = similar.as_array()?.iter().filter(is_live).map(|other| {
        let of = |name: &str| other[name].as_str().unwrap_or_default();
        format!("{} {} ({})", of("kind"), of("id"), of("state"))
    });
    let named = named.collect::<Vec<_>>().join(", ");
    let text = format!(
        "This says nothing about other scopes under this id, which are not shredded: {named}. If they are the same \
         person, that person is not erased."
    );
    (!named.is_empty()).then(|| json!({ "kind": "similar_scopes", "text": text }))
}

fn describe(certificate: &Certificate, document: &Value) -> String {
    let mut text = format!("{}: {}\n", shown(&certificate.scope.to_string()), standing(certificate));
    for finding in ["why_not", "remarks"].iter().flat_map(|member| document[member].as_array()).flatten() {
        let _ = writeln!(text, "  {}", shown(finding["text"].as_str().unwrap_or_default()));
    }
    section(&mut text, &[">KEY", "ID", "MADE", "STATE"], keys(certificate));
    section(
        &mut text,
        &["EVENT TYPE", ">VERSION", ">EVENTS", ">UNREADABLE", ">READABLE", ">LOST", "FIELDS"],
        types(certificate),
    );
    let entries = certificate.entries.iter().map(|entry| {
        let who = entry.actor.as_deref().map(shown).unwrap_or_default();
        let action = entry.action.as_str().to_owned();
        vec![entry.number.to_string(), time(entry.at), action, who, shown(&entry.reason), in_log(entry)]
    });
    section(&mut text, &[">ENTRY", "WHEN", "WHAT", "WHO", "WHY", "LOG"], entries.collect());
    let holds = certificate.holds.iter().map(|hold| {
        let end = match (hold.released_at, hold.until) {
            (Some(at), _) => format!("released {}", time(at)),
            (None, Some(until)) => format!("until {}", time(until)),
            (None, None) => "until it is released".to_owned(),
        };
        vec![hold.hold.to_string(), time(hold.since), end, shown(&hold.reason)]
    });
    section(&mut text, &["HOLD", "SINCE", "END", "WHY"], holds.collect());
    if let Some(horizon) = &certificate.horizon {
        describe_horizon(&mut text, "Horizon", "what was shredded", horizon);
    }
    for other in document["similar"].as_array().into_iter().flatten() {
        let of = |name: &str| shown(other[name].as_str().unwrap_or_default());
        let _ = writeln!(text, "\nOther scope under this id: {} {} ({})", of("kind"), of("id"), of("state"));
    }
    let scan = certificate.scan;
    let _ = writeln!(
        text,
        "\nLooked at:\n  {}{} after position {}, up to {}",
        count(scan.looked_at, "event"),
        if scan.index_used { ", to which the index of seals led," } else { "" },
        scan.after,
        scan.up_to
    );
    let log = &certificate.log;
    let _ = writeln!(text, "  the shred log up to entry {}, with hash {}", number(log.seq), shred_log::hex(&log.hash));
    for copy in &log.copies {
        let (name, hash) = (shown(&copy.name), shred_log::hex(&copy.hash));
        let _ = writeln!(
            text,
            "  the copy {name} up to entry {}, with hash {hash}: {}",
            number(copy.seq),
            shred_log::of_copy(copy.state)
        );
    }
    text.push_str("Not looked at:\n");
    for left_out in &certificate.not_looked_at {
        let _ = writeln!(text, "  {left_out}");
    }
    let namespace = shown(certificate.namespace.as_str());
    let _ =
        writeln!(text, "\nIssued {} by {}, namespace {namespace}", time(certificate.issued_at), certificate.library);
    text
}

fn keys(certificate: &Certificate) -> Vec<Vec<String>> {
    let keys = certificate.keys.iter().map(|key| {
        let mut state = match key.standing {
            KeyStanding::Destroyed => "destroyed",
            KeyStanding::Live => "opens values",
            KeyStanding::Missing => "missing",
            _ => "altered",
        }
        .to_owned();
        if let Some(at) = key.destroyed_at {
            let _ = write!(state, " {}", time(at));
        }
        let made = key.created_at.map(time).unwrap_or_default();
        let id = key.key_id.map_or_else(|| "unknown".to_owned(), |key_id| key_id.to_string());
        vec![key.version.to_string(), id, made, state]
    });
    keys.collect()
}

/// The headline.
fn standing(certificate: &Certificate) -> &'static str {
    match (certificate.erased, certificate.proved) {
        (true, true) => "ERASED",
        (true, false) => "ERASED, NOT PROVED YET",
        (false, _) => "NOT ERASED",
    }
}

/// Adds a table, if it has rows.
fn section(text: &mut String, columns: &[&str], rows: Vec<Vec<String>>) {
    if !rows.is_empty() {
        let _ = writeln!(text, "\n{}", table(columns, rows));
    }
}

fn types(certificate: &Certificate) -> Vec<Vec<String>> {
    let row = |name: String, version: String, counts: &EventCounts| {
        let fields = [
            (counts.unreadable_fields, "unreadable"),
            (counts.void_fields, "erased before"),
            (counts.readable_fields, "readable"),
            (counts.lost_fields, "lost"),
        ];
        let fields = fields.iter().filter(|(fields, _)| *fields > 0);
        let fields: Vec<String> = fields.map(|(fields, what)| format!("{} {what}", number(*fields))).collect();
        let counts = [counts.events, counts.unreadable_events, counts.readable_events, counts.lost_events].map(number);
        [&[name, version], &counts[..], &[fields.join(", ")]].concat()
    };
    let types = &certificate.event_types;
    let mut rows: Vec<Vec<String>> =
        types.iter().map(|of| row(shown(of.event_type.as_str()), of.event_version.to_string(), &of.counts)).collect();
    if rows.len() > 1 {
        rows.push(row("all".to_owned(), String::new(), &certificate.events));
    }
    rows
}

fn in_log(entry: &CertifiedEntry) -> String {
    let authentic = match entry.authenticity {
        Authenticity::Verified => "authentic",
        Authenticity::BeforeTheLog => "before the log",
        _ => "NOT AUTHENTIC",
    };
    match entry.log {
        LogStanding::Sealed { seq, .. } => format!("{authentic}, number {seq} of the chain"),
        LogStanding::InCopy { seq, .. } => format!("{authentic}, number {seq} of the chain, in the copy"),
        LogStanding::Altered { seq } => format!("{authentic}, NUMBER {seq} OF THE CHAIN CONTRADICTS IT"),
        _ => format!("{authentic}, not in the chain"),
    }
}

/// From when on no copy opens what was shredded, and what has to be true for that.
pub(crate) fn describe_horizon(text: &mut String, name: &str, what: &str, horizon: &Horizon) {
    let _ = match horizon.at {
        // Nothing was said at all.
        None if horizon.unknown.len() == 3 => {
            let how = "--retention says how long copies of the keys are kept";
            let _ = writeln!(text, "\n{name}: unknown ({how})");
            return;
        }
        Some(at) => writeln!(text, "\n{name}: from {} on, no copy of the keys opens {what}, if", time(at)),
        None => writeln!(text, "\n{name}: unknown. Say more with --retention:"),
    };
    for line in horizon.unknown.iter().chain(horizon.assumptions.iter().filter(|_| horizon.at.is_some())) {
        let _ = writeln!(text, "  {line}");
    }
}
