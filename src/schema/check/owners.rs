//! Checks where owners are named.

use crate::error::InputFault;
use crate::event::{EventDocument, check_text};
use crate::json::pointer::{Pattern, Token};
use crate::json::scan::{MAX_DEPTH, SEAL_MEMBER};
use crate::schema::check::version::{CheckVersion, TOO_DEEP};
use crate::schema::problem::SchemaProblem;
use crate::seal::plan::{FieldOwner, IN_METADATA, Plan};
use std::sync::Arc;

impl CheckVersion<'_> {
    /// An owner that the document itself names.
    pub(super) fn named_here(
        &mut self,
        kind: &Arc<str>,
        id: &str,
        field: Option<&Pattern>,
        plan: &mut Plan,
    ) -> FieldOwner {
        let capture = self.capture(id, field, &mut plan.captures);
        FieldOwner::Subject { kind: Arc::clone(kind), capture }
    }

    /// An owner that the other document names.
    pub(super) fn named_beside(&mut self, kind: &Arc<str>, id: &str, plan: &mut Plan) -> FieldOwner {
        let pointer = self.in_the_other(id, plan);
        FieldOwner::Beside { kind: Arc::clone(kind), pointer }
    }

    /// Notes a place that an append writes. Each kind that the caller names is written to one place, and each of these
    /// places has one kind.
    pub(super) fn caller(&mut self, kind: &Arc<str>, id: &str) {
        let Ok(pattern) = Pattern::parse(id) else { return };
        if pattern.stars() > 0 {
            let problem = "has a '*' or a name in braces: an append writes one place";
            return self.add(SchemaProblem::ScopePointer(format!("{id}{IN_METADATA}"), problem.to_owned()));
        }
        let at_another = self.callers.iter().find(|(known, place)| known == kind && *place != pattern);
        let of_another = self.callers.iter().find(|(known, place)| known != kind && *place == pattern);
        match (at_another, of_another) {
            (Some((_, place)), _) => {
                let place = place.as_str().to_owned();
                self.add(SchemaProblem::CallerAtTwo(kind.to_string(), place, id.to_owned()));
            }
            (None, Some((other, _))) => {
                let other = other.to_string();
                self.add(SchemaProblem::CallersAtOne(other, kind.to_string(), id.to_owned()));
            }
            (None, None) if self.callers.iter().any(|(known, _)| known == kind) => {}
            (None, None) => self.callers.push((Arc::clone(kind), pattern)),
        }
    }

    /// A function has a name, which the schema lock holds.
    pub(super) fn function(&mut self, name: &str) {
        if let Err(crate::Error::Input(InputFault::InvalidText { problem, .. })) = check_text("", name) {
            self.add(SchemaProblem::FunctionName(problem));
        }
    }

    /// The number, among the open steps of a field's pattern, of the name in braces that is an owner's id.
    pub(super) fn binding(&mut self, id: &str, field: Option<&Pattern>) -> usize {
        let found = field.and_then(|field| field.bindings().position(|known| known == id));
        found.unwrap_or_else(|| {
            let field = field.map_or("the whole payload", Pattern::as_str);
            let problem =
                format!("is no name in braces of {field}: name a member there, such as /guests/{{guest}}/name");
            self.add(SchemaProblem::ScopePointer(id.to_owned(), problem));
            0
        })
    }

    /// The index of the pointer into the other document at which a scope's id stands.
    fn in_the_other(&mut self, id: &str, plan: &mut Plan) -> usize {
        let in_it = plan.beside_is();
        let pattern = match Pattern::parse(id) {
            Ok(pattern) => pattern,
            Err(problem) => {
                let problem = match (id, self.document) {
                    ("", EventDocument::Payload) => "is all of the metadata: name the member that holds the id",
                    ("", EventDocument::Metadata) => "is all of the payload: name the member that holds the id",
                    _ => problem,
                };
                self.add(SchemaProblem::ScopePointer(format!("{id}{in_it}"), problem.to_owned()));
                return 0;
            }
        };
        let first = pattern.tokens().first();
        let problem = if pattern.stars() > 0 {
            Some("has a '*' or a name in braces: which one's id would it be? Name one place")
        } else if first == Some(&Token::Name(SEAL_MEMBER.to_owned())) {
            Some("is the place of a header, which names no owner")
        } else if pattern.tokens().len() > MAX_DEPTH {
            Some(TOO_DEEP)
        } else {
            None
        };
        if let Some(problem) = problem {
            self.add(SchemaProblem::ScopePointer(format!("{id}{in_it}"), problem.to_owned()));
        }
        let known = &mut plan.beside;
        known.iter().position(|known| *known == pattern).unwrap_or_else(|| {
            known.push(pattern);
            known.len() - 1
        })
    }
}
