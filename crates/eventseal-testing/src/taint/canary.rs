//! Canaries: values that appear nowhere by chance, and are as close to the sample's values as a step demands.

use crate::json::{Leaf, each_leaf};
use crate::number::{is_float, read_as_float};
use serde_json::{Number, Value};

/// A single value at or inside a protected place.
pub(super) struct Spot {
    /// The place of the value in the payload.
    pub(super) place: String,
    /// The protected pointer of the registry that means it.
    pub(super) protected: String,
    /// The value in the sample.
    own: Value,
    /// A number that no other spot of the payload has. The canary is made of it.
    number: usize,
}

/// How the canary of a spot is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// Every word and number of the sample's value is replaced.
    Words,
    /// Every letter and digit of the sample's value is replaced, so that dates, ids and codes keep their form.
    Letters,
    /// The sample's value is used as it is.
    Own,
}

/// A text to look for, and the protected pointer that it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Canary {
    /// In lower case.
    pub(super) text: String,
    pub(super) protected: String,
}

/// How many letters and digits a value of the sample must have to serve as a canary. Shorter ones appear elsewhere by
/// chance.
const TELLING: usize = 4;
/// The same for a part of a made-up value that keeps its form ([`Form::Letters`]), and for a single word of the
/// sample's value.
const TELLING_LETTERS: usize = 6;

impl Spot {
    /// All single values at or inside a protected place.
    pub(super) fn all(payload: &Value, protected: &str, place: &str, number: &mut usize) -> Vec<Self> {
        let mut spots = Vec::new();
        let Some(value) = payload.pointer(place) else { return spots };
        each_leaf(value, &mut |below, leaf| {
            if let Leaf::Value(own) = leaf {
                *number += 1;
                spots.push(Self {
                    place: format!("{place}{below}"),
                    protected: protected.to_owned(),
                    own: own.clone(),
                    number: *number,
                });
            }
        });
        spots
    }

    /// The value in this form, and the texts by which it is found again. There are no texts if the value can't be told
    /// apart from others.
    pub(super) fn value(&self, form: Form) -> (Value, Vec<String>) {
        match (&self.own, form) {
            (Value::String(own), Form::Words) => {
                let (text, texts) = other_words(own, self.number);
                (text.into(), texts)
            }
            (Value::String(own), Form::Letters) => {
                let text = other_letters(own, self.number);
                let texts = parts(&text).filter(|part| letters(part) >= TELLING_LETTERS).map(str::to_owned).collect();
                (text.into(), texts)
            }
            (Value::Number(own), Form::Words) if is_float(own) => {
                let number = other_number(self.number);
                (Value::from(f64::from(number) + 0.5), vec![number.to_string()])
            }
            (Value::Number(_), Form::Words) => {
                let number = other_number(self.number);
                (number.into(), vec![number.to_string()])
            }
            (Value::Number(own), _) => {
                (self.own.clone(), vec![spelled(own)].into_iter().filter(|text| letters(text) >= TELLING).collect())
            }
            (Value::String(own), Form::Own) => {
                // Members and constants are named by words too, so a word must be longer than a number such as a year.
                let is_word = |part: &str| part != own && part.chars().all(char::is_alphabetic);
                let telling = |part: &&str| letters(part) >= if is_word(part) { TELLING_LETTERS } else { TELLING };
                (self.own.clone(), parts(own).filter(telling).map(str::to_owned).collect())
            }
            _ => (self.own.clone(), Vec::new()),
        }
    }
}

/// The words and numbers in a text, and the text itself.
fn parts(text: &str) -> impl Iterator<Item = &str> {
    text.split(|letter: char| !letter.is_alphanumeric()).filter(move |part| part.len() < text.len()).chain([text])
}

fn letters(text: &str) -> usize {
    text.chars().filter(|letter| letter.is_alphanumeric()).count()
}

/// Replaces every word and every number by a unique one. `ada@example.org` has three words.
fn other_words(own: &str, number: usize) -> (String, Vec<String>) {
    let mut text = String::new();
    let mut texts = Vec::new();
    let mut word = String::new();
    let end = |word: &mut String, text: &mut String, texts: &mut Vec<String>| {
        if word.is_empty() {
            return;
        }
        let unique = number * 100 + texts.len();
        let other = if word.bytes().all(|byte| byte.is_ascii_digit()) {
            other_number(unique).to_string()
        } else {
            other_word(unique)
        };
        word.clear();
        text.push_str(&other);
        texts.push(other);
    };
    for letter in own.chars() {
        if letter.is_alphanumeric() {
            word.push(letter);
        } else {
            end(&mut word, &mut text, &mut texts);
            text.push(letter);
        }
    }
    end(&mut word, &mut text, &mut texts);
    (text, texts)
}

