//! The schema lock: what every version looks like, in a file that changes with new versions only.

mod protection;
mod report;
mod shapes;

pub(crate) use report::ADVICE;
pub use report::{ChangeKind, SchemaChange};

use crate::error::GuardError;
use crate::files::{self, Mode};
use crate::golden::GoldenCorpus;
use crate::json;
use crate::shape::{Shape, not_traced_in};
use eventseal::schema::{LockFile, LockedVersion, PayloadType, SchemaVersion};
use eventseal::{EventType, EventVersion, Schemas};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

const VARIABLE: &str = "EVENTSEAL_SCHEMAS";

/// A file with the shape, the protection and the step of every registered (type, version).
///
/// What is stored can't change, so a version's shape must not: a changed struct, a renamed field, a protection that
/// was added or taken away is a failure that says to add a version instead.
///
/// # Where shapes come from
/// In this order: what [`shape_of`](Self::shape_of) names; the Rust type that the step from the version reads; the type
/// that [`decodes`](eventseal::schema::SchemasBuilder::decodes) names for the current version; [samples](Self::sample).
/// What none of them tells is `not traced` in the file, which says why, and guards nothing there:
/// [`deny_not_traced`](Self::deny_not_traced) makes it a failure. [`Shape`] has the details.
///
/// # Protection and types
/// Where a Rust type tells the shape, its protection must fit it, which is looked at whatever is recorded: a
/// [`Sensitive`](eventseal::Sensitive) that no pointer protects is stored in the clear; a protected pointer, or one to
/// the owner's id, that leads to no member is misspelt; and a protected value must be able to be erased, so it is read
/// as a `Sensitive`, an `Option`, or what [`redact_as`](eventseal::schema::EventSchema::redact_as) puts in its place.
/// Of several types of a version, one must have the members. Values in maps, behind `#[serde(flatten)]` and in a
/// `serde_json::Value` are not known, and not looked at. Nor are types that look at the value first, such as tagged and
/// untagged enums. There, [samples](Self::sample) help: each that a type reads must still be read once what is
/// protected in it is erased. A `Sensitive` that comes out of a buffer of your own is not, if what stands in for it may
/// as well be a value; `decode` fails for such events, and so does this.
///
/// # What it can't see
/// What types and steps make of what they read: another `deserialize_with`, another check (as `try_from` makes),
/// another default, other contents of a step, be it a function or a list of [`Changes`](eventseal::Changes). Of a step,
/// it records how it is written and where it leads. A [`GoldenCorpus`] sees all of this, in the events that it has.
///
/// # Recording
/// Running the test with `EVENTSEAL_SCHEMAS=record` writes what is new: versions that are not in the file, steps from
/// versions that had none, shapes that were not known. `EVENTSEAL_SCHEMAS=accept` writes what changed, too.
///
/// ```
/// use eventseal_testing::{GuardError, SchemaLock};
/// # use eventseal::{Owner, Schemas, event};
/// # fn schemas() -> Result<Schemas, eventseal::schema::SchemaErrors> {
/// #     Schemas::new([event("Registered").version(1).protect(&["/name"], Owner::Aggregate)])
/// # }
/// #[derive(serde::Deserialize)]
/// struct Registered { name: eventseal::Sensitive<String> }
///
/// # /*
/// #[test]
/// # */
/// fn no_schema_changes_without_a_new_version() -> Result<(), GuardError> {
///     SchemaLock::new("tests/example-schemas.json", &schemas()?)
///         .shape_of::<Registered>("Registered", 1) // not needed if the schemas were built with decodes::<Registered>()
///         .deny_not_traced()
///         .check()
///         .map(drop)
/// }
/// # no_schema_changes_without_a_new_version()?;
/// # Ok::<(), GuardError>(())
/// ```
#[must_use = "check() it"]
pub struct SchemaLock<'s> {
    path: PathBuf,
    schemas: &'s Schemas,
    given: BTreeMap<(EventType, EventVersion), PayloadType>,
    samples: BTreeMap<(EventType, EventVersion), Vec<Value>>,
    deny_not_traced: bool,
}

