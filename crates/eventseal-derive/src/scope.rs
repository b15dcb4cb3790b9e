//! `#[derive(Scope)]`: a kind of key scope.

use proc_macro2::{Span, TokenStream};
use quote::quote;
use syn::parse::{Parse, ParseStream};
use syn::{DeriveInput, Ident, LitStr, Path, Result, Token};

const FORM: &str = "a kind is named as it is stored: #[scope(\"Customer\")]";

struct Said {
    kind: LitStr,
    normalize: Option<TokenStream>,
    library: TokenStream,
}

impl Parse for Said {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let kind: LitStr = input.parse().map_err(|error| syn::Error::new(error.span(), FORM))?;
        let mut said = Self { kind, normalize: None, library: quote!(::eventseal) };
        while !input.is_empty() {
            input.parse::<Token![,]>()?;
            if input.is_empty() {
                break;
            }
            if input.peek(Token![crate]) {
                input.parse::<Token![crate]>()?;
                input.parse::<Token![=]>()?;
                let path: Path = input.parse()?;
                said.library = quote!(#path);
                continue;
            }
            let name: Ident = input.parse()?;
            if name != "normalize" || said.normalize.is_some() {
                return Err(syn::Error::new(
                    name.span(),
                    "a kind takes `normalize = Normalize::…`, once, after its name",
                ));
            }
            input.parse::<Token![=]>()?;
            said.normalize = Some(input.parse::<crate::serde_attrs::TokenStreamUntilComma>()?.0);
        }
        Ok(said)
    }
}

pub(crate) fn derive(input: &DeriveInput) -> Result<TokenStream> {
    let mut attributes = input.attrs.iter().filter(|attribute| attribute.path().is_ident("scope"));
    let attribute = attributes.next().ok_or_else(|| syn::Error::new(Span::call_site(), FORM))?;
    if let Some(second) = attributes.next() {
        return Err(syn::Error::new_spanned(second, "a kind has one name: keep one"));
    }
    let Said { kind, normalize, library } = attribute.parse_args()?;
    let problem = match kind.value() {
        text if text.is_empty() => Some("a kind is not empty"),
        text if text.len() > 1024 => Some("a kind has at most 1024 bytes"),
        text if text.starts_with('$') => Some("kinds that start with '$' are reserved"),
        text if text.contains('\0') => Some("a kind holds no NUL character"),
        _ => None,
    };
    if let Some(problem) = problem {
        return Err(syn::Error::new(kind.span(), problem));
    }
    let normalize = normalize.map(|normalize| {
        quote! {
            fn normalize() -> ::core::option::Option<#library::Normalize> {
                ::core::option::Option::Some(#normalize)
            }
        }
    });
    let name = &input.ident;
    let (impl_generics, type_generics, bounds) = input.generics.split_for_impl();
    Ok(quote! {
        #[automatically_derived]
        impl #impl_generics #library::Scope for #name #type_generics #bounds {
            const KIND: &'static str = #kind;
            #normalize
        }
    })
}
