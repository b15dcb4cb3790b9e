//! `#[derive(EventPart)]` and `#[derive(Event)]`.

use crate::attrs;
use crate::content::{Content, Shape};
use crate::field::Field;
use crate::owner::{Owner, member};
use crate::serde_attrs;
use proc_macro2::TokenStream;
use quote::{format_ident, quote, quote_spanned};
use syn::{Data, DeriveInput, Generics, Ident, Result};

/// `#[derive(EventPart)]`
pub(crate) fn event_part(input: &DeriveInput) -> Result<TokenStream> {
    Part::read(input, false)?.implementation()
}

/// `#[derive(Event)]`
pub(crate) fn event(input: &DeriveInput) -> Result<TokenStream> {
    let part = Part::read(input, true)?;
    if let Some(parameter) = input.generics.type_params().next() {
        return Err(syn::Error::new_spanned(
            parameter,
            "the payload of an event has no type parameters: use a #[serde(transparent)] newtype over each concrete \
            type",
        ));
    }
    let implementation = part.implementation()?;
    let Some(event) = &part.attrs.event else { return Ok(implementation) };
    let (library, private, name) = (&part.attrs.library, part.private(), &input.ident);
    let (event_type, version) = (&event.event_type, &event.version);
    let (impl_generics, type_generics, bounds) = input.generics.split_for_impl();
    let schema = match &event.previous {
        None => quote!(#private::schema::<Self>()),
        Some((previous, false)) => quote! {
            #private::schema_after::<Self, #previous, ::core::convert::Infallible>(
                |__old| ::core::result::Result::Ok(<Self as ::core::convert::From<#previous>>::from(__old)),
            )
        },
        Some((previous, true)) => quote! {
            #private::schema_after::<Self, #previous, <Self as ::core::convert::TryFrom<#previous>>::Error>(
                <Self as ::core::convert::TryFrom<#previous>>::try_from,
            )
        },
    };
    let follows = event.previous.as_ref().map(|(previous, _)| {
        let span = syn::spanned::Spanned::span(previous);
        quote_spanned! {span=>
            const _: () = ::core::assert!(
                #private::follows(
                    <#previous as #library::Event>::TYPE, <#previous as #library::Event>::VERSION,
                    #event_type, #version,
                ),
                "it must be the type of the version just before this one, of the same event type: other events become \
                 this one by a step that event(…) declares"
            );
        }
    });
    let no_owner = format!(
        "{name} holds Sensitive values, and nothing says whose they are: name an owner, such as \
         #[event(owner = Customer(customer_id))], or owner = aggregate"
    );
    let span = name.span();
    let owned = quote_spanned! {span=>
        const _: () = ::core::assert!(!<#name #type_generics as #library::EventPart>::NEEDS_OWNER, #no_owner);
    };
    Ok(quote! {
        #implementation
        #owned
        #follows

        #[automatically_derived]
        impl #impl_generics #library::Event for #name #type_generics #bounds {
            const TYPE: &'static str = #event_type;
            const VERSION: u32 = #version;

            fn schema() -> ::core::option::Option<#library::schema::EventSchema> {
                ::core::option::Option::Some(#schema)
            }
        }
    })
}

struct Part<'i> {
    input: &'i DeriveInput,
    attrs: attrs::OfType,
    serde: serde_attrs::OfType,
    body: Body,
}

enum Body {
    Struct(Content),
    Enum(Vec<Variant>),
    /// Written as a value of another type.
    Into(TokenStream),
}

struct Variant {
    ident: Ident,
    names: Vec<String>,
    serde: serde_attrs::OfVariant,
    content: Content,
}

impl<'i> Part<'i> {
    fn read(input: &'i DeriveInput, is_event: bool) -> Result<Self> {
        let attrs = attrs::OfType::read(&input.attrs, is_event)?;
        let serde = serde_attrs::OfType::read(&input.attrs)?;
        let body = match &input.data {
            Data::Union(_) => return Err(syn::Error::new_spanned(&input.ident, "serde writes no unions")),
            _ if serde.into.is_some() => {
                let says =
                    "serde writes another type in place of this one: put the attributes on the fields of that type";
                let fields: Vec<&syn::Field> = match &input.data {
                    Data::Struct(data) => data.fields.iter().collect(),
                    Data::Enum(data) => data.variants.iter().flat_map(|variant| &variant.fields).collect(),
                    Data::Union(_) => Vec::new(),
                };
                fields.iter().try_for_each(|field| attrs::none_at(&field.attrs, says))?;
                Body::Into(serde.into.clone().unwrap_or_default())
            }
            Data::Struct(data) => {
                Body::Struct(Content::read(&data.fields, &input.ident, &serde, None, serde.transparent)?)
            }
            Data::Enum(data) => {
                let mut variants = Vec::new();
                for variant in &data.variants {
                    attrs::none_at(
                        &variant.attrs,
                        "a variant takes no attributes: put them on its fields, or make its content a type of its own",
                    )?;
                    let of = serde_attrs::OfVariant::read(&variant.attrs)?;
                    if !of.is_skipped {
                        let content = Content::read(&variant.fields, &input.ident, &serde, Some(&of), false)?;
                        let names = of.names(&variant.ident, &serde)?;
                        variants.push(Variant { ident: variant.ident.clone(), names, serde: of, content });
                    }
                }
                Body::Enum(variants)
            }
        };
        Ok(Self { input, attrs, serde, body })
    }