/// What a lock that holds consists of.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Locked {
    /// How many versions there are.
    pub versions: usize,
    /// Was the file written just now?
    pub written: bool,
    /// Versions of whose shape something is not known: there, nothing guards it.
    pub not_traced: Vec<(EventType, EventVersion)>,
}

impl<'s> SchemaLock<'s> {
    /// A lock in this file, for the registry of the service.
    pub fn new(path: impl AsRef<Path>, schemas: &'s Schemas) -> Self {
        Self {
            path: path.as_ref().to_owned(),
            schemas,
            given: BTreeMap::new(),
            samples: BTreeMap::new(),
            deny_not_traced: false,
        }
    }

    /// Says which Rust type a version is read into.
    pub fn shape_of<T: DeserializeOwned>(mut self, event_type: impl Into<EventType>, version: u32) -> Self {
        self.given.insert((event_type.into(), EventVersion::new(version)), PayloadType::of::<T>());
        self
    }

    /// Shows a payload of a version that no Rust type reads. The shape is what all samples of it have in common.
    pub fn sample(mut self, event_type: impl Into<EventType>, version: u32, payload: Value) -> Self {
        self.samples.entry((event_type.into(), EventVersion::new(version))).or_default().push(payload);
        self
    }

    /// Takes the stored events of a corpus as samples.
    pub fn samples_of(mut self, corpus: &GoldenCorpus) -> Self {
        for event in corpus.plain_events() {
            if let Ok(payload) = serde_json::from_slice(&event.payload) {
                self.samples.entry((event.stored_type, event.event_version)).or_default().push(payload);
            }
        }
        self
    }

    /// Fails where a shape is not known.
    pub fn deny_not_traced(mut self) -> Self {
        self.deny_not_traced = true;
        self
    }

    /// Compares the registry with the file. Writes nothing, unless the environment variable `EVENTSEAL_SCHEMAS` says
    /// `record` or `accept`.
    ///
    /// # Errors
    /// [`GuardError::Schema`] lists every change, and what to do; [`GuardError::File`] if the file can't be used.
    pub fn check(&self) -> Result<Locked, GuardError> {
        self.run(Mode::from_env(VARIABLE)?)
    }

    /// The same, after writing what is new: what `EVENTSEAL_SCHEMAS=record` does. Not for tests that a CI runs.
    ///
    /// # Errors
    /// As [`check`](Self::check).
    pub fn record(&self) -> Result<Locked, GuardError> {
        self.run(Mode::Record)
    }

    /// Writes what is new and what changed: what `EVENTSEAL_SCHEMAS=accept` does. Not for tests that a CI runs.
    ///
    /// # Errors
    /// As [`check`](Self::check).
    pub fn accept(&self) -> Result<Locked, GuardError> {
        self.run(Mode::Accept)
    }

    fn run(&self, mode: Mode) -> Result<Locked, GuardError> {
        let recorded = read(&self.path)?;
        let mut file = recorded.clone().unwrap_or_default();
        let versions = self.schemas.versions();
        let mut comparing = Comparing { mode, versions: &versions, found: Vec::new() };
        let mut not_traced = Vec::new();
        for version in &versions {
            let name = (version.event_type.clone(), version.event_version);
            let shape = self.shape(version);
            let missing = not_traced_in(&shape);
            if !missing.is_empty() {
                not_traced.push(name.clone());
            }
            for (pointer, why) in missing.into_iter().filter(|_| self.deny_not_traced) {
                comparing.add(&name, ChangeKind::NotTraced { pointer, why });
            }
            let contradictions = protection::contradictions(
                version,
                self.types(version),
                self.samples.get(&name).map_or(&[], Vec::as_slice),
            );
            let fits = contradictions.is_empty();
            contradictions.into_iter().for_each(|contradiction| comparing.add(&name, contradiction));
            let entries = &mut file.types.entry(name.0.as_str().to_owned()).or_default().versions;
            let mut now = LockedVersion::from(version);
            now.shape = Some(shape.json().clone());
            match entries.get_mut(&name.1.get()) {
                Some(before) if fits => comparing.compare(&name, before, now),
                // What contradicts itself is not written, nor accepted.
                Some(before) => comparing.compare(&name, &mut before.clone(), now),
                None if !fits => {}
                None if mode == Mode::Check => comparing.add(&name, ChangeKind::NotRecorded),
                None => drop(entries.insert(name.1.get(), now)),
            }
        }
        comparing.compare_legacy(&mut file);
        comparing.look_for_removed(&mut file);
        for name in self.given.keys().chain(self.samples.keys()) {
            if !versions.iter().any(|version| version.event_type == name.0 && version.event_version == name.1) {
                comparing.add(name, ChangeKind::NotRegistered);
            }
        }
        let written = mode != Mode::Check && recorded.as_ref() != Some(&file);
        if written {
            files::write(&self.path, &file)?;
        }
        let mut changes = comparing.found;
        changes.sort_by(|a, b| (&a.event_type, a.event_version).cmp(&(&b.event_type, b.event_version)));
        if changes.is_empty() {
            Ok(Locked { versions: versions.len(), written, not_traced })
        } else {
            Err(GuardError::Schema { changes })
        }
    }

