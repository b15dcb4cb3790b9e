//! What makes one doubt that a scope is all there is of a person, or that it is the one that was meant. Said, and never
//! a reason to refuse: an id may be somebody else's under another kind.

use crate::connect::{Backend, Db};
use crate::master_key::NoMasterKey;
use crate::output::{Failure, shown, tell};
use crate::registered::{KindIs, Registered};
use eventseal::KeyScope;
use eventseal::keys::{KeyStore, ScopeLock, ScopeState};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

pub(super) struct Doubts {
    scope: KeyScope,
    /// What the schemas say of its kind, if there are any.
    schemas: Option<(Registered, KindIs)>,
    /// Other scopes under the same id, or another spelling of it.
    similar: Vec<(KeyScope, ScopeState)>,
}

impl Doubts {
    /// What the schema lock says, before anything is connected.
    pub(super) fn of_kind(scope: &KeyScope, schemas: Option<&Path>) -> Result<Self, Failure> {
        let registered = schemas.map(Registered::read).transpose()?;
        let schemas = registered.map(|registered| {
            let kind = if scope.is_reserved() { KindIs::Known } else { registered.kind(scope.kind()) };
            (registered, kind)
        });
        Ok(Self { scope: scope.clone(), schemas, similar: Vec::new() })
    }

    /// Besides, what the key table says.
    pub(super) async fn and_of_id<C: Backend>(mut self, db: &mut Db<C>) -> Result<Self, Failure> {
        let manager = db.manager(Arc::new(NoMasterKey));
        let similar = manager.similar_scopes(&mut db.connection, &self.scope).await?;
        let mut records = db.keys.scopes(&mut db.connection, &similar, ScopeLock::None).await?;
        records.sort_unstable_by(|a, b| a.scope.cmp(&b.scope));
        self.similar = records.into_iter().map(|record| (record.scope, record.state)).collect();
        Ok(self)
    }

    /// On standard error; JSON has it in its result.
    pub(super) fn tell(&self, json: bool) -> Result<(), Failure> {
        if json {
            return Ok(());
        }
        let mut text = String::new();
        if let Some(kind) = self.kind() {
            let _ = writeln!(text, "WARNING: {kind}");
        }
        // What is shredded already is nobody's any more.
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

    /// For an error that says that there is no such scope.
    pub(super) fn hint(&self) -> String {
        let mut text = String::new();
        if !self.similar.is_empty() {
            let _ = write!(text, "; under this id there is {}", self.others());
        }
        if let Some(kind) = self.kind() {
            let _ = write!(text, "; {}", kind.trim_end_matches('.'));
        }
        text
    }

    pub(super) fn within(&self, mut json: Value) -> Value {
        json["kind_known"] = match self.schemas {
            Some((_, KindIs::Known)) => true.into(),
            Some((_, KindIs::Unknown)) => false.into(),
            Some((_, KindIs::PerhapsAnAggregate)) | None => Value::Null,
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

    /// With marks around ids, so that white space can be seen.
    fn others(&self) -> String {
        let others = self.similar.iter().map(|(other, state)| {
            let id = if other.id() == self.scope.id() { shown(other.id()) } else { format!("'{}'", shown(other.id())) };
            format!("{} {id} ({})", shown(other.kind()), state.as_str())
        });
        others.collect::<Vec<_>>().join(", ")
    }
}