    fn private(&self) -> TokenStream {
        let library = &self.attrs.library;
        quote!(#library::__private)
    }

    fn fields(&self) -> Vec<&Field> {
        match &self.body {
            Body::Struct(content) => content.fields.iter().collect(),
            Body::Enum(variants) => variants.iter().flat_map(|variant| &variant.content.fields).collect(),
            Body::Into(_) => Vec::new(),
        }
    }

    fn implementation(&self) -> Result<TokenStream> {
        let (library, name) = (&self.attrs.library, &self.input.ident);
        let generics = self.generics();
        let (impl_generics, type_generics, bounds) = generics.split_for_impl();
        let (constants, checks, ways) = (self.constants(), self.checks(), self.ways()?);
        // For a type with parameters, the compiler checks each use of it.
        let (within, beside) = match generics.params.first() {
            Some(_) => (quote!(#(#checks)*), TokenStream::new()),
            None => (TokenStream::new(), quote!(#(const _: () = { #checks };)*)),
        };
        let [protects, needs_owner, is_object, id] = constants;
        let layout = self.layout();
        Ok(quote! {
            #beside
            #[automatically_derived]
            impl #impl_generics #library::EventPart for #name #type_generics #bounds {
                const PROTECTS: bool = { #within #protects };
                const NEEDS_OWNER: bool = #needs_owner;
                const IS_OBJECT: bool = #is_object;
                type Id = #id;

                fn layout() -> #library::schema::Layout {
                    #layout
                }
            }
            #ways
        })
    }

    /// Each type parameter is a part too, as with serde.
    fn generics(&self) -> Generics {
        let mut generics = self.input.generics.clone();
        let library = &self.attrs.library;
        let parameters: Vec<Ident> = generics.type_params().map(|parameter| parameter.ident.clone()).collect();
        let bounds = generics.make_where_clause();
        for parameter in parameters {
            bounds.predicates.push(syn::parse_quote!(#parameter: #library::EventPart));
        }
        generics
    }

    /// `PROTECTS`, `NEEDS_OWNER`, `IS_OBJECT` and `Id`.
    fn constants(&self) -> [TokenStream; 4] {
        let mut constants = self.constants_without_owner();
        if self.attrs.rules.owner.is_some() {
            constants[1] = quote!(false);
        }
        constants
    }

    fn constants_without_owner(&self) -> [TokenStream; 4] {
        let library = &self.attrs.library;
        let no_id = quote!(#library::schema::NoId);
        if let Body::Into(other) = &self.body {
            let part = quote!(<#other as #library::EventPart>);
            return ["PROTECTS", "NEEDS_OWNER", "IS_OBJECT", "Id"].map(|name| {
                let name = format_ident!("{name}");
                quote!(#part::#name)
            });
        }
        let fields = self.fields();
        let any = |name: &str, of: &dyn Fn(&Field) -> bool| {
            let constants = fields.iter().filter(|field| of(field)).filter_map(|field| field.constant(name, library));
            quote!(false #(|| #constants)*)
        };
        let needs_owner = any("NEEDS_OWNER", &|field| field.event.rules.owner.is_none());
        let (is_object, id) = match &self.body {
            Body::Struct(content) => match (content.shape, content.fields.first()) {
                (Shape::Newtype, Some(field)) => {
                    (field.constant("IS_OBJECT", library).unwrap_or_else(|| quote!(false)), field.id(library))
                }
                (shape, _) => (if shape == Shape::Members { quote!(true) } else { quote!(false) }, no_id),
            },
            _ => (if self.serde.untagged.is_some() { quote!(false) } else { quote!(true) }, no_id),
        };
        [any("PROTECTS", &|_| true), needs_owner, is_object, id]
    }

    /// What the compiler checks, as statements.
    fn checks(&self) -> Vec<TokenStream> {
        let library = &self.attrs.library;
        let mut checks: Vec<TokenStream> = self.fields().iter().flat_map(|field| field.checks(library)).collect();
        let name = &self.input.ident;
        if let Body::Into(other) = &self.body
            && self.serde.from.as_ref().map(ToString::to_string) != Some(other.to_string())
        {
            checks.push(quote! {
                ::core::assert!(
                    !<#other as #library::EventPart>::PROTECTS,
                    "it is written as one type and read as another, so nobody knows where its Sensitive values are: \
                     use one type in #[serde(into = …)] and #[serde(from = …)]"
                );
            });
        } else if matches!(self.body, Body::Struct(_) | Body::Enum(_)) && self.serde.from.is_some() {
            let says = "it is read as another type than it is written as: add #[serde(into = …)] with the type of \
                #[serde(from = …)]";
            checks.extend(self.fields().iter().map(|field| field.if_protected("", says, library)));
        }
        if let Body::Enum(variants) = &self.body {
            checks.extend(variants.iter().flat_map(|variant| self.variant_checks(variant)));
        }
        if let Some(span) = self.attrs.rules.span {
            let protects = &self.constants()[0];
            let says = format!(
                "{name} names an owner, a stand-in or a padding, and nothing in it is Sensitive: make the fields that \
                 hold personal data Sensitive, or take the attribute away"
            );
            checks.push(quote_spanned!(span=> ::core::assert!(#protects, #says);));
            if self.attrs.rules.owner.is_some() {
                let needs_owner = &self.constants_without_owner()[1];
                let says = format!(
                    "all that is Sensitive in {name} says itself whose it is, so this owner would count for nothing: \
                     take it away"
                );
                checks.push(quote_spanned!(span=> ::core::assert!(!(#protects) || (#needs_owner), #says);));
            }
        }
        checks.retain(|check| !check.is_empty());
        checks
    }

    fn variant_checks(&self, variant: &Variant) -> Vec<TokenStream> {
        let library = &self.attrs.library;
        let mut checks = Vec::new();
        let mut none_protected = |says: &str| {
            checks.extend(variant.content.fields.iter().map(|field| field.if_protected("", says, library)));
        };
        if self.serde.untagged.is_some() || variant.serde.untagged.is_some() {
            none_protected(
                "nothing says which variant an untagged enum has once its values are erased: make the enum a Sensitive \
                 where it is used, or give it a #[serde(tag = \"…\")]",
            );
        }
        if variant.serde.with.is_some() {
            none_protected(
                "a function writes this variant, so nobody can see where its Sensitive values get to: put the function \
                 on a newtype, and make the content a Sensitive of that",
            );
        }
        if self.serde.tag.is_some() && self.serde.content.is_none() && variant.content.shape == Shape::Newtype {
            let says = "the tag stands among the members of this variant, so its content must be an object: make it a \
                struct with a Sensitive field, or use #[serde(tag = \"…\", content = \"…\")]";
            checks.extend(variant.content.fields.iter().map(|field| field.if_protected("IS_OBJECT", says, library)));
        }
        // Variants that lack the field of the type's owner.
        if let Some(owner) = &self.attrs.rules.owner
            && let Some(first) = owner.first_field()
            && !variant.content.fields.iter().any(|field| field.ident == first)
        {
            let says = format!(
                "the variant {} has no field {first}, which names the owner, so nothing says whose this is: add the \
                 field, or an owner here",
                variant.ident
            );
            for field in variant.content.fields.iter().filter(|field| field.event.rules.owner.is_none()) {
                if let Some(needs_owner) = field.constant("NEEDS_OWNER", library) {
                    let span = field.span;
                    checks.push(quote_spanned!(span=> ::core::assert!(!#needs_owner, #says);));
                }
            }
        }
        checks
    }

    /// A function that nobody calls, in which the compiler follows each way to an id.
    fn ways(&self) -> Result<TokenStream> {
        self.refuse_skipped_ids()?;
        let private = self.private();
        let ways = match &self.body {
            Body::Into(_) => match &self.attrs.rules.owner {
                Some(owner @ Owner::Field(..)) => {
                    return Err(syn::Error::new(
                        owner.span(),
                        "it is written as another type, whose members are not its own: name the owner at that type",
                    ));
                }
                _ => Vec::new(),
            },
            Body::Struct(content) => {
                let own = self.attrs.rules.owner.iter();
                let all = own.chain(content.fields.iter().filter_map(|field| field.event.rules.owner.as_ref()));
                let ways = all.filter_map(|owner| {
                    let first = owner.first_field()?;
                    let name = member(first, owner.span());
                    let is_plain = content.fields.iter().any(|field| field.ident == first && field.event.plain);
                    let span = owner.span();
                    Some(owner.way(&quote_spanned!(span=> &__value.#name), &private, !is_plain))
                });
                ways.collect()
            }
            Body::Enum(variants) => self.ways_of_variants(variants)?,
        };
        if ways.is_empty() {
            return Ok(TokenStream::new());
        }
        let generics = self.generics();
        let (impl_generics, type_generics, bounds) = generics.split_for_impl();
        let name = &self.input.ident;
        Ok(quote! {
            const _: () = {
                #[allow(unused, clippy::all, clippy::pedantic, reason = "the compiler checks it, nobody calls it")]
                fn __owners #impl_generics (__value: &#name #type_generics) -> ::core::option::Option<()> #bounds {
                    #(#ways)*
                    ::core::option::Option::Some(())
                }
            };
        })
    }

    /// An id that serde does not write names nobody.
    fn refuse_skipped_ids(&self) -> Result<()> {
        let contents: Vec<&Content> = match &self.body {
            Body::Struct(content) => vec![content],
            Body::Enum(variants) => variants.iter().map(|variant| &variant.content).collect(),
            Body::Into(_) => Vec::new(),
        };
        for content in contents {
            let of_fields = content.fields.iter().filter_map(|field| field.event.rules.owner.as_ref());
            for owner in self.attrs.rules.owner.iter().chain(of_fields) {
                let Some(first) = owner.first_field() else { continue };
                let is_written = |field: &Field| field.ident != first || !field.is_unwritten();
                if content.skipped.iter().any(|skipped| skipped == first) || !content.fields.iter().all(is_written) {
                    let says = format!("the field {first} names the owner, and serde does not write it: write it, too");
                    return Err(syn::Error::new(owner.span(), says));
                }
            }
        }
        Ok(())
    }

    fn ways_of_variants(&self, variants: &[Variant]) -> Result<Vec<TokenStream>> {
        let (private, holder) = (self.private(), &self.input.ident);
        let mut ways = Vec::new();
        for variant in variants {
            let own = self.attrs.rules.owner.iter();
            for owner in own.chain(variant.content.fields.iter().filter_map(|field| field.event.rules.owner.as_ref())) {
                let Some(first) = owner.first_field() else { continue };
                let Some(field) = variant.content.fields.iter().find(|field| field.ident == first) else { continue };
                let (ident, name) = (&variant.ident, member(first, owner.span()));
                let binding = format_ident!("__field", span = owner.span());
                let way = owner.way(&quote!(#binding), &private, !field.event.plain);
                ways.push(quote!(if let #holder::#ident { #name: #binding, .. } = __value { #way }));
            }
        }
        if let Some(owner) = &self.attrs.rules.owner
            && let Some(first) = owner.first_field()
            && !variants.iter().any(|variant| variant.content.fields.iter().any(|field| field.ident == first))
        {
            return Err(syn::Error::new(owner.span(), format!("no variant has a field {first}")));
        }
        for variant in variants {
            for owner in variant.content.fields.iter().filter_map(|field| field.event.rules.owner.as_ref()) {
                if let Some(first) = owner.first_field()
                    && !variant.content.fields.iter().any(|field| field.ident == first)
                {
                    let says = format!("the variant {} has no field {first}", variant.ident);
                    return Err(syn::Error::new(owner.span(), says));
                }
            }
        }
        Ok(ways)
    }

    fn layout(&self) -> TokenStream {
        let (library, private) = (&self.attrs.library, self.private());
        let rules = self.attrs.rules.tokens(&private);
        let body = match &self.body {
            Body::Into(other) => quote!(#private::Body::Other(<#other as #library::EventPart>::layout)),
            Body::Struct(content) => content.layout(library),
            Body::Enum(variants) => {
                let tagging = match (&self.serde.tag, &self.serde.content, self.serde.untagged) {
                    (_, _, Some(_)) => quote!(Untagged),
                    (None, ..) => quote!(External),
                    (Some(_), None, _) => quote!(Internal),
                    (Some(_), Some(content), _) => quote!(Adjacent(#content)),
                };
                let variants = variants.iter().map(|variant| {
                    let (ident, names) = (variant.ident.to_string(), &variant.names);
                    let body = variant.content.layout(library);
                    let is_opaque =
                        [variant.serde.with, variant.serde.untagged, self.serde.untagged].iter().any(Option::is_some);
                    quote! {
                        #private::VariantLayout {
                            ident: #ident, names: &[#(#names),*], is_opaque: #is_opaque, body: #body,
                        }
                    }
                });
                quote!(#private::Body::Variants(#private::Tagging::#tagging, &[#(#variants),*]))
            }
        };
        // It is written as one type and read as another.
        let text = |tokens: &Option<TokenStream>| tokens.as_ref().map(ToString::to_string);
        let is_opaque = self.serde.from.is_some() && text(&self.serde.from) != text(&self.serde.into);
        quote! {
            #library::schema::Layout::of_type(
                const {
                    &#private::TypeLayout {
                        name: #private::type_name::<Self>,
                        stands: ::core::concat!(::core::file!(), ":", ::core::line!(), ":", ::core::column!()),
                        is_opaque: #is_opaque,
                        rules: #rules,
                        body: #body,
                    }
                },
            )
        }
    }
}
