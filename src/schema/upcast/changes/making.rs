//! Makes the changes of a declarative step in a payload, and carries its redactions along.

use crate::json::document::{Node, Problem, Step, pointer_of, way};
use crate::json::pointer::{JsonPointer, Pattern, Token};
use crate::keys::names::KeyScope;
use crate::schema::upcast::changes::Change;
use crate::schema::upcast::step::Failure;
use crate::seal::format::MAX_PAYLOAD;
use std::collections::BTreeMap;
use std::ops::Bound;

/// Makes the changes. `redacted` is sorted afterwards. `sealed` has the owners of sealed values, by place.
pub(crate) fn make<'a>(
    changes: &'a [Change<Pattern>],
    payload: &mut Node<'a>,
    redacted: &mut Vec<JsonPointer>,
    sealed: &mut BTreeMap<JsonPointer, KeyScope>,
) -> Result<(), Failure> {
    let mut making = Making {
        redacted: Carried(std::mem::take(redacted).into_iter().map(|place| (place, ())).collect()),
        sealed: Carried(std::mem::take(sealed)),
        room: MAX_PAYLOAD,
        room_of_erased: 8 * MAX_PAYLOAD,
    };
    for change in changes {
        making.make(change, payload)?;
    }
    *redacted = making.redacted.0.into_keys().collect();
    *sealed = making.sealed.0;
    Ok(())
}

/// The state of a step while its changes are made.
struct Making {
    /// The redacted places. None is inside another.
    redacted: Carried<()>,
    /// The owners of sealed values, by place. Redacted places are among them.
    sealed: Carried<KeyScope>,
    /// The number of bytes by which the payload may still grow. There is a limit because copies for the elements of
    /// nested arrays multiply.
    room: usize,
    /// The number of bytes by which copies with erased values may still make the payload grow. Stand-ins can make these
    /// copies larger.
    room_of_erased: usize,
}

