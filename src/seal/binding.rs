//! Binds a seal to its event. A seal that was moved to another event, aggregate or namespace does not open.

use crate::crypto::primitives::Transcript;
use crate::event::EventRef;
use crate::keys::names::Namespace;

/// The event and the namespace that a seal is bound to, besides its header.
pub(crate) struct Binding<'a> {
    namespace: &'a Namespace,
    event: EventRef<'a>,
}

impl<'a> Binding<'a> {
    pub(crate) fn of(namespace: &'a Namespace, event: EventRef<'a>) -> Self {
        Self { namespace, event }
    }

    /// The transcript of a header for this event. `core` is the header without its tag and commitments.
    pub(crate) fn transcript(&self, core: &[u8]) -> Transcript {
        let mut digits = [0; 10];
        Transcript::of(&[
            b"eventseal/v1",
            self.namespace.as_str().as_bytes(),
            self.event.aggregate.aggregate_type().as_bytes(),
            self.event.aggregate.aggregate_id().as_bytes(),
            self.event.event_id.as_bytes(),
            self.event.event_type.as_str().as_bytes(),
            decimal(self.event.event_version.get(), &mut digits),
            core,
        ])
    }
}

/// The number as decimal text, written to the end of `digits`. It saves an allocation for each event.
fn decimal(mut number: u32, digits: &mut [u8; 10]) -> &[u8] {
    let mut at = digits.len();
    loop {
        at -= 1;
        #[allow(clippy::cast_possible_truncation, reason = "a digit")]
        {
            digits[at] = b'0' + (number % 10) as u8;
        }
        number /= 10;
        if number == 0 {
            return &digits[at..];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_text() {
        let mut digits = [0; 10];
        assert_eq!(decimal(0, &mut digits), b"0");
        assert_eq!(decimal(u32::MAX, &mut digits), b"4294967295");
    }
}
