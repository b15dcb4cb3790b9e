//! The report of a schema lock: what changed since it was recorded, and what to do.

use eventseal::{EventType, EventVersion};
use serde_json::Value;
use std::fmt;

pub(crate) const ADVICE: &str = "New versions are recorded by running the test with EVENTSEAL_SCHEMAS=record.
If a change of a recorded version is meant, because no event of it was ever stored: EVENTSEAL_SCHEMAS=accept.
Read the difference in version control, and commit it. Neither belongs into a CI's configuration.";

/// The event type under which a change is reported that concerns all events.
pub(super) const ALL_EVENTS: &str = "*";

const STAND_IN_ADVICE: &str = "put it back, unless steps and readers take the other, too, and no read model is \
    compared with one made before";

/// One change of a schema since it was recorded.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct SchemaChange {
    /// The type whose schema changed. `*`, with version 0, for what is protected in the metadata of all events.
    pub event_type: EventType,
    /// The version whose schema changed. 0 means events that are stored without a version.
    pub event_version: EventVersion,
    /// The current version of the type. `None` if the type is not registered any more.
    pub current: Option<EventVersion>,
    /// What changed.
    pub change: ChangeKind,
}

/// What changed in the schema of one version.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum ChangeKind {
    /// The version is new.
    NotRecorded,
    /// The shape was not known when the version was recorded, and is known now.
    ShapeNotRecorded,
    /// The version is not registered any more.
    Removed,
    /// A place in the shape changed.
    Shape {
        /// The place: a JSON Pointer into the shape.
        pointer: String,
        /// The recorded shape of the place. `None` if there was none.
        was: Option<Value>,
        /// The shape of the place now. `None` if there is none.
        is: Option<Value>,
    },
    /// The protection of a place changed.
    Protection {
        /// The place in the payload.
        pointer: String,
        /// The recorded owner. `None` if the place was not protected.
        was: Option<String>,
        /// The owner now. `None` if the place is not protected.
        is: Option<String>,
    },
    /// The ids of a place's owner are [normalized](eventseal::Owner::normalize) in another way.
    Normalized {
        /// The place in the payload.
        pointer: String,
        /// How they were. `None` if they were taken as they were.
        was: Option<String>,
        /// How they are now. `None` if they are taken as they are.
        is: Option<String>,
    },
    /// The stand-in for an erased place changed.
    StandIn {
        /// The place in the payload.
        pointer: String,
        /// The recorded stand-in.
        was: Value,
        /// The registered stand-in.
        is: Value,
    },
    /// Another function [computes](eventseal::schema::EventSchema::redact_with) the stand-in for an erased place.
    StandInBy {
        /// The place in the payload.
        pointer: String,
        /// The recorded function's name. `None` if the stand-in was a fixed one.
        was: Option<String>,
        /// The registered function's name. `None` if the stand-in is a fixed one.
        is: Option<String>,
    },
    /// The step from this version changed.
    Step {
        /// The recorded step. `None` if there was none.
        was: Option<String>,
        /// The registered step. `None` if there is none.
        is: Option<String>,
    },
    /// Events that are stored without a version (as version 0) are read as another version than before.
    LegacyVersion {
        /// The recorded version. `None` if there was none, so that such events could not be read.
        was: Option<EventVersion>,
        /// The registered version. `None` if there is none.
        is: Option<EventVersion>,
    },
    /// A [`Sensitive`](eventseal::Sensitive) is at a place that is not protected.
    SensitiveInTheClear {
        /// The place in the payload.
        pointer: String,
        /// The Rust type.
        target: &'static str,
    },
    /// A protected pointer leads to no member of the type.
    NoSuchMember {
        /// The protected place.
        pointer: String,
        /// The Rust type.
        target: &'static str,
    },
    /// The pointer to the owner's id of a protected place leads to no member of the type.
    NoSuchOwner {
        /// The protected place.
        pointer: String,
        /// The pointer to the owner's id.
        id: String,
        /// The Rust type.
        target: &'static str,
    },
    /// The type can't read a payload once a protected place is erased.
    UnreadableOnceErased {
        /// The protected place.
        pointer: String,
        /// The value that then stands in for it.
        stand_in: Value,
        /// The Rust type.
        target: &'static str,
    },
    /// The test gives a type or a sample for a version that is not registered.
    NotRegistered,
    /// A part of the shape is not known, and the test denies that.
    NotTraced {
        /// The place: a JSON Pointer into the shape.
        pointer: String,
        /// Why the shape is not known.
        why: String,
    },
}

