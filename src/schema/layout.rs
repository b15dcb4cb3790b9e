//! What Rust types say of the protected places in them. Each type has a static tree of its fields, and refers to the
//! trees of their types. The trees are walked once, when schemas are built.

mod foreign;
mod walk;

pub(crate) use walk::declared;

use crate::schema::declare::Owner;
use crate::seal::in_the_clear::InTheClear;
use serde_json::Value;
use std::fmt;

/// A type that can be part of a payload, and that says which places in it are protected: those of its
/// [`Sensitive`](crate::Sensitive) values.
///
/// Derive it for your own types. Every field's type must implement it, so that a type that says nothing can't hide a
/// [`Sensitive`](crate::Sensitive). The primitive types, `String`, the containers of std and the types of `uuid`,
/// `time`
/// and `serde_json` do, and with features of their names those of `chrono` and `rust_decimal`. For a type of another
/// crate that holds nothing sensitive, write `#[event(plain)]` on the field.
///
/// ```
/// use eventseal::{EventPart, Sensitive};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize, EventPart)]
/// struct Contact { email: Sensitive<String>, language: Language }
///
/// #[derive(Serialize, Deserialize, EventPart)]
/// enum Language { English, German }
///
/// assert!(Contact::PROTECTS && !Language::PROTECTS);
/// ```
///
/// See [`Event`](derive@crate::Event) for the attributes. By hand, it takes one line, for a type that holds nothing
/// sensitive:
///
/// ```
/// # struct Money;
/// impl eventseal::EventPart for Money {
///     type Id = eventseal::schema::NoId; // an amount names nobody
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not say what in it is protected",
    label = "eventseal can't see whether a `Sensitive` is in it",
    note = "for a type of yours: `#[derive(eventseal::EventPart)]`",
    note = "for a type of another crate that holds nothing sensitive: `#[event(plain)]` on the field; if it does, \
        `Sensitive<{Self}>`"
)]
pub trait EventPart {
    /// Does it hold a [`Sensitive`](crate::Sensitive) anywhere?
    const PROTECTS: bool = false;

    /// Does it hold a [`Sensitive`](crate::Sensitive) without saying whose it is?
    const NEEDS_OWNER: bool = Self::PROTECTS;

    /// Is it written as a JSON object? Then it can be flattened, and can be a variant of a tagged enum.
    const IS_OBJECT: bool = false;

    /// Why what is [`Sensitive`](crate::Sensitive) in it has no place that can be protected. `None` if it has.
    const REFUSED: Option<&'static str> = None;

    /// Can a value name an owner? [`IsId`] for texts and integers, [`NoId`] for all else.
    type Id;

    /// Where its [`Sensitive`](crate::Sensitive) values stand.
    #[must_use]
    fn layout() -> Layout {
        Layout::PLAIN
    }
}

/// A value of the type is a text or an integer, in the clear, so it can name an [owner](crate::Owner). See
/// [`EventPart::Id`].
#[derive(Debug)]
pub enum IsId {}

/// A value of the type can't name an [owner](crate::Owner). See [`EventPart::Id`].
#[derive(Debug)]
pub enum NoId {}

/// The types that [`EventPart::Id`] can be, if a value names an owner.
#[diagnostic::on_unimplemented(
    message = "this can't name an owner: it is no text and no integer that is stored in the clear",
    note = "an owner is named by a text or an integer: a `String`, an integer, a `Uuid`, or a newtype over one of \
        them; for an `Option`, write `?` after the field"
)]
pub trait OwnerId {}

impl OwnerId for IsId {}

/// Where the [`Sensitive`](crate::Sensitive) values of a type stand. Returned by [`EventPart::layout`].
#[derive(Clone, Copy)]
pub struct Layout(pub(super) Kind);

/// The layout of a type. It is a function, so that types can refer to each other and to themselves.
type LayoutFn = fn() -> Layout;

