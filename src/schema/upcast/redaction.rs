//! Finds the redacted places of a payload after a step that can't name them itself.
//!
//! A step over `serde_json::Value` may move anything anywhere, and a stand-in looks like any other value. A live value
//! must never be reported as redacted (invariant I4), so nothing is guessed here: without evidence that a value's owner
//! was shredded, the value counts as live. The time is linear in the sizes of the payloads.

use crate::event::AggregateRef;
use crate::json::document::Node;
use crate::json::number::{is_same_value, read_as_float};
use crate::json::pointer::{Bound, JsonPointer, Pattern, Places, Token, array_index};
use crate::keys::names::KeyScope;
use crate::schema::upcast::metadata::Metadata;
use crate::seal::in_the_clear::without;
use crate::seal::normalize::Normalizers;
use crate::seal::places::{KeyOwner, SealedPlaces};
use crate::seal::plan::{Field, FieldOwner, Plan};
use serde_json::{Number, Value};
use std::cell::OnceCell;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// The owners whose keys an event was sealed under: were these keys shredded, or are they live? Worked out when a step
/// asks.
#[derive(Default)]
pub(crate) struct Owners {
    sealed: Option<Arc<SealedPlaces>>,
    normalizers: Normalizers,
    known: OnceCell<Known>,
}

#[derive(Default)]
struct Known {
    /// The scopes whose keys were shredded, by their normalized names: keys may be older than what the schemas say now.
    shredded: HashMap<KeyScope, KeyScope>,
    /// The scopes whose keys are live, by their normalized names.
    live: HashMap<KeyScope, KeyScope>,
    /// Scopes whose ids are integers that serde_json may round, by the scope with the rounded id. `None` if two scopes
    /// are rounded to one.
    rounded: HashMap<KeyScope, Option<KeyScope>>,
}

/// What names owners beside the payload.
#[derive(Clone, Copy)]
pub(super) struct Beside<'e> {
    pub(super) aggregate: &'e AggregateRef,
    /// As it was appended: no step has changed it.
    pub(super) metadata: &'e Metadata<'e>,
    /// What is protected in it.
    pub(super) metadata_plan: &'e Plan,
    /// Keeps what is in the clear in it, once a function asks for it.
    pub(super) metadata_clear: &'e OnceCell<Option<Value>>,
    /// Keeps what is in the clear in one payload, once a function asks for it.
    pub(super) clear: Option<&'e OnceCell<Value>>,
}

impl<'e> Beside<'e> {
    /// What the metadata has in the clear.
    fn clear_metadata(self) -> Option<&'e Value> {
        let clear = || self.metadata.value().map(|metadata| in_the_clear(self.metadata_plan, metadata));
        self.metadata_clear.get_or_init(clear).as_ref()
    }
}

/// What a document has in the clear, by the plan of its version.
fn in_the_clear(plan: &Plan, payload: &Value) -> Value {
    if plan.whole.is_some() {
        return Value::Null;
    }
    let patterns = plan.fields.iter().filter_map(|field| field.pattern.as_ref());
    let protected: Vec<JsonPointer> =
        patterns.flat_map(|pattern| places(payload, pattern)).map(|(place, ..)| place).collect();
    without(Node::Parsed(payload.clone()), &protected).unwrap_or_default()
}

/// What is known about the owner of a place.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Owned {
    /// Its keys were shredded in this event.
    Shredded,
    /// Its keys are live in this event.
    Live,
    /// The event was not sealed under this owner's keys, or it was sealed under several generations of them.
    Elsewhere,
    /// The payload does not name the owner.
    Unnamed,
}

impl Owners {
    pub(crate) fn new(sealed: Arc<SealedPlaces>, normalizers: &Normalizers) -> Self {
        Self { sealed: Some(sealed), normalizers: normalizers.clone(), known: OnceCell::new() }
    }

    fn known(&self) -> &Known {
        let of = |sealed: &Arc<SealedPlaces>| Known::of(sealed.owners(), &self.normalizers);
        self.known.get_or_init(|| self.sealed.as_ref().map(of).unwrap_or_default())
    }

    fn of(&self, plan: &Plan, field: &Field, bound: &[Bound], payload: &Value, beside: Beside<'_>) -> Owned {
        let Some(named) = self.named(plan, field, bound, payload, beside) else { return Owned::Unnamed };
        let known = self.known();
        match (known.shredded.contains_key(&named), known.live.contains_key(&named)) {
            (true, false) => Owned::Shredded,
            (false, true) => Owned::Live,
            _ => Owned::Elsewhere,
        }
    }

