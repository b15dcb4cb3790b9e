//! One field: what the compiler has to check of it, and what the layout says of it.

use crate::attrs;
use crate::serde_attrs;
use proc_macro2::{Span, TokenStream, TokenTree};
use quote::{ToTokens, quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Ident, Result, Type};

pub(crate) struct Field {
    /// Its name in Rust, or its index.
    pub(crate) ident: String,
    pub(crate) span: Span,
    ty: Type,
    serde: serde_attrs::OfField,
    pub(crate) event: attrs::OfField,
    /// Its name in JSON, and its aliases. Empty if it is written in place of what holds it, or among its members.
    pub(crate) names: Vec<String>,
    /// Its type holds the type that it stands in, so the constants of one can't be made of those of the other.
    is_recursive: bool,
}

impl Field {
    pub(crate) fn read(
        field: &syn::Field,
        index: usize,
        holder: &Ident,
        of: &serde_attrs::OfType,
        variant: Option<&serde_attrs::OfVariant>,
    ) -> Result<Self> {
        let serde = serde_attrs::OfField::read(&field.attrs)?;
        let event = attrs::OfField::read(&field.attrs)?;
        let names = match &field.ident {
            Some(ident) if !serde.flatten => serde.names(ident, of, variant)?,
            _ => Vec::new(),
        };
        if event.plain && mentions(&field.ty.to_token_stream(), &|ident| ident == "Sensitive") {
            return Err(syn::Error::new_spanned(
                &field.ty,
                "it is a Sensitive, so it is not plain: keep one of the two",
            ));
        }
        let is_recursive =
            event.recursive || mentions(&field.ty.to_token_stream(), &|ident| ident == holder || ident == "Self");
        if let (true, false, Some(span)) = (is_recursive, event.plain, serde.with) {
            return Err(syn::Error::new(
                span,
                "a function writes this field, which holds its own type again, so nobody can see where Sensitive \
                 values get to: take the function away, or say #[event(plain)] if nothing in it is sensitive",
            ));
        }
        Ok(Self {
            ident: field
                .ident
                .as_ref()
                .map_or_else(|| index.to_string(), |ident| ident.to_string().trim_start_matches("r#").to_owned()),
            span: field.ident.as_ref().map_or_else(|| field.ty.span(), Ident::span),
            is_recursive,
            ty: field.ty.clone(),
            serde,
            event,
            names,
        })
    }

    /// Neither written nor read, so it has no place.
    pub(crate) fn is_skipped(&self) -> bool {
        self.serde.is_skipped()
    }

    pub(crate) fn ever_skipped(&self) -> Option<Span> {
        self.serde.ever_skipped()
    }

    /// Not written, whether it is read or not.
    pub(crate) fn is_unwritten(&self) -> bool {
        self.serde.is_unwritten()
    }

    pub(crate) fn half_skipped(&self) -> Option<Span> {
        self.serde.half_skipped()
    }

