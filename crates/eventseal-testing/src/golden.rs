//! [`GoldenCorpus`]: stored events that every version of a service must read as recorded.

mod case;
mod keys;
mod read;
mod report;

pub(super) use report::advice;
pub use report::{Difference, Mismatch, Run};

use crate::block_on;
use crate::error::{GuardError, chain};
use crate::files::{self, Mode};
use crate::json::differences;
use case::{CaseFile, FORMAT, Outcome, Stored, as_json};
use eventseal::memory::{MemoryKeys, MemoryTx};
use eventseal::{
    AggregateRef, AggregateVersion, EventType, EventVersion, GlobalPosition, KeyScope, NewEvent, PersistedEvent,
    Result, Schemas, Sealer,
};
use keys::KeyDb;
use read::{new_event, open_as_stored, read_case, stands_for};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::slice::from_ref;

const VARIABLE: &str = "EVENTSEAL_GOLDEN";
const KEYS: &str = "test-keys.json";

/// A folder of stored events, each with the events that readers must get.
///
/// Each JSON file is one case. The file `test-keys.json` beside them holds the keys for the sealed cases, so that they
/// can still be opened in years. These keys are made for the corpus, and protect nothing else. So the corpus also shows
/// that the next version of eventseal opens what this version sealed.
///
/// Each case is read in several ways:
/// - With its keys. The result must be the recorded one.
/// - After all its keys were shredded. A case that was stored in plaintext is sealed first. The result must be the
///   recorded one. No shredded value may be left in it: texts and numbers of four characters or more are searched for.
/// - After the keys of each single owner were shredded, if the case has several owners.
///
/// Every reading is done twice, to find steps that use the time of day or a random number. A step that uses the date
/// fails from the next day on.
///
/// # Recording
/// [`case`](Self::case) names an event that the test wants in the corpus. Run the test with `EVENTSEAL_GOLDEN=record`
/// to write the cases that are not in the folder yet; files that are there do not change. `EVENTSEAL_GOLDEN=accept`
/// writes changed results too.
///
/// You can also write a file by hand, without its member `expected`; look at a recorded file for the other members.
/// Stored events of production can be used if they contain nobody's data and are in plaintext.
///
/// ```
/// use eventseal_testing::{GoldenCorpus, GuardError};
/// use eventseal::{NewEvent, Owner, Schemas, aggregate, event};
/// use serde_json::{Value, json};
///
/// fn schemas() -> Result<Schemas, eventseal::schema::SchemaErrors> {
///     Schemas::new([event("Registered")
///         .version(1).protect(&["/name"], Owner::Aggregate)
///         .version(2).protect(&["/person/name"], Owner::Aggregate)
///         .upcast(1, |mut old: Value| Ok::<_, std::fmt::Error>(json!({ "person": { "name": old["name"].take() } })))])
/// }
///
/// # /*
/// #[test]
/// # */
/// fn stored_events_come_out_as_ever() -> Result<(), GuardError> {
///     let registered = NewEvent::raw("Registered", 1, r#"{"name":"Ada Lovelace"}"#);
///     GoldenCorpus::open("tests/example", schemas()?)?
///         .case("registered_v1", &aggregate("Customer", "1"), registered)
///         .check()
///         .map(drop)
/// }
/// # stored_events_come_out_as_ever()?;
/// # Ok::<(), GuardError>(())
/// ```
#[must_use = "check() it"]
pub struct GoldenCorpus {
    folder: PathBuf,
    sealer: Sealer<MemoryTx>,
    keys: KeyDb,
    cases: BTreeMap<String, CaseFile>,
    given: Vec<Given>,
}

/// A case that a test wants.
struct Given {
    name: String,
    event: PersistedEvent,
    /// True if this is the event as a store holds it. False if it is the event as the service would append it.
    is_stored: bool,
    /// True if the event must have a protected value, provided that its version protects anything.
    has_protected: bool,
}

/// How a recorded case compares with the event that the test gives under its name.
enum Recorded {
    /// It is the same event. Id and time may differ.
    Same,
    /// It is another event. The text says what differs.
    Other(&'static str),
    /// The recorded case can't be opened. The reading reports that.
    NotOpened,
}

/// A summary of a corpus that passed its check.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Checked {
    /// How many cases there are.
    pub cases: usize,
    /// The names of the cases that this check has written.
    pub written: Vec<String>,
    /// Registered versions that have no case, so the corpus does not guard them.
    pub uncovered: Vec<(EventType, EventVersion)>,
}