    /// The owner that the payload names for a field, under its normalized id. `None` if it names none.
    fn named(
        &self,
        plan: &Plan,
        field: &Field,
        bound: &[Bound],
        payload: &Value,
        beside: Beside<'_>,
    ) -> Option<KeyScope> {
        let named = match &field.owner {
            FieldOwner::Aggregate { kind } => {
                let kind = kind.as_deref().unwrap_or_else(|| beside.aggregate.aggregate_type());
                KeyScope::new(kind, beside.aggregate.aggregate_id())
            }
            FieldOwner::Subject { kind, capture } => {
                let pattern = plan.captures.get(*capture)?;
                self.by_id(kind, payload.pointer(&pattern.at(bound))?)?
            }
            FieldOwner::Function { kind, function } => {
                let clear = beside.clear?.get_or_init(|| in_the_clear(plan, payload));
                let id = function.id(beside.aggregate, beside.clear_metadata(), clear).ok()?;
                KeyScope::new(Arc::clone(kind), id)
            }
            FieldOwner::Member { kind, binding } => match bound.get(*binding)? {
                Bound::Name(name) => KeyScope::new(Arc::clone(kind), Arc::clone(name)),
                Bound::Index(_) => return None,
            },
            FieldOwner::Beside { kind, pointer } => {
                let pattern = plan.beside.get(*pointer)?;
                self.by_id(kind, beside.metadata.value()?.pointer(&pattern.at(&[]))?)?
            }
        };
        Some(self.normalizers.same(named))
    }

    /// The owner of a kind whose id is this value. `None` if it is no id, or if serde_json has rounded it.
    fn by_id(&self, kind: &Arc<str>, id: &Value) -> Option<KeyScope> {
        match id {
            Value::String(id) => Some(KeyScope::new(Arc::clone(kind), id.as_str())),
            Value::Number(id) => {
                let named = KeyScope::new(Arc::clone(kind), id.to_string());
                match self.known().rounded.get(&named) {
                    Some(Some(exact)) => Some(exact.clone()),
                    None if id.is_i64() || id.is_u64() => Some(named),
                    _ => None,
                }
            }
            _ => None,
        }
    }

    /// The owner that the payload names for a field, if the event is sealed under a live key of it. It is named as the
    /// key table names it.
    pub(super) fn live(
        &self,
        plan: &Plan,
        field: &Field,
        bound: &[Bound],
        payload: &Value,
        beside: Beside<'_>,
    ) -> Option<KeyScope> {
        let named = self.named(plan, field, bound, payload, beside)?;
        self.known().live.get(&named).cloned()
    }

    /// As [`live`](Self::live), if the event is sealed under a shredded key of it.
    pub(super) fn shredded(
        &self,
        plan: &Plan,
        field: &Field,
        bound: &[Bound],
        payload: &Value,
        beside: Beside<'_>,
    ) -> Option<KeyScope> {
        let named = self.named(plan, field, bound, payload, beside)?;
        self.known().shredded.get(&named).cloned()
    }

    /// The only owner whose keys were shredded, if there is just one.
    pub(super) fn only_shredded(&self) -> Option<&KeyScope> {
        let shredded = &self.known().shredded;
        shredded.values().next().filter(|_| shredded.len() == 1)
    }
}

impl Known {
    fn of(owners: &[KeyOwner], normalizers: &Normalizers) -> Self {
        let mut known = Self::default();
        for owner in owners {
            let of_state = if owner.is_shredded { &mut known.shredded } else { &mut known.live };
            of_state.entry(normalizers.same(owner.scope.clone())).or_insert_with(|| owner.scope.clone());
        }
        for scope in owners.iter().map(|owner| &owner.scope) {
            let id = scope.id();
            let digits = id.strip_prefix('-').unwrap_or(id);
            let is_wide = id.parse::<i64>().is_err() && id.parse::<u64>().is_err();
            if !is_wide || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
                continue;
            }
            // Even if serde_json keeps spellings, a step may round, for instance by reading into an f64.
            let read = serde_json::from_str::<Number>(id).ok();
            let floating = read.as_ref().and_then(read_as_float);
            for spelled in read.into_iter().chain(floating).map(|number| number.to_string()).collect::<HashSet<_>>() {
                let rounded = known.rounded.entry(KeyScope::new(scope.kind(), spelled));
                let exact = rounded.or_insert_with(|| Some(scope.clone()));
                if exact.as_ref() != Some(scope) {
                    *exact = None;
                }
            }
        }
        known
    }
}

