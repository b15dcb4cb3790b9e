//! [`SchemaLock`]: the shape and protection of every version in a file, which changes only when a version is added.

mod protection;
mod report;
mod shapes;

pub(crate) use report::ADVICE;
use report::ALL_EVENTS;
pub use report::{ChangeKind, SchemaChange};

use crate::error::GuardError;
use crate::files::{self, Mode};
use crate::golden::GoldenCorpus;
use crate::json;
use crate::shape::{Shape, not_traced_in};
use eventseal::schema::{LockFile, LockedMetadata, LockedVersion, PayloadType, SchemaVersion};
use eventseal::{EventType, EventVersion, Schemas};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

const VARIABLE: &str = "EVENTSEAL_SCHEMAS";

/// A file with the shape, the protection and the step of every registered version of every event type.
///
/// Stored events never change, so the shape of a version must not change either. If a struct changed, a field was
/// renamed, or a protection was added or removed, the check fails and says to add a version instead.
///
/// # Where shapes come from
/// The first of these that is there tells the shape of a version:
/// 1. the type that [`shape_of`](Self::shape_of) names;
/// 2. the Rust type that the step from the version reads;
/// 3. the type that [`decodes`](eventseal::schema::SchemasBuilder::decodes) names for the current version;
/// 4. [samples](Self::sample).
///
/// A part of a shape that none of them tells is `not traced` in the file, together with the reason. The lock does not
/// guard that part. [`deny_not_traced`](Self::deny_not_traced) makes it a failure. [`Shape`] has the details.
///
/// # Protection and types
/// If a Rust type tells the shape, the protection must fit the type. This is checked whatever is recorded:
/// - A [`Sensitive`](eventseal::Sensitive) that no pointer protects would be stored in the clear.
/// - A protected pointer, or a pointer to the owner's id, must lead to a member. Otherwise it is misspelt. If a version
///   has several types, one of them must have the member.
/// - It must be possible to read the type after an erasure. So a protected value must be a `Sensitive`, an `Option`, or
///   of a type that reads the stand-in of [`redact_as`](eventseal::schema::EventSchema::redact_as). A stand-in of
///   [`redact_with`](eventseal::schema::EventSchema::redact_with) is not known here, and is not checked.
///
/// Not checked are values in maps, behind `#[serde(flatten)]` and in a `serde_json::Value`, and types that look at the
/// value first, such as tagged and untagged enums: what they contain is not known.
///
/// [Samples](Self::sample) help there. A type that reads a sample must still read it once its protected values are
/// erased. If a `Sensitive` comes out of a buffer of your own, and its stand-in may as well be a value, it can't be
/// read: `decode` fails for such events, and so does this check.
///
/// # What it can't see
/// The lock does not see how types and steps work on what they read: another `deserialize_with`, another check (such as
/// `try_from`), another default, or other contents of a step, whether a function or a list of
/// [`Changes`](eventseal::Changes). Of a step it records how it is declared and where it leads. A [`GoldenCorpus`] sees
/// all of this, for the events that it has.
///
/// # Recording
/// Run the test with `EVENTSEAL_SCHEMAS=record` to write what is new: versions that are not in the file, steps from
/// versions that had none, shapes that were not known. `EVENTSEAL_SCHEMAS=accept` writes changes too.
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
///         // Not needed if the schemas were built with decodes::<Registered>().
///         .shape_of::<Registered>("Registered", 1)
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

/// A summary of a lock that passed its check.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Locked {
    /// How many versions are registered.
    pub versions: usize,
    /// True if this check has written the file.
    pub written: bool,
    /// Versions with a part of their shape not traced. The lock does not guard that part.
    pub not_traced: Vec<(EventType, EventVersion)>,
}

impl<'s> SchemaLock<'s> {
    /// A lock in this file, for the service's registry of schemas. Reads and writes nothing yet.
    pub fn new(path: impl AsRef<Path>, schemas: &'s Schemas) -> Self {
        Self {
            path: path.as_ref().to_owned(),
            schemas,
            given: BTreeMap::new(),
            samples: BTreeMap::new(),
            deny_not_traced: false,
        }
    }

    /// Names the Rust type into which a version is read.
    pub fn shape_of<T: DeserializeOwned>(mut self, event_type: impl Into<EventType>, version: u32) -> Self {
        self.given.insert((event_type.into(), EventVersion::new(version)), PayloadType::of::<T>());
        self
    }

    /// Gives a sample payload of a version. If no Rust type reads the version, its shape is what all its samples have
    /// in common.
    pub fn sample(mut self, event_type: impl Into<EventType>, version: u32, payload: Value) -> Self {
        self.samples.entry((event_type.into(), EventVersion::new(version))).or_default().push(payload);
        self
    }

    /// Takes all events of a corpus as samples.
    pub fn samples_of(mut self, corpus: &GoldenCorpus) -> Self {
        for event in corpus.plain_events() {
            if let Ok(payload) = serde_json::from_slice(&event.payload) {
                self.samples.entry((event.stored_type, event.event_version)).or_default().push(payload);
            }
        }
        self
    }

    /// Makes [`check`](Self::check) fail if a part of a shape is not traced.
    pub fn deny_not_traced(mut self) -> Self {
        self.deny_not_traced = true;
        self
    }