/// A unique word of eight letters, which is not a word of any language.
fn other_word(number: usize) -> String {
    let mut word = String::from("zq");
    let mut rest = number;
    for _ in 0..6 {
        word.push(char::from(b"bcdfghjklmnpqrstvwxz"[rest % 20]));
        rest /= 20;
    }
    word
}

/// A unique number of seven digits. It fits an `i32`.
fn other_number(number: usize) -> u32 {
    7_310_000 + u32::try_from(number % 2_000_000).unwrap_or_default()
}

/// Replaces every letter and digit. Hexadecimal digits stay hexadecimal.
fn other_letters(own: &str, number: usize) -> String {
    let mut state = number.wrapping_mul(0x9e37_79b9).wrapping_add(0x85eb_ca6b);
    let mut pick = |from: &str| {
        state = state.wrapping_mul(6_364_136_223_846_793_005_usize).wrapping_add(1_442_695_040_888_963_407);
        from.chars().nth((state >> 33) % from.len()).unwrap_or('x')
    };
    let other = |letter: char| match letter {
        '0'..='9' => pick("123456789"),
        'a'..='f' => pick("abcdef"),
        'A'..='F' => pick("ABCDEF"),
        letter if letter.is_ascii_lowercase() => pick("ghjkmnpqrstvwxyz"),
        letter if letter.is_ascii_uppercase() => pick("GHJKMNPQRSTVWXYZ"),
        other => other,
    };
    own.chars().map(other).collect()
}

/// A number in its canonical spelling, also in builds in which serde_json keeps spellings.
fn spelled(number: &Number) -> String {
    read_as_float(number).map_or_else(|| number.to_string(), |read| read.to_string())
}

/// The canaries that a text or number of an event contains.
pub(super) fn found<'c>(leaf: Leaf<'_>, canaries: &'c [Canary]) -> impl Iterator<Item = &'c Canary> + use<'c> {
    let text = match leaf {
        Leaf::Name(name) => name.to_lowercase(),
        Leaf::Value(Value::String(text)) => text.to_lowercase(),
        Leaf::Value(Value::Number(number)) => spelled(number),
        Leaf::Value(_) => String::new(),
    };
    canaries.iter().filter(move |canary| text.contains(&canary.text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[allow(clippy::needless_pass_by_value, reason = "reads as a value at the call site")]
    fn value(own: Value, form: Form) -> (Value, Vec<String>) {
        let payload = json!({ "a": own });
        Spot::all(&payload, "/a", "/a", &mut 0).remove(0).value(form)
    }

    #[test]
    fn canaries_are_unlike_anything_and_like_the_sample() {
        let (mail, words) = value(json!("ada.l+1@example.org"), Form::Words);
        assert_eq!(words.len(), 5);
        let mail = mail.as_str().unwrap();
        assert_eq!(mail.chars().filter(|letter| !letter.is_alphanumeric()).collect::<String>(), ".+@.");
        assert!(words.iter().all(|word| mail.contains(word.as_str()) && word.len() >= 7));

        let (id, parts) = value(json!("6f2c1a52-8d3b-4c55-9a54-0b1f3c2d4e5f"), Form::Letters);
        assert!(uuid::Uuid::parse_str(id.as_str().unwrap()).is_ok() && parts.len() == 3, "{id} {parts:?}");
        assert_eq!(value(json!("DE"), Form::Letters).1, [""; 0]);
        assert_eq!(value(json!("DE"), Form::Own).1, [""; 0]);
        assert_eq!(
            value(json!("1985-11-27"), Form::Own),
            (json!("1985-11-27"), vec!["1985".to_owned(), "1985-11-27".to_owned()])
        );
        assert_eq!(value(json!("Main Street, AB12"), Form::Own).1, ["Street", "AB12", "Main Street, AB12"]);
        assert_eq!(value(json!("text"), Form::Own).1, ["text"]);
        assert_eq!(value(json!(12), Form::Own).1, [""; 0]);
        assert_eq!(value(json!(1234), Form::Own).1, ["1234"]);
        assert_eq!(value(json!(1), Form::Words), (json!(7_310_001), vec!["7310001".to_owned()]));
        assert_eq!(value(json!(1.5), Form::Words), (json!(7_310_001.5), vec!["7310001".to_owned()]));
        assert_eq!(value(json!(true), Form::Words).1, [""; 0]);
    }
}