/// A payload before a step, with its redacted places.
pub(crate) struct Before<'p> {
    payload: Value,
    redacted: &'p [JsonPointer],
    places: Places,
    /// The stand-ins of the redacted values, each once.
    stand_ins: Vec<Value>,
    /// For each redacted place in an array, with `*` for the indexes: is this place redacted in every element?
    in_arrays: HashMap<Vec<Token>, bool>,
}

impl<'p> Before<'p> {
    pub(crate) fn new(payload: Value, redacted: &'p [JsonPointer]) -> Self {
        let tree = Places::of(redacted);
        let mut in_arrays = HashMap::new();
        for place in redacted {
            let tokens = any_element(&payload, place);
            if !tokens.contains(&Token::Each) || in_arrays.contains_key(&tokens) {
                continue;
            }
            let pattern = Pattern::from_tokens(tokens);
            let all = places(&payload, &pattern).iter().all(|(place, ..)| tree.at(place).is_some_and(Places::is_place));
            in_arrays.insert(pattern.into_tokens(), all);
        }
        let mut stand_ins = vec![Value::Null];
        for value in redacted.iter().filter_map(|place| payload.pointer(place.as_str())) {
            // There are few different stand-ins, at most as many as the schema has, so a linear search is enough.
            if !stand_ins.iter().any(|known| is_same_value(known, value)) {
                stand_ins.push(value.clone());
            }
        }
        Self { payload, redacted, places: tree, stand_ins, in_arrays }
    }

    /// The places of `after` that are redacted. `split` means that `after` is one of several parts that the step made.
    ///
    /// A place counts if the new version protects it, if it holds a stand-in, and if
    /// - `after` names its owner, whose keys were shredded in this event; or
    /// - the same place was redacted before the step, its value has not changed, and `after` names no live owner for
    ///   it.
    ///
    /// A place that held the same live value before the step does not count: the step did not change it.
    pub(super) fn redacted_after(
        &self,
        after: &Value,
        plan: &Plan,
        owners: &Owners,
        beside: Beside<'_>,
        split: bool,
    ) -> HashSet<JsonPointer> {
        let mut found = HashSet::new();
        let clear = OnceCell::new();
        let beside = Beside { clear: Some(&clear), ..beside };
        for field in &plan.fields {
            let Some(pattern) = &field.pattern else { continue };
            let new_stand_in: Value = serde_json::from_str(&field.stand_in).unwrap_or_default();
            for (place, bound, value) in places(after, pattern) {
                if !is_same_value(value, &new_stand_in)
                    && !self.stand_ins.iter().any(|known| is_same_value(known, value))
                {
                    continue;
                }
                let counts = match owners.of(plan, field, &bound, after, beside) {
                    Owned::Shredded => !self.was_live(&place, value, after, plan, field, &bound),
                    Owned::Live => false,
                    // In a part of a split, the same pointer may be another place. So it is evidence only if the part
                    // does not name an owner at all.
                    Owned::Elsewhere => !split && self.is_kept(&place, value),
                    Owned::Unnamed => self.is_kept(&place, value),
                };
                if counts {
                    found.insert(place);
                }
            }
        }
        if !split {
            // The redacted places inside a place that the new version protects, or around one.
            for place in self.redacted {
                let touches = plan.whole.is_some() || {
                    let tokens = Pattern::from_tokens(place.tokens().map(Token::Name).collect());
                    plan.field_at(place).is_none()
                        && plan
                            .fields
                            .iter()
                            .filter_map(|field| field.pattern.as_ref())
                            .any(|pattern| pattern.overlaps(&tokens))
                };
                if touches && after.pointer(place.as_str()).is_some_and(|value| self.is_kept(place, value)) {
                    found.insert(place.clone());
                }
            }
        }
        found
    }

    /// Is this a redacted place that the step left as it was?
    fn is_kept(&self, place: &JsonPointer, value: &Value) -> bool {
        if !self.places.at(place).is_some_and(Places::is_place) || !self.held(place, value) {
            return false;
        }
        // Elements of an array may have changed places. That does not matter if the place is redacted in all of them.
        self.in_arrays.get(&any_element(&self.payload, place)).is_none_or(|all| *all)
    }

