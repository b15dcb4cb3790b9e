//! Looks for protected values that no key seals in an opened document. What can't be looked through counts as one.

use crate::json::pointer::{JsonPointer, Places};
use crate::json::raw;
use crate::json::scan::scan;
use crate::json::wanted::Target;
use crate::seal::plan::Plan;

/// Does this document have a value that the plan protects, and that is at none of the `sealed` places, nor inside one?
/// A `null` does not count: it has nothing to protect. The places are asked for only if the plan protects something.
pub(crate) fn holds_unsealed(plan: &Plan, document: &[u8], sealed: impl FnOnce() -> Places) -> bool {
    if !plan.protects() {
        return false;
    }
    let sealed = sealed();
    if plan.whole.is_some() {
        return is_unsealed(document, &JsonPointer::root(), &sealed);
    }
    let Ok(found) = scan(document, &plan.to_open) else { return true };
    found.hits.iter().any(|hit| match hit.target {
        Target::Field(index) => is_unsealed(hit.span.of(document), &plan.fields[index].place(&hit.bound), &sealed),
        Target::Capture(_) => false,
    })
}

fn is_unsealed(value: &[u8], place: &JsonPointer, sealed: &Places) -> bool {
    let mut node = sealed;
    for token in place.tokens() {
        if node.is_place() {
            return false;
        }
        match node.step(&token) {
            Some(next) => node = next,
            None => return value != b"null",
        }
    }
    if node.is_place() {
        return false;
    }
    std::str::from_utf8(value).map_or(true, |text| has_unsealed_part(text, node))
}

/// Is something of this value not sealed? `sealed` has the places inside it.
fn has_unsealed_part(value: &str, sealed: &Places) -> bool {
    let is_unsealed = |name: &str, part: &str| match sealed.step(name) {
        Some(below) => !below.is_place() && has_unsealed_part(part, below),
        None => part != "null",
    };
    if value == "null" {
        false
    } else if !sealed.leads_on() {
        true
    } else if let Ok(members) = raw::members(value) {
        let known = |spelled: &str, part: &str| raw::name(spelled).map_or(true, |name| is_unsealed(&name, part));
        members.iter().any(|(name, part)| known(name, part.get()))
    } else if let Ok(elements) = raw::elements(value) {
        elements.iter().enumerate().any(|(index, part)| is_unsealed(&index.to_string(), part.get()))
    } else {
        true
    }
}
