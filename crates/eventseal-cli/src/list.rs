//! `keys list`: lists scopes in pages.

use crate::args::List;
use crate::connect::{connect, on};
use crate::master_key::NoMasterKey;
use crate::output::{Failure, Report, count, number, shown, table};
use eventseal::keys::{ScopeInfo, ScopePage, ScopeQuery};
use serde_json::{Value, json};
use std::sync::Arc;

pub(crate) async fn list(args: List) -> Result<Report, Failure> {
    let query = args.query();
    on!(connect(&args.database).await?, db => {
        let namespace = db.namespace().await?;
        let manager = db.manager(Arc::new(NoMasterKey));
        let page = manager.scopes(&mut db.connection, &query).await?;
        Ok(Report::new(describe(&page, &query), as_json(&page)).of(&namespace, &db.place))
    })
}

fn describe(page: &ScopePage, query: &ScopeQuery) -> String {
    if page.scopes.is_empty() {
        let is_all =
            query.kind.is_none() && query.partition.is_none() && query.state.is_none() && query.after.is_none();
        return if is_all { "No scope yet." } else { "There is no such scope." }.to_owned();
    }
    let rows = page.scopes.iter().map(|listed| {
        let partition = listed.partition.as_deref().map(shown).unwrap_or_default();
        vec![
            shown(listed.scope.kind()),
            shown(listed.scope.id()),
            listed.state.as_str().to_owned(),
            listed.generation.to_string(),
            number(listed.last_version.unwrap_or_default().into()),
            partition,
        ]
    });
    let mut text = table(&["KIND", "ID", "STATE", ">GENERATION", ">DATA KEYS", "PARTITION"], rows);
    if let Some(next) = &page.next {
        let (kind, id) = (in_shell(next.kind()), in_shell(next.id()));
        let listed = count(page.scopes.len() as u64, "scope");
        text.push_str(&format!("\n\n{listed}, and there are more: add --after {kind} {id}"));
    }
    text
}

/// A word as a shell reads it. Control characters are shown escaped, and can't be passed like that: use the JSON.
fn in_shell(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':' | '/' | '@' | '+' | ',');
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", shown(word).replace('\'', r"'\''"))
}

fn as_json(page: &ScopePage) -> Value {
    let listed = |listed: &ScopeInfo| {
        json!({
            "kind": listed.scope.kind(),
            "id": listed.scope.id(),
            "state": listed.state.as_str(),
            "generation": listed.generation,
            "last_version": listed.last_version,
            "partition": listed.partition,
        })
    };
    json!({
        "scopes": page.scopes.iter().map(listed).collect::<Vec<_>>(),
        "next": page.next.as_ref().map(|next| json!({ "kind": next.kind(), "id": next.id() })),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_for_a_shell() {
        for (word, expected) in
            [("cust_42", "cust_42"), ("", "''"), ("Ada's $HOME", r"'Ada'\''s $HOME'"), ("a\nb", r"'a\nb'")]
        {
            assert_eq!(in_shell(word), expected);
        }
    }
}