impl GoldenCorpus {
    /// Reads a folder of cases, for the service's registry of schemas. A missing folder counts as an empty one.
    ///
    /// # Errors
    /// [`GuardError::File`] if a JSON file in the folder is not a case or not readable, [`GuardError::Other`].
    pub fn open(folder: impl AsRef<Path>, schemas: Schemas) -> Result<Self, GuardError> {
        let folder = folder.as_ref().to_owned();
        // The cases are read before the keys, because a recording writes the keys first. Another test may record at
        // this moment.
        let mut cases = BTreeMap::new();
        let mut sealed = None;
        for path in json_files(&folder)? {
            let (Some(name), Some(case)) =
                (path.file_stem().and_then(|name| name.to_str()), files::read::<CaseFile>(&path)?)
            else {
                continue;
            };
            if case.eventseal_golden != FORMAT {
                let problem =
                    format!("is of format {}: this version of eventseal reads format {FORMAT}", case.eventseal_golden);
                return Err(GuardError::file(&path, problem));
            }
            let event = case.stored.event().map_err(|problem| GuardError::file(&path, problem))?;
            cases.insert(name.to_owned(), case);
            if event.is_sealed() || event.has_sealed_metadata() {
                sealed.get_or_insert(path);
            }
        }
        let path = folder.join(KEYS);
        let keys = match (files::read(&path)?, sealed) {
            (Some(file), _) => block_on(KeyDb::load(&file)).map_err(|problem| GuardError::file(&path, problem))?,
            (None, None) => block_on(KeyDb::generate())?,
            (None, Some(sealed)) => {
                let problem = format!("is sealed, but there is no {KEYS} beside it: restore that from version control");
                return Err(GuardError::file(&sealed, problem));
            }
        };
        let sealer = Sealer::new(MemoryKeys::new(), keys.keyring()?, schemas.with_older_appends());
        Ok(Self { folder, sealer, keys, cases, given: Vec::new() })
    }

    /// Adds a case: an event as the service would append it, at any registered version. It is sealed under the test
    /// keys when it is recorded.
    ///
    /// If the version protects anything, the event must have at least one protected value. Otherwise use
    /// [`case_without_protected`](Self::case_without_protected).
    pub fn case(self, name: &str, aggregate: &AggregateRef, event: NewEvent) -> Self {
        self.appended(name, aggregate, event, true)
    }

    /// As [`case`](Self::case), for an event that has no value at any protected place of its version.
    pub fn case_without_protected(self, name: &str, aggregate: &AggregateRef, event: NewEvent) -> Self {
        self.appended(name, aggregate, event, false)
    }

    fn appended(mut self, name: &str, aggregate: &AggregateRef, event: NewEvent, has_protected: bool) -> Self {
        let position = GlobalPosition::try_from(1).unwrap_or_default();
        let event = PersistedEvent::from_new(aggregate.clone(), AggregateVersion::FIRST, position, event);
        self.given.push(Given { name: name.to_owned(), event, is_stored: false, has_protected });
        self
    }

    /// Adds a case: an event exactly as a store holds it. A payload in plaintext is recorded in plaintext.
    ///
    /// A sealed event can only be opened if it was sealed under the keys of this corpus.
    pub fn stored_case(mut self, name: &str, event: PersistedEvent) -> Self {
        self.given.push(Given { name: name.to_owned(), event, is_stored: true, has_protected: false });
        self
    }

    /// Reads every case in every way, and compares the results with the recorded ones. Writes nothing, unless the
    /// environment variable `EVENTSEAL_GOLDEN` is `record` or `accept`.
    ///
    /// # Errors
    /// [`GuardError::Golden`] lists everything that differs, with the place and both values. [`GuardError::File`] if
    /// there are no cases, or if a file can't be used.
    pub fn check(&self) -> Result<Checked, GuardError> {
        self.run(Mode::from_env(VARIABLE)?)
    }

    /// As [`check`](Self::check) with `EVENTSEAL_GOLDEN=record`: writes new cases. Not for tests that a CI runs.
    ///
    /// # Errors
    /// As [`check`](Self::check).
    pub fn record(&self) -> Result<Checked, GuardError> {
        self.run(Mode::Record)
    }

    /// As [`check`](Self::check) with `EVENTSEAL_GOLDEN=accept`: writes new cases and changed results. Not for tests
    /// that a CI runs.
    ///
    /// A case is never accepted if it can't be read, if its result is not deterministic, or if a shredded value is left
    /// in it.
    ///
    /// # Errors
    /// As [`check`](Self::check).
    pub fn accept(&self) -> Result<Checked, GuardError> {
        self.run(Mode::Accept)
    }