impl Making {
    fn make<'a>(&mut self, change: &'a Change<Pattern>, payload: &mut Node<'a>) -> Result<(), Failure> {
        match change {
            Change::Move { from, to } => {
                let (elements, from) = split_at_star(from);
                let to = way(&to.tokens()[elements.len()..]);
                each(payload, elements, &mut String::new(), &mut |element, around| {
                    self.move_in(element, around, &way(from), &to)
                })
            }
            Change::Copy { from, to } => {
                let (elements, from) = split_at_star(from);
                let (inner, to) = split_at_star(to);
                let inner = &inner[elements.len()..];
                each(payload, elements, &mut String::new(), &mut |element, around| {
                    self.copy_in(element, around, &way(from), inner, &way(to))
                })
            }
            Change::Default { at, text } => {
                let (elements, at) = split_at_star(at);
                each(payload, elements, &mut String::new(), &mut |element, around| {
                    self.set_default(element, around, &way(at), text)
                })
            }
            Change::Remove { at } => {
                let (elements, at) = split_at_star(at);
                each(payload, elements, &mut String::new(), &mut |element, around| {
                    let place = place_of(around, &way(at));
                    if !self.redacted.is_strictly_inside(&place) {
                        element.take(&way(at)).map_err(|problem| failed(problem, around))?;
                        self.redacted.take_from(&place);
                        self.sealed.take_from(&place);
                    }
                    Ok(())
                })
            }
            Change::Map { at, mapping } => {
                let (elements, at) = split_at_star(at);
                each(payload, elements, &mut String::new(), &mut |element, around| {
                    let place = place_of(around, &way(at));
                    if self.redacted.around(&place).is_some() || self.redacted.has_below(&place) {
                        return Ok(());
                    }
                    let Some(node) = element.get(&way(at)).map_err(|problem| failed(problem, around))? else {
                        return Ok(());
                    };
                    let value = std::mem::replace(node, Node::NULL);
                    *node = mapping.map(value).map_err(|failure| failure.of(&place))?;
                    Ok(())
                })
            }
        }
    }

    fn move_in(
        &mut self,
        element: &mut Node<'_>,
        around: &str,
        from: &[Step<'_>],
        to: &[Step<'_>],
    ) -> Result<(), Failure> {
        let fail = |problem| failed(problem, around);
        if self.redacted.is_strictly_inside(&self.redacted.place_of(around, from)) {
            let owner = self.sealed.known_of(&place_of(around, from));
            return self.erase(element, owner, around, to);
        }
        let Some(value) = element.take(from).map_err(fail)? else { return Ok(()) };
        self.check_free(element, around, to, &|| place_of(around, from))?;
        element.put(to, value).map_err(fail)?;
        if !self.redacted.0.is_empty() {
            let (from_place, to_place) = (place_of(around, from), place_of(around, to));
            let carried = self.redacted.take_from(&from_place);
            self.redacted.carry(&carried, &from_place, &to_place);
        }
        if !self.sealed.0.is_empty() {
            let (from_place, to_place) = (place_of(around, from), place_of(around, to));
            let owner = self.sealed.known_of(&from_place);
            let carried = self.sealed.take_from(&from_place);
            self.sealed.carry(&carried, &from_place, &to_place);
            self.sealed.insert(to_place, owner);
        }
        Ok(())
    }

    fn copy_in<'a>(
        &mut self,
        element: &mut Node<'a>,
        around: &str,
        from: &[Step<'_>],
        inner: &[Token],
        to: &[Step<'_>],
    ) -> Result<(), Failure> {
        let from_place = place_of(around, from);
        let is_erased = self.redacted.is_strictly_inside(&from_place);
        let value: Option<Node<'a>> =
            element.get(from).map_err(|problem| failed(problem, around))?.map(|value| value.clone());
        let carried = self.redacted.from(&from_place);
        let size = value.as_ref().map_or(0, Node::length)
            + carried.iter().map(|(place, ())| place.as_str().len()).sum::<usize>();
        let owned = self.sealed.from(&from_place);
        let owner = self.sealed.known_of(&from_place);
        each(element, inner, &mut around.to_owned(), &mut |element, around| {
            if is_erased {
                return self.erase(element, owner.clone(), around, to);
            }
            let Some(value) = &value else { return Ok(()) };
            self.grow(size, !carried.is_empty())?;
            self.check_free(element, around, to, &|| from_place.clone())?;
            element.put(to, value.clone()).map_err(|problem| failed(problem, around))?;
            self.redacted.carry(&carried, &from_place, &place_of(around, to));
            if !self.sealed.0.is_empty() {
                self.sealed.carry(&owned, &from_place, &place_of(around, to));
                self.sealed.insert(place_of(around, to), owner.clone());
            }
            Ok(())
        })
    }

    /// Carries a value that lies inside an erased one, and so was erased with it. A redaction is written at the target,
    /// unless a live value is there.
    fn erase(
        &mut self,
        element: &mut Node<'_>,
        owner: Option<KeyScope>,
        around: &str,
        to: &[Step<'_>],
    ) -> Result<(), Failure> {
        let fail = |problem| failed(problem, around);
        let place = place_of(around, to);
        if element.get(to).map_err(fail)?.is_some() || self.redacted.around(&place).is_some() {
            return Ok(());
        }
        match element.put(to, Node::NULL) {
            Ok(()) => {
                self.sealed.insert(place.clone(), owner);
                self.redacted.0.insert(JsonPointer::new_unchecked(place), ());
                Ok(())
            }
            // An absent value would not have failed here, so an erased one must not either.
            Err(Problem::NoContainer(_) | Problem::NoElement(_)) => Ok(()),
            Err(problem) => Err(fail(problem)),
        }
    }

    /// Fails if a live value would be overwritten. `from` names the place that the value comes from.
    fn check_free(
        &self,
        element: &mut Node<'_>,
        around: &str,
        to: &[Step<'_>],
        from: &dyn Fn() -> String,
    ) -> Result<(), Failure> {
        match element.get(to).map_err(|problem| failed(problem, around))? {
            Some(found) if !found.is_null() && self.redacted.around(&self.redacted.place_of(around, to)).is_none() => {
                let place = place_of(around, to);
                let problem =
                    format!("there is a value at {place} already, which {} would overwrite: remove it first", from());
                Err(Failure::new(problem))
            }
            _ => Ok(()),
        }
    }

    fn set_default<'a>(
        &mut self,
        element: &mut Node<'a>,
        around: &str,
        at: &[Step<'_>],
        text: &'a str,
    ) -> Result<(), Failure> {
        if self.redacted.around(&self.redacted.place_of(around, at)).is_some() {
            return Ok(());
        }
        let fail = |problem| failed(problem, around);
        for length in 1..=at.len() {
            match element.get(&at[..length]).map_err(fail)? {
                None => {
                    self.grow(text.len(), false)?;
                    return element.put(at, Node::Text(text)).map_err(fail);
                }
                // A null on the way means that the object is absent, so its members get no defaults.
                Some(found) if found.is_null() => return Ok(()),
                Some(_) => {}
            }
        }
        Ok(())
    }

    fn grow(&mut self, bytes: usize, is_erased: bool) -> Result<(), Failure> {
        let (room, limit) = if is_erased { (&mut self.room_of_erased, "512 MiB") } else { (&mut self.room, "64 MiB") };
        *room = room
            .checked_sub(bytes)
            .ok_or_else(|| Failure::new(format!("the payload would grow by more than {limit}")))?;
        Ok(())
    }
}

/// The pattern up to its last `*`, which means array elements, and the tokens below each of them.
fn split_at_star(pattern: &Pattern) -> (&[Token], &[Token]) {
    pattern.tokens().split_at(pattern.up_to_last_star().len())
}

type Act<'f, 'a> = &'f mut dyn FnMut(&mut Node<'a>, &str) -> Result<(), Failure>;

/// Calls `act` with each array element that `elements` mean. `place` is the pointer of `node`.
fn each<'a>(node: &mut Node<'a>, elements: &[Token], place: &mut String, act: Act<'_, 'a>) -> Result<(), Failure> {
    let length = place.len();
    let Some(star) = elements.iter().position(|token| *token == Token::Each) else { return act(node, place) };
    let before = way(&elements[..star]);
    let Some(array) = node.get(&before).map_err(|problem| failed(problem, place))? else { return Ok(()) };
    place.push_str(&pointer_of(&before));
    let inner = place.len();
    for (index, element) in array.elements().map_err(|problem| failed(problem, ""))?.iter_mut().enumerate() {
        place.push('/');
        place.push_str(&index.to_string());
        each(element, &elements[star + 1..], place, act)?;
        place.truncate(inner);
    }
    place.truncate(length);
    Ok(())
}

fn place_of(around: &str, way: &[Step<'_>]) -> String {
    format!("{around}{}", pointer_of(way))
}

#[allow(clippy::needless_pass_by_value, reason = "for map_err")]
fn failed(problem: Problem, around: &str) -> Failure {
    Failure::new(problem.describe(around))
}

/// Places that are carried along while changes are made, with what is known of each.
struct Carried<V>(BTreeMap<JsonPointer, V>);

impl<V: Clone> Carried<V> {
    /// The pointer of a place. It is empty if nothing is carried, because nobody looks for it then.
    fn place_of(&self, around: &str, way: &[Step<'_>]) -> String {
        if self.0.is_empty() { String::new() } else { place_of(around, way) }
    }

    /// The carried place that is this place, or is around it.
    fn around<'p>(&self, place: &'p str) -> Option<(&'p str, &V)> {
        if self.0.is_empty() {
            return None;
        }
        let ends = place.match_indices('/').map(|(at, _)| at).chain([place.len()]);
        ends.map(|end| &place[..end]).find_map(|around| Some((around, self.0.get(around)?)))
    }

    fn is_strictly_inside(&self, place: &str) -> bool {
        self.around(place).is_some_and(|(around, _)| around != place)
    }

    /// Moves carried places from one place to another. Those that were at the target are overwritten.
    fn carry(&mut self, carried: &[(JsonPointer, V)], from: &str, to: &str) {
        self.take_from(to);
        self.0.extend(carried.iter().map(|(place, known)| {
            (JsonPointer::new_unchecked(format!("{to}{}", &place.as_str()[from.len()..])), known.clone())
        }));
    }

    fn from(&self, place: &str) -> Vec<(JsonPointer, V)> {
        self.range(place).map(|(place, known)| (place.clone(), known.clone())).collect()
    }

    fn has_below(&self, place: &str) -> bool {
        self.range(place).next().is_some()
    }

    /// Removes and returns the carried places at and inside a place.
    fn take_from(&mut self, place: &str) -> Vec<(JsonPointer, V)> {
        let taken = self.from(place);
        for (place, _) in &taken {
            self.0.remove(place);
        }
        taken
    }

    /// What is known of a place, or else of the nearest place around it.
    fn known_of(&self, place: &str) -> Option<V> {
        if self.0.is_empty() {
            return None;
        }
        let ends = std::iter::once(place.len()).chain(place.rmatch_indices('/').map(|(at, _)| at));
        ends.map(|end| &place[..end]).find_map(|around| self.0.get(around).cloned())
    }

    fn insert(&mut self, place: String, known: Option<V>) {
        if let Some(known) = known {
            self.0.insert(JsonPointer::new_unchecked(place), known);
        }
    }

    fn range(&self, place: &str) -> impl Iterator<Item = (&JsonPointer, &V)> {
        let from = (Bound::Included(place), Bound::Unbounded);
        let near = self.0.range::<str, _>(from).take_while(move |(known, _)| known.as_str().starts_with(place));
        near.filter(move |(known, _)| matches!(known.as_str().as_bytes().get(place.len()), None | Some(b'/')))
    }
}
