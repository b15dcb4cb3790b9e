//! Walks the tree of a type, and makes the declaration of a version from it: pointers with their owners.

use super::{
    Body, EventPart, FieldLayout, Kind, Layout, OwnerRule, Rules, StandInRule, Tagging, TypeLayout, VariantLayout,
};
use crate::json::pointer::{Token, text_of};
use crate::schema::declare::{Derived, FieldDecl, Owner, StandInDecl, VersionDecl};
use crate::schema::problem::SchemaProblem;
use crate::seal::stand_in::StandInFn;
use std::any::type_name;

/// The declaration of a version whose payloads are of type `T`.
pub(crate) fn declared<T: EventPart>(number: u32) -> VersionDecl {
    let mut walk = Walk { problems: Vec::new(), stack: Vec::new(), again: Vec::new(), is_list: false };
    let leaves = walk.layout(T::layout(), &Level::default());
    let derived = Some(Derived { name: type_name::<T>(), stands: stands_at(T::layout()) });
    let mut version = VersionDecl { number, derived, ..VersionDecl::default() };
    for leaf in leaves {
        let Holds::Protected(protected) = leaf.holds else { continue };
        let pointer = text_of(&leaf.tokens);
        let Some(owner) = protected.owner else {
            walk.problems.push(SchemaProblem::NoOwner(pointer));
            continue;
        };
        version.stand_ins.extend(protected.stand_in.map(|stand_in| (pointer.clone(), stand_in)));
        version.pads.extend(protected.pad.map(|pad| (pointer.clone(), pad)));
        match leaf.tokens.is_empty() {
            true => version.whole = Some(FieldDecl { pointer, owner }),
            false => version.fields.push(FieldDecl { pointer, owner }),
        }
    }
    if walk.is_list && !version.fields.is_empty() {
        walk.problems.push(SchemaProblem::ListAtRoot(type_name::<T>()));
    }
    version.unprotected = version.fields.is_empty() && version.whole.is_none();
    if T::PROTECTS && version.unprotected && walk.problems.is_empty() {
        walk.problems.push(SchemaProblem::SaysNotWhere(type_name::<T>()));
    }
    walk.problems.dedup();
    version.problems = walk.problems;
    version
}

/// Where the code of a type with a derive stands.
fn stands_at(layout: Layout) -> &'static str {
    if let Kind::Type(layout) = layout.0 { layout.stands } else { "" }
}

/// Where the walk is, and what was said on the way there.
#[derive(Clone, Default)]
struct Level {
    tokens: Vec<Token>,
    owner: Option<Named>,
    stand_in: Option<StandInRule>,
    pad: Option<usize>,
    /// Other members stand beside what is written here: a variant without content is a member too.
    is_shared: bool,
}

/// An owner that was named on the way.
#[derive(Clone)]
enum Named {
    Owner(Owner),
    /// The owner that the name of a member names, in the next map on the way.
    Key(fn(String) -> Owner),
    /// A field names it that is not where the compiler sees it.
    Unseen(&'static [&'static str]),
}

impl Level {
    fn at(&self, token: Token) -> Self {
        let mut level = self.clone();
        level.is_shared = false;
        level.tokens.push(token);
        level
    }

    fn member(&self, name: &str) -> Self {
        self.at(Token::Name(name.to_owned()))
    }

    /// What is said later, further in, wins. `owner` is made of the rule's owner, where it names one here.
    fn with(&self, rules: &Rules, owner: Option<Named>) -> Self {
        let mut level = self.clone();
        level.owner = owner.or(level.owner);
        level.stand_in = rules.stand_in.or(level.stand_in);
        level.pad = rules.pad.or(level.pad);
        level
    }
}

impl StandInRule {
    fn declared(self) -> StandInDecl {
        match self {
            Self::Value(value) => StandInDecl::Value(value()),
            Self::Computed(name, function) => StandInDecl::Computed(StandInFn::new(name, function)),
        }
    }
}

/// A place at which the walk ended.
#[derive(Clone, PartialEq)]
struct Leaf {
    tokens: Vec<Token>,
    holds: Holds,
}