#[derive(Clone, Copy)]
pub(super) enum Kind {
    /// Nothing in it is protected.
    Plain,
    /// The value itself is protected.
    Protected,
    /// It is written as a value of another type.
    Same(LayoutFn),
    /// A list, every element of which is laid out so.
    Each(LayoutFn),
    /// A list, each element of which is laid out in its own way.
    Elements(&'static [LayoutFn]),
    /// An object with members of any name: the layouts of the names, in which nothing can be protected, and of the
    /// members.
    Map(LayoutFn, LayoutFn),
    /// A type with a derive.
    Type(&'static TypeLayout),
}

impl Layout {
    /// Nothing in it is protected.
    pub const PLAIN: Self = Self(Kind::Plain);

    /// It is written as a `T` is: a pointer, an `Option` or a newtype.
    #[must_use]
    pub const fn same<T: EventPart + ?Sized>() -> Self {
        Self(Kind::Same(T::layout))
    }

    /// It is written as a list, each element of which is a `T`.
    #[must_use]
    pub const fn each<T: EventPart>() -> Self {
        Self(Kind::Each(T::layout))
    }

    pub(super) const PROTECTED: Self = Self(Kind::Protected);

    pub(super) const fn elements(elements: &'static [LayoutFn]) -> Self {
        Self(Kind::Elements(elements))
    }

    pub(super) const fn map<K: EventPart, V: EventPart>() -> Self {
        Self(Kind::Map(K::layout, V::layout))
    }

    /// What a derive writes.
    #[doc(hidden)]
    #[must_use]
    pub const fn of_type(layout: &'static TypeLayout) -> Self {
        Self(Kind::Type(layout))
    }
}

impl fmt::Debug for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Kind::Plain => "Layout(plain)",
            Kind::Protected => "Layout(protected)",
            Kind::Same(_) => "Layout(same)",
            Kind::Each(_) => "Layout(each)",
            Kind::Elements(_) => "Layout(elements)",
            Kind::Map(..) => "Layout(map)",
            Kind::Type(_) => "Layout(type)",
        })
    }
}

// ---- what a derive writes. All of it is hidden; no stability is promised.

/// What a derive knows of a type.
#[derive(Debug)]
pub struct TypeLayout {
    /// The name of the type, with its parameters.
    pub name: fn() -> &'static str,
    /// Where its code stands, so that types of one name are told apart.
    pub stands: &'static str,
    /// It is written as one type and read as another.
    pub is_opaque: bool,
    /// What the type says of all that is in it.
    pub rules: Rules,
    /// How serde writes it.
    pub body: Body,
}

/// What a type or a field says of the protected places in it.
#[derive(Debug)]
pub struct Rules {
    /// Whose they are.
    pub owner: Option<OwnerRule>,
    /// What readers get once they are erased.
    pub stand_in: Option<StandInRule>,
    /// How they are padded.
    pub pad: Option<usize>,
}

/// What readers get once a protected place is erased.
#[derive(Clone, Copy, Debug)]
pub enum StandInRule {
    /// Always the same value.
    Value(fn() -> Value),
    /// What a function computes, with its name.
    Computed(&'static str, fn(&InTheClear<'_>) -> Value),
}

/// Whose protected places are.
#[derive(Debug)]
pub enum OwnerRule {
    /// An owner that nothing in the payload names.
    Given(fn() -> Owner),
    /// The subject whose id is the name of a member: a kind, which takes the name's place in a pattern.
    Key(fn(String) -> Owner),
    /// The subject whose id stands in a field: a kind, and the field.
    Path(fn(String) -> Owner, &'static [&'static str]),
}

/// How serde writes a type or a variant.
#[derive(Debug)]
pub enum Body {
    /// As `null`, or not at all.
    Nothing,
    /// As its only field is written.
    Newtype(FieldLayout),
    /// As an object.
    Members(&'static [FieldLayout]),
    /// As a list.
    Elements(&'static [FieldLayout]),
    /// As one of these variants.
    Variants(Tagging, &'static [VariantLayout]),
    /// As a value of another type.
    Other(fn() -> Layout),
}

/// A field.
#[derive(Debug)]
pub struct FieldLayout {
    /// Its name in Rust, or its index.
    pub ident: &'static str,
    /// Its name in JSON, and then its aliases.
    pub names: &'static [&'static str],
    /// Do its own members stand beside the other fields?
    pub flatten: bool,
    /// A function writes it, so nothing in it can be protected.
    pub is_opaque: bool,
    /// Where its protected places stand.
    pub layout: fn() -> Layout,
    /// What it says of them.
    pub rules: Rules,
}

/// A variant of an enum.
#[derive(Debug)]
pub struct VariantLayout {
    /// Its name in Rust.
    pub ident: &'static str,
    /// Its name in JSON, and then its aliases.
    pub names: &'static [&'static str],
    /// A function writes it, or nothing tells it from other variants, so nothing in it can be protected.
    pub is_opaque: bool,
    /// How its content is written.
    pub body: Body,
}

/// How serde tells variants apart.
#[derive(Clone, Copy, Debug)]
pub enum Tagging {
    /// By a member of the variant's name around the content.
    External,
    /// By a member among the content's own.
    Internal,
    /// By a member beside the content, which stands in a member of this name.
    Adjacent(&'static str),
    /// Not at all. Nothing in such an enum is protected.
    Untagged,
}