    fn run(&self, mode: Mode) -> Result<Checked, GuardError> {
        let mut found = Vec::new();
        let mut cases = self.cases.clone();
        let mut written = BTreeSet::new();
        let mut scopes: BTreeSet<KeyScope> = BTreeSet::new();
        let not_sealed = self.take_given(mode, &mut cases, &mut scopes, &mut found)?;
        if cases.is_empty() && found.is_empty() {
            return Err(GuardError::file(
                &self.folder,
                "holds no cases, and the test names none: add .case(…), or name the right folder",
            ));
        }
        for (name, case) in &mut cases {
            let event = case.stored.event().map_err(|problem| GuardError::file(&self.path(name), problem))?;
            let Some(actual) = block_on(read_case(&self.sealer, &self.keys, name, &event, &mut found)) else {
                continue;
            };
            match &case.expected {
                Some(expected) if *expected == actual => continue,
                Some(expected) if mode != Mode::Accept => {
                    report(name, &Run::Live, Some(&expected.live), Some(&actual.live), &mut found);
                    report(name, &Run::Redacted, expected.redacted.as_ref(), actual.redacted.as_ref(), &mut found);
                }
                _ if not_sealed.contains(name) => {}
                None if mode == Mode::Check => found.push(difference(name, Mismatch::NotRecorded)),
                _ => {
                    case.expected = Some(actual);
                    written.insert(name.clone());
                }
            }
        }
        if !written.is_empty() {
            // The keys first: a case without its keys is lost.
            files::write(&self.folder.join(KEYS), &block_on(self.keys.save(&scopes))?)?;
            for (name, case) in cases.iter().filter(|(name, _)| written.contains(*name)) {
                files::write(&self.path(name), case)?;
            }
        }
        if !found.is_empty() {
            return Err(GuardError::Golden { differences: found });
        }
        Ok(Checked { cases: cases.len(), written: written.into_iter().collect(), uncovered: self.uncovered(&cases) })
    }

    /// Puts the test's own events among the recorded ones. Returns the names of those that should be sealed and are
    /// not.
    fn take_given(
        &self,
        mode: Mode,
        cases: &mut BTreeMap<String, CaseFile>,
        scopes: &mut BTreeSet<KeyScope>,
        found: &mut Vec<Difference>,
    ) -> Result<BTreeSet<String>, GuardError> {
        let mut not_sealed = BTreeSet::new();
        for given in &self.given {
            let name = &given.name;
            check_name(name).map_err(|problem| GuardError::file(&self.path(name), problem))?;
            let recorded = cases.get(name).map(|case| self.compare(case, &given.event)).transpose()?;
            match recorded {
                Some(Recorded::Same | Recorded::NotOpened) => {}
                Some(Recorded::Other(what)) if mode != Mode::Accept => {
                    found.push(difference(name, Mismatch::OtherEvent { what }));
                    continue;
                }
                // A new case is read too, so that a problem with it shows before it is recorded.
                _ => {
                    let stored =
                        if given.is_stored { Ok(given.event.clone()) } else { self.seal(&given.event, scopes) };
                    let case =
                        |stored| CaseFile { eventseal_golden: FORMAT, stored: Stored::of(&stored), expected: None };
                    match stored {
                        Ok(stored) => drop(cases.insert(name.clone(), case(stored))),
                        Err(error) => {
                            found.push(difference(name, Mismatch::NotSealed(chain(&error))));
                            continue;
                        }
                    }
                }
            }
            if given.has_protected
                && self.is_protected(&given.event)
                && cases.get(name).is_some_and(|case| !case.stored.is_sealed())
            {
                found.push(difference(name, Mismatch::NothingSealed));
                not_sealed.insert(name.clone());
            }
        }
        Ok(not_sealed)
    }

    /// Samples for other guards: the recorded events that can be opened, as they were appended, and the test's own
    /// events that are not recorded yet. So other guards do not depend on what was recorded first.
    pub(crate) fn plain_events(&self) -> Vec<PersistedEvent> {
        let open =
            |event: &PersistedEvent| block_on(open_as_stored(&self.sealer, &mut self.keys.db.begin(), event)).ok();
        let recorded = self.cases.values().filter_map(|case| open(&case.stored.event().ok()?));
        let new = self.given.iter().filter(|given| !self.cases.contains_key(&given.name));
        let new = new.filter_map(|given| if given.is_stored { open(&given.event) } else { Some(given.event.clone()) });
        let of_version = |mut event: PersistedEvent| {
            event.event_version = stands_for(self.sealer.schemas(), &event);
            event
        };
        recorded.chain(new).map(of_version).collect()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.json"))
    }

