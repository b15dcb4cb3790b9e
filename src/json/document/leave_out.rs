//! Leaves values out of a document.

use crate::json::document::{Node, Problem};
use crate::json::pointer::Places;

impl Node<'_> {
    /// Removes what stands at `places`, in one pass. Members leave their objects. Elements become `null`, so that the
    /// others keep their indexes. The root stays.
    pub(crate) fn leave_out(&mut self, places: &Places) -> Result<(), Problem> {
        if !places.leads_on() {
            return Ok(());
        }
        self.expand()?;
        let mut failed = Ok(());
        let mut below = |value: &mut Self, places: &Places| {
            if let Err(problem) = value.leave_out(places) {
                failed = Err(problem);
            }
        };
        match self {
            Self::Object(members) => members.retain_mut(|(name, value)| {
                // A name that is not Unicode is at no place.
                match name.plain().ok().and_then(|name| places.step(&name)) {
                    Some(places) if places.is_place() => false,
                    Some(places) => {
                        below(value, places);
                        true
                    }
                    None => true,
                }
            }),
            Self::Array(elements) => {
                for (index, value) in elements.iter_mut().enumerate() {
                    match places.step(&index.to_string()) {
                        Some(places) if places.is_place() => *value = Self::NULL,
                        Some(places) => below(value, places),
                        None => {}
                    }
                }
            }
            _ => {}
        }
        failed
    }
}
