//! Checks of declarative steps: each change makes sense, and protected values stay protected.

use crate::json::pointer::{JsonPointer, Pattern, Token, array_index, text_of};
use crate::json::scan::SEAL_MEMBER;
use crate::schema::problem::SchemaProblem;
use crate::schema::type_version::TypeVersion;
use crate::schema::upcast::changes::Change;
use crate::seal::plan::{FieldOwner, Plan};

/// The problem of a change by itself, if it has one.
pub(crate) fn check_change(change: &Change<Pattern>) -> Option<SchemaProblem> {
    let places = match change {
        Change::Move { from, to } | Change::Copy { from, to } => [from, to],
        Change::Default { at, .. } | Change::Remove { at } | Change::Map { at, .. } => [at, at],
    };
    if let Some(place) = places.into_iter().find(|place| place.has_members()) {
        return Some(SchemaProblem::Members(place.as_str().to_owned()));
    }
    match change {
        Change::Move { from, to } => ends_in_member(from)
            .or_else(|| same_elements(from, to, from.up_to_last_star() == to.up_to_last_star()))
            .or_else(|| apart(from, to))
            .or_else(|| not_the_header(from))
            .or_else(|| not_the_header(to)),
        Change::Copy { from, to } => ends_in_member(to)
            .or_else(|| same_elements(from, to, to.up_to_last_star().starts_with(from.up_to_last_star())))
            .or_else(|| apart(from, to))
            .or_else(|| not_the_header(from))
            .or_else(|| not_the_header(to)),
        Change::Default { at, .. } | Change::Remove { at } => ends_in_member(at).or_else(|| not_the_header(at)),
        Change::Map { at, .. } => not_the_header(at),
    }
}

fn ends_in_member(pattern: &Pattern) -> Option<SchemaProblem> {
    let is_element = pattern.tokens().last() == Some(&Token::Each);
    is_element.then(|| SchemaProblem::Element(pattern.as_str().to_owned()))
}

fn same_elements(from: &Pattern, to: &Pattern, same: bool) -> Option<SchemaProblem> {
    (!same).then(|| SchemaProblem::OtherElements(from.as_str().to_owned(), to.as_str().to_owned()))
}

fn apart(from: &Pattern, to: &Pattern) -> Option<SchemaProblem> {
    from.overlaps(to).then(|| SchemaProblem::IntoItself(from.as_str().to_owned(), to.as_str().to_owned()))
}

fn not_the_header(pattern: &Pattern) -> Option<SchemaProblem> {
    let is_header = pattern.tokens().first() == Some(&Token::Name(SEAL_MEMBER.to_owned()));
    is_header.then(|| SchemaProblem::Pointer(pattern.as_str().to_owned(), "is the header's own place"))
}

/// A place where protected plaintext may be.
struct Tracked {
    /// Where it was in the old version.
    origin: String,
    tokens: Vec<Token>,
}

/// How a tracked place lies relative to a place that a change names.
#[derive(PartialEq, Eq)]
enum Lies {
    Elsewhere,
    /// The tracked place is the named place, or is inside it.
    Inside,
    /// The tracked place may be inside: one of the two has an index where the other has a `*`.
    PerhapsInside,
    /// The named place is inside the tracked place.
    Around,
}

fn lies(tracked: &[Token], named: &[Token]) -> Lies {
    let mut certain = true;
    for pair in tracked.iter().zip(named) {
        match pair {
            (Token::Each, Token::Each) | (Token::Member, Token::Member) => {}
            (Token::Name(a), Token::Name(b)) if a == b => {}
            (Token::Member, Token::Name(_)) | (Token::Name(_), Token::Member) => certain = false,
            (Token::Each, Token::Name(index)) | (Token::Name(index), Token::Each) if array_index(index).is_some() => {
                certain = false;
            }
            _ => return Lies::Elsewhere,
        }
    }
    match (tracked.len() >= named.len(), certain) {
        (true, true) => Lies::Inside,
        (true, false) => Lies::PerhapsInside,
        (false, _) => Lies::Around,
    }
}