#[derive(Clone, PartialEq)]
enum Holds {
    Plain,
    /// Members of any name, beside those of other fields.
    AnyMembers,
    /// A text, in place of an object: a variant without content.
    Text(&'static str),
    Protected(Protected),
}

#[derive(Clone, PartialEq)]
struct Protected {
    owner: Option<Owner>,
    stand_in: Option<StandInDecl>,
    pad: Option<usize>,
}

const BY_A_FUNCTION: &str = "that a function writes, or in a variant without a tag";
const READ_OTHERWISE: &str = "and is read as another type than it is written as";

struct Walk {
    problems: Vec<SchemaProblem>,
    /// The types that the walk is in, by name and place.
    stack: Vec<(&'static str, &'static str)>,
    /// The types that hold themselves.
    again: Vec<(&'static str, &'static str)>,
    /// The payload is a list.
    is_list: bool,
}

impl Walk {
    fn layout(&mut self, layout: Layout, level: &Level) -> Vec<Leaf> {
        match layout.0 {
            Kind::Plain => vec![Leaf { tokens: level.tokens.clone(), holds: Holds::Plain }],
            Kind::Protected => vec![Leaf {
                tokens: level.tokens.clone(),
                holds: Holds::Protected(Protected {
                    owner: self.owner(level),
                    stand_in: level.stand_in.map(StandInRule::declared),
                    pad: level.pad,
                }),
            }],
            Kind::Same(layout) => self.layout(layout(), level),
            Kind::Each(layout) => {
                self.is_list |= level.tokens.is_empty();
                self.layout(layout(), &level.at(Token::Each))
            }
            Kind::Elements(layouts) => {
                self.is_list |= level.tokens.is_empty();
                let elements = layouts.iter().enumerate();
                elements.flat_map(|(at, layout)| self.layout(layout(), &level.member(&at.to_string()))).collect()
            }
            Kind::Map(names, members) => {
                let is_protected =
                    |leaves: &[Leaf]| leaves.iter().any(|leaf| matches!(leaf.holds, Holds::Protected(_)));
                let mut inside = level.at(Token::Member);
                if let Some(Named::Key(owner)) = &inside.owner {
                    let label = text_of(&inside.tokens).rsplit('/').next().unwrap_or_default().to_owned();
                    inside.owner = Some(Named::Owner(owner(label)));
                }
                let leaves = self.layout(members(), &inside);
                // The compiler finds it too, but for a type that holds itself.
                if is_protected(&self.layout(names(), &inside)) {
                    self.problems.push(SchemaProblem::HasNoPlace(text_of(&level.tokens), "in names of members"));
                } else if is_protected(&leaves) && (level.is_shared || level.tokens.is_empty()) {
                    self.problems.push(SchemaProblem::HasNoPlace(text_of(&level.tokens), "beside other members"));
                } else if is_protected(&leaves) {
                    return leaves;
                }
                vec![Leaf { tokens: level.tokens.clone(), holds: Holds::Plain }]
            }
            Kind::Type(layout) => self.type_layout(layout, level),
        }
    }

    fn owner(&mut self, level: &Level) -> Option<Owner> {
        match level.owner.clone()? {
            Named::Owner(owner) => Some(owner),
            Named::Unseen(path) => {
                let (pointer, path) = (text_of(&level.tokens), path.join("."));
                self.problems.push(SchemaProblem::OwnerUnseen { pointer, path });
                Some(Owner::Aggregate) // it is a problem already
            }
            Named::Key(owner) => {
                self.problems.push(SchemaProblem::KeyOfNoMap(text_of(&level.tokens)));
                Some(owner(String::new()))
            }
        }
    }

    fn type_layout(&mut self, layout: &'static TypeLayout, level: &Level) -> Vec<Leaf> {
        let name = (layout.name)();
        let id = (name, layout.stands);
        if self.stack.contains(&id) {
            self.again.push(id);
            return vec![Leaf { tokens: level.tokens.clone(), holds: Holds::Plain }];
        }
        self.stack.push(id);
        let leaves = match &layout.body {
            Body::Variants(tagging, variants) => self.variants(name, *tagging, variants, &layout.rules, level),
            body => {
                let owner = owner_at(layout.rules.owner.as_ref(), body, level);
                self.body(body, &level.with(&layout.rules, owner))
            }
        };
        self.stack.pop();
        let leaves = if layout.is_opaque { self.opaque(&leaves, level, READ_OTHERWISE) } else { leaves };
        if self.again.contains(&id) && leaves.iter().any(|leaf| matches!(leaf.holds, Holds::Protected(_))) {
            self.problems.push(SchemaProblem::HoldsItself(name));
        }
        leaves
    }

