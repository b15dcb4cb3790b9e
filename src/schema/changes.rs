//! Declarative steps: what is said instead of programmed can be checked before it runs.

use crate::event::EventType;
use crate::pointer::{JsonPointer, Pattern};
use crate::schema::document::{Node, Problem, Step, pointer_of, way};
use crate::schema::step::{Failure, Mapping};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::BTreeSet;
use std::ops::Bound;

/// A declarative step: a list of changes, made one after the other. See [`EventSchema::change`](crate::EventSchema::change).
///
/// Places are JSON Pointers in which a `*` stands for every element of an array, as in
/// [`protect`](crate::EventSchema::protect). What no change names keeps its spelling: numbers of any size, the order of
/// members. Payloads may be any JSON, also such as `serde_json` can't hold.
///
/// **Protection is carried along.** Building the registry follows every protected place of the old version through the
/// changes: where it ends, the new version must protect it, or the schemas are refused.
///
/// **So are redactions.** A value that was erased is redacted at its new place, with the new version's stand-in. A default
/// never fills it, and no function is called for it. No change fails because something was erased.
///
/// ```
/// use eventseal::{Changes, Schemas, event, subject};
///
/// let customer = || subject("Customer", "/customer_id");
/// let schemas = Schemas::new([event("OrderPlaced")
///     .version(1).protect(&["/email", "/lines/*/gift_note"], customer())
///     .version(2).protect(&["/contact/email", "/lines/*/note"], customer())
///     .change(1, Changes::new()
///         .move_value("/email", "/contact/email")
///         .move_value("/lines/*/gift_note", "/lines/*/note")
///         .set_default("/currency", "EUR")
///         .map_value("/total", |euros: f64| (euros * 100.0).round() as u64)
///         .remove("/legacy_flag"))])?;
/// # Ok::<(), eventseal::SchemaErrors>(())
/// ```
#[derive(Default)]
#[must_use = "pass it to EventSchema::change"]
pub struct Changes {
    pub(super) changes: Vec<Change<String>>,
    pub(super) renamed: Vec<(EventType, u32)>,
}

/// One change, with its places as `P`.
pub(super) enum Change<P> {
    Move { from: P, to: P },
    Copy { from: P, to: P },
    Default { at: P, text: String },
    Remove { at: P },
    Map { at: P, mapping: Mapping },
}

impl Changes {
    /// No changes so far: the step leaves the payload as it is.
    pub fn new() -> Self {
        Self::default()
    }

    /// Moves the value at `from`, with everything in it, to `to`. Nothing happens where there is none.
    ///
    /// Objects that are missing on the way to `to`, or `null`, are made. Both pointers have the same `*`s, which stand for
    /// the same elements. If a value that is not `null` stands at `to` already, the step fails: nothing is overwritten
    /// silently; [`remove`](Self::remove) it first, if it may go. Elements of arrays can't be moved.
    pub fn move_value(self, from: impl Into<String>, to: impl Into<String>) -> Self {
        self.with(Change::Move { from: from.into(), to: to.into() })
    }

    /// Copies the value at `from` to `to`, in other respects as [`move_value`](Self::move_value). Where `to` has more `*`s,
    /// every element gets a copy.
    pub fn copy_value(self, from: impl Into<String>, to: impl Into<String>) -> Self {
        self.with(Change::Copy { from: from.into(), to: to.into() })
    }

    /// Puts a value where there is none. A `null` that was written is a value, and so is one that was erased: it stays
    /// redacted. Objects that are missing on the way are made, but none in place of a `null`.
    pub fn set_default(self, at: impl Into<String>, value: impl Into<Value>) -> Self {
        let text = value.into().to_string();
        self.with(Change::Default { at: at.into(), text })
    }

    /// Removes the member at this place, if there is one. Elements of arrays can't be removed.
    pub fn remove(self, at: impl Into<String>) -> Self {
        self.with(Change::Remove { at: at.into() })
    }

