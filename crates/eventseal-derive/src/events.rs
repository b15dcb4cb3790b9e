//! `#[derive(Events)]`: an enum of the events of a stream.

use crate::attrs;
use proc_macro2::TokenStream;
use quote::quote;
use syn::{Data, DeriveInput, Fields, Result};

pub(crate) fn derive(input: &DeriveInput) -> Result<TokenStream> {
    let Data::Enum(data) = &input.data else {
        return Err(syn::Error::new_spanned(
            &input.ident,
            "Events is for an enum of payload types. A single payload type derives Event, and is Events by itself",
        ));
    };
    if !input.generics.params.is_empty() {
        return Err(syn::Error::new_spanned(&input.generics, "an enum of events has no parameters: name the types"));
    }
    let library = library(input)?;
    let (mut arms, mut other) = (Vec::new(), None);
    for variant in &data.variants {
        let payload = match &variant.fields {
            Fields::Unnamed(fields) if fields.unnamed.len() == 1 => &fields.unnamed[0].ty,
            _ if attrs::is_other(&variant.attrs)? => {
                return Err(syn::Error::new_spanned(
                    variant,
                    "the catch-all holds the event as it was read: `Other(Box<PersistedEvent>)`",
                ));
            }
            _ => {
                return Err(syn::Error::new_spanned(
                    variant,
                    "a variant holds one payload type, such as `Placed(OrderPlaced)`: make the payload a struct of its \
                     own, because each version of an event needs a type",
                ));
            }
        };
        let name = &variant.ident;
        if !attrs::is_other(&variant.attrs)? {
            arms.push(quote!(#name(#payload),));
        } else if other.replace(name).is_some() {
            return Err(syn::Error::new_spanned(variant, "an enum has one catch-all: keep one"));
        }
    }
    if arms.is_empty() {
        return Err(syn::Error::new_spanned(&input.ident, "an enum of events needs a variant with a payload type"));
    }
    let name = &input.ident;
    let implementation = match other {
        None => quote! {
            #name, false, __event,
            ::core::result::Result::Err(#library::__private::unexpected_type::<#name>(__event)),
            { #(#arms)* }
            {}
        },
        Some(other) => quote! {
            #name, true, __event,
            ::core::result::Result::Ok(#name::#other(#library::__private::boxed(__event))),
            { #(#arms)* }
            { #name::#other(__event) => ::core::result::Result::Err(#library::__private::catch_all::<#name>(__event)), }
        },
    };
    Ok(quote!(#library::__events_impl! { #implementation }))
}

fn library(input: &DeriveInput) -> Result<TokenStream> {
    let mut library = quote!(::eventseal);
    for attribute in input.attrs.iter().filter(|attribute| attribute.path().is_ident("event")) {
        attribute.parse_nested_meta(|meta| {
            if !meta.path.is_ident("crate") {
                return Err(
                    meta.error("an enum of events takes `crate = …` alone: payload types name type and version")
                );
            }
            let path: syn::Path = meta.value()?.parse()?;
            library = quote!(#path);
            Ok(())
        })?;
    }
    Ok(library)
}
