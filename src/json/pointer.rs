//! JSON Pointers ([RFC 6901]), and patterns of them.
//!
//! [RFC 6901]: https://www.rfc-editor.org/rfc/rfc6901

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// A concrete place in a JSON document: a JSON Pointer ([RFC 6901]), such as `/lines/0/name`.
///
/// [RFC 6901]: https://www.rfc-editor.org/rfc/rfc6901
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct JsonPointer(Arc<str>);

impl JsonPointer {
    /// The whole document.
    #[must_use]
    pub fn root() -> Self {
        Self("".into())
    }

    /// Parses a pointer. Returns `None` if the text is neither empty nor starts with `/`, or if a `~` is not followed
    /// by `0` or `1`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::is_valid(text).then(|| Self(text.into()))
    }

    pub(crate) fn is_valid(text: &str) -> bool {
        (text.is_empty() || text.starts_with('/')) && text.split('~').skip(1).all(|rest| rest.starts_with(['0', '1']))
    }

    /// The pointer as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The steps to the place: names of members and indexes of elements, unescaped.
    pub fn tokens(&self) -> impl Iterator<Item = String> + '_ {
        self.0.split('/').skip(1).map(|token| token.replace("~1", "/").replace("~0", "~"))
    }

    pub(crate) fn new_unchecked(text: impl Into<Arc<str>>) -> Self {
        Self(text.into())
    }
}

/// Lets a set of pointers be searched by text.
impl std::borrow::Borrow<str> for JsonPointer {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for JsonPointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "the root" } else { &self.0 })
    }
}

impl fmt::Debug for JsonPointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

/// Places in a document, arranged as a tree of their steps, so that one pass through the document finds all of them.
#[derive(Debug, Default)]
pub(crate) struct Places {
    steps: BTreeMap<String, Self>,
    is_place: bool,
}

impl Places {
    pub(crate) fn of(pointers: &[JsonPointer]) -> Self {
        let mut places = Self::default();
        for pointer in pointers {
            let mut node = &mut places;
            for token in pointer.tokens() {
                node = node.steps.entry(token).or_default();
            }
            node.is_place = true;
        }
        places
    }

    /// Is one of the places at this node?
    pub(crate) fn is_place(&self) -> bool {
        self.is_place
    }

    /// Are there places below this node?
    pub(crate) fn leads_on(&self) -> bool {
        !self.steps.is_empty()
    }

    /// The node one step further, if places are there or below.
    pub(crate) fn step(&self, token: &str) -> Option<&Self> {
        self.steps.get(token)
    }

    /// The node at a place, if places are there or below.
    pub(crate) fn at(&self, place: &JsonPointer) -> Option<&Self> {
        place.tokens().try_fold(self, |node, token| node.step(&token))
    }

    /// Is one of the places equal to `place`, or around it, or inside it?
    pub(crate) fn touch(&self, place: &JsonPointer) -> bool {
        let mut node = self;
        for token in place.tokens() {
            if node.is_place {
                return true;
            }
            match node.step(&token) {
                Some(next) => node = next,
                None => return false,
            }
        }
        true
    }
}

/// One step of a [`Pattern`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Token {
    /// A member of this name, or the array element of this index.
    Name(String),
    /// Every element of an array.
    Each,
    /// Every member of an object.
    Member,
}

/// The pointer, as it is declared, of these steps.
pub(crate) fn text_of(tokens: &[Token]) -> String {
    let mut text = String::new();
    let mut members = 0;
    for token in tokens {
        text.push('/');
        match token {
            Token::Each => text.push('*'),
            Token::Member => {
                members += 1;
                text.push_str(&if members == 1 { "{member}".to_owned() } else { format!("{{member{members}}}") });
            }
            Token::Name(name) if name == "*" => text.push_str("~2"),
            Token::Name(name) if name.starts_with('{') => {
                text.push_str("~3");
                push_escaped(&mut text, &name[1..]);
            }
            Token::Name(name) => push_escaped(&mut text, name),
        }
    }
    text
}

/// What an [`Each`](Token::Each) or a [`Member`](Token::Member) stands for at one place.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Bound {
    Index(u32),
    Name(Arc<str>),
}

