//! The fields of a struct or a variant.

use crate::field::Field;
use crate::serde_attrs;
use proc_macro2::TokenStream;
use quote::quote;
use syn::{Fields, Ident, Result};

/// The fields of a struct or a variant, as serde writes them.
pub(crate) struct Content {
    pub(crate) fields: Vec<Field>,
    /// The names of fields that are neither written nor read.
    pub(crate) skipped: Vec<String>,
    pub(crate) shape: Shape,
}

#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Shape {
    Nothing,
    Newtype,
    Members,
    Elements,
}

impl Content {
    pub(crate) fn read(
        fields: &Fields,
        holder: &Ident,
        of: &serde_attrs::OfType,
        variant: Option<&serde_attrs::OfVariant>,
        is_transparent: bool,
    ) -> Result<Self> {
        let read = |(index, field)| Field::read(field, index, holder, of, variant);
        let mut all = fields.iter().enumerate().map(read).collect::<Result<Vec<_>>>()?;
        let shape = match fields {
            Fields::Unit => Shape::Nothing,
            _ if is_transparent => Shape::Newtype,
            Fields::Named(_) => Shape::Members,
            Fields::Unnamed(fields) if fields.unnamed.len() == 1 => Shape::Newtype,
            Fields::Unnamed(_) => Shape::Elements,
        };
        if let (Shape::Newtype, false, Some(span)) = (shape, is_transparent, all.iter().find_map(Field::ever_skipped)) {
            return Err(syn::Error::new(
                span,
                "serde writes the field of a newtype, skipped or not: take the attribute away",
            ));
        }
        let skipped = all.iter().filter(|field| field.is_skipped()).map(|field| field.ident.clone()).collect();
        all.retain(|field| !field.is_skipped());
        if is_transparent && all.len() != 1 {
            return Err(syn::Error::new_spanned(holder, "a transparent type has one field that is not skipped"));
        }
        if shape == Shape::Newtype {
            for field in &mut all {
                field.names.clear();
            }
        }
        if shape == Shape::Elements
            && let Some(span) = all.iter().find_map(Field::half_skipped)
        {
            return Err(syn::Error::new(
                span,
                "a field that is skipped in one direction, or sometimes, shifts the others, so they are read from \
                 other places than they are written to: skip it always, or never",
            ));
        }
        Ok(Self { fields: all, skipped, shape })
    }

    pub(crate) fn layout(&self, library: &TokenStream) -> TokenStream {
        let private = quote!(#library::__private);
        let fields = self.fields.iter().enumerate().map(|(at, field)| match self.shape {
            Shape::Elements => field.layout(&[at.to_string()], library),
            _ => field.layout(&field.names, library),
        });
        match self.shape {
            Shape::Newtype if !self.fields.is_empty() => quote!(#private::Body::Newtype(#(#fields)*)),
            Shape::Nothing | Shape::Newtype => quote!(#private::Body::Nothing),
            Shape::Members => quote!(#private::Body::Members(&[#(#fields),*])),
            Shape::Elements => quote!(#private::Body::Elements(&[#(#fields),*])),
        }
    }
}
