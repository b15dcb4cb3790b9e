//! The derives of `eventseal`, which exports them under its feature `derive` and documents what they are for.

mod attrs;
mod case;
mod content;
mod events;
mod field;
mod owner;
mod part;
mod scope;
mod serde_attrs;

use proc_macro::TokenStream;
use syn::{DeriveInput, Result, parse_macro_input};

/// Declares the payload of an event type at one version: what in it is protected, and whose it is.
#[cfg_attr(not(doctest), doc = include_str!("event.md"))] // eventseal runs its code
#[proc_macro_derive(Event, attributes(event, serde))]
pub fn event(input: TokenStream) -> TokenStream {
    expand(parse_macro_input!(input), part::event)
}

/// Declares what in a type that is part of payloads is protected. It takes the attributes of `Event` but those that
/// name the event. What it does not say, such as an owner, the type says that holds it.
#[proc_macro_derive(EventPart, attributes(event, serde))]
pub fn event_part(input: TokenStream) -> TokenStream {
    expand(parse_macro_input!(input), part::event_part)
}

/// Makes an enum out of the events of a stream. Each variant holds one payload type, which derives `Event`. A variant
/// with `#[event(other)]` holds a `Box<PersistedEvent>`, for events of all other types.
///
/// `From` of each payload is implemented as well. Two variants with one event type do not compile.
///
/// # Versions
/// An event whose type has a variant, but whose version is not that of the payload type, is an error, even if the enum
/// has a catch-all: it would be read as something else, or ignored as unknown.
///
/// # What a catch-all is for
/// A catch-all is for enums that name some of the types of a stream only, such as the enum of a read model. An event in
/// it can't be encoded: it is stored already, may have been upcast, and may hold stand-ins for shredded values.
#[proc_macro_derive(Events, attributes(event))]
pub fn events(input: TokenStream) -> TokenStream {
    expand(parse_macro_input!(input), events::derive)
}

/// Makes a type the name of a kind of key scope: `#[scope("Customer")]`. With
/// `#[scope("Customer", normalize = Normalize::Uuid)]`, ids of the kind are brought to one spelling.
#[proc_macro_derive(Scope, attributes(scope))]
pub fn scope(input: TokenStream) -> TokenStream {
    expand(parse_macro_input!(input), scope::derive)
}

fn expand(input: DeriveInput, derive: fn(&DeriveInput) -> Result<proc_macro2::TokenStream>) -> TokenStream {
    derive(&input).unwrap_or_else(|error| error.to_compile_error()).into()
}
