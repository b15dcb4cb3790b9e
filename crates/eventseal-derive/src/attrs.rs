//! The attributes of eventseal.

use crate::owner::Owner;
use crate::serde_attrs::TokenStreamUntilComma;
use proc_macro2::{Span, TokenStream};
use quote::quote;
use syn::meta::ParseNestedMeta;
use syn::{Attribute, LitInt, LitStr, Result};

/// What a type or a field says of the protected places in it.
#[derive(Default)]
pub(crate) struct Rules {
    pub(crate) owner: Option<Owner>,
    stand_in: Option<StandIn>,
    pad: Option<LitInt>,
    /// Where the first of them stands.
    pub(crate) span: Option<Span>,
}

impl Rules {
    /// Reads the attribute, if it is one of these.
    fn read(&mut self, meta: &ParseNestedMeta<'_>) -> Result<bool> {
        let twice = || Err(meta.error("it is given twice: keep one"));
        if meta.path.is_ident("owner") {
            if self.owner.is_some() {
                return twice();
            }
            self.owner = Some(meta.value()?.parse()?);
        } else if meta.path.is_ident("redact_as") || meta.path.is_ident("redact_with") {
            if self.stand_in.is_some() {
                return Err(meta.error("it has a stand-in already: keep one `redact_as` or `redact_with`"));
            }
            self.stand_in = Some(match meta.path.is_ident("redact_as") {
                true => StandIn::Value(meta.value()?.parse::<TokenStreamUntilComma>()?.0),
                false => StandIn::Computed(meta.value()?.parse()?),
            });
        } else if meta.path.is_ident("pad_to") {
            if self.pad.is_some() {
                return twice();
            }
            let pad: LitInt = meta.value()?.parse()?;
            let multiple = pad.base10_parse::<usize>()?;
            if multiple == 0 || !multiple.is_multiple_of(32) || multiple > 65_536 {
                return Err(syn::Error::new(pad.span(), "a padding is a multiple of 32, up to 65536"));
            }
            self.pad = Some(pad);
        } else {
            return Ok(false);
        }
        self.span.get_or_insert_with(|| meta.path.get_ident().map_or_else(Span::call_site, syn::Ident::span));
        Ok(true)
    }

