//! Checks before an append that every `Sensitive` of an event is at a protected place.

use crate::error::{Error, EventFault, Result};
use crate::event::NewEvent;
use crate::json::pointer::{JsonPointer, Pattern, Places, Token, array_index, push_escaped};
use crate::json::raw;
use crate::seal::plan::Plan;

/// Refuses an event if a `Sensitive` in its payload would be stored in the clear.
pub(crate) fn check_sensitive(plan: &Plan, event: &NewEvent) -> Result<()> {
    let places = event.sensitive_places();
    if places.is_empty() || plan.whole.is_some() {
        return Ok(());
    }
    let patterns: Vec<&Pattern> = plan.fields.iter().filter_map(|field| field.pattern.as_ref()).collect();
    let in_the_clear = |pointer: JsonPointer| Error::Event {
        event_id: event.event_id,
        fault: EventFault::SensitiveInTheClear {
            event_type: event.event_type.clone(),
            event_version: event.event_version,
            pointer,
        },
    };
    let mut open = Vec::new();
    for place in places {
        let tokens: Vec<String> = place.pointer.tokens().collect();
        match coverage(&patterns, &tokens) {
            Covered::Whole => {}
            // An object or array is covered if every part of it is protected. The parts are looked at below.
            Covered::Below if place.is_exact => open.push(place.pointer.clone()),
            Covered::Below | Covered::No => return Err(in_the_clear(place.pointer.clone())),
        }
    }
    if open.is_empty() {
        return Ok(());
    }
    let text = std::str::from_utf8(event.payload()).unwrap_or_default();
    let mut look = Look { patterns: &patterns, tokens: Vec::new(), left: open.len() };
    match look.walk(text, &Places::of(&open)) {
        Some(place) => Err(in_the_clear(place)),
        // A place was not found, so nothing is known of what is there.
        None if look.left > 0 => Err(in_the_clear(open.swap_remove(0))),
        None => Ok(()),
    }
}

/// How much of a place is protected.
enum Covered {
    /// All of it: the place itself is protected, or one around it.
    Whole,
    /// Perhaps some of it: places inside it are protected.
    Below,
    /// Nothing.
    No,
}

fn coverage(patterns: &[&Pattern], place: &[String]) -> Covered {
    let agrees = |pattern: &&&Pattern| {
        pattern.tokens().iter().zip(place).all(|(token, name)| match token {
            Token::Name(known) => known == name,
            Token::Each => array_index(name).is_some(),
            Token::Member => true,
        })
    };
    match patterns.iter().filter(agrees).map(|pattern| pattern.tokens().len()).min() {
        Some(length) if length <= place.len() => Covered::Whole,
        Some(_) => Covered::Below,
        None => Covered::No,
    }
}

/// Looks for unprotected parts in objects and arrays.
struct Look<'p> {
    /// What is protected.
    patterns: &'p [&'p Pattern],
    /// The place of the value that is being looked at.
    tokens: Vec<String>,
    /// How many of the places were not found so far.
    left: usize,
}

impl Look<'_> {
    /// Visits the places, and returns the first part of one that nothing protects.
    fn walk(&mut self, text: &str, places: &Places) -> Option<JsonPointer> {
        if places.is_place() {
            self.left -= 1;
            return self.inside(text);
        }
        self.each_child(text, &mut |look, name, child| look.walk(child, places.step(name)?))
    }

    /// The first part of a value that nothing protects.
    fn inside(&mut self, text: &str) -> Option<JsonPointer> {
        match coverage(self.patterns, &self.tokens) {
            Covered::Whole => None,
            Covered::Below if text.starts_with(['{', '[']) => {
                self.each_child(text, &mut |look, _, child| look.inside(child))
            }
            Covered::Below | Covered::No => Some(self.here()),
        }
    }

    fn each_child(
        &mut self,
        text: &str,
        look: &mut dyn FnMut(&mut Self, &str, &str) -> Option<JsonPointer>,
    ) -> Option<JsonPointer> {
        let children: Vec<(String, &str)> = if text.starts_with('{') {
            let members = raw::members(text).unwrap_or_default();
            members
                .into_iter()
                .filter_map(|(name, value)| Some((raw::name(name).ok()?.into_owned(), value.get())))
                .collect()
        } else if text.starts_with('[') {
            let elements = raw::elements(text).unwrap_or_default();
            elements.into_iter().enumerate().map(|(index, value)| (index.to_string(), value.get())).collect()
        } else {
            Vec::new()
        };
        children.into_iter().find_map(|(name, child)| {
            self.tokens.push(name.clone());
            let found = look(self, &name, child);
            self.tokens.pop();
            found
        })
    }

    fn here(&self) -> JsonPointer {
        let mut place = String::new();
        for token in &self.tokens {
            place.push('/');
            push_escaped(&mut place, token);
        }
        JsonPointer::new_unchecked(place)
    }
}