impl fmt::Display for SchemaChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { event_type, event_version, current, change } = self;
        match event_version.get() {
            0 if *event_type == ALL_EVENTS => write!(f, "all events: {change}")?,
            _ => write!(f, "{event_type} version {event_version}: {change}")?,
        }
        let is_of_payload = matches!(change, ChangeKind::Shape { .. } | ChangeKind::Protection { .. });
        match current {
            Some(current) if is_of_payload && current == event_version => {
                let next = current.get().saturating_add(1);
                if change.may_be_absent() {
                    f.write_str(
                        "; stored events lack it, which this type allows: accept it if older readers may ignore it, or",
                    )?;
                    return write!(f, " add version {next} and a step from {current} to {next}");
                }
                write!(
                    f,
                    "; leave version {current} as it was, and add version {next} and a step from {current} to {next}"
                )
            }
            Some(_) if is_of_payload => write!(f, "; put it back, stored events of this version are as they were"),
            _ => Ok(()),
        }
    }
}

impl ChangeKind {
    /// Is this a new member that may be absent, or a new alias of a member?
    fn may_be_absent(&self) -> bool {
        let is_optional = |is: &Value| ["default", "option", "alias of"].iter().any(|kind| is.get(kind).is_some());
        matches!(self, Self::Shape { was: None, is: Some(is), .. } if is_optional(is))
    }
}

impl ChangeKind {
    /// What is wrong between a type and its registration.
    fn fmt_of_type(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SensitiveInTheClear { pointer, target } => {
                write!(
                    f,
                    "{pointer} is a Sensitive in {target}, but not protected: it is stored in the clear; protect it"
                )
            }
            Self::NoSuchMember { pointer, target } => write!(
                f,
                "{pointer} is protected, but {target} has no such member: correct the pointer, or give the type the \
                 member (as a Sensitive<serde::de::IgnoredAny> if it is of no use to it)"
            ),
            Self::NoSuchOwner { pointer, id, target } => {
                write!(
                    f,
                    "the owner of {pointer} is named at {id}, but {target} has no such member: correct the pointer to \
                     the owner's id"
                )
            }
            Self::UnreadableOnceErased { pointer, stand_in, target } => write!(
                f,
                "{pointer} is protected, but {target} can't be read any more once {stand_in} stands in for it: make it \
                 a Sensitive or an Option, or name a stand-in that fits with redact_as"
            ),
            Self::NotRegistered => {
                f.write_str("the test says what it looks like, but it is not registered: correct its type or version")
            }
            Self::NotTraced { pointer, why } => write!(f, "the shape of {} is not known: {why}", Place(pointer)),
            Self::NotRecorded
            | Self::ShapeNotRecorded
            | Self::Removed
            | Self::Shape { .. }
            | Self::Protection { .. }
            | Self::Normalized { .. }
            | Self::StandIn { .. }
            | Self::StandInBy { .. }
            | Self::Step { .. }
            | Self::LegacyVersion { .. } => Ok(()), // told by Display
        }
    }
}

