//! Protected places as a registry of schemas names them: JSON Pointers (RFC 6901) in which a `*` stands for every
//! element of an array, and a name in braces for every member of an object. In a member's name, `*` is written `~2`,
//! and a `{` at its begin `~3`.
//!
//! The library reads them too, with a type of its own that is not public: that one also checks them, and says what is
//! wrong. This crate gets them from a registry, which has refused what is no pointer, and uses the library's public
//! names alone. So the line that splits and unescapes is here a second time.

/// One step of a [`Pattern`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Token {
    /// A member of this name, or the array element of this index.
    Name(String),
    /// Every element of an array.
    Each,
    /// Every member of an object.
    Member,
}

/// The pointer of a protected place, parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pattern(Vec<Token>);

impl Pattern {
    /// Parses a pointer of a registry, which has checked it already. Returns `None` for `""`, the whole payload.
    pub(crate) fn parse(pointer: &str) -> Option<Self> {
        let token = |token: &str| match token {
            "*" => Token::Each,
            name if name.starts_with('{') => Token::Member,
            // `~0` is replaced last, so that the `~` it becomes is not read as the begin of another escape.
            name => Token::Name(name.replace("~3", "{").replace("~2", "*").replace("~1", "/").replace("~0", "~")),
        };
        Some(Self(pointer.strip_prefix('/')?.split('/').map(token).collect()))
    }

    pub(crate) fn tokens(&self) -> &[Token] {
        &self.0
    }
}

/// Appends the name of a member to a JSON Pointer, escaped.
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
pub(crate) fn array_index(token: &str) -> Option<usize> {
    let canonical = token == "0" || (!token.starts_with('0') && token.bytes().all(|byte| byte.is_ascii_digit()));
    canonical.then(|| token.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_read_as_a_registry_means_it() {
        let name = |name: &str| Token::Name(name.to_owned());
        let pattern = Pattern::parse("/a~1b/*/~2/~01~12/").unwrap();
        assert_eq!(pattern.tokens(), [name("a/b"), Token::Each, name("*"), name("~1/2"), name("")]);
        assert_eq!(Pattern::parse("/{guest}/~3x").unwrap().tokens(), [Token::Member, name("{x")]);
        assert_eq!(Pattern::parse(""), None);
    }

    #[test]
    fn an_index_has_one_spelling() {
        assert_eq!(["0", "12", "01", "", "-1", "x"].map(array_index), [Some(0), Some(12), None, None, None, None]);
    }
}