/// Follows the places that `from` protects through the changes. `to` must protect the places where they end.
pub(crate) fn check_carried(
    changes: &[Change<Pattern>],
    from: &Plan,
    target: &TypeVersion,
    to: &Plan,
) -> Vec<SchemaProblem> {
    let mut problems = Vec::new();
    let whole = from.whole.iter().map(|_| Tracked { origin: String::new(), tokens: Vec::new() });
    let fields = from.fields.iter().filter_map(|field| field.pattern.as_ref());
    let fields =
        fields.map(|pattern| Tracked { origin: pattern.as_str().to_owned(), tokens: pattern.tokens().to_vec() });
    let mut tracked: Vec<Tracked> = whole.chain(fields).collect();
    for change in changes {
        match change {
            Change::Move { from, to } => transfer(&mut tracked, from, to, true, &mut problems),
            Change::Copy { from, to } => transfer(&mut tracked, from, to, false, &mut problems),
            Change::Remove { at } => tracked.retain(|place| lies(&place.tokens, at.tokens()) != Lies::Inside),
            Change::Default { .. } => {}
            Change::Map { at, .. } => {
                let inside = tracked.iter().find(|place| {
                    place.tokens.len() > at.tokens().len()
                        && matches!(lies(&place.tokens, at.tokens()), Lies::Inside | Lies::PerhapsInside)
                });
                if let Some(place) = inside {
                    problems.push(SchemaProblem::MapsAround(at.as_str().to_owned(), text_of(&place.tokens)));
                }
            }
        }
    }
    for place in tracked {
        if !covers(to, &place.tokens) {
            problems.push(SchemaProblem::LeavesProtection {
                from: JsonPointer::new_unchecked(place.origin),
                to: JsonPointer::new_unchecked(text_of(&place.tokens)),
                event_type: target.event_type.clone(),
                event_version: target.number(),
            });
        }
    }
    problems.extend(lost_owners(changes, to).into_iter().map(|(id, field)| SchemaProblem::OwnerLost {
        id,
        field,
        event_type: target.event_type.clone(),
        event_version: target.number(),
    }));
    problems.dedup();
    problems
}

/// The ids of subjects that the new version needs and the changes remove. Each comes with a field that needs it.
fn lost_owners(changes: &[Change<Pattern>], to: &Plan) -> Vec<(String, String)> {
    let is_lost = |id: &Pattern| {
        changes.iter().fold(false, |lost, change| {
            let takes = |at: &Pattern| lies(id.tokens(), at.tokens()) == Lies::Inside;
            // A place around the id, or one that may be the id's place, may hold it.
            let gives = |at: &Pattern| lies(id.tokens(), at.tokens()) != Lies::Elsewhere;
            match change {
                Change::Move { from, to } => (lost || takes(from)) && !gives(to),
                Change::Copy { to, .. } => lost && !gives(to),
                Change::Default { at, .. } => lost && !gives(at),
                Change::Remove { at } => lost || takes(at),
                Change::Map { .. } => lost,
            }
        })
    };
    let subjects = to.fields.iter().chain(&to.whole).filter_map(|field| match &field.owner {
        FieldOwner::Subject { capture, .. } => Some((to.captures.get(*capture)?, field)),
        // Steps of the payload do not change the metadata.
        FieldOwner::Aggregate { .. }
        | FieldOwner::Member { .. }
        | FieldOwner::Function { .. }
        | FieldOwner::Beside { .. } => None,
    });
    let lost = subjects.filter(|(id, _)| is_lost(id));
    lost.map(|(id, field)| {
        (
            id.as_str().to_owned(),
            field.pattern.as_ref().map_or_else(|| "the payload".to_owned(), |field| field.as_str().to_owned()),
        )
    })
    .collect()
}

fn transfer(
    tracked: &mut Vec<Tracked>,
    from: &Pattern,
    to: &Pattern,
    is_move: bool,
    problems: &mut Vec<SchemaProblem>,
) {
    let mut arrived = Vec::new();
    tracked.retain(|place| {
        let lies = lies(&place.tokens, from.tokens());
        let rest = match lies {
            Lies::Elsewhere => return true,
            Lies::Inside | Lies::PerhapsInside => &place.tokens[from.tokens().len()..],
            // A part of a protected value is as sensitive as the whole.
            Lies::Around => &[],
        };
        arrived.push(Tracked { origin: place.origin.clone(), tokens: [to.tokens(), rest].concat() });
        !(is_move && lies == Lies::Inside)
    });
    // If the whole payload is protected, no change is made once it is erased, so nothing can be lost.
    let around =
        tracked.iter().find(|place| !place.tokens.is_empty() && lies(&place.tokens, to.tokens()) == Lies::Around);
    if let Some(place) = around {
        problems.push(SchemaProblem::IntoProtected(
            from.as_str().to_owned(),
            to.as_str().to_owned(),
            text_of(&place.tokens),
        ));
    }
    tracked.extend(arrived);
}

/// Is everything at this place protected?
fn covers(plan: &Plan, place: &[Token]) -> bool {
    let covers = |field: &Pattern| {
        field.tokens().len() <= place.len()
            && field.tokens().iter().zip(place).all(|pair| match pair {
                (Token::Each, Token::Each) | (Token::Member, Token::Member) => true,
                (Token::Name(a), Token::Name(b)) => a == b,
                // If the name is not that of an array's element, there is an object.
                (Token::Member, Token::Name(name)) => array_index(name).is_none(),
                (Token::Each, Token::Member) | (Token::Member, Token::Each) | (Token::Name(_), Token::Member) => false,
                // A name that looks like an index may as well be the name of an object's member, which no `*` stands
                // for.
                (Token::Each, Token::Name(_)) | (Token::Name(_), Token::Each) => false,
            })
    };
    plan.whole.is_some() || plan.fields.iter().filter_map(|field| field.pattern.as_ref()).any(covers)
}