/// A JSON Pointer in which a `*` stands for every element of an array, such as `/lines/*/name`, and a name in braces
/// for every member of an object, such as `/guests/{guest}/name`.
///
/// A member whose name is just `*` is written `~2`, and the `{` with which a member's name begins is written `~3`. RFC
/// 6901 does not use these escapes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Pattern {
    text: String,
    tokens: Vec<Token>,
}

impl Pattern {
    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        let Some(rest) = text.strip_prefix('/') else {
            return Err(if text.is_empty() {
                "is the whole payload: say protect_whole()"
            } else {
                "must start with '/'"
            });
        };
        let tokens = rest.split('/').map(parse_token).collect::<Result<_, _>>()?;
        let mut labels: Vec<&str> = rest.split('/').filter(|token| token.starts_with('{')).collect();
        labels.sort_unstable();
        if labels.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err("has one name in braces twice: give each its own");
        }
        Ok(Self { text: text.to_owned(), tokens })
    }

    /// The `*`s and the names in braces, as they are written.
    pub(crate) fn bindings(&self) -> impl Iterator<Item = &str> {
        self.text.split('/').filter(|token| *token == "*" || token.starts_with('{'))
    }

    /// Does a name in braces stand for members?
    pub(crate) fn has_members(&self) -> bool {
        self.tokens.contains(&Token::Member)
    }

    /// The pattern of these steps. Its [`as_str`](Self::as_str) is empty.
    pub(crate) fn from_tokens(tokens: Vec<Token>) -> Self {
        Self { text: String::new(), tokens }
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    pub(crate) fn tokens(&self) -> &[Token] {
        &self.tokens
    }

    pub(crate) fn into_tokens(self) -> Vec<Token> {
        self.tokens
    }

    /// The number of `*` and of names in braces in the pattern.
    pub(crate) fn stars(&self) -> usize {
        self.tokens.iter().filter(|token| token.is_open()).count()
    }

    /// The steps up to and including the last `*` or name in braces. They decide which elements and members are meant.
    pub(crate) fn up_to_last_star(&self) -> &[Token] {
        let end = self.tokens.iter().rposition(Token::is_open).map_or(0, |at| at + 1);
        &self.tokens[..end]
    }

    /// Is there a document in which both patterns match the same place, or one matches a place inside a place of the
    /// other?
    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        self.tokens.iter().zip(&other.tokens).all(|pair| match pair {
            (Token::Name(a), Token::Name(b)) => a == b,
            (Token::Each, Token::Each)
            | (Token::Member, Token::Member | Token::Name(_))
            | (Token::Name(_), Token::Member) => true,
            (Token::Each, Token::Name(index)) | (Token::Name(index), Token::Each) => array_index(index).is_some(),
            (Token::Each, Token::Member) | (Token::Member, Token::Each) => false,
        })
    }

    /// The place that the pattern means if its `*` and names in braces stand for these elements and members.
    pub(crate) fn at(&self, bound: &[Bound]) -> String {
        let mut bound = bound.iter();
        let mut place = String::with_capacity(self.text.len() + 4);
        for token in &self.tokens {
            place.push('/');
            match token {
                Token::Name(name) => push_escaped(&mut place, name),
                Token::Each | Token::Member => match bound.next() {
                    Some(Bound::Index(index)) => place.push_str(&index.to_string()),
                    Some(Bound::Name(name)) => push_escaped(&mut place, name),
                    None if *token == Token::Each => place.push('0'),
                    None => {}
                },
            }
        }
        place
    }

    /// Does the pattern match this concrete place?
    pub(crate) fn matches(&self, place: &JsonPointer) -> bool {
        let mut tokens = place.tokens();
        self.tokens.iter().all(|token| match (token, tokens.next()) {
            (_, None) => false,
            (Token::Name(name), Some(found)) => *name == found,
            (Token::Each, Some(found)) => array_index(&found).is_some(),
            (Token::Member, Some(_)) => true,
        }) && tokens.next().is_none()
    }
}

impl Token {
    /// Does it stand for several steps?
    fn is_open(&self) -> bool {
        matches!(self, Self::Each | Self::Member)
    }
}

