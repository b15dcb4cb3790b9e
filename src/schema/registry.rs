//! The registry: which types and versions exist, and how each is read and written.

use crate::error::{Error, EventFault, InputFault, Result};
use crate::event::{EventType, EventVersion, NewEvent, PayloadType, PersistedEvent};
use crate::json::pointer::Pattern;
use crate::json::raw;
use crate::keys::names::KeyScope;
use crate::schema::builder::SchemasBuilder;
use crate::schema::check::kinds::Kinds;
use crate::schema::declare::EventSchema;
use crate::schema::problem::SchemaErrors;
use crate::schema::type_version::TypeVersion;
use crate::schema::typed::Events;
use crate::schema::upcast::step::{MetadataFn, Step};
use crate::seal::normalize::{Normalizers, NotNormalized};
use crate::seal::plan::Plan;
use crate::telemetry::{StepTaken, StepsTaken};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, OnceLock};

/// The registry of event schemas.
///
/// ```
/// use eventseal::{Owner, Schemas, event, subject};
/// use serde_json::{Value, json};
///
/// let schemas = Schemas::new([
///     event("CustomerRegistered").version(1).protect(&["/name", "/email"], Owner::Aggregate),
///     event("OrderPlaced")
///         .version(1).protect(&["/email"], subject("Customer", "/customer_id"))
///         .version(2).protect(&["/contact"], subject("Customer", "/customer_id"))
///         .upcast(1, |mut order: Value| {
///             order["contact"] = json!({ "email": order["email"].take() });
///             Ok::<_, std::convert::Infallible>(order)
///         }),
/// ])?;
/// # Ok::<(), eventseal::schema::SchemaErrors>(())
/// ```
pub struct Schemas {
    pub(in crate::schema) types: HashMap<EventType, TypeSchema>,
    pub(in crate::schema) accept_plaintext: HashSet<EventType>,
    pub(in crate::schema) allow_unknown_types: bool,
    pub(in crate::schema) pass_through_sealed: bool,
    pub(in crate::schema) kinds: Kinds,
    pub(in crate::schema) normalizers: Normalizers,
    pub(in crate::schema) pass_through_newer: bool,
    pub(in crate::schema) allow_older_appends: bool,
    pub(in crate::schema) deny_unreadable_payloads: bool,
    pub(in crate::schema) max_parts: usize,
    /// Pairs of a type and another type from which steps lead to it.
    pub(in crate::schema) ancestors: Vec<(EventType, EventType)>,
    /// The schema of everything that is not registered: it protects no payload and has no step. It protects the
    /// metadata that is protected in all events.
    pub(in crate::schema) nothing: VersionSchema,
    /// The Rust types that events are decoded into, by type and version.
    pub(in crate::schema) decoded_into: HashMap<TypeVersion, Vec<PayloadType>>,
    /// See [`fingerprint`](Self::fingerprint).
    pub(in crate::schema) fingerprint: OnceLock<[u8; 32]>,
    pub(in crate::schema) steps_taken: StepsTaken,
}

pub(crate) struct TypeSchema {
    /// From `first` on, without gaps.
    pub(in crate::schema) versions: Vec<VersionSchema>,
    pub(in crate::schema) first: u32,
    /// The version as which events that are stored without a version (0) are read.
    pub(in crate::schema) legacy: Option<EventVersion>,
}

#[derive(Default)]
pub(crate) struct VersionSchema {
    pub(crate) plan: Plan,
    /// What is protected in the metadata.
    pub(crate) metadata_plan: Plan,
    /// The kinds that the caller of an append names, each with the place in the metadata that the append writes.
    pub(crate) callers: Vec<(Arc<str>, Pattern)>,
    /// The step to the next version, or to other types. Only current versions have none.
    pub(in crate::schema) step: Option<Step>,
    /// The step of the metadata, beside that of the payload.
    pub(in crate::schema) metadata: Option<MetadataFn>,
    /// How often the step was taken, until that is reported.
    pub(in crate::schema) taken: StepTaken,
}

/// The version as which events of a stored type and version are read.
#[derive(Clone, Copy)]
pub(crate) struct ReadAs<'s> {
    pub(crate) schema: &'s VersionSchema,
    /// The number of that version. It differs from the stored number if the events are stored without a version.
    pub(crate) version: EventVersion,
}

impl ReadAs<'_> {
    /// Is the event handed out at its stored version, without a step, once it is opened?
    pub(crate) fn is_current(&self, event: &PersistedEvent) -> bool {
        self.schema.is_current() && self.version == event.stored_version
    }
}

impl TypeSchema {
    pub(in crate::schema) fn version(&self, version: EventVersion) -> Option<&VersionSchema> {
        let index = version.get().checked_sub(self.first)?;
        self.versions.get(usize::try_from(index).ok()?)
    }