    /// Compares the registry with the file. Writes nothing, unless the environment variable `EVENTSEAL_SCHEMAS` is
    /// `record` or `accept`.
    ///
    /// # Errors
    /// [`GuardError::Schema`] lists every change, and what to do. [`GuardError::File`] if the file can't be used.
    /// [`GuardError::Variable`] if the environment variable has another value.
    pub fn check(&self) -> Result<Locked, GuardError> {
        self.run(Mode::from_env(VARIABLE)?)
    }

    /// As [`check`](Self::check) with `EVENTSEAL_SCHEMAS=record`: writes what is new. Not for tests that a CI runs.
    ///
    /// # Errors
    /// As [`check`](Self::check).
    pub fn record(&self) -> Result<Locked, GuardError> {
        self.run(Mode::Record)
    }

    /// As [`check`](Self::check) with `EVENTSEAL_SCHEMAS=accept`: writes what is new and what changed. Not for tests
    /// that a CI runs.
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
                // A version whose protection contradicts its type is neither written nor accepted.
                Some(before) => comparing.compare(&name, &mut before.clone(), now),
                None if !fits => {}
                None if mode == Mode::Check => comparing.add(&name, ChangeKind::NotRecorded),
                None => drop(entries.insert(name.1.get(), now)),
            }
        }
        comparing.compare_all_events(recorded.is_some(), &mut file, LockFile::of(self.schemas).metadata);
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

    /// The Rust types into which a version is read.
    fn types(&self, version: &SchemaVersion) -> impl Iterator<Item = PayloadType> {
        let given = self.given.get(&(version.event_type.clone(), version.event_version));
        given.copied().into_iter().chain(registered(version))
    }

    /// The shape of a version, from the first source that tells it.
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

/// The Rust types that the registry knows: the one that the step from a version reads, and those that decode it.
fn registered(version: &SchemaVersion) -> impl Iterator<Item = PayloadType> {
    let by_step = version.step.as_ref().and_then(|step| step.reads);
    by_step.into_iter().chain(version.decoded_into.iter().copied())
}

/// Reads the file, if there is one. A member that this version of the crate does not know is an error: it would be lost
/// when the file is written.
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

/// What an entry says about payloads.
fn said(entry: &LockedVersion) -> LockedMetadata {
    let mut said = LockedMetadata::default();
    said.protected.clone_from(&entry.protected);
    said.normalized.clone_from(&entry.normalized);
    said.redact_as.clone_from(&entry.redact_as);
    said.redact_with.clone_from(&entry.redact_with);
    said
}

/// The recorded shape of a version.
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

    /// Compares a version with its entry. Reports each difference, or writes it to the entry if the mode allows it.
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
        self.compare_protection(name, &said(before), &said(&now), "");
        let metadata = |entry: &LockedVersion| entry.metadata.clone().unwrap_or_default();
        self.compare_protection(name, &metadata(before), &metadata(&now), " in the metadata");
        if before.step != now.step {
            let shown = |entry: &LockedVersion| entry.step.as_ref().map(ToString::to_string);
            self.add(name, ChangeKind::Step { was: shown(before), is: shown(&now) });
        }
    }

    /// Compares what is protected in the metadata of all events. Reports each difference, or writes it if the mode
    /// allows it.
    fn compare_all_events(&mut self, is_recorded: bool, file: &mut LockFile, now: Option<LockedMetadata>) {
        if file.metadata == now {
            return;
        }
        let name = (EventType::from(ALL_EVENTS), EventVersion::new(0));
        match self.mode {
            Mode::Accept => file.metadata = now,
            Mode::Record if !is_recorded => file.metadata = now,
            Mode::Check if !is_recorded => self.add(&name, ChangeKind::NotRecorded),
            Mode::Record | Mode::Check => {
                let before = file.metadata.clone().unwrap_or_default();
                self.compare_protection(&name, &before, &now.unwrap_or_default(), " in the metadata");
            }
        }
    }

    /// Compares what a version protects in one of the documents.
    fn compare_protection(
        &mut self,
        name: &(EventType, EventVersion),
        before: &LockedMetadata,
        now: &LockedMetadata,
        document: &str,
    ) {
        let new = now.protected.keys().filter(|pointer| !before.protected.contains_key(*pointer));
        for place in before.protected.keys().chain(new) {
            let pointer = format!("{place}{document}");
            let (was, is) = (before.protected.get(place).cloned(), now.protected.get(place).cloned());
            if was != is {
                self.add(name, ChangeKind::Protection { pointer, was, is });
                continue;
            }
            let (was, is) = (before.normalized.get(place).cloned(), now.normalized.get(place).cloned());
            if was != is {
                self.add(name, ChangeKind::Normalized { pointer: pointer.clone(), was, is });
            }
            let (was, is) = (before.redact_with.get(place).cloned(), now.redact_with.get(place).cloned());
            if was != is {
                self.add(name, ChangeKind::StandInBy { pointer, was, is });
                continue;
            }
            let stand_in = |entry: &LockedMetadata| entry.redact_as.get(place).cloned().unwrap_or_default();
            let (was, is) = (stand_in(before), stand_in(now));
            if was != is {
                self.add(name, ChangeKind::StandIn { pointer, was, is });
            }
        }
    }

    /// Compares as which version the events without a version are read. Reports each difference, or writes it if the
    /// mode allows it.
    fn compare_legacy(&mut self, file: &mut LockFile) {
        // A type that has no recorded version is new as a whole, and is reported by its versions.
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

    /// Reports versions that are in the file and not registered any more, or removes them if the mode allows it.
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

/// Is this the first step from its version, or does it lead to the same versions as before?
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