    /// Seals an event under the test keys. The scopes of the keys that it needs are added to `scopes`.
    fn seal(&self, event: &PersistedEvent, scopes: &mut BTreeSet<KeyScope>) -> Result<PersistedEvent> {
        block_on(async {
            let mut tx = self.keys.db.begin();
            let new = new_event(event);
            let mut stored = event.clone();
            if let Some(sealed) = self.sealer.seal(&mut tx, &event.aggregate, from_ref(&new)).await?.first() {
                stored.payload = sealed.payload().to_vec();
                stored.metadata.clone_from(&sealed.metadata);
            }
            tx.commit()?;
            scopes.extend(self.sealer.scopes_of(&event.aggregate, &new)?);
            Ok(stored)
        })
    }

    /// Compares the event that the test gives with the recorded one.
    fn compare(&self, case: &CaseFile, given: &PersistedEvent) -> Result<Recorded, GuardError> {
        let recorded = case.stored.event().map_err(|problem| GuardError::file(&self.folder, problem))?;
        let metadata = |event: &PersistedEvent| {
            event.metadata.as_ref().and_then(|json| serde_json::from_slice::<Value>(json).ok())
        };
        let differs = [
            ("event type", recorded.stored_type != given.stored_type),
            ("version", recorded.stored_version != given.stored_version),
            ("aggregate", recorded.aggregate != given.aggregate),
        ];
        if let Some((what, _)) = differs.into_iter().find(|(_, differs)| *differs) {
            return Ok(Recorded::Other(what));
        }
        if recorded.payload == given.payload && metadata(&recorded) == metadata(given) {
            return Ok(Recorded::Same);
        }
        Ok(match block_on(open_as_stored(&self.sealer, &mut self.keys.db.begin(), &recorded)) {
            Ok(opened) if metadata(&opened) != metadata(given) => Recorded::Other("metadata"),
            Ok(opened) if opened.payload == given.payload => Recorded::Same,
            Ok(_) => Recorded::Other("payload"),
            Err(_) => Recorded::NotOpened,
        })
    }

    /// Does the version of this event protect anything?
    fn is_protected(&self, event: &PersistedEvent) -> bool {
        let version = stands_for(self.sealer.schemas(), event);
        let versions = self.sealer.schemas().versions();
        versions.iter().any(|known| {
            let protects = !known.protected.is_empty() || !known.protected_metadata.is_empty();
            known.event_type == event.stored_type && known.event_version == version && protects
        })
    }

    /// The registered versions that have no case.
    fn uncovered(&self, cases: &BTreeMap<String, CaseFile>) -> Vec<(EventType, EventVersion)> {
        let stored = cases.values().filter_map(|case| case.stored.event().ok());
        let covered: BTreeSet<_> =
            stored.map(|event| (event.stored_type.clone(), stands_for(self.sealer.schemas(), &event))).collect();
        let versions =
            self.sealer.schemas().versions().into_iter().map(|version| (version.event_type, version.event_version));
        versions.filter(|version| !covered.contains(version)).collect()
    }
}

fn difference(case: &str, mismatch: Mismatch) -> Difference {
    Difference { case: case.to_owned(), run: Run::Live, mismatch }
}

fn report(
    case: &str,
    run: &Run,
    expected: Option<&Vec<Outcome>>,
    actual: Option<&Vec<Outcome>>,
    found: &mut Vec<Difference>,
) {
    let list = |events: Option<&Vec<Outcome>>| events.map_or(Value::Null, |events| as_json(events));
    for differs in differences(&list(expected), &list(actual)) {
        let mismatch =
            Mismatch::Differs { pointer: differs.pointer, expected: differs.expected, actual: differs.actual };
        found.push(Difference { case: case.to_owned(), run: run.clone(), mismatch });
    }
}

fn check_name(name: &str) -> Result<(), &'static str> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if name.is_empty() || name.starts_with('.') || !name.bytes().all(is_plain) {
        return Err("is no name for a case: use letters, digits, '-', '_' and '.'");
    }
    if format!("{name}.json") == KEYS { Err("is where the test keys are: choose another name") } else { Ok(()) }
}

/// The files of the cases, in order of name. Empty if the folder does not exist.
fn json_files(folder: &Path) -> Result<Vec<PathBuf>, GuardError> {
    let unreadable = |error: std::io::Error| GuardError::file(folder, format!("can't be read: {error}"));
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(unreadable(error)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(unreadable)?.path();
        if path.extension().is_some_and(|extension| extension == "json")
            && path.file_name().is_some_and(|name| name != KEYS)
        {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

impl fmt::Debug for GoldenCorpus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GoldenCorpus")
            .field("folder", &self.folder)
            .field("cases", &self.cases.keys())
            .finish_non_exhaustive()
    }
}