    /// As the layout has them.
    pub(crate) fn tokens(&self, private: &TokenStream) -> TokenStream {
        let option = |tokens: Option<TokenStream>| match tokens {
            Some(tokens) => quote!(::core::option::Option::Some(#tokens)),
            None => quote!(::core::option::Option::None),
        };
        let owner = option(self.owner.as_ref().map(|owner| owner.rule(private)));
        let stand_in = option(self.stand_in.as_ref().map(|stand_in| stand_in.rule(private)));
        let pad = option(self.pad.as_ref().map(|pad| quote!(#pad)));
        quote!(#private::Rules { owner: #owner, stand_in: #stand_in, pad: #pad })
    }
}

/// What readers get once a value is erased.
enum StandIn {
    Value(TokenStream),
    /// What this function computes.
    Computed(syn::Path),
}

impl StandIn {
    fn rule(&self, private: &TokenStream) -> TokenStream {
        match self {
            Self::Value(value) => {
                quote!(#private::StandInRule::Value(|| <#private::Value as ::core::convert::From<_>>::from(#value)))
            }
            Self::Computed(path) => {
                let name = quote!(#path).to_string().replace(' ', "");
                quote!(#private::StandInRule::Computed(#name, #path))
            }
        }
    }
}

/// The attributes of a type.
pub(crate) struct OfType {
    pub(crate) rules: Rules,
    /// The path of the library.
    pub(crate) library: TokenStream,
    pub(crate) event: Option<OfEvent>,
}

/// The attributes of the payload type of an event.
pub(crate) struct OfEvent {
    pub(crate) event_type: LitStr,
    pub(crate) version: LitInt,
    /// The type of the version before, and whether the step can fail.
    pub(crate) previous: Option<(syn::Type, bool)>,
}

const FOR_A_PART: &str = "a part takes `owner = …`, `redact_as = …`, `redact_with = …`, `pad_to = …` and `crate = …`; \
    `type`, `version` and `previous` are for derive(Event)";
const FOR_AN_EVENT: &str = "an event takes `type = \"…\"`, `version = 1`, `previous = …` or `try_previous = …`, \
    `owner = …`, `redact_as = …`, `redact_with = …`, `pad_to = …` and `crate = …`";
const FOR_A_FIELD: &str =
    "a field takes `owner = …`, `redact_as = …`, `redact_with = …`, `pad_to = …`, `plain` and `recursive`";

impl OfType {
    /// `is_event`: the type is the payload of an event, and says which.
    pub(crate) fn read(attributes: &[Attribute], is_event: bool) -> Result<Self> {
        let mut rules = Rules::default();
        let mut library = quote!(::eventseal);
        let (mut event_type, mut version, mut previous) = (None::<LitStr>, None::<LitInt>, None);
        each(attributes, |meta| {
            if rules.read(&meta)? {
                return Ok(());
            }
            let is_twice = (meta.path.is_ident("type") && event_type.is_some())
                || (meta.path.is_ident("version") && version.is_some());
            if is_twice {
                return Err(meta.error("it is given twice: keep one"));
            }
            if meta.path.is_ident("crate") {
                let path: syn::Path = meta.value()?.parse()?;
                library = quote!(#path);
            } else if is_event && meta.path.is_ident("type") {
                event_type = Some(meta.value()?.parse()?);
            } else if is_event && meta.path.is_ident("version") {
                let number: LitInt = meta.value()?.parse()?;
                if !(1..=2_147_483_647).contains(&number.base10_parse::<u64>()?) {
                    return Err(syn::Error::new(number.span(), "versions are 1 to 2147483647"));
                }
                version = Some(number);
            } else if is_event && (meta.path.is_ident("previous") || meta.path.is_ident("try_previous")) {
                if previous.is_some() {
                    return Err(meta.error("a version has one step that leads to it: keep one"));
                }
                previous = Some((meta.value()?.parse()?, meta.path.is_ident("try_previous")));
            } else {
                return Err(meta.error(if is_event { FOR_AN_EVENT } else { FOR_A_PART }));
            }
            Ok(())
        })?;
        let event = match (is_event, event_type, version) {
            (false, ..) => None,
            (true, Some(event_type), Some(version)) => Some(OfEvent { event_type, version, previous }),
            (true, ..) => {
                return Err(syn::Error::new(
                    Span::call_site(),
                    "an event names its type and version, as they are stored: #[event(type = \"OrderPlaced\", version \
                    = 1)]",
                ));
            }
        };
        Ok(Self { rules, library, event })
    }
}

/// The attributes of a field.
#[derive(Default)]
pub(crate) struct OfField {
    pub(crate) rules: Rules,
    /// Nothing in it is sensitive, whatever its type is.
    pub(crate) plain: bool,
    /// Its type holds the type that it stands in.
    pub(crate) recursive: bool,
}

impl OfField {
    pub(crate) fn read(attributes: &[Attribute]) -> Result<Self> {
        let mut found = Self::default();
        each(attributes, |meta| {
            if found.rules.read(&meta)? {
                return Ok(());
            }
            if meta.path.is_ident("plain") {
                found.plain = true;
            } else if meta.path.is_ident("recursive") {
                found.recursive = true;
            } else {
                return Err(meta.error(FOR_A_FIELD));
            }
            Ok(())
        })?;
        if let (true, Some(span)) = (found.plain, found.rules.span) {
            return Err(syn::Error::new(
                span,
                "nothing in a plain field is protected, so it has no owner, stand-in or padding",
            ));
        }
        Ok(found)
    }
}

/// Refuses attributes where none has a meaning.
pub(crate) fn none_at(attributes: &[Attribute], say: &str) -> Result<()> {
    each(attributes, |meta| Err(meta.error(say)))
}

/// Is a variant the catch-all?
pub(crate) fn is_other(attributes: &[Attribute]) -> Result<bool> {
    let mut found = false;
    each(attributes, |meta| {
        if !meta.path.is_ident("other") {
            return Err(meta.error("a variant takes `other`: it is for events of all other types"));
        }
        found = true;
        Ok(())
    })?;
    Ok(found)
}

fn each(attributes: &[Attribute], mut one: impl FnMut(ParseNestedMeta<'_>) -> Result<()>) -> Result<()> {
    for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("event")) {
        attribute.parse_nested_meta(&mut one)?;
    }
    Ok(())
}