    pub(in crate::schema) fn last(&self) -> EventVersion {
        let count = u32::try_from(self.versions.len()).unwrap_or(u32::MAX);
        EventVersion::new(self.first.saturating_add(count).saturating_sub(1))
    }
}

impl Schemas {
    /// Builds a registry with the default policies: types and versions that it does not know are an error, at append
    /// and on read, only current versions can be appended, and a protected place without a seal is an error.
    /// [`builder`](Self::builder) begins a registry with other policies.
    ///
    /// # Errors
    /// [`SchemaErrors`] lists everything that is contradictory, at once.
    pub fn new(events: impl IntoIterator<Item = EventSchema>) -> Result<Self, SchemaErrors> {
        Self::builder(events).build()
    }

    /// Begins a registry with what Rust types declare by their [derives](derive@crate::Event): their versions, the
    /// protected places in them, their owners and steps. Events are decoded into these types, as with
    /// [`decodes`](SchemasBuilder::decodes).
    ///
    /// ```
    /// use eventseal::{Event, Events, PersistedEvent, Schemas, Scope, Sensitive, event};
    /// use serde::{Deserialize, Serialize};
    ///
    /// #[derive(Scope)]
    /// #[scope("Customer")]
    /// struct Customer;
    ///
    /// #[derive(Serialize, Deserialize, Event)]
    /// #[event(type = "OrderPlaced", version = 1, owner = Customer(customer_id))]
    /// struct OrderPlaced { customer_id: String, email: Sensitive<String> }
    ///
    /// #[derive(Events)]
    /// enum OrderEvent { Placed(OrderPlaced), #[event(other)] Other(Box<PersistedEvent>) }
    ///
    /// let schemas = Schemas::of::<OrderEvent>()
    ///     .and([event("Pinged").version(1)]) // declared by hand
    ///     .build()?;
    /// # Ok::<(), eventseal::schema::SchemaErrors>(())
    /// ```
    pub fn of<E: Events>() -> SchemasBuilder {
        SchemasBuilder::new([]).and_of::<E>()
    }

    /// Begins a registry with other policies.
    pub fn builder(events: impl IntoIterator<Item = EventSchema>) -> SchemasBuilder {
        SchemasBuilder::new(events)
    }

    /// Allows appends of old versions, as [`allow_older_appends`](SchemasBuilder::allow_older_appends) does. It is for
    /// tests and tools that seal events as a service appended them years ago.
    #[must_use]
    pub fn with_older_appends(mut self) -> Self {
        self.allow_older_appends = true;
        self
    }

    /// The schema for an event that is to be appended. If its type is not registered, its payload is not protected.
    pub(crate) fn for_append(&self, event: &NewEvent) -> Result<&VersionSchema> {
        let Some(schema) = self.types.get(&event.event_type) else {
            return match self.allow_unknown_types {
                true => Ok(&self.nothing),
                false => Err(Error::Event {
                    event_id: event.event_id,
                    fault: EventFault::UnknownType { event_type: event.event_type.clone() },
                }),
            };
        };
        let undeclared = |hint| {
            Err(Error::Event {
                event_id: event.event_id,
                fault: EventFault::UndeclaredVersion {
                    event_type: event.event_type.clone(),
                    event_version: event.event_version,
                    hint,
                },
            })
        };
        let Some(version) = schema.version(event.event_version) else {
            return undeclared(format!(
                "versions {} to {} are declared: declare this one, or append version {}",
                schema.first,
                schema.last(),
                schema.last()
            ));
        };
        match &version.step {
            Some(_) if self.allow_older_appends => {}
            Some(_) if event.event_version == schema.last() => {
                return undeclared("the type lives on in other types only: append those".to_owned());
            }
            Some(_) => {
                return undeclared(format!(
                    "the current version is {}: append that, or build the schemas with allow_older_appends()",
                    schema.last()
                ));
            }
            None => {}
        }
        if let Some(pointer) = raw::private_member(event.payload()) {
            let pointer = match version.plan.protected_above(&pointer) {
                Some(from) => raw::without_names(&pointer, from),
                None => pointer,
            };
            return Err(Error::Event { event_id: event.event_id, fault: EventFault::PrivateMember { pointer } });
        }
        if self.deny_unreadable_payloads {
            // A step reads the payload into a Value, which refuses more than a syntax check does.
            serde_json::from_slice::<serde_json::Value>(event.payload()).map_err(|error| Error::Event {
                event_id: event.event_id,
                fault: EventFault::UnreadablePayload { line: error.line(), column: error.column() },
            })?;
            if let Some(metadata) = &event.metadata {
                serde_json::from_slice::<serde_json::Value>(metadata).map_err(|error| {
                    let fault = EventFault::UnreadablePayload { line: error.line(), column: error.column() };
                    Error::Event { event_id: event.event_id, fault: fault.in_metadata() }
                })?;
            }
        }
        Ok(version)
    }