    /// Did the payload have this value there? Spellings of numbers are not compared, because a step that reads numbers
    /// writes them with a new spelling.
    fn held(&self, place: &JsonPointer, value: &Value) -> bool {
        self.payload.pointer(place.as_str()).is_some_and(|before| is_same_value(before, value))
    }

    /// Did the payload have a live `null` there, which was written as such?
    pub(crate) fn held_live_null(&self, place: &JsonPointer) -> bool {
        self.payload.pointer(place.as_str()).is_some_and(Value::is_null) && !self.places.touch(place)
    }

    /// Is this a live value that the step left as it was?
    fn was_live(
        &self,
        place: &JsonPointer,
        value: &Value,
        after: &Value,
        plan: &Plan,
        field: &Field,
        bound: &[Bound],
    ) -> bool {
        if !self.held(place, value) || self.places.touch(place) {
            return false;
        }
        let FieldOwner::Subject { kind, capture } = &field.owner else { return true };
        let Some(id) = plan.captures.get(*capture).map(|pattern| pattern.at(bound)) else { return true };
        let names = |id: &str| plan.normalizers.same(KeyScope::new(Arc::clone(kind), id));
        // Unless the owner's id is the same as before, the value is another owner's: that of another array element, or
        // of another part of a split.
        self.payload
            .pointer(&id)
            .is_none_or(|named| named.is_null() || after.pointer(&id).is_some_and(|id| may_be_same(named, id, &names)))
    }
}

/// May a step have made one id of the other? It may have rounded a wide number, or spelled an id in another way that
/// `names` the same scope.
fn may_be_same(a: &Value, b: &Value, names: &impl Fn(&str) -> KeyScope) -> bool {
    match (a, b) {
        (Value::String(a), Value::String(b)) => a == b || names(a) == names(b),
        (Value::Number(a), Value::Number(b)) => a == b || a.as_f64().is_some_and(|a| b.as_f64() == Some(a)),
        _ => a == b,
    }
}

/// The tokens of a place, with `*` for the indexes of arrays.
fn any_element(value: &Value, place: &JsonPointer) -> Vec<Token> {
    let mut at = Some(value);
    let step = |token: String| match at {
        Some(Value::Array(elements)) => {
            at = array_index(&token).and_then(|index| elements.get(usize::try_from(index).ok()?));
            Token::Each
        }
        Some(Value::Object(members)) => {
            at = members.get(&token);
            Token::Name(token)
        }
        _ => {
            at = None;
            Token::Name(token)
        }
    };
    place.tokens().map(step).collect()
}

pub(super) type Found<'v> = Vec<(JsonPointer, Vec<Bound>, &'v Value)>;

/// The places in a value that a pattern means, each with what the open steps on its way stand for and the value there.
pub(super) fn places<'v>(value: &'v Value, pattern: &Pattern) -> Found<'v> {
    fn walk<'v>(value: &'v Value, pattern: &Pattern, tokens: &[Token], bound: &mut Vec<Bound>, found: &mut Found<'v>) {
        match (tokens, value) {
            ([], _) => found.push((JsonPointer::new_unchecked(pattern.at(bound)), bound.clone(), value)),
            ([Token::Name(name), rest @ ..], Value::Object(members)) => {
                if let Some(member) = members.get(name) {
                    walk(member, pattern, rest, bound, found);
                }
            }
            ([Token::Name(name), rest @ ..], Value::Array(elements)) => {
                if let Some(element) = array_index(name).and_then(|index| elements.get(usize::try_from(index).ok()?)) {
                    walk(element, pattern, rest, bound, found);
                }
            }
            ([Token::Each, rest @ ..], Value::Array(elements)) => {
                for (index, element) in (0..).zip(elements) {
                    bound.push(Bound::Index(index));
                    walk(element, pattern, rest, bound, found);
                    bound.pop();
                }
            }
            ([Token::Member, rest @ ..], Value::Object(members)) => {
                for (name, member) in members {
                    bound.push(Bound::Name(name.as_str().into()));
                    walk(member, pattern, rest, bound, found);
                    bound.pop();
                }
            }
            _ => {}
        }
    }
    let mut found = Vec::new();
    walk(value, pattern, pattern.tokens(), &mut Vec::new(), &mut found);
    found
}