    fn body(&mut self, body: &Body, level: &Level) -> Vec<Leaf> {
        match body {
            // `type_layout` knows more about an enum.
            Body::Nothing | Body::Variants(..) => Vec::new(),
            Body::Other(layout) => self.layout(layout(), level),
            Body::Newtype(field) => self.field(field, std::slice::from_ref(field), level),
            Body::Members(fields) => {
                let mut all: Vec<Leaf> = Vec::new();
                for field in *fields {
                    let leaves = self.field(field, fields, level);
                    self.compare(&all, &leaves, level);
                    all.extend(leaves);
                }
                all
            }
            Body::Elements(fields) => {
                self.is_list |= level.tokens.is_empty();
                fields.iter().flat_map(|field| self.field(field, fields, level)).collect()
            }
        }
    }

    /// The leaves of a field. Its owner may be named by another of `fields`.
    fn field(&mut self, field: &FieldLayout, fields: &[FieldLayout], level: &Level) -> Vec<Leaf> {
        let level = level.with(&field.rules, owner_among(field.rules.owner.as_ref(), fields, level));
        let layout = (field.layout)();
        if field.is_opaque {
            let leaves = self.layout(layout, &level);
            let mut leaves = self.opaque(&leaves, &level, BY_A_FUNCTION);
            for leaf in &mut leaves {
                leaf.tokens.extend(field.names.first().map(|name| Token::Name((*name).to_owned())));
            }
            return leaves;
        }
        if field.flatten {
            let level = Level { is_shared: true, ..level };
            let mut leaves = self.layout(layout, &level);
            for leaf in &mut leaves {
                if leaf.tokens == level.tokens && leaf.holds == Holds::Plain {
                    leaf.holds = Holds::AnyMembers;
                }
            }
            return leaves;
        }
        if field.names.is_empty() {
            return self.layout(layout, &level);
        }
        field.names.iter().flat_map(|name| self.layout(layout, &level.member(name))).collect()
    }

    /// Nothing in here can be protected, because nobody knows where it is written.
    fn opaque(&mut self, leaves: &[Leaf], level: &Level, because: &'static str) -> Vec<Leaf> {
        if leaves.iter().any(|leaf| matches!(leaf.holds, Holds::Protected(_))) {
            self.problems.push(SchemaProblem::HasNoPlace(text_of(&level.tokens), because));
        }
        vec![Leaf { tokens: level.tokens.clone(), holds: Holds::Plain }]
    }

