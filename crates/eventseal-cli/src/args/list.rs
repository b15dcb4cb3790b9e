//! The arguments of `keys list`.

use super::Database;
use clap::Args;
use eventseal::KeyScope;
use eventseal::keys::{ScopeQuery, ScopeState};

#[derive(Debug, Args)]
#[command(after_help = "\
Needs no master key, and shows no key material. Scopes come in the order of kind and id, byte by byte. With \
--partition or --state, all scopes of the kind are read until the page is full, which takes a while if there are \
millions. The partition is that of the scope's newest data key.

Examples:
  eventseal keys list
  eventseal keys list --kind Customer --state disabled
  eventseal keys list --partition tenant_7 --limit 1000 --json
  eventseal keys list --after Customer cust_42")]
pub(crate) struct List {
    /// Only scopes of this kind
    #[arg(long, value_name = "KIND")]
    kind: Option<String>,
    /// Only scopes whose newest data key belongs to this partition
    #[arg(long, value_name = "NAME")]
    partition: Option<String>,
    /// Only scopes in this state
    #[arg(long)]
    state: Option<State>,
    /// Only scopes after this one
    #[arg(long, value_names = ["KIND", "ID"], num_args = 2, allow_hyphen_values = true)]
    after: Option<Vec<String>>,
    /// How many scopes a page has
    #[arg(long, value_name = "SCOPES", default_value_t = 100)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=100_000))]
    limit: u32,
    #[command(flatten)]
    pub(crate) database: Database,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum State {
    Live,
    Disabled,
    Withheld,
    Shredded,
}

impl List {
    pub(crate) fn query(&self) -> ScopeQuery {
        let mut query = ScopeQuery::default();
        query.kind.clone_from(&self.kind);
        query.partition.clone_from(&self.partition);
        query.state = self.state.map(|state| match state {
            State::Live => ScopeState::Live,
            State::Disabled => ScopeState::Disabled,
            State::Withheld => ScopeState::Withheld,
            State::Shredded => ScopeState::Shredded,
        });
        query.after = self.after.as_deref().and_then(|after| match after {
            [kind, id] => Some(KeyScope::new(kind.as_str(), id.as_str())),
            _ => None,
        });
        query.limit = self.limit;
        query
    }
}
