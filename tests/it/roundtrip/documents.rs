//! Documents with protected places.

use super::{check, config, documents, is_json, print, schemas, secrets_of, template, text_of, without_header};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use support::sealing::{CANARY, SealerWorld, with_payload};

/// Unicode's planes, numbers beyond 64 bits and the like must not be rare.
#[test]
fn the_generator_makes_documents_worth_testing() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let (mut many_secrets, mut lone, mut huge) = (0, 0, 0);
    for _ in 0..200 {
        let document = documents(false).new_tree(&mut runner).unwrap().current();
        many_secrets += usize::from(secrets_of(&document).len() >= 4);
        lone += usize::from(text_of(&document).contains("\\ud800"));
        huge += usize::from(text_of(&document).contains("1e400"));
    }
    assert!(many_secrets > 60 && lone > 20 && huge > 20, "{many_secrets} {lone} {huge}");
}

#[test]
fn i1_any_document_comes_back_byte_for_byte() {
    let world = SealerWorld::new(schemas());
    proptest!(config(2_000), |(document in documents(false))| {
        check(&world, &document);
    });
}

#[test]
#[expect(clippy::too_many_lines, reason = "a list of documents")]
fn i1_nasty_documents_come_back_byte_for_byte() {
    let world = SealerWorld::new(schemas());
    let deep = format!("{{\"customer_id\":1,\"email\":«{}\"c4n4ry\"{}»}}", "[".repeat(127), "]".repeat(127));
    let long = format!("{{\"customer_id\":1,\"email\":«\"{}\"»}}", CANARY.repeat(50_000));
    let many = (0..1_000)
        .map(|line| format!("{{\"to\":{},\"note\":«\"c4n4ry {line}\"»}}", line % 50))
        .collect::<Vec<_>>()
        .join(",");
    let many = format!("{{\"lines\":[{many}]}}");
    for text in [
        // Nothing to protect.
        "{}",
        " {\t} ",
        "null",
        "{\"customer\":null,\"lines\":null,\"grid\":[null,[]]}",
        "{\"email\":null}",
        "{\"customer_id\":null,\"email\":null}",
        "{\"lines\":[{\"note\":null},{},null]}",
        "{\"nested\":{\"$seal\":1},\"$Seal\":2,\"email2\":3}",
        // One value of each type.
        r#"{"customer_id":"a","email":«"c4n4ry"»}"#,
        r#"{"customer_id":"a","email":«27182818284590452353»}"#,
        r#"{"customer_id":"a","email":«1e400»}"#,
        r#"{"customer_id":"a","email":«-0»}"#,
        r#"{"customer_id":"a","email":«1.0»}"#,
        r#"{"customer_id":"a","email":«true»}"#,
        r#"{"customer_id":"a","email":«false»}"#,
        r#"{"customer_id":"a","email":«null»}"#,
        r#"{"customer_id":"a","email":«""»}"#,
        r#"{"customer_id":"a","email":«[]»}"#,
        r#"{"customer_id":"a","email":«{ }»}"#,
        r#"{"customer_id":"a","email":«[ "c4n4ry" , { "email" : 1, "email" : 2 } ]»}"#,
        r#"{"customer_id":"a","email":«{"$seal":"c4n4ry","$seal":2}»}"#,
        // Lone surrogates, escapes and padding's own bytes.
        r#"{"customer_id":"a","email":«"\ud800c4n4ry\udfff\ud83d"»}"#,
        "{\"customer_id\":\"a\",\"email\":«\"c4n4ry\u{80}\u{0080}\"»}",
        r#"{"\ud800":1,"\ud800":2,"email\udc00":"\ud800","customer_id":"a","email":«"c4n4ry"»}"#,
        // Lengths around the padding's border.
        "{\"customer_id\":\"a\",\"email\":«\"c4n4ry6789012345678901234567890\"»,\
          \"a/b\":«\"c4n4ry678901234567890123456789\"»}",
        "{\"a/b\":«\"c4n4ry6789012345678901234567\"»,\"~2\":«\"c4n4ry67890123456789012345678\"»}",
        // White space everywhere.
        "\r\n\t { \"customer_id\" \n:\t\"a\"\r, \"email\"\t: «\"c4n4ry\"» \n}\t\r\n ",
        "{\"customer_id\":1,\"lines\" : [ { \"note\" :«\"c4n4ry\"» ,\n\"to\":\t2 } , null ,{ } ] }",
        // Spellings of names.
        r#"{"\u0063ustomer_id":"a","\u0065mail":«"c4n4ry"»}"#,
        r#"{"customer_id":"a","\u0065\u006D\u0061\u0069\u006c":«"c4n4ry"»,"customer":{"n\u0061me":«"c4n4ry"»}}"#,
        r#"{"a\/b":«"c4n4ry"»}"#,
        r#"{"a\u002fb":«"c4n4ry"»,"a~1b":1,"\u007e2":«"c4n4ry"»,"~02":2,"\u002a":«"c4n4ry"»,"~2\u0000":3}"#,
        r#"{"":«"c4n4ry"»,"\u0000":1," ":2}"#,
        // Duplicates where they are harmless.
        r#"{"x":1,"x":2,"customer_id":"a","x":{"email":1,"email":2},"email":«"c4n4ry"»,"x":3}"#,
        r#"{"customer_id":"a","customer":{"x":1,"name":«"c4n4ry"»,"x":2}}"#,
        // The protected name elsewhere.
        r#"{"customer_id":"a","customer":{"email":"kept","name":«"c4n4ry"»},"name":"kept","email":«"c4n4ry"»}"#,
        // Equal values under one key.
        r#"{"a/b":«"c4n4ry"»,"~2":«"c4n4ry"»,"*":«"c4n4ry"»,"":«"c4n4ry"»,"grid":[[«"c4n4ry"»,«"c4n4ry"»]]}"#,
        // Several scopes, some named twice, some by what is protected itself.
        concat!(
            r#"{"customer_id":"7","email":«"c4n4ry"»,"lines":[{"note":«"c4n4ry"»,"to":7},{"to":"7","#,
            r#""note":«"c4n4ry"»},{"note":null},{"to":"x"}],"a/b":«1»}"#
        ),
        r#"{"owner":{"tax":«"c4n4ry"»,"id":«"c4n4ry-scope"»},"email":null}"#,
        r#"{"owner":{"id":«27182818284590452353»,"tax":«null»}}"#,
        r#"{"grid":[[«1»,«"c4n4ry"»],[],null,[«["c4n4ry"]»]]}"#,
        // Numbers beside them.
        r#"{"customer_id":-12,"n":[1.0,-0,1e400,1E+2,0.10,1234567890123456789012345],"email":«-27182818284590452353.0e+1»}"#,
        &deep,
        &long,
        &many,
    ] {
        check(&world, &template(text));
    }
}