    /// Puts what `map` makes of it in place of the value. Not called where there is none, and not where it was erased.
    ///
    /// The step fails if the value does not decode into `A`; take an `Option<A>` where it may be `null`.
    pub fn map_value<A, B, F>(self, at: impl Into<String>, map: F) -> Self
    where
        A: DeserializeOwned + 'static,
        B: Serialize + 'static,
        F: Fn(A) -> B + Send + Sync + 'static,
    {
        self.try_map_value(at, move |value| Ok::<_, std::convert::Infallible>(map(value)))
    }

    /// The same with a function that can fail, and with it the step. Put no values into the error: see
    /// [`upcast`](crate::EventSchema::upcast).
    pub fn try_map_value<A, B, E, F>(self, at: impl Into<String>, map: F) -> Self
    where
        A: DeserializeOwned + 'static,
        B: Serialize + 'static,
        E: Into<crate::BoxError>,
        F: Fn(A) -> Result<B, E> + Send + Sync + 'static,
    {
        self.with(Change::Map { at: at.into(), mapping: Mapping::new(map) })
    }

    /// Makes the event one of another type and version, which goes on through that type's own steps. At most once in a step,
    /// at any place in it. A type whose last version is renamed lives on in the other one only.
    ///
    /// Readers that filter by the new name see the old events too.
    pub fn rename_type(mut self, event_type: impl Into<EventType>, event_version: u32) -> Self {
        self.renamed.push((event_type.into(), event_version));
        self
    }

    fn with(mut self, change: Change<String>) -> Self {
        self.changes.push(change);
        self
    }
}

impl std::fmt::Debug for Changes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Changes").field("changes", &self.changes.len()).field("renamed", &self.renamed).finish()
    }
}

impl<P> Change<P> {
    /// With its places read.
    pub(super) fn try_map<Q, E>(self, mut read: impl FnMut(P) -> Result<Q, E>) -> Result<Change<Q>, E> {
        Ok(match self {
            Self::Move { from, to } => Change::Move { from: read(from)?, to: read(to)? },
            Self::Copy { from, to } => Change::Copy { from: read(from)?, to: read(to)? },
            Self::Default { at, text } => Change::Default { at: read(at)?, text },
            Self::Remove { at } => Change::Remove { at: read(at)? },
            Self::Map { at, mapping } => Change::Map { at: read(at)?, mapping },
        })
    }
}

/// Makes the changes. `redacted` is sorted afterwards.
pub(super) fn make<'a>(changes: &'a [Change<Pattern>], payload: &mut Node<'a>, redacted: &mut Vec<JsonPointer>) -> Result<(), Failure> {
    let mut places = Redactions(std::mem::take(redacted).into_iter().collect());
    for change in changes {
        change.make(payload, &mut places)?;
    }
    *redacted = places.0.into_iter().collect();
    Ok(())
}

impl Change<Pattern> {
    fn make<'a>(&'a self, payload: &mut Node<'a>, redacted: &mut Redactions) -> Result<(), Failure> {
        match self {
            Self::Move { from, to } => transfer(payload, redacted, from, to, true),
            Self::Copy { from, to } => transfer(payload, redacted, from, to, false),
            Self::Default { at, text } => each(payload, at, |payload, place| set_default(payload, redacted, place, text)),
            Self::Remove { at } => each(payload, at, |payload, way| {
                let place = pointer_of(way);
                if redacted.around(&place).is_none_or(|around| around == place) {
                    payload.take(way).map_err(failed)?;
                    redacted.take_from(&place);
                }
                Ok(())
            }),
            Self::Map { at, mapping } => each(payload, at, |payload, way| {
                let place = pointer_of(way);
                if redacted.around(&place).is_some() || redacted.has_below(&place) {
                    return Ok(());
                }
                let Some(node) = payload.get(way).map_err(failed)? else { return Ok(()) };
                let value = std::mem::replace(node, Node::Text("null"));
                *node = mapping.map(value).map_err(|failure| failure.of(&place))?;
                Ok(())
            }),
        }
    }
}

/// Does something at each place that a pattern means, whether anything is there or not.
fn each<'a>(
    payload: &mut Node<'a>,
    pattern: &Pattern,
    mut act: impl FnMut(&mut Node<'a>, &[Step<'_>]) -> Result<(), Failure>,
) -> Result<(), Failure> {
    for indexes in payload.elements_of(pattern.up_to_last_star()).map_err(failed)? {
        act(payload, &way(pattern, &indexes))?;
    }
    Ok(())
}

