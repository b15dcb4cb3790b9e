//! Compares a census with a registry: which steps are needed, and which stored events can't be read or are in the
//! clear.

use crate::args::Payloads;
use crate::output::{count, number, shown};
use crate::registered::Registered;
use eventseal::maintenance::{Answer, Census, CensusRow, Protection, Registration};
use eventseal::schema::LockedStep;
use serde_json::{Map, Value, json};
use std::fmt::{self, Display, Write as _};

pub(crate) struct Findings<'a> {
    rows: &'a [CensusRow],
    registered: &'a Registered,
    steps: Vec<FoundStep<'a>>,
    /// For each protected type, whether `accept_plaintext` can go. `None` if no payload was looked into.
    refuses_plaintext: Option<Vec<(&'a str, Answer)>>,
    /// No event of a registered type is stored. Mostly that means that this is the wrong table.
    is_strange: bool,
}

struct FoundStep<'a> {
    event_type: &'a str,
    from: u32,
    step: &'a LockedStep,
    /// How many stored events need the step.
    events: u64,
    can_go: Answer,
}

impl<'a> Findings<'a> {
    pub(crate) fn of(census: &'a Census, registered: &'a Registered, payloads: Option<Payloads>) -> Self {
        let is_strange = census.rows.iter().all(|row| row.registration == Some(Registration::UnknownType));
        let or_unknown = |answer: Answer| match answer {
            Answer::Yes if is_strange => Answer::Unknown { because: "no events of registered types are stored here" },
            answer => answer,
        };
        let steps = registered.steps().map(|(event_type, from, step)| {
            let needs =
                |row: &&CensusRow| row.steps.iter().any(|(name, version)| *name == event_type && version.get() == from);
            let events = census.rows.iter().filter(needs).map(|row| row.events).sum();
            FoundStep { event_type, from, step, events, can_go: or_unknown(census.may_delete_step(event_type, from)) }
        });
        let refuses = |name: &'a str| (name, or_unknown(census.may_refuse_plaintext(name)));
        let refuses_plaintext = payloads.map(|_| registered.protected_types().map(refuses).collect());
        Self { rows: &census.rows, registered, steps: steps.collect(), refuses_plaintext, is_strange }
    }

    fn rows(&self, wanted: impl Fn(&CensusRow) -> bool) -> impl Iterator<Item = &CensusRow> {
        self.rows.iter().filter(move |row| wanted(row))
    }

    /// Are there events that can't be read, or protected values in the clear?
    pub(crate) fn is_bad(&self) -> bool {
        self.rows(|row| is_unreadable(row) || open(row).is_some()).next().is_some()
    }

    pub(crate) fn write(&self, text: &mut String) {
        if self.is_strange {
            let _ =
                writeln!(text, "\nWarning: no events of registered types are stored here: is this the right table?");
        }
        self.write_steps(text);
        section(
            text,
            "Stored in versions that can't be read",
            self.rows(is_unreadable).map(|row| match row.registration {
                _ if row.event_version.get() == 0 => {
                    format!("{}, and the schema lock does not say which version that is", Events(row))
                }
                Some(Registration::Newer(newest)) => format!("{}, newer than v{newest}", Events(row)),
                Some(Registration::Missing(oldest)) if row.event_version < oldest => {
                    format!("{}, older than v{oldest}", Events(row))
                }
                _ => format!("{}, missing between others", Events(row)),
            }),
            "declare these versions and their steps (legacy_version(…) for v0), or write the lock anew with the code \
             that knows them",
        );
        section(
            text,
            "Stored without a version",
            self.rows(|row| row.event_version.get() == 0 && is_known(row)).map(|row| {
                match self.registered.legacy_version(row) {
                    Some(version) => format!("{}, read as v{version}", Events(row)),
                    None => Events(row).to_string(),
                }
            }),
            "",
        );
        section(
            text,
            "Stored, but not registered",
            self.rows(|row| row.registration == Some(Registration::UnknownType)).map(Events),
            "register these types, or allow unknown ones: they can't be read otherwise",
        );
        match &self.refuses_plaintext {
            None => section(
                text,
                "Protected, but without a header",
                self.rows(|row| self.may_be_plaintext(row))
                    .map(|row| format!("{}: {}", Name(row), count(row.without_header(), "event"))),
                "plaintext, or nothing in them to protect: --payloads looks into them",
            ),
            Some(answers) => self.write_plaintext(answers, text),
        }
    }

    fn write_steps(&self, text: &mut String) {
        let needed = self.steps.iter().filter(|found| matches!(found.can_go, Answer::No { .. }));
        let needed = needed.map(|found| format!("{found}: {}", count(found.events, "event")));
        section(text, "Steps that stored events need", needed, "");
        const NEEDLESS: &str = "Steps that no stored event needs";
        if let Some(because) = self.steps.iter().find_map(|found| why_unknown(&found.can_go)) {
            let _ = writeln!(text, "\n{NEEDLESS}: unknown, {because}");
        } else {
            let advice = "they can go, unless a process of older code still appends what they start from";
            section(text, NEEDLESS, self.steps.iter().filter(|found| found.can_go.is_yes()), advice);
        }
    }