/// A database may re-space and re-order what is stored: names are what values are found by.
#[test]
fn i1_protected_values_survive_a_jsonb_column_exactly() {
    let world = SealerWorld::new(schemas());
    proptest!(config(1_000), |(document in documents(true), reverse in any::<bool>(), spaces in any::<bool>())| {
        let (stored, tokens) = check(&world, &document);
        let reprinted = print(&serde_json::from_slice(&stored.payload).unwrap(), reverse, spaces);
        let mut expected = if tokens.is_empty() { reprinted.clone() } else { without_reprinted_header(&reprinted) };
        for (token, secret) in tokens.iter().zip(secrets_of(&document)) {
            expected = expected.replace(&format!("\"{token}\""), secret);
        }
        let opened = world.open(&with_payload(&stored, reprinted)).unwrap();
        prop_assert_eq!(String::from_utf8(opened.payload).unwrap(), expected);
        prop_assert!(opened.redacted.is_empty());
    });
}

/// Takes the header away with one comma, behind it if there is one.
fn without_reprinted_header(text: &str) -> String {
    let start = text
        .match_indices("\"$seal\"")
        .map(|(at, _)| at)
        .find(|at| depth_at(text, *at) == 1 && text[at + 7..].trim_start().starts_with(':'))
        .unwrap();
    let value = start + 7 + text[start + 7..].find('"').unwrap() + 1;
    let end = value + text[value..].find('"').unwrap() + 1;
    let rest = text[end..].trim_start();
    if let Some(behind) = rest.strip_prefix(',') {
        format!("{}{behind}", &text[..start])
    } else {
        format!("{}{}", &text[..text[..start].rfind(',').unwrap()], &text[end..])
    }
}

/// How many objects and arrays are open at `at`, which is not in a string.
fn depth_at(text: &str, at: usize) -> i32 {
    let (mut depth, mut in_string, mut escaped) = (0, false, false);
    for byte in text[..at].bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => depth += 1,
            b'}' | b']' if !in_string => depth -= 1,
            _ => {}
        }
    }
    if in_string { -1 } else { depth }
}

#[test]
fn i1_the_header_may_stand_anywhere_in_the_root() {
    let world = SealerWorld::new(schemas());
    let (stored, _) = check(&world, &template(r#"{"customer_id":"a","email":«"c4n4ry"»,"z":1}"#));
    let text = String::from_utf8(stored.payload.clone()).unwrap();
    let header = text[1..=text.find(',').unwrap()].trim_end_matches(',').to_owned();
    let rest = without_header(&text);
    let members: Vec<&str> = rest[1..rest.len() - 1].split(',').collect();
    for at in 0..=members.len() {
        for (before, after) in [("", ""), (" ", "\n")] {
            let mut members = members.clone();
            let header = format!("{before}{header}{after}");
            members.insert(at, &header);
            let mut moved = stored.clone();
            moved.payload = format!("{{{}}}", members.join(",")).into_bytes();
            let opened = String::from_utf8(world.open(&moved).unwrap().payload).unwrap();
            assert!(is_json(opened.as_bytes()), "{opened}");
            assert_eq!(opened.replace([' ', '\n'], ""), r#"{"customer_id":"a","email":"c4n4ry","z":1}"#);
        }
    }
}
