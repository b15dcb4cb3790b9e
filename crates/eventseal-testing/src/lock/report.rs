//! What changed since the lock was written, and what to do about it.

use eventseal::{EventType, EventVersion};
use serde_json::Value;
use std::fmt;

pub(crate) const ADVICE: &str = "New versions are recorded by running the test with EVENTSEAL_SCHEMAS=record.
If a change of a recorded version is meant, because no event of it was ever stored: EVENTSEAL_SCHEMAS=accept.
Read the difference in version control, and commit it. Neither belongs into a CI's configuration.";

/// One change of a schema since the lock was written.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct SchemaChange {
    /// The event type.
    pub event_type: EventType,
    /// The version.
    pub event_version: EventVersion,
    /// The current version of the type; `None` if it is registered no more.
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
    /// Nothing was known of the shape when the version was recorded, and now something is.
    ShapeNotRecorded,
    /// The version is not registered any more.
    Removed,
    /// A place of the shape is another.
    Shape {
        /// Where in the shape.
        pointer: String,
        /// What was recorded; `None` for nothing.
        was: Option<Value>,
        /// What is found now; `None` for nothing.
        is: Option<Value>,
    },
    /// A place is protected otherwise.
    Protection {
        /// The place in the payload.
        pointer: String,
        /// Whose it was; `None` if it was not protected.
        was: Option<String>,
        /// Whose it is; `None` if it is not protected.
        is: Option<String>,
    },
    /// Something else stands in for a place once it is erased.
    StandIn {
        /// The place in the payload.
        pointer: String,
        /// What was recorded.
        was: Value,
        /// What is registered.
        is: Value,
    },
    /// The step from this version is another.
    Step {
        /// The step that was recorded; `None` if there was none.
        was: Option<String>,
        /// The step that is registered; `None` if there is none.
        is: Option<String>,
    },
    /// Events that are stored without a version, which is 0, are read as another one.
    LegacyVersion {
        /// The version that was recorded; `None` if there was none, so that they could not be read.
        was: Option<EventVersion>,
        /// The version that is registered; `None` if there is none.
        is: Option<EventVersion>,
    },
    /// A [`Sensitive`](eventseal::Sensitive) is at a place that is not protected.
    SensitiveInTheClear {
        /// The place in the payload.
        pointer: String,
        /// The Rust type.
        target: &'static str,
    },
    /// A place is protected that the type does not have.
    NoSuchMember {
        /// The protected place.
        pointer: String,
        /// The Rust type.
        target: &'static str,
    },
    /// The type has no member to name the owner of a protected place.
    NoSuchOwner {
        /// The protected place.
        pointer: String,
        /// Where the owner's id should be.
        id: String,
        /// The Rust type.
        target: &'static str,
    },
    /// The type can't be read once a protected place is erased.
    UnreadableOnceErased {
        /// The protected place.
        pointer: String,
        /// What then stands in for it.
        stand_in: Value,
        /// The Rust type.
        target: &'static str,
    },
    /// The test gives a shape or a sample of a version that is not registered.
    NotRegistered,
    /// The shape is not known, and the test wants it to be.
    NotTraced {
        /// Where in the shape.
        pointer: String,
        /// Why not.
        why: String,
    },
}

impl fmt::Display for SchemaChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { event_type, event_version, current, change } = self;
        write!(f, "{event_type} version {event_version}: {change}")?;
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
    /// Is it a new member that may be absent, or another name for one?
    fn may_be_absent(&self) -> bool {
        let is_optional = |is: &Value| ["default", "option", "alias of"].iter().any(|kind| is.get(kind).is_some());
        matches!(self, Self::Shape { was: None, is: Some(is), .. } if is_optional(is))
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
            Self::StandIn { pointer, was, is } => {
                write!(f, "what stands in for {pointer:?} once it is erased was {was}, is {is}: ")?;
                f.write_str(
                    "put it back, unless steps and readers take the other, too, and no read model is compared with one \
                     made before",
                )
            }
            Self::Step { was: None, is: Some(step) } => {
                write!(f, "a step from it is new ({step}), and not recorded yet")
            }
            Self::Step { was, is } => {
                let shown = |step: &Option<String>| step.as_deref().unwrap_or("none").to_owned();
                write!(f, "the step from it was {}, is {}", shown(was), shown(is))
            }
            Self::LegacyVersion { was: None, is: Some(is) } => {
                write!(
                    f,
                    "what is stored without a version is now read as version {is}, which is not recorded yet: run with \
                     EVENTSEAL_SCHEMAS=record, and commit the file"
                )
            }
            Self::LegacyVersion { was, is } => {
                let shown = |version: &Option<EventVersion>| {
                    version.map_or_else(|| "none".to_owned(), |version| version.to_string())
                };
                write!(
                    f,
                    "what is stored without a version was read as version {}, is as {}: put it back, ",
                    shown(was),
                    shown(is)
                )?;
                f.write_str("stored events are as they were")
            }
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
                    "{pointer} belongs to whom {id} names, but {target} has no such member: correct the pointer to the \
                     owner's id"
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
        }
    }
}

/// A place of a shape, as people find it in the payload.
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
                // What it is wrapped in.
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