fn transfer<'a>(payload: &mut Node<'a>, redacted: &mut Redactions, from: &Pattern, to: &Pattern, is_move: bool) -> Result<(), Failure> {
    // `to` has at least the `*`s of `from`, in the same arrays.
    for indexes in payload.elements_of(to.up_to_last_star()).map_err(failed)? {
        let (from_way, to_way) = (way(from, &indexes), way(to, &indexes));
        let (from_place, to_place) = (pointer_of(&from_way), pointer_of(&to_way));
        let is_free = match payload.get(&to_way).map_err(failed)? {
            None => true,
            Some(found) => {
                if redacted.around(&from_place).is_some_and(|around| around != from_place) {
                    continue;
                }
                found.is_null() || redacted.around(&to_place).is_some()
            }
        };
        // What stood inside an erased value was erased with it, whatever it was: the stand-in has nothing to say.
        if redacted.around(&from_place).is_some_and(|around| around != from_place) {
            if redacted.around(&to_place).is_none() {
                payload.put(&to_way, Node::Text("null")).map_err(failed)?;
                redacted.0.insert(JsonPointer::new_unchecked(to_place));
            }
            continue;
        }
        let value = if is_move { payload.take(&from_way) } else { payload.get(&from_way).map(|found| found.map(|value| value.clone())) };
        let Some(value) = value.map_err(failed)? else { continue };
        if !is_free {
            let problem = format!("there is a value at {to_place} already, which {from_place} would overwrite: remove it first");
            return Err(Failure::new(problem));
        }
        payload.put(&to_way, value).map_err(failed)?;
        let carried = if is_move { redacted.take_from(&from_place) } else { redacted.from(&from_place) };
        // What was redacted at the new place made way.
        redacted.take_from(&to_place);
        redacted.0.extend(carried.iter().map(|place| {
            let rest = &place.as_str()[from_place.len()..];
            JsonPointer::new_unchecked(format!("{to_place}{rest}"))
        }));
    }
    Ok(())
}

fn set_default<'a>(payload: &mut Node<'a>, redacted: &Redactions, way: &[Step<'_>], text: &'a str) -> Result<(), Failure> {
    if redacted.around(&pointer_of(way)).is_some() {
        return Ok(());
    }
    for length in 1..=way.len() {
        match payload.get(&way[..length]).map_err(failed)? {
            None => return payload.put(way, Node::Text(text)).map_err(failed),
            // A null on the way says that there is nothing for which there could be a default.
            Some(found) if found.is_null() => return Ok(()),
            Some(_) => {}
        }
    }
    Ok(())
}

/// The redacted places, on their way. None is inside another.
struct Redactions(BTreeSet<JsonPointer>);

impl Redactions {
    /// The redacted place that this one is, or is inside of.
    fn around<'p>(&self, place: &'p str) -> Option<&'p str> {
        if self.0.is_empty() {
            return None;
        }
        let ends = place.match_indices('/').map(|(at, _)| at).chain([place.len()]);
        ends.map(|end| &place[..end]).find(|around| self.0.contains(*around))
    }

    fn from(&self, place: &str) -> Vec<JsonPointer> {
        self.range(place).cloned().collect()
    }

    fn has_below(&self, place: &str) -> bool {
        self.range(place).next().is_some()
    }

    /// Takes out what is redacted at a place and inside it.
    fn take_from(&mut self, place: &str) -> Vec<JsonPointer> {
        let taken = self.from(place);
        for place in &taken {
            self.0.remove(place);
        }
        taken
    }

    fn range(&self, place: &str) -> impl Iterator<Item = &JsonPointer> {
        let from = (Bound::Included(place), Bound::Unbounded);
        let near = self.0.range::<str, _>(from).take_while(move |known| known.as_str().starts_with(place));
        near.filter(move |known| matches!(known.as_str().as_bytes().get(place.len()), None | Some(b'/')))
    }
}

#[allow(clippy::needless_pass_by_value, reason = "for map_err")]
fn failed(problem: Problem) -> Failure {
    Failure::new(problem.describe())
}