    fn write_plaintext(&self, answers: &[(&str, Answer)], text: &mut String) {
        let lines = self.rows.iter().filter_map(|row| open(row).map(|open| (row, open))).map(|(row, open)| {
            let parts = [
                (open.plaintext, "plaintext"),
                (open.partly_sealed, "partly sealed"),
                (open.unreadable, "not readable"),
            ];
            let parts: Vec<_> = parts
                .iter()
                .filter(|(events, _)| *events > 0)
                .map(|(events, what)| format!("{} {what}", number(*events)))
                .collect();
            let first = open
                .first_open
                .map(|(position, event_id)| format!("; the first is event {event_id} at position {position}"));
            format!("{}: {}{}", Name(row), parts.join(", "), first.unwrap_or_default())
        });
        section(
            text,
            "Protected, but in the clear",
            lines,
            "the library's backfill seals what is plaintext; look into the others",
        );
        const NEEDLESS: &str = "Types that need no accept_plaintext";
        if let Some(because) = answers.iter().find_map(|(_, answer)| why_unknown(answer)) {
            let _ = writeln!(text, "\n{NEEDLESS}: unknown, {because}");
        } else {
            let sealed = answers.iter().filter(|(_, answer)| answer.is_yes()).map(|(name, _)| shown(name));
            section(text, NEEDLESS, sealed, "");
        }
    }

    fn may_be_plaintext(&self, row: &CensusRow) -> bool {
        is_known(row) && self.registered.protects_payloads(row) && row.without_header() > 0
    }

    pub(crate) fn add_to(&self, json: &mut Value) {
        json["steps"] = self.steps.iter().map(FoundStep::json).collect();
        if let Some(answers) = &self.refuses_plaintext {
            let answers = answers.iter().map(|(name, answer)| ((*name).to_owned(), answer_json(answer)));
            json["may_refuse_plaintext"] = answers.collect::<Map<_, _>>().into();
        }
        for (row, json) in self.rows.iter().zip(json["types"].as_array_mut().into_iter().flatten()) {
            json["registration"] = match row.registration {
                Some(Registration::Current) => "current".into(),
                Some(Registration::Outdated) => "outdated".into(),
                Some(Registration::Newer(_)) => "newer".into(),
                Some(Registration::Missing(_)) => "missing".into(),
                Some(Registration::UnknownType) => "unknown_type".into(),
                _ => Value::Null,
            };
            json["protected"] = is_known(row).then(|| self.registered.is_protected(row)).into();
            json["needs_steps"] = row
                .steps
                .iter()
                .map(|(name, version)| json!({ "type": name.as_str(), "version": version.get() }))
                .collect();
            if let Some(found) = row.protection.filter(|_| self.refuses_plaintext.is_some()) {
                json["protection"] = json!({
                    "sealed": found.sealed,
                    "partly_sealed": found.partly_sealed,
                    "plaintext": found.plaintext,
                    "nothing_to_protect": found.nothing_to_protect,
                    "unreadable": found.unreadable,
                    "first_open": found.first_open.map(|(position, id)| {
                        json!({ "position": position.get(), "event_id": id.to_string() })
                    }),
                });
            }
        }
    }
}

fn is_known(row: &CensusRow) -> bool {
    matches!(row.registration, Some(Registration::Current | Registration::Outdated))
}

fn is_unreadable(row: &CensusRow) -> bool {
    matches!(row.registration, Some(Registration::Newer(_) | Registration::Missing(_)))
}

/// The protection of a row, if it has events that are not completely sealed.
fn open(row: &CensusRow) -> Option<Protection> {
    row.protection.filter(|protection| protection.open() > 0)
}

fn why_unknown(answer: &Answer) -> Option<&'static str> {
    match answer {
        Answer::Unknown { because } => Some(because),
        _ => None,
    }
}

fn answer_json(answer: &Answer) -> Value {
    match answer {
        Answer::Yes => true.into(),
        Answer::No { .. } => false.into(),
        Answer::Unknown { .. } => Value::Null,
    }
}

/// Prints `OrderPlaced v1 → v2`, `Checkout v1 → Order v1, Payment v1`, `Draft v3 → nothing`.
impl Display for FoundStep<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} v{} → ", shown(self.event_type), self.from)?;
        match &self.step.to[..] {
            [] => f.write_str("nothing"),
            [target] if target.event_type == self.event_type => write!(f, "v{}", target.version),
            targets => {
                let targets = targets.iter().map(|target| format!("{} v{}", shown(&target.event_type), target.version));
                f.write_str(&targets.collect::<Vec<_>>().join(", "))
            }
        }
    }
}

impl FoundStep<'_> {
    fn json(&self) -> Value {
        let to = self.step.to.iter().map(|target| json!({ "type": target.event_type, "version": target.version }));
        json!({
            "type": self.event_type,
            "version": self.from,
            "kind": self.step.kind,
            "to": to.collect::<Vec<_>>(),
            "events": self.events,
            "can_go": answer_json(&self.can_go),
        })
    }
}

/// Prints `OrderPlaced v1`.
struct Name<'a>(&'a CensusRow);

impl Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} v{}", shown(self.0.event_type.as_str()), self.0.event_version)
    }
}

/// Prints `OrderPlaced v1: 17 events`.
struct Events<'a>(&'a CensusRow);

impl Display for Events<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", Name(self.0), count(self.0.events, "event"))
    }
}

/// Writes a heading, its lines, and what to do about them.
fn section(text: &mut String, heading: &str, lines: impl IntoIterator<Item = impl Display>, advice: &str) {
    let mut lines = lines.into_iter().peekable();
    let is_empty = lines.peek().is_none();
    let _ = writeln!(text, "\n{heading}{}", if is_empty { ": none" } else { "" });
    for line in lines {
        let _ = writeln!(text, "  {line}");
    }
    if !is_empty && !advice.is_empty() {
        let _ = writeln!(text, "    {advice}");
    }
}