    /// The Rust types that a version is read into.
    fn types(&self, version: &SchemaVersion) -> impl Iterator<Item = PayloadType> {
        let given = self.given.get(&(version.event_type.clone(), version.event_version));
        given.copied().into_iter().chain(registered(version))
    }

    /// The shape of a version, by whatever tells it.
    fn shape(&self, version: &SchemaVersion) -> Shape {
        let name = (version.event_type.clone(), version.event_version);
        if let Some(given) = self.given.get(&name) {
            return Shape::of_type(*given);
        }
        match (registered(version).next().map(Shape::of_type), self.samples.get(&name)) {
            (Some(shape), _) if !shape.is_unknown() => shape,
            (_, Some(samples)) => Shape::of_samples(samples),
            (Some(shape), None) if !shape.is_any() => shape,
            _ => Shape::unknown("no Rust type reads it: name one with shape_of or decodes, or give a sample"),
        }
    }
}

/// The Rust types that the registry knows: of the step from a version, and of those that decode it.
fn registered(version: &SchemaVersion) -> impl Iterator<Item = PayloadType> {
    let by_step = version.step.as_ref().and_then(|step| step.reads);
    by_step.into_iter().chain(version.decoded_into.iter().copied())
}

/// The file, if there is one. It says nothing that this version does not know, so that nothing gets lost when it is
/// written.
fn read(path: &Path) -> Result<Option<LockFile>, GuardError> {
    let Some(found) = files::read::<Value>(path)? else { return Ok(None) };
    let other = |problem| {
        GuardError::file(path, format!("is not a file of this guard: {problem}; restore it from version control"))
    };
    let file: LockFile = serde_json::from_value(found.clone()).map_err(|error| other(error.to_string()))?;
    if file.eventseal_schemas != LockFile::FORMAT {
        let (is, known) = (file.eventseal_schemas, LockFile::FORMAT);
        return Err(GuardError::file(
            path,
            format!("is of format {is}: this version of eventseal reads format {known}"),
        ));
    }
    let known = serde_json::to_value(&file).map_err(|error| other(error.to_string()))?;
    match json::differences(&known, &found).first() {
        Some(differs) => Err(other(format!("{} does not belong there, or is missing", differs.pointer))),
        None => Ok(Some(file)),
    }
}

/// What is recorded of a version's shape.
fn shape_in(entry: &LockedVersion) -> Shape {
    entry.shape.clone().map_or_else(|| Shape::unknown("not recorded"), Shape::read)
}

struct Comparing<'a> {
    mode: Mode,
    versions: &'a [SchemaVersion],
    found: Vec<SchemaChange>,
}

