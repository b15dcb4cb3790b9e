//! Warns if the operator may have named the wrong scope, or if a person may have other scopes. It only warns and never
//! refuses, because the same id under another kind may belong to somebody else.

use crate::connect::{Backend, Db};
use crate::master_key::NoMasterKey;
use crate::output::{Failure, shown, tell};
use crate::registered::{KindIs, Registered, Spelling};
use eventseal::KeyScope;
use eventseal::keys::{KeyStore, ScopeLock, ScopeState};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

/// What is doubtful about a scope.
pub(crate) struct Doubts {
    scope: KeyScope,
    /// What the schemas say about its kind, if a schema lock was passed.
    schemas: Option<(Registered, KindIs)>,
    /// How the schemas spell the id.
    spelling: Spelling,
    /// Other scopes with the same id or with another spelling of it.
    similar: Vec<(KeyScope, ScopeState)>,
}

impl Doubts {
    /// Looks the kind up in the schema lock. Needs no connection.
    pub(crate) fn of_kind(scope: &KeyScope, schemas: Option<&Path>) -> Result<Self, Failure> {
        let registered = schemas.map(Registered::read).transpose()?;
        let spelling = registered.as_ref().map_or(Spelling::Theirs, |registered| registered.spelling(scope));
        let schemas = registered.map(|registered| {
            let kind = if scope.is_reserved() { KindIs::Known } else { registered.kind(scope.kind()) };
            (registered, kind)
        });
        Ok(Self { scope: scope.clone(), schemas, spelling, similar: Vec::new() })
    }

    /// Adds what the key table says about the id.
    pub(crate) async fn and_of_id<C: Backend>(mut self, db: &mut Db<C>) -> Result<Self, Failure> {
        let manager = db.manager(Arc::new(NoMasterKey));
        let similar = manager.similar_scopes(&mut db.connection, &self.scope).await?;
        let mut records = db.keys.scopes(&mut db.connection, &similar, ScopeLock::None).await?;
        records.sort_unstable_by(|a, b| a.scope.cmp(&b.scope));
        self.similar = records.into_iter().map(|record| (record.scope, record.state)).collect();
        Ok(self)
    }

    /// Prints the warnings on standard error. With JSON, the result has them instead.
    pub(crate) fn tell(&self, json: bool) -> Result<(), Failure> {
        if json {
            return Ok(());
        }
        let mut text = String::new();
        if let Some(kind) = self.kind() {
            let _ = writeln!(text, "WARNING: {kind}");
        }
        if let Some(spelling) = self.spelling() {
            let _ = writeln!(text, "WARNING: {spelling}");
        }
        // Scopes that are shredded already need no warning.
        if self.similar.iter().any(|(_, state)| *state != ScopeState::Shredded) {
            let (scope, others) = (shown(&self.scope.to_string()), self.others());
            let _ = writeln!(
                text,
                "WARNING: {scope} is not the only scope under this id: {others}. A shred of one does not reach the \
                 others: if they are the same person, shred each of them."
            );
        }
        if text.is_empty() { Ok(()) } else { tell(&text) }
    }

    /// The warnings as an addition to the error that there is no such scope.
    pub(crate) fn hint(&self) -> String {
        let mut text = String::new();
        if !self.similar.is_empty() {
            let _ = write!(text, "; under this id there is {}", self.others());
        }
        if let Some(kind) = self.kind() {
            let _ = write!(text, "; {}", kind.trim_end_matches('.'));
        }
        if let Some(spelling) = self.spelling() {
            let _ = write!(text, "; {}", spelling.trim_end_matches('.'));
        }
        text
    }

    pub(crate) fn within(&self, mut json: Value) -> Value {
        json["kind_known"] = match self.schemas {
            Some((_, KindIs::Known)) => true.into(),
            Some((_, KindIs::Unknown)) => false.into(),
            Some((_, KindIs::PerhapsAnAggregate)) | None => Value::Null,
        };
        json["normalized"] = match &self.spelling {
            Spelling::Other(scope) => scope.id().into(),
            Spelling::Theirs | Spelling::Unknown(_) => Value::Null,
        };
        let similar = self
            .similar
            .iter()
            .map(|(scope, state)| json!({ "kind": scope.kind(), "id": scope.id(), "state": state.as_str() }));
        json["similar"] = similar.collect();
        json
    }

    fn kind(&self) -> Option<String> {
        let (registered, is) = self.schemas.as_ref().filter(|(_, is)| *is != KindIs::Known)?;
        let kinds = registered.kinds();
        let known = if kinds.is_empty() {
            "no kind at all".to_owned()
        } else {
            kinds.into_iter().map(shown).collect::<Vec<_>>().join(", ")
        };
        let mut text = format!(
            "the schemas in {} name no kind {}; they name {known}.",
            registered.name(),
            shown(self.scope.kind())
        );
        if *is == KindIs::PerhapsAnAggregate {
            text.push_str(" It may be the type of an aggregate, which a schema lock does not say.");
        }
        Some(text)
    }

    fn spelling(&self) -> Option<String> {
        let (registered, _) = self.schemas.as_ref()?;
        match &self.spelling {
            Spelling::Theirs => None,
            Spelling::Other(scope) => Some(format!(
                "the schemas in {} spell this id {}: under the id as it is typed here, nothing is sealed any more.",
                registered.name(),
                in_quotes(scope.id())
            )),
            Spelling::Unknown(function) => Some(format!(
                "the schemas in {} spell ids of this kind with the {}, which this command does not know: pass the id \
                 as it returns it.",
                registered.name(),
                shown(function)
            )),
        }
    }

    /// The other scopes. An id that is spelled otherwise is in quotes, so that white space can be seen.
    fn others(&self) -> String {
        let others = self.similar.iter().map(|(other, state)| {
            let id = if other.id() == self.scope.id() { shown(other.id()) } else { in_quotes(other.id()) };
            format!("{} {id} ({})", shown(other.kind()), state.as_str())
        });
        others.collect::<Vec<_>>().join(", ")
    }
}

/// An id in quotes, so that white space can be seen.
fn in_quotes(id: &str) -> String {
    format!("'{}'", shown(id))
}
