//! Checks where owners are named outside of payloads.

use crate::error::InputFault;
use crate::event::check_text;
use crate::json::pointer::{Pattern, Token};
use crate::json::scan::{MAX_DEPTH, SEAL_MEMBER};
use crate::schema::check::{CheckVersion, TOO_DEEP};
use crate::schema::problem::SchemaProblem;
use crate::seal::plan::{FieldOwner, IN_METADATA, Plan};

impl CheckVersion<'_> {
    /// Each kind that the caller names is written to one place, and each of these places has one kind.
    pub(super) fn check_callers(&mut self, plan: &Plan) {
        let mut known: Vec<(&str, usize)> = Vec::new();
        for field in &plan.fields {
            let FieldOwner::Metadata { kind, pointer, by_caller: true } = &field.owner else { continue };
            let at = |pointer: usize| plan.metadata.get(pointer).map_or("", Pattern::as_str).to_owned();
            if known.contains(&(&**kind, *pointer)) {
                continue;
            }
            if let Some((_, other)) = known.iter().find(|(other, _)| **other == **kind) {
                self.add(SchemaProblem::CallerAtTwo(kind.to_string(), at(*other), at(*pointer)));
            } else if let Some((other, _)) = known.iter().find(|(_, other)| other == pointer) {
                self.add(SchemaProblem::CallersAtOne((*other).to_owned(), kind.to_string(), at(*pointer)));
            }
            known.push((&**kind, *pointer));
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

    /// The index of the pointer into the metadata at which a scope's id stands.
    pub(super) fn in_metadata(&mut self, id: &str, known: &mut Vec<Pattern>) -> usize {
        let pattern = match Pattern::parse(id) {
            Ok(pattern) => pattern,
            Err(problem) => {
                let problem = match id {
                    "" => "is all of the metadata: name the member that holds the id",
                    _ => problem,
                };
                self.add(SchemaProblem::ScopePointer(format!("{id}{IN_METADATA}"), problem.to_owned()));
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
            self.add(SchemaProblem::ScopePointer(format!("{id}{IN_METADATA}"), problem.to_owned()));
        }
        known.iter().position(|known| *known == pattern).unwrap_or_else(|| {
            known.push(pattern);
            known.len() - 1
        })
    }
}