    fn variants(
        &mut self,
        type_name: &'static str,
        tagging: Tagging,
        variants: &[VariantLayout],
        rules: &Rules,
        level: &Level,
    ) -> Vec<Leaf> {
        let mut all: Vec<(&'static str, Leaf)> = Vec::new();
        for variant in variants {
            let leaves = self.variant(tagging, variant, rules, level);
            for leaf in leaves {
                let clash = all.iter().find(|(_, known)| disagree(known, &leaf));
                if let Some((other, known)) = clash {
                    let protected = if matches!(known.holds, Holds::Protected(_)) { known } else { &leaf };
                    let text = match (&known.holds, &leaf.holds) {
                        (Holds::Text(text), _) | (_, Holds::Text(text)) => Some(*text),
                        _ => None,
                    };
                    self.problems.push(match text {
                        Some(text) => SchemaProblem::VariantIsText { enumeration: type_name, variant: text },
                        None => SchemaProblem::VariantsDisagree {
                            enumeration: type_name,
                            pointer: text_of(&protected.tokens),
                            variants: (*other, variant.ident),
                        },
                    });
                } else if !all.iter().any(|(_, known)| *known == leaf) {
                    all.push((variant.ident, leaf));
                }
            }
        }
        all.into_iter().map(|(_, leaf)| leaf).collect()
    }

    fn variant(&mut self, tagging: Tagging, variant: &VariantLayout, rules: &Rules, level: &Level) -> Vec<Leaf> {
        let mut leaves = Vec::new();
        let mut within = |walk: &mut Self, level: &Level| {
            let owner = owner_at(rules.owner.as_ref(), &variant.body, level);
            let found = walk.body(&variant.body, &level.with(rules, owner));
            leaves.extend(if variant.is_opaque { walk.opaque(&found, level, BY_A_FUNCTION) } else { found });
        };
        match tagging {
            Tagging::External if matches!(variant.body, Body::Nothing) && !level.is_shared => {
                leaves.push(Leaf { tokens: level.tokens.clone(), holds: Holds::Text(variant.ident) });
            }
            Tagging::External => variant.names.iter().for_each(|name| within(self, &level.member(name))),
            Tagging::Internal => within(self, &Level { is_shared: true, ..level.clone() }),
            Tagging::Untagged => within(self, level),
            Tagging::Adjacent(content) => within(self, &level.member(content)),
        }
        leaves
    }

    /// Fields that share a level, by `flatten`, share no place.
    fn compare(&mut self, known: &[Leaf], leaves: &[Leaf], level: &Level) {
        for leaf in leaves {
            let is_beside = |known: &&Leaf| known.holds != Holds::AnyMembers && leaf.holds != Holds::AnyMembers;
            if let Some(other) = known.iter().filter(is_beside).find(|known| disagree(known, leaf)) {
                let both = [&other.tokens, &leaf.tokens].map(|tokens| text_of(tokens));
                // The check of the schemas reports it if both are protected.
                if other.tokens != level.tokens && leaf.tokens != level.tokens && is_one_protected(other, leaf) {
                    let [one, two] = both;
                    self.problems.push(SchemaProblem::FieldsOverlap(one, two));
                }
            }
        }
    }
}

fn is_one_protected(a: &Leaf, b: &Leaf) -> bool {
    matches!(a.holds, Holds::Protected(_)) != matches!(b.holds, Holds::Protected(_))
}

/// Do two leaves that can't both be there say different things of one place, or of places inside each other?
fn disagree(a: &Leaf, b: &Leaf) -> bool {
    let is_protected = |leaf: &Leaf| matches!(leaf.holds, Holds::Protected(_));
    if !(is_protected(a) || is_protected(b)) || a == b {
        return false;
    }
    // Lists and objects at one place do not fit the same pointers either.
    let are_apart = |pair: (&Token, &Token)| matches!(pair, (Token::Name(a), Token::Name(b)) if a != b);
    !a.tokens.iter().zip(&b.tokens).any(are_apart)
}

/// The owner that a rule at a type or a variant names. `None` if no rule is there, or if its field is not among these.
fn owner_at(rule: Option<&OwnerRule>, body: &Body, level: &Level) -> Option<Named> {
    match body {
        Body::Members(fields) | Body::Elements(fields) => owner_among(rule, fields, level),
        Body::Newtype(field) => owner_among(rule, std::slice::from_ref(field), level),
        Body::Nothing | Body::Variants(..) | Body::Other(_) => owner_among(rule, &[], level),
    }
}

fn owner_among(rule: Option<&OwnerRule>, fields: &[FieldLayout], level: &Level) -> Option<Named> {
    Some(match rule? {
        OwnerRule::Given(owner) => Named::Owner(owner()),
        OwnerRule::Key(owner) => Named::Key(*owner),
        OwnerRule::Path(owner, path) => match place_of(path, fields, &level.tokens) {
            Some(place) => Named::Owner(owner(text_of(&place))),
            None => Named::Unseen(path),
        },
    })
}

/// The place of a field that is named by the fields on the way to it.
fn place_of(path: &[&str], fields: &[FieldLayout], level: &[Token]) -> Option<Vec<Token>> {
    let (first, mut rest) = path.split_first()?;
    let field = fields.iter().find(|field| field.ident == *first && !field.is_opaque)?;
    let mut tokens = level.to_vec();
    if !field.flatten {
        tokens.extend(field.names.first().map(|name| Token::Name((*name).to_owned())));
    }
    if rest.is_empty() {
        return Some(tokens);
    }
    let mut layout = (field.layout)();
    loop {
        layout = match layout.0 {
            Kind::Same(layout) => layout(),
            Kind::Type(TypeLayout { body: Body::Members(fields) | Body::Elements(fields), .. }) => {
                return place_of(rest, fields, &tokens);
            }
            Kind::Type(TypeLayout { body: Body::Newtype(field), .. }) => {
                return place_of(rest, std::slice::from_ref(field), &tokens);
            }
            Kind::Elements(layouts) => {
                let (index, further) = rest.split_first()?;
                tokens.push(Token::Name((*index).to_owned()));
                if further.is_empty() {
                    return Some(tokens);
                }
                rest = further;
                layouts.get(index.parse::<usize>().ok()?)?()
            }
            _ => return None,
        };
    }
}
