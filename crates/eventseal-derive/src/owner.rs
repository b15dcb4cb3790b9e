//! Owners, as attributes name them: `aggregate`, `aggregate(Kind)` or `Kind(field.field?.field)`.

use proc_macro2::{Span, TokenStream, TokenTree};
use quote::{ToTokens, format_ident, quote, quote_spanned};
use syn::parse::{Parse, ParseStream};
use syn::{Ident, Path, Result, Token, parenthesized};

pub(crate) enum Owner {
    /// The event's aggregate, under a kind of its own if one is named.
    Aggregate(Option<Path>),
    /// The subject of this kind whose id stands in a field.
    Field(Path, Vec<Segment>),
}

/// A field on the way to an id.
pub(crate) struct Segment {
    /// The name, or the index.
    name: String,
    span: Span,
    /// The field is an `Option`, and the way goes through it.
    is_option: bool,
}

const FORMS: &str = "an owner is `Customer(customer_id)`, with a type that implements eventseal::Scope and a field \
    that \
    holds the id, or `aggregate`, or `aggregate(Customer)`";

impl Parse for Owner {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let path = input.call(Path::parse_mod_style).map_err(|error| syn::Error::new(error.span(), FORMS))?;
        if path.is_ident("aggregate") {
            if !input.peek(syn::token::Paren) {
                return Ok(Self::Aggregate(None));
            }
            let inner;
            parenthesized!(inner in input);
            let kind = inner.call(Path::parse_mod_style)?;
            return if inner.is_empty() { Ok(Self::Aggregate(Some(kind))) } else { Err(inner.error(FORMS)) };
        }
        let is_kind = path.segments.last().is_some_and(|last| last.ident.to_string().starts_with(char::is_uppercase));
        if !is_kind || !input.peek(syn::token::Paren) {
            return Err(syn::Error::new_spanned(path, FORMS));
        }
        let inner;
        parenthesized!(inner in input);
        Ok(Self::Field(path, segments(&inner)?))
    }
}

/// `courier?.id`, `0`, `0.1`: the compiler reads the last one as a float.
fn segments(input: ParseStream<'_>) -> Result<Vec<Segment>> {
    let mut segments: Vec<Segment> = Vec::new();
    loop {
        let (text, span) = match input.parse::<TokenTree>()? {
            TokenTree::Ident(ident) => (ident.to_string(), ident.span()),
            TokenTree::Literal(literal) => (literal.to_string(), literal.span()),
            other => return Err(syn::Error::new(other.span(), FORMS)),
        };
        for name in text.split('.').filter(|name| !name.is_empty()) {
            segments.push(Segment { name: name.to_owned(), span, is_option: false });
        }
        if input.peek(Token![?])
            && let Some(last) = segments.last_mut()
        {
            input.parse::<Token![?]>()?;
            last.is_option = true;
        }
        if input.is_empty() {
            return Ok(segments);
        }
        // `0.` of `0.1` has its dot already.
        if input.peek(Token![.]) {
            input.parse::<Token![.]>()?;
        }
    }
}

impl Owner {
    /// As the layout has it.
    pub(crate) fn rule(&self, private: &TokenStream) -> TokenStream {
        match self {
            Self::Aggregate(None) => quote!(#private::OwnerRule::Given(#private::aggregate)),
            Self::Aggregate(Some(kind)) => {
                quote!(#private::OwnerRule::Given(<#kind as #private::Scope>::aggregate))
            }
            Self::Field(kind, segments) => {
                let names = segments.iter().map(|segment| segment.name.trim_start_matches("r#"));
                quote!(#private::OwnerRule::Path(|pointer| <#kind as #private::Scope>::at(pointer), &[#(#names),*]))
            }
        }
    }

    /// The field in which its way begins.
    pub(crate) fn first_field(&self) -> Option<&str> {
        match self {
            Self::Aggregate(_) => None,
            Self::Field(_, segments) => segments.first().map(|segment| segment.name.as_str()),
        }
    }

    pub(crate) fn span(&self) -> Span {
        match self {
            Self::Aggregate(kind) => {
                kind.as_ref().and_then(|kind| kind.get_ident()).map_or_else(Span::call_site, Ident::span)
            }
            Self::Field(_, segments) => segments.first().map_or_else(Span::call_site, |segment| segment.span),
        }
    }

    /// An expression that the compiler checks, and that nobody runs: the way from `start`, which is a reference to the
    /// first field, to the id. `is_checked`: the type of the id is known to say whether it is one.
    pub(crate) fn way(&self, start: &TokenStream, private: &TokenStream, is_checked: bool) -> TokenStream {
        let Self::Field(_, segments) = self else { return TokenStream::new() };
        let mut way = start.clone();
        for (at, segment) in segments.iter().enumerate() {
            let span = segment.span;
            if at > 0 {
                let name = member(&segment.name, span);
                way = quote_spanned!(span=> &(#way).#name);
            }
            if segment.is_option {
                way = quote_spanned!(span=> #private::through(#way)?);
            }
        }
        let span = segments.last().map_or_else(Span::call_site, |segment| segment.span);
        if is_checked || segments.len() > 1 {
            quote_spanned!(span=> #private::id(#way);)
        } else {
            quote_spanned!(span=> let _ = #way;)
        }
    }
}

/// A field's name, or its index.
pub(crate) fn member(name: &str, span: Span) -> TokenStream {
    match name.parse::<u32>() {
        Ok(index) => syn::Index { index, span }.into_token_stream(),
        Err(_) => match name.strip_prefix("r#") {
            Some(raw) => Ident::new_raw(raw, span).into_token_stream(),
            None => format_ident!("{}", name, span = span).into_token_stream(),
        },
    }
}