    /// The schema by which to read an event of this stored type and version, and the version that it belongs to. `None`
    /// if the type is not registered and may pass through unchanged.
    pub(crate) fn for_read(
        &self,
        event_id: uuid::Uuid,
        event_type: &EventType,
        stored: EventVersion,
    ) -> Result<Option<ReadAs<'_>>> {
        let Some(schema) = self.types.get(event_type) else {
            return match self.allow_unknown_types || self.pass_through_sealed {
                true => Ok(None),
                false => {
                    Err(Error::Event { event_id, fault: EventFault::UnknownType { event_type: event_type.clone() } })
                }
            };
        };
        let version = schema.legacy.filter(|_| stored.get() == 0).unwrap_or(stored);
        match schema.version(version) {
            Some(schema) => Ok(Some(ReadAs { schema, version })),
            None if version > schema.last() && self.pass_through_newer => {
                Ok(Some(ReadAs { schema: &self.nothing, version }))
            }
            None if version > schema.last() => Err(Error::Event {
                event_id,
                fault: EventFault::NewerVersion {
                    event_type: event_type.clone(),
                    event_version: version,
                    known: schema.last(),
                },
            }),
            None => Err(Error::Event {
                event_id,
                fault: EventFault::UnknownVersion {
                    event_type: event_type.clone(),
                    event_version: version,
                    oldest: EventVersion::new(schema.first),
                },
            }),
        }
    }

    /// Is there more to do to read this event than to look for a header that its schema does not expect?
    pub(crate) fn expects_work(&self, event: &PersistedEvent) -> bool {
        match self.for_read(event.event_id, &event.stored_type, event.stored_version) {
            Ok(Some(read_as)) => read_as.schema.protects() || !read_as.is_current(event),
            Ok(None) => self.nothing.protects(),
            Err(_) => false,
        }
    }

    /// Does any version protect metadata?
    pub(crate) fn protects_metadata(&self) -> bool {
        let versions = self.types.values().flat_map(|schema| &schema.versions);
        versions.chain([&self.nothing]).any(|version| version.metadata_plan.protects())
    }

    /// Reports the steps that are taken until the result is dropped: once for a page, and not for each event.
    pub(crate) fn reporting_steps(&self) -> ReportingSteps<'_> {
        ReportingSteps(self)
    }

    /// Is anything of types that are not registered protected?
    pub(crate) fn protects_unregistered(&self) -> bool {
        self.allow_unknown_types && self.nothing.protects()
    }

    /// How the ids of owners are normalized.
    pub(crate) fn normalizers(&self) -> &Normalizers {
        &self.normalizers
    }

    /// The schema of what is not registered, for an event that is to stay at its stored version.
    pub(crate) fn unregistered(&self, version: EventVersion) -> ReadAs<'_> {
        ReadAs { schema: &self.nothing, version }
    }

    /// Is this the schema of a registered version, and not [`unregistered`](Self::unregistered)?
    pub(crate) fn is_registered(&self, read_as: ReadAs<'_>) -> bool {
        !std::ptr::eq(read_as.schema, &raw const self.nothing)
    }

    /// May events of unknown types be handed out sealed?
    pub(crate) fn passes_sealed(&self) -> bool {
        self.pass_through_sealed
    }

    pub(crate) fn accepts_plaintext(&self, event_type: &EventType) -> bool {
        self.accept_plaintext.contains(event_type)
    }

    /// The types whose protected values may be stored in the clear, sorted.
    pub(crate) fn accepting_plaintext(&self) -> Vec<String> {
        let mut types: Vec<String> = self.accept_plaintext.iter().map(|known| known.as_str().to_owned()).collect();
        types.sort_unstable();
        types
    }
}

impl Schemas {
    /// The stored types of the events that readers see as one of `wanted`: those types themselves, and the types whose
    /// steps lead to them. Sorted, each once.
    ///
    /// [`SealedStore`](crate::SealedStore) filters the wrapped store by these types when its callers filter by type.
    ///
    /// ```
    /// # use eventseal::{Changes, Schemas, event};
    /// # use eventseal::schema::SchemaErrors;
    /// let schemas = Schemas::new([
    ///     event("OrderCreated").version(1).change(1, Changes::new().rename_type("OrderPlaced", 1)),
    ///     event("OrderPlaced").version(1),
    /// ])?;
    /// assert_eq!(schemas.stored_types(&["OrderPlaced"]), ["OrderCreated", "OrderPlaced"]);
    /// # Ok::<(), SchemaErrors>(())
    /// ```
    #[must_use]
    pub fn stored_types(&self, wanted: &[impl AsRef<str>]) -> Vec<String> {
        let mut found: BTreeSet<String> = wanted.iter().map(|name| name.as_ref().to_owned()).collect();
        let mut leads: HashMap<&str, Vec<&EventType>> = HashMap::new();
        for (target, from) in &self.ancestors {
            leads.entry(target.as_str()).or_default().push(from);
        }
        let mut open: Vec<String> = found.iter().cloned().collect();
        while let Some(name) = open.pop() {
            for from in leads.get(name.as_str()).into_iter().flatten() {
                if found.insert(from.as_str().to_owned()) {
                    open.push(from.as_str().to_owned());
                }
            }
        }
        found.into_iter().collect()
    }
}

