//! Kinds of key scopes as Rust types, so that the compiler finds a misspelled kind. It knows of no single event type.

use crate::keys::names::KeyScope;
use crate::schema::declare::{Owner, caller, caller_at, metadata, subject};
use crate::seal::in_the_clear::InTheClear;
use crate::seal::normalize::{Normalize, Normalizers};
use std::fmt;
use std::sync::Arc;

/// A kind of key scope as a type. The name that is stored is written once, in its implementation. Schemas and shreds
/// then name the type, and a misspelled one does not compile.
///
/// ```
/// use eventseal::{KeyScope, Owner, Schemas, Scope, event};
///
/// struct Customer;
/// impl Scope for Customer {
///     const KIND: &'static str = "Customer";
/// }
///
/// Schemas::new([
///     event("OrderPlaced").version(1).protect(&["/email"], Customer::at("/customer_id")),
///     event("CustomerRegistered").version(1).protect(&["/name"], Customer::aggregate()),
/// ])?;
/// assert_eq!(Customer::scope("cust_42"), KeyScope::new("Customer", "cust_42")); // what a shred takes
/// # Ok::<(), eventseal::schema::SchemaErrors>(())
/// ```
///
/// The name of the type plays no part, so the type can be renamed. Do not change [`KIND`](Self::KIND) once something is
/// sealed: keys under the old name stay under it, and a shred under the new name does not reach them.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no kind of key scope",
    note = "`#[derive(eventseal::Scope)]` with `#[scope(\"Customer\")]` makes a type a kind, by the name that is stored"
)]
pub trait Scope {
    /// The kind, as it is stored in the key table.
    const KIND: &'static str;

    /// How ids of this kind are brought to one spelling, as [`Owner::normalize`] has it. By default they are taken as
    /// they are.
    ///
    /// ```
    /// # use eventseal::{Normalize, Scope};
    /// struct Customer;
    /// impl Scope for Customer {
    ///     const KIND: &'static str = "Customer";
    ///     fn normalize() -> Option<Normalize> {
    ///         Some(Normalize::LowerCase)
    ///     }
    /// }
    /// assert_eq!(Customer::scope("CUST_42").id(), "cust_42");
    /// ```
    #[must_use]
    fn normalize() -> Option<Normalize> {
        None
    }

    /// The key scope of this kind and of an id, which is [normalized](Self::normalize). Pass it to
    /// [`KeyManager::shred`](crate::keys::KeyManager::shred) and to whatever else is about one scope.
    ///
    /// An id that can't be normalized stays as it is. No event is sealed under such an id, so the scope has no keys,
    /// except those that were made before the kind was normalized.
    /// [`Schemas::scope_for`](crate::Schemas::scope_for) reports such an id as an error instead.
    #[must_use]
    fn scope(id: impl fmt::Display) -> KeyScope {
        let scope = KeyScope::new(Self::KIND, id.to_string());
        Normalizers::from_iter(Self::normalize().map(|how| (Self::KIND.into(), how))).same(scope)
    }

    /// The owner of this kind whose id stands at a pointer into the payload, as [`subject`] has it.
    /// `Guest::at("{guest}")` is the one whose id is the name of a member, as
    /// [`protect`](crate::schema::EventSchema::protect) shows.
    #[must_use]
    fn at(pointer: impl Into<String>) -> Owner {
        normalized(subject(Self::KIND, pointer), Self::normalize())
    }

    /// The owner of this kind whose id stands at a pointer into the metadata, as [`metadata`] has it.
    ///
    /// ```
    /// # use eventseal::{Schemas, Scope, event};
    /// # struct Customer;
    /// # impl Scope for Customer {
    /// #     const KIND: &'static str = "Customer";
    /// # }
    /// Schemas::new([event("LoggedIn").version(1).protect(&["/ip"], Customer::metadata("/actor/id"))])?;
    /// # Ok::<(), eventseal::schema::SchemaErrors>(())
    /// ```
    #[must_use]
    fn metadata(pointer: impl Into<String>) -> Owner {
        normalized(metadata(Self::KIND, pointer), Self::normalize())
    }

    /// The owner of this kind that the caller of the append names, as [`caller`] has it.
    ///
    /// ```
    /// # use eventseal::{NewEvent, Schemas, Scope, event};
    /// # struct Customer;
    /// # impl Scope for Customer {
    /// #     const KIND: &'static str = "Customer";
    /// # }
    /// Schemas::new([event("LoggedIn").version(1).protect(&["/ip"], Customer::caller())])?;
    /// let logged_in = NewEvent::raw("LoggedIn", 1, r#"{"ip":"192.0.2.7"}"#).for_subject(Customer::scope("cust_42"));
    /// # Ok::<(), eventseal::schema::SchemaErrors>(())
    /// ```
    #[must_use]
    fn caller() -> Owner {
        normalized(caller(Self::KIND), Self::normalize())
    }

    /// As [`caller`](Self::caller), with the id at this pointer into the metadata.
    #[must_use]
    fn caller_at(pointer: impl Into<String>) -> Owner {
        normalized(caller_at(Self::KIND, pointer), Self::normalize())
    }

    /// The owner of this kind that a named function names, as [`Owner::by`] has it.
    #[must_use]
    fn by(
        name: impl Into<Arc<str>>,
        function: impl Fn(&InTheClear<'_>) -> Option<String> + Send + Sync + 'static,
    ) -> Owner {
        normalized(Owner::by(Self::KIND, name, function), Self::normalize())
    }

    /// The event's own aggregate as the owner, under this kind. It does not matter what type the aggregate has.
    #[must_use]
    fn aggregate() -> Owner {
        normalized(Owner::Aggregate.scope_kind(Self::KIND), Self::normalize())
    }
}

fn normalized(owner: Owner, how: Option<Normalize>) -> Owner {
    match how {
        Some(how) => owner.normalize(how),
        None => owner,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::declare::event;
    use crate::schema::registry::Schemas;

    struct Customer;
    impl Scope for Customer {
        const KIND: &'static str = "Customer";
    }

    struct Device;
    impl Scope for Device {
        const KIND: &'static str = "Device";
        fn normalize() -> Option<Normalize> {
            Some(Normalize::by("letters", |id| id.trim_matches('-').to_owned()))
        }
    }

    #[test]
    fn a_kind_names_the_owners_and_scopes_of_a_hand_written_declaration() {
        assert_eq!(Customer::at("/customer_id"), subject("Customer", "/customer_id"));
        assert_eq!(Customer::metadata("/actor/id"), metadata("Customer", "/actor/id"));
        assert_eq!(Customer::aggregate(), Owner::Aggregate.scope_kind("Customer"));
        assert_eq!(Customer::scope(42), KeyScope::new("Customer", "42"));
    }

    #[test]
    fn what_is_shredded_is_what_the_schemas_seal_under() {
        let schemas = Schemas::new([
            event("Sold").version(1).protect(&["/note"], Device::at("/device")),
            event("Read").version(1).protect(&["/note"], Device::metadata("/device")),
            event("Made").version(1).protect(&["/note"], Device::aggregate()),
        ]);
        let schemas = schemas.expect("both declarations normalize the kind in one way");
        for id in ["-d7-", "d7"] {
            assert_eq!(Device::scope(id), schemas.scope_for("Device", id).unwrap());
        }
        assert_eq!(Device::scope("--"), KeyScope::new("Device", "--"), "it normalizes to nothing, and stays");
        assert!(schemas.scope_for("Device", "--").is_err());
    }
}