    /// The type, with its place, so that the compiler points at it.
    fn part(&self, library: &TokenStream) -> TokenStream {
        let ty = &self.ty;
        let span = ty.span();
        quote_spanned!(span=> <#ty as #library::EventPart>)
    }

    /// A constant of the type, if the type takes part in the constants of its holder.
    pub(crate) fn constant(&self, name: &str, library: &TokenStream) -> Option<TokenStream> {
        if self.event.plain || self.is_recursive || self.is_skipped() {
            return None;
        }
        let part = self.part(library);
        let name = Ident::new(name, self.ty.span());
        Some(quote!(#part::#name))
    }

    /// Does a value name an owner?
    pub(crate) fn id(&self, library: &TokenStream) -> TokenStream {
        // A plain type says nothing of itself. If it is no id after all, nothing can be appended.
        if self.event.plain {
            return quote!(#library::schema::IsId);
        }
        if self.is_skipped() || self.is_recursive {
            return quote!(#library::schema::NoId);
        }
        let part = self.part(library);
        quote!(#part::Id)
    }

    /// What the compiler checks, each as a statement in a constant.
    pub(crate) fn checks(&self, library: &TokenStream) -> Vec<TokenStream> {
        let (mut checks, span) = (Vec::new(), self.ty.span());
        if self.event.plain && !self.is_recursive && !self.is_skipped() {
            let (ty, private) = (&self.ty, quote!(#library::__private));
            checks.push(quote_spanned! {span=> {
                #[allow(unused_imports, reason = "it is for types that are no parts")]
                use #private::Unknown as _;
                ::core::assert!(
                    !#private::Probe::<#ty>::PROTECTS,
                    "its type holds Sensitive values, so it is not plain: take #[event(plain)] away"
                );
            }});
        }
        let Some(protects) = self.constant("PROTECTS", library) else { return checks };
        let mut never = |unless: TokenStream, says: &str| {
            checks.push(quote_spanned!(span=> ::core::assert!(!#protects || #unless, #says);));
        };
        if self.serde.flatten {
            let is_object = self.constant("IS_OBJECT", library).unwrap_or_default();
            never(
                is_object,
                "what is flattened here is Sensitive itself, and has no place of its own: name the field, or flatten a \
                 struct with Sensitive fields",
            );
        }
        if self.serde.with.is_some() {
            never(
                quote!(false),
                "serde calls a function for this field, so eventseal can't see where the Sensitive is written: move \
                 the function to a newtype, and use a Sensitive of that newtype here",
            );
        }
        if let (Some(_), Some(span)) = (&self.event.rules.owner, self.event.rules.span) {
            let needs_owner = self.constant("NEEDS_OWNER", library).unwrap_or_default();
            checks.push(quote_spanned! {span=>
                ::core::assert!(
                    !#protects || #needs_owner,
                    "what is Sensitive in this field says itself whose it is, so this owner would count for nothing: \
                     take one of the two away"
                );
            });
        }
        if let Some(says) = self.event.rules.span {
            checks.push(quote_spanned! {says=>
                ::core::assert!(
                    #protects,
                    "nothing in this field is Sensitive, so it has no owner, stand-in or padding: make it a \
                    Sensitive, or take the attribute away"
                );
            });
        }
        let part = self.part(library);
        checks.push(quote_spanned! {span=>
            if let ::core::option::Option::Some(__reason) = #part::REFUSED {
                ::core::panic!("{}", __reason);
            }
        });
        checks
    }

    /// A check of the compiler: if anything in the field is protected, this holds.
    pub(crate) fn if_protected(&self, holds: &str, says: &str, library: &TokenStream) -> TokenStream {
        let Some(protects) = self.constant("PROTECTS", library) else { return TokenStream::new() };
        let holds = if holds.is_empty() { None } else { self.constant(holds, library) };
        let holds = holds.unwrap_or_else(|| quote!(false));
        let span = self.ty.span();
        quote_spanned!(span=> ::core::assert!(!#protects || #holds, #says);)
    }

    /// As the layout has it. `names`: those of its place.
    pub(crate) fn layout(&self, names: &[String], library: &TokenStream) -> TokenStream {
        let private = quote!(#library::__private);
        let rules = self.event.rules.tokens(&private);
        let (ident, flatten) = (&self.ident, self.serde.flatten);
        let is_opaque = self.serde.with.is_some();
        let layout = if self.event.plain {
            quote!(|| #library::schema::Layout::PLAIN)
        } else {
            let part = self.part(library);
            quote!(#part::layout)
        };
        quote! {
            #private::FieldLayout {
                ident: #ident,
                names: &[#(#names),*],
                flatten: #flatten,
                is_opaque: #is_opaque,
                layout: #layout,
                rules: #rules,
            }
        }
    }
}

fn mentions(tokens: &TokenStream, is_it: &dyn Fn(&Ident) -> bool) -> bool {
    tokens.clone().into_iter().any(|token| match token {
        TokenTree::Ident(ident) => is_it(&ident),
        TokenTree::Group(group) => mentions(&group.stream(), is_it),
        _ => false,
    })
}