impl fmt::Display for ChangeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotRecorded => {
                f.write_str("not recorded yet: run with EVENTSEAL_SCHEMAS=record, and commit the file")
            }
            Self::ShapeNotRecorded => f.write_str(
                "its shape was not known, and now is: record it with EVENTSEAL_SCHEMAS=record, and commit the file",
            ),
            Self::Removed => f.write_str(
                "is not registered any more, but events of it may be stored: put it back, unless a census finds none \
                 in any store",
            ),
            Self::Shape { pointer, was, is } => {
                write!(f, "{} changed: was {}, is {}", Place(pointer), Shown(was), Shown(is))
            }
            Self::Protection { pointer, was: None, is: Some(owner) } => {
                write!(f, "{pointer} was not protected, is now ({owner}): stored events hold it in plaintext")
            }
            Self::Protection { pointer, was: Some(owner), is: None } => {
                write!(f, "{pointer} was protected ({owner}), is not any more: it would be stored in plaintext")
            }
            Self::Protection { pointer, was, is } => {
                write!(
                    f,
                    "{pointer} was protected by {}, is by {}",
                    was.as_deref().unwrap_or_default(),
                    is.as_deref().unwrap_or_default()
                )
            }
            Self::Normalized { pointer, was, is } => {
                let shown = |how: &Option<String>| how.as_deref().unwrap_or("nothing").to_owned();
                let (was, is) = (shown(was), shown(is));
                write!(f, "the ids of the owner of {pointer} were normalized by {was}, are by {is}: ")?;
                f.write_str(
                    "put it back, or accept it and shred a person under both ids from then on, because stored events \
                     keep the key scopes that they have",
                )
            }
            Self::StandIn { pointer, was, is } => {
                write!(f, "what stands in for {pointer:?} once it is erased was {was}, is {is}: {STAND_IN_ADVICE}")
            }
            Self::StandInBy { pointer, was, is } => stand_in_by(pointer, was.as_deref(), is.as_deref(), f),
            Self::Step { was: None, is: Some(step) } => {
                write!(f, "a step from it is new ({step}), and not recorded yet")
            }
            Self::Step { was, is } => {
                let shown = |step: &Option<String>| step.as_deref().unwrap_or("none").to_owned();
                write!(f, "the step from it was {}, is {}", shown(was), shown(is))
            }
            Self::LegacyVersion { was, is } => legacy_version(*was, *is, f),
            Self::SensitiveInTheClear { .. }
            | Self::NoSuchMember { .. }
            | Self::NoSuchOwner { .. }
            | Self::UnreadableOnceErased { .. }
            | Self::NotRegistered
            | Self::NotTraced { .. } => self.fmt_of_type(f),
        }
    }
}

/// Prints that another function computes a stand-in.
fn stand_in_by(pointer: &str, was: Option<&str>, is: Option<&str>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let shown =
        |name: Option<&str>| name.map_or_else(|| "a fixed one".to_owned(), |name| format!("computed by {name}"));
    let (was, is) = (shown(was), shown(is));
    write!(f, "what stands in for {pointer:?} once it is erased was {was}, is {is}: {STAND_IN_ADVICE}")
}

/// Prints that events which are stored without a version are read as another one.
fn legacy_version(was: Option<EventVersion>, is: Option<EventVersion>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    if let (None, Some(is)) = (was, is) {
        return write!(
            f,
            "what is stored without a version is now read as version {is}, which is not recorded yet: run with \
             EVENTSEAL_SCHEMAS=record, and commit the file"
        );
    }
    let shown =
        |version: Option<EventVersion>| version.map_or_else(|| "none".to_owned(), |version| version.to_string());
    write!(
        f,
        "what is stored without a version was read as version {}, is as {}: put it back, stored events are as they \
         were",
        shown(was),
        shown(is)
    )
}

/// Prints a place of a shape as the place in the payload that it means.
struct Place<'a>(&'a str);

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut place, mut aspect) = (String::new(), "");
        let mut tokens = self.0.split('/').skip(1);
        while let Some(token) = tokens.next() {
            match token {
                "struct" | "enum" | "tuple" => place.extend(tokens.next().into_iter().flat_map(|name| ["/", name])),
                "list" | "map" => place.push_str("/*"),
                "key" => aspect = "the keys of ",
                "deny_unknown_fields" => aspect = "deny_unknown_fields of ",
                // Wrappers such as `option` are no step in the payload.
                _ => {}
            }
        }
        f.write_str(aspect)?;
        if place.is_empty() { f.write_str("the payload") } else { write!(f, "member {place}") }
    }
}

struct Shown<'a>(&'a Option<Value>);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(value) => write!(f, "{value}"),
            None => f.write_str("absent"),
        }
    }
}
