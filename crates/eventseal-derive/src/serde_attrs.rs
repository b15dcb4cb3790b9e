//! Serde's attributes: what they do to the place at which a value is written. An attribute that is not known here is
//! refused, because nobody can say what it does.

use crate::case::Case;
use proc_macro2::{Span, TokenStream};
use quote::ToTokens;
use syn::meta::ParseNestedMeta;
use syn::{Attribute, LitStr, Result, Token, parenthesized};

/// A value for writing and one for reading, which are the same unless serde was told otherwise.
#[derive(Clone)]
pub(crate) struct Both<T> {
    write: Option<T>,
    read: Option<T>,
}

impl<T> Default for Both<T> {
    fn default() -> Self {
        Self { write: None, read: None }
    }
}

/// The attributes of a type.
#[derive(Default)]
pub(crate) struct OfType {
    rename_all: Both<Case>,
    rename_all_fields: Both<Case>,
    pub(crate) tag: Option<String>,
    pub(crate) content: Option<String>,
    pub(crate) untagged: Option<Span>,
    pub(crate) transparent: bool,
    /// The type that it is read as.
    pub(crate) from: Option<TokenStream>,
    /// The type that it is written as.
    pub(crate) into: Option<TokenStream>,
}

/// The attributes of a variant.
#[derive(Default)]
pub(crate) struct OfVariant {
    rename: Both<String>,
    rename_all: Both<Case>,
    aliases: Vec<String>,
    pub(crate) is_skipped: bool,
    /// A function writes or reads it.
    pub(crate) with: Option<Span>,
    pub(crate) untagged: Option<Span>,
}

/// The attributes of a field.
#[derive(Default)]
pub(crate) struct OfField {
    rename: Both<String>,
    aliases: Vec<String>,
    pub(crate) flatten: bool,
    skip_writing: Option<Span>,
    skip_reading: Option<Span>,
    skip_if: Option<Span>,
    /// A function writes or reads it.
    pub(crate) with: Option<Span>,
}

impl OfType {
    pub(crate) fn read(attributes: &[Attribute]) -> Result<Self> {
        let mut found = Self::default();
        each(attributes, |name, meta| {
            match name {
                "rename_all" => found.rename_all = both(&meta, case)?,
                "rename_all_fields" => found.rename_all_fields = both(&meta, case)?,
                "tag" => found.tag = Some(text(&meta)?.value()),
                "content" => found.content = Some(text(&meta)?.value()),
                "untagged" => found.untagged = Some(span(&meta)),
                "transparent" => found.transparent = true,
                "from" | "try_from" => found.from = Some(a_type(&meta)?),
                "into" => found.into = Some(a_type(&meta)?),
                "rename" | "bound" | "default" | "deny_unknown_fields" | "crate" | "expecting" => skip(&meta)?,
                "remote" => {
                    return Err(meta.error(
                        "eventseal can't see what a remote type holds: implement eventseal::EventPart for the type \
                         itself, or put #[event(plain)] on the fields that use it",
                    ));
                }
                _ => return Err(unknown(&meta)),
            }
            Ok(())
        })?;
        Ok(found)
    }
}

impl OfVariant {
    pub(crate) fn read(attributes: &[Attribute]) -> Result<Self> {
        let mut found = Self::default();
        each(attributes, |name, meta| {
            match name {
                "rename" => found.rename = both(&meta, |text| Ok(text.value()))?,
                "rename_all" => found.rename_all = both(&meta, case)?,
                "alias" => found.aliases.push(text(&meta)?.value()),
                "skip" => found.is_skipped = true,
                "untagged" => found.untagged = Some(span(&meta)),
                "with" | "serialize_with" | "deserialize_with" => found.with = Some(text(&meta)?.span()),
                "skip_serializing" | "skip_deserializing" | "other" => {}
                "bound" | "borrow" => skip(&meta)?,
                _ => return Err(unknown(&meta)),
            }
            Ok(())
        })?;
        Ok(found)
    }

    /// The names under which it is written and read. The written one comes first.
    pub(crate) fn names(&self, ident: &syn::Ident, of: &OfType) -> Result<Vec<String>> {
        names(ident, &self.rename, &self.aliases, &of.rename_all, Case::of_variant)
    }
}

impl OfField {
    pub(crate) fn read(attributes: &[Attribute]) -> Result<Self> {
        let mut found = Self::default();
        each(attributes, |name, meta| {
            let span = span(&meta);
            match name {
                "rename" => found.rename = both(&meta, |text| Ok(text.value()))?,
                "alias" => found.aliases.push(text(&meta)?.value()),
                "flatten" => found.flatten = true,
                "skip" => (found.skip_writing, found.skip_reading) = (Some(span), Some(span)),
                "skip_serializing" => found.skip_writing = Some(span),
                "skip_deserializing" => found.skip_reading = Some(span),
                "with" | "serialize_with" | "deserialize_with" => found.with = Some(text(&meta)?.span()),
                "skip_serializing_if" => {
                    found.skip_if = Some(span);
                    skip(&meta)?;
                }
                "default" | "bound" | "borrow" => skip(&meta)?,
                "getter" => return Err(meta.error("eventseal can't see what a getter returns: use a type of your own")),
                _ => return Err(unknown(&meta)),
            }
            Ok(())
        })?;
        if attributes.iter().any(|attribute| attribute.path().is_ident("serde_as")) {
            return Err(syn::Error::new_spanned(
                &attributes[0],
                "put #[serde_as] above the derives: it rewrites the attributes that eventseal reads",
            ));
        }
        Ok(found)
    }