impl Comparing<'_> {
    fn add(&mut self, name: &(EventType, EventVersion), change: ChangeKind) {
        let current = self
            .versions
            .iter()
            .filter(|version| version.event_type == name.0)
            .map(|version| version.event_version)
            .max();
        self.found.push(SchemaChange { event_type: name.0.clone(), event_version: name.1, current, change });
    }

    /// Reports what changed, or writes it if that is wanted.
    fn compare(&mut self, name: &(EventType, EventVersion), before: &mut LockedVersion, now: LockedVersion) {
        if *before == now {
            return;
        }
        if self.mode == Mode::Accept {
            *before = now;
            return;
        }
        let is_news = |is_new: bool| is_new && self.mode == Mode::Record;
        let (shape_is_new, step_is_new) = (shape_in(before).is_unknown(), is_new_step(before, &now));
        if is_news(shape_is_new) {
            before.shape = now.shape.clone();
        }
        if is_news(step_is_new) {
            before.step.clone_from(&now.step);
        }
        if shape_is_new && before.shape != now.shape {
            self.add(name, ChangeKind::ShapeNotRecorded);
            before.shape = now.shape.clone();
        }
        for differs in shapes::differences(shape_in(before).json(), shape_in(&now).json()) {
            self.add(name, ChangeKind::Shape { pointer: differs.pointer, was: differs.expected, is: differs.actual });
        }
        let pointers = before
            .protected
            .keys()
            .chain(now.protected.keys().filter(|pointer| !before.protected.contains_key(*pointer)));
        for pointer in pointers {
            let (was, is) = (before.protected.get(pointer).cloned(), now.protected.get(pointer).cloned());
            if was != is {
                self.add(name, ChangeKind::Protection { pointer: pointer.clone(), was, is });
                continue;
            }
            let stand_in = |entry: &LockedVersion| entry.redact_as.get(pointer).cloned().unwrap_or_default();
            let (was, is) = (stand_in(before), stand_in(&now));
            if was != is {
                self.add(name, ChangeKind::StandIn { pointer: pointer.clone(), was, is });
            }
        }
        if before.step != now.step {
            let shown = |entry: &LockedVersion| entry.step.as_ref().map(ToString::to_string);
            self.add(name, ChangeKind::Step { was: shown(before), is: shown(&now) });
        }
    }

    /// Reports types whose events without a version are read otherwise, or writes it if that is wanted.
    fn compare_legacy(&mut self, file: &mut LockFile) {
        // Types of which no version is recorded yet are news as a whole.
        for (event_type, entry) in file.types.iter_mut().filter(|(_, entry)| !entry.versions.is_empty()) {
            let mut of_type =
                self.versions.iter().filter(|version| version.event_type == event_type.as_str()).peekable();
            if of_type.peek().is_none() {
                continue;
            }
            let (was, is) = (
                entry.legacy_version,
                of_type.find(|version| version.is_legacy).map(|version| version.event_version.get()),
            );
            match (self.mode, was) {
                _ if was == is => {}
                (Mode::Accept, _) | (Mode::Record, None) => entry.legacy_version = is,
                _ => {
                    let change =
                        ChangeKind::LegacyVersion { was: was.map(EventVersion::new), is: is.map(EventVersion::new) };
                    self.add(&(EventType::from(event_type.as_str()), EventVersion::new(0)), change);
                }
            }
        }
    }

    /// Versions that are in the file and nowhere else.
    fn look_for_removed(&mut self, file: &mut LockFile) {
        let known = |event_type: &str, version: u32| {
            self.versions.iter().any(|known| known.event_type == event_type && known.event_version.get() == version)
        };
        let mut removed = Vec::new();
        for (event_type, entry) in &mut file.types {
            for version in entry.versions.keys().filter(|version| !known(event_type, **version)) {
                removed.push((EventType::from(event_type.as_str()), EventVersion::new(*version)));
            }
            if self.mode == Mode::Accept {
                entry.versions.retain(|version, _| known(event_type, *version));
            }
        }
        file.types.retain(|_, entry| !entry.versions.is_empty());
        if self.mode != Mode::Accept {
            removed.iter().for_each(|name| self.add(name, ChangeKind::Removed));
        }
    }
}

/// Does the step lead where it led before, or is it the first from there?
fn is_new_step(before: &LockedVersion, now: &LockedVersion) -> bool {
    match (&before.step, &now.step) {
        (Some(before), Some(now)) => before.to == now.to,
        (before, _) => before.is_none(),
    }
}

impl fmt::Debug for SchemaLock<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SchemaLock").field("path", &self.path).field("schemas", &self.schemas).finish_non_exhaustive()
    }
}