impl Schemas {
    /// The kinds of the scopes that the schemas name, sorted: those of [`subject`](crate::subject())s and those of
    /// [`scope_kind`](crate::Owner::scope_kind). If the owner is the event's own aggregate, the kind is the aggregate's
    /// type. Schemas do not know that type, so it is not in this list.
    ///
    /// ```
    /// # use eventseal::{Schemas, event, subject};
    /// # use eventseal::schema::SchemaErrors;
    /// let placed = event("OrderPlaced").version(1).protect(&["/email"], subject("Customer", "/customer_id"));
    /// assert_eq!(Schemas::new([placed])?.scope_kinds(), ["Customer"]);
    /// # Ok::<(), SchemaErrors>(())
    /// ```
    #[must_use]
    pub fn scope_kinds(&self) -> Vec<&str> {
        self.kinds.declared().collect()
    }

    /// The key scope of an owner by its kind and id, which is [normalized](crate::Owner::normalize) as the schemas say.
    /// Pass it to [`KeyManager::shred`](crate::keys::KeyManager::shred) and to whatever else is about one scope.
    ///
    /// ```
    /// # use eventseal::{Normalize, Schemas, event, subject};
    /// let customer = subject("Customer", "/customer_id").normalize(Normalize::LowerCase);
    /// let schemas = Schemas::new([event("OrderPlaced").version(1).protect(&["/email"], customer)])?;
    /// assert_eq!(schemas.scope_for("Customer", "CUST_42")?.id(), "cust_42");
    /// assert_eq!(schemas.scope_for("Guest", "GUEST_7")?.id(), "GUEST_7", "of this kind, they say nothing");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`InputFault::InvalidText`] if the kind or the id is empty, too long or holds a NUL character, before or after
    /// the id is normalized, or if it can't be normalized.
    pub fn scope_for(&self, kind: impl Into<Arc<str>>, id: &str) -> Result<KeyScope> {
        let given = KeyScope::new(kind, id);
        given.check()?;
        self.normalizers.scope(given.kind().into(), id).map_err(|NotNormalized { problem, .. }| {
            Error::Input(InputFault::InvalidText { what: "the scope id, once it is normalized,", problem })
        })
    }

    /// A declared kind that `kind` can be confused with, if there is one.
    pub(crate) fn similar_kind(&self, kind: &str) -> Option<&str> {
        self.kinds.similar_to(kind).first().map(|kind| &***kind)
    }
}

/// Reports the steps that were taken, when it is dropped.
#[must_use = "it reports when it is dropped"]
pub(crate) struct ReportingSteps<'s>(&'s Schemas);

impl Drop for ReportingSteps<'_> {
    fn drop(&mut self) {
        let Self(Schemas { types, steps_taken, .. }) = self;
        steps_taken.report(types.values().flat_map(|schema| &schema.versions).map(|version| &version.taken));
    }
}

impl VersionSchema {
    /// Is anything protected, in payloads or in metadata?
    pub(crate) fn protects(&self) -> bool {
        self.plan.protects() || self.metadata_plan.protects()
    }

    /// The place in the metadata to which an append writes the id of a subject of this kind that its caller names.
    pub(crate) fn caller(&self, of_kind: &str) -> Option<&Pattern> {
        self.callers.iter().find(|(kind, _)| **kind == *of_kind).map(|(_, place)| place)
    }

    /// The plans of both documents.
    pub(crate) fn plans(&self) -> [&Plan; 2] {
        [&self.plan, &self.metadata_plan]
    }

    /// Does no step lead from this version? A stored payload without a header can then be handed out unchanged.
    pub(crate) fn is_current(&self) -> bool {
        self.step.is_none()
    }
}

/// Lists the types and their versions.
impl fmt::Debug for Schemas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut types: Vec<_> =
            self.types.iter().map(|(name, schema)| (name, schema.first, schema.last().get())).collect();
        types.sort_unstable();
        f.debug_list().entries(types).finish()
    }
}