fn parse_token(token: &str) -> Result<Token, &'static str> {
    if token == "*" {
        return Ok(Token::Each);
    }
    if let Some(label) = token.strip_prefix('{') {
        let label = label.strip_suffix('}').unwrap_or_default();
        let is_label = !label.is_empty() && !label.contains(['{', '}', '~', '*']);
        return is_label.then_some(Token::Member).ok_or(
            "has a step that begins with '{' and is no name in braces, such as {guest}: a member whose name begins \
             with '{' is written with ~3 in its place",
        );
    }
    let mut name = String::with_capacity(token.len());
    let mut characters = token.chars();
    while let Some(character) = characters.next() {
        name.push(match character {
            '~' => match characters.next() {
                Some('0') => '~',
                Some('1') => '/',
                Some('2') => '*',
                Some('3') => '{',
                _ => return Err("has a '~' that is not followed by 0 (for ~), 1 (for /), 2 (for *) or 3 (for {)"),
            },
            other => other,
        });
    }
    Ok(Token::Name(name))
}

/// Appends a name as a step of a JSON Pointer, with its `~` and `/` escaped.
pub(crate) fn push_escaped(place: &mut String, name: &str) {
    for character in name.chars() {
        match character {
            '~' => place.push_str("~0"),
            '/' => place.push_str("~1"),
            other => place.push(other),
        }
    }
}

/// An array index as RFC 6901 spells it: decimal, without leading zeros.
pub(crate) fn array_index(token: &str) -> Option<u32> {
    let canonical = token == "0" || (!token.starts_with('0') && token.bytes().all(|byte| byte.is_ascii_digit()));
    canonical.then(|| token.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pointers_follow_rfc_6901() {
        assert_eq!(JsonPointer::parse("/a~1b/m~0n/0").unwrap().tokens().collect::<Vec<_>>(), ["a/b", "m~n", "0"]);
        assert_eq!(JsonPointer::parse("").unwrap(), JsonPointer::root());
        assert_eq!(JsonPointer::parse("/").unwrap().tokens().collect::<Vec<_>>(), [""]);
        assert!(
            JsonPointer::parse("a").is_none()
                && JsonPointer::parse("/~2").is_none()
                && JsonPointer::parse("/~").is_none()
        );
    }

    #[test]
    fn patterns_overlap_where_a_place_could_be_meant_twice() {
        let overlap = |a: &str, b: &str| Pattern::parse(a).unwrap().overlaps(&Pattern::parse(b).unwrap());
        assert!(overlap("/a", "/a/b") && overlap("/a/*/c", "/a/0") && overlap("/a/*", "/a/*"));
        assert!(
            !overlap("/a", "/ab")
                && !overlap("/a/*/c", "/a/*/d")
                && !overlap("/a/*", "/a/name")
                && !overlap("/a/*", "/a/01")
        );
    }

    #[test]
    fn a_pattern_names_its_places() {
        let pattern = Pattern::parse("/a~1b/*/~2/*").unwrap();
        let place = pattern.at(&[Bound::Index(3), Bound::Index(12)]);
        assert_eq!(place, "/a~1b/3/*/12");
        assert!(pattern.matches(&JsonPointer::parse(&place).unwrap()));
        assert!(!pattern.matches(&JsonPointer::parse("/a~1b/3/*").unwrap()));
        assert!(!pattern.matches(&JsonPointer::parse("/a~1b/x/*/1").unwrap()));
    }

    #[test]
    fn a_name_in_braces_means_members() {
        let pattern = Pattern::parse("/guests/{guest}/~3x/*").unwrap();
        let place = pattern.at(&[Bound::Name("a/{b}~*".into()), Bound::Index(7)]);
        assert_eq!(place, "/guests/a~1{b}~0*/{x/7");
        assert!(pattern.matches(&JsonPointer::parse(&place).unwrap()));
        assert_eq!(pattern.bindings().collect::<Vec<_>>(), ["{guest}", "*"]);
        for wrong in ["/{", "/{}", "/{a", "/{a}b", "/{a~1b}", "/{a}/{a}", "/{*}", "/x~4"] {
            assert!(Pattern::parse(wrong).is_err(), "{wrong}");
        }
        let overlap = |a: &str, b: &str| Pattern::parse(a).unwrap().overlaps(&Pattern::parse(b).unwrap());
        assert!(overlap("/a/{b}", "/a/{c}/d") && overlap("/a/{b}/c", "/a/x/c") && overlap("/a/0", "/a/{b}"));
        assert!(!overlap("/a/{b}", "/a/*") && !overlap("/a/{b}/c", "/a/{b}/d") && !overlap("/a/{b}", "/b/{b}"));
    }
}
