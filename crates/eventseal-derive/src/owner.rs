//! Owners, as attributes name them: `aggregate`, `aggregate(Kind)`, `Kind(field.field?.field)`, `key(Kind)`,
//! `metadata(Kind, "/pointer")` or `caller(Kind)`.

use proc_macro2::{Span, TokenStream, TokenTree};
use quote::{ToTokens, format_ident, quote, quote_spanned};
use syn::parse::{Parse, ParseStream};
use syn::{Ident, LitStr, Path, Result, Token, parenthesized};

pub(crate) enum Owner {
    /// The event's aggregate, under a kind of its own if one is named.
    Aggregate(Option<Path>),
    /// The subject of this kind whose id stands in a field.
    Field(Path, Vec<Segment>),
    /// The subject of this kind whose id is the name of a member of a map.
    Key(Path),
    /// The subject of this kind whose id stands in the metadata.
    Metadata(Path, LitStr),
    /// The subject of this kind that the caller of the append names, and where its id is written in the metadata.
    Caller(Path, Option<LitStr>),
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
    that holds the id, or one of `aggregate`, `aggregate(Customer)`, `key(Customer)`, `metadata(Customer, \
    \"/actor/id\")` and `caller(Customer)`";

impl Parse for Owner {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let path = input.call(Path::parse_mod_style).map_err(|error| syn::Error::new(error.span(), FORMS))?;
        if path.is_ident("aggregate") && !input.peek(syn::token::Paren) {
            return Ok(Self::Aggregate(None));
        }
        if let Some(word) = path.get_ident().map(ToString::to_string)
            && ["aggregate", "key", "metadata", "caller"].contains(&word.as_str())
            && input.peek(syn::token::Paren)
        {
            let inner;
            parenthesized!(inner in input);
            return Self::of_word(&word, &inner);
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

impl Owner {
    /// `Kind`, or `Kind, "/pointer"`, in the parentheses after a word.
    fn of_word(word: &str, inner: ParseStream<'_>) -> Result<Self> {
        let kind = inner.call(Path::parse_mod_style).map_err(|error| syn::Error::new(error.span(), FORMS))?;
        let mut pointer: Option<LitStr> = None;
        if inner.peek(Token![,]) && matches!(word, "metadata" | "caller") {
            inner.parse::<Token![,]>()?;
            pointer = Some(inner.parse()?);
        }
        match (word, pointer) {
            _ if !inner.is_empty() => Err(inner.error(FORMS)),
            ("metadata", Some(pointer)) => Ok(Self::Metadata(kind, pointer)),
            ("metadata", None) => Err(inner.error(
                "say where in the metadata the id stands: metadata(Customer, \
            \"/actor/id\")",
            )),
            ("caller", pointer) => Ok(Self::Caller(kind, pointer)),
            ("key", _) => Ok(Self::Key(kind)),
            _ => Ok(Self::Aggregate(Some(kind))),
        }
    }
}

/// `courier?.id`, `0`, `0.1`: the compiler reads the last one as a float.
fn segments(input: ParseStream<'_>) -> Result<Vec<Segment>> {
    let mut segments: Vec<Segment> = Vec::new();
    loop {
        let (text, span) = match input.parse::<TokenTree>()? {
            TokenTree::Ident(ident) => (ident.to_string(), ident.span()),
            TokenTree::Literal(literal)
                if literal.to_string().chars().all(|letter| letter.is_ascii_digit() || letter == '.') =>
            {
                (literal.to_string(), literal.span())
            }
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
        // `0.` of `0.x` has its dot already.
        if !text.ends_with('.') {
            input.parse::<Token![.]>().map_err(|error| syn::Error::new(error.span(), FORMS))?;
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
            Self::Key(kind) => quote!(#private::OwnerRule::Key(|name| <#kind as #private::Scope>::at(name))),
            Self::Metadata(kind, pointer) => {
                quote!(#private::OwnerRule::Given(|| <#kind as #private::Scope>::metadata(#pointer)))
            }
            Self::Caller(kind, None) => quote!(#private::OwnerRule::Given(<#kind as #private::Scope>::caller)),
            Self::Caller(kind, Some(pointer)) => {
                quote!(#private::OwnerRule::Given(|| <#kind as #private::Scope>::caller_at(#pointer)))
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
            Self::Field(_, segments) => segments.first().map(|segment| segment.name.as_str()),
            _ => None,
        }
    }

    pub(crate) fn span(&self) -> Span {
        match self {
            Self::Aggregate(None) => Span::call_site(),
            Self::Aggregate(Some(kind)) | Self::Key(kind) | Self::Metadata(kind, _) | Self::Caller(kind, _) => {
                kind.segments.last().map_or_else(Span::call_site, |last| last.ident.span())
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