    /// Neither written nor read.
    pub(crate) fn is_skipped(&self) -> bool {
        self.skip_writing.is_some() && self.skip_reading.is_some()
    }

    pub(crate) fn ever_skipped(&self) -> Option<Span> {
        self.skip_writing.or(self.skip_reading)
    }

    pub(crate) fn is_unwritten(&self) -> bool {
        self.skip_writing.is_some()
    }

    /// Skipped in one direction alone, or sometimes.
    pub(crate) fn half_skipped(&self) -> Option<Span> {
        if self.is_skipped() { None } else { self.skip_writing.or(self.skip_reading).or(self.skip_if) }
    }

    /// The names under which it is written and read. The written one comes first.
    pub(crate) fn names(&self, ident: &syn::Ident, of: &OfType, variant: Option<&OfVariant>) -> Result<Vec<String>> {
        let case = match variant {
            None => of.rename_all.clone(),
            Some(variant) => Both {
                write: variant.rename_all.write.or(of.rename_all_fields.write),
                read: variant.rename_all.read.or(of.rename_all_fields.read),
            },
        };
        names(ident, &self.rename, &self.aliases, &case, Case::of_field)
    }
}

fn names(
    ident: &syn::Ident,
    rename: &Both<String>,
    aliases: &[String],
    case: &Both<Case>,
    spell: fn(Case, &str) -> String,
) -> Result<Vec<String>> {
    let plain = ident.to_string().trim_start_matches("r#").to_owned();
    let name = |rename: &Option<String>, case: Option<Case>| {
        rename.clone().unwrap_or_else(|| case.map_or_else(|| plain.clone(), |case| spell(case, &plain)))
    };
    let (written, read) = (name(&rename.write, case.write), name(&rename.read, case.read));
    if written != read && !aliases.contains(&written) {
        return Err(syn::Error::new(
            ident.span(),
            format!(
                "it is written as {written:?} and read as {read:?}, so it can't be read again: add #[serde(alias = \
                {written:?})]"
            ),
        ));
    }
    let mut names = vec![written, read];
    names.extend_from_slice(aliases);
    let mut seen = std::collections::BTreeSet::new();
    names.retain(|name| seen.insert(name.clone()));
    Ok(names)
}

fn each(attributes: &[Attribute], mut one: impl FnMut(&str, ParseNestedMeta<'_>) -> Result<()>) -> Result<()> {
    for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("serde")) {
        attribute.parse_nested_meta(|meta| {
            let name = meta.path.to_token_stream().to_string();
            one(&name, meta)
        })?;
    }
    Ok(())
}

fn unknown(meta: &ParseNestedMeta<'_>) -> syn::Error {
    meta.error(
        "eventseal does not know what this attribute does to the places of values, so it can't say what to protect",
    )
}

fn span(meta: &ParseNestedMeta<'_>) -> Span {
    meta.path.get_ident().map_or_else(Span::call_site, syn::Ident::span)
}

/// `name = "text"`
fn text(meta: &ParseNestedMeta<'_>) -> Result<LitStr> {
    meta.value()?.parse()
}

fn a_type(meta: &ParseNestedMeta<'_>) -> Result<TokenStream> {
    Ok(text(meta)?.parse::<syn::Type>()?.into_token_stream())
}

/// `name`, `name = "text"` or `name(…)`, none of which matters.
fn skip(meta: &ParseNestedMeta<'_>) -> Result<()> {
    if meta.input.peek(Token![=]) {
        meta.value()?.parse::<TokenStreamUntilComma>()?;
    } else if meta.input.peek(syn::token::Paren) {
        let inner;
        parenthesized!(inner in meta.input);
        inner.parse::<TokenStream>()?;
    }
    Ok(())
}

/// `name = "text"`, or `name(serialize = "text", deserialize = "text")`.
fn both<T: Clone>(meta: &ParseNestedMeta<'_>, read: fn(&LitStr) -> Result<T>) -> Result<Both<T>> {
    let mut found = Both::default();
    if meta.input.peek(Token![=]) {
        let value = read(&text(meta)?)?;
        return Ok(Both { write: Some(value.clone()), read: Some(value) });
    }
    meta.parse_nested_meta(|meta| {
        let value = Some(read(&text(&meta)?)?);
        if meta.path.is_ident("serialize") {
            found.write = value;
        } else if meta.path.is_ident("deserialize") && found.read.is_some() {
            return Err(meta.error("name one here, and the others with #[serde(alias = \"…\")]"));
        } else if meta.path.is_ident("deserialize") {
            found.read = value;
        } else {
            return Err(unknown(&meta));
        }
        Ok(())
    })?;
    Ok(found)
}

fn case(text: &LitStr) -> Result<Case> {
    Case::parse(&text.value()).ok_or_else(|| syn::Error::new(text.span(), "eventseal does not know this spelling"))
}

/// All tokens up to a comma.
pub(crate) struct TokenStreamUntilComma(pub(crate) TokenStream);

impl syn::parse::Parse for TokenStreamUntilComma {
    fn parse(input: syn::parse::ParseStream<'_>) -> Result<Self> {
        let mut tokens = TokenStream::new();
        while !input.is_empty() && !input.peek(Token![,]) {
            tokens.extend([input.parse::<proc_macro2::TokenTree>()?]);
        }
        if tokens.is_empty() { Err(input.error("a value is missing")) } else { Ok(Self(tokens)) }
    }
}
