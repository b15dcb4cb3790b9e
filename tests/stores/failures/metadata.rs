//! Metadata that the database would refuse.

use eventseal::ExpectedVersion::Any;
use eventseal::error::EventFault;
use eventseal::postgres::PostgresStore;
use eventseal::{Error, EventStore, NewEvent, aggregate};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use sqlx::Connection;
use std::collections::BTreeMap;
use support::Postgres;

/// Texts at the limits of JSONB, most of them JSON.
fn metadata() -> impl Strategy<Value = String> {
    let (digits, number, string) = (digits(), number(), string());
    let whole = digits.prop_map(|digits| format!("1{}", &digits[1..]));
    let depth = prop_oneof![Just(200_usize), Just(5_900), Just(50_000)];
    let nested = (depth, any::<bool>()).prop_map(|(depth, object)| {
        let (open, close) = if object { (r#"{"a":"#, "}") } else { ("[", "]") };
        format!("{}1{}", open.repeat(depth), close.repeat(depth))
    });
    let wrong = prop_oneof![
        Just("01"),
        Just("1."),
        Just("nul"),
        Just("NaN"),
        Just("'a'"),
        Just("\u{feff}1"),
        Just("1 2"),
        Just("")
    ];
    let leaf = prop_oneof![
        6 => number,
        3 => whole,
        6 => string.clone(),
        2 => prop_oneof![Just("true"), Just("null"), Just("[]"), Just("{}")].prop_map(str::to_owned),
        1 => nested,
        1 => wrong.prop_map(str::to_owned),
    ];
    leaf.prop_recursive(3, 8, 4, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(|values| format!("[{}]", values.join(" , "))),
            proptest::collection::vec((string.clone(), inner), 0..4).prop_map(|members| {
                let members: Vec<String> =
                    members.into_iter().map(|(name, value)| format!("{name} : {value}")).collect();
                format!("{{{}}}", members.join(","))
            }),
        ]
    })
}

/// Digits, as many as may be or one more.
fn digits() -> impl Strategy<Value = String> + Clone {
    prop_oneof![
        "[0-9]{1,4}",
        Just("0".repeat(16_382)),
        Just("0".repeat(16_383)),
        Just("0".repeat(16_384)),
        Just("9".repeat(131_071)),
        Just("9".repeat(131_072)),
        Just("9".repeat(131_073))
    ]
}

/// Numbers whose exponents and lengths are at the limits.
fn number() -> impl Strategy<Value = String> {
    let exponent = prop_oneof![
        -16_390..-16_370_i64,
        131_060..131_080_i64,
        -131_080..-131_060_i64,
        -5..5_i64,
        Just(1_073_741_822),
        Just(1_073_741_823),
        Just(-1_073_741_823),
        Just(i64::MAX)
    ];
    let digits = digits();
    (
        "-?",
        "(0|[1-9][0-9]{0,3})",
        proptest::option::of(digits.clone()),
        proptest::option::of(("[eE]", "[+]?0{0,2}", exponent)),
    )
        .prop_map(|(sign, whole, fraction, exponent)| {
            let fraction = fraction.map(|fraction| format!(".{fraction}")).unwrap_or_default();
            let exponent =
                exponent.map(
                    |(e, zeros, exponent)| {
                        if exponent < 0 { format!("{e}{exponent}") } else { format!("{e}{zeros}{exponent}") }
                    },
                );
            format!("{sign}{whole}{fraction}{}", exponent.unwrap_or_default())
        })
}

/// Strings of what JSONB can hold, and of what it can not.
fn string() -> impl Strategy<Value = String> + Clone {
    let piece = prop_oneof![
        4 => "[a-z é😀]{0,3}",
        1 => Just(r"\u0000".to_owned()),
        1 => Just(r"\ud83d".to_owned()),
        1 => Just(r"\ude00".to_owned()),
        2 => Just(r"\uD83D\uDE00".to_owned()),
        1 => Just(r"\\u0000".to_owned()),
        1 => Just(r#"\n\t\/\""#.to_owned()),
        1 => Just(r"\u00e9".to_owned()),
        1 => Just("\u{1}".to_owned()),
        1 => Just(r"\x".to_owned()),
        1 => Just("\u{7f}".to_owned()),
    ];
    proptest::collection::vec(piece, 0..4).prop_map(|pieces| format!("\"{}\"", pieces.concat()))
}

#[tokio::test]
async fn metadata_is_refused_exactly_where_the_database_would_refuse_it() {
    let db = Postgres::new().await;
    let store = PostgresStore::new();
    let mut tx = db.pool.begin().await.unwrap();
    let mut runner = TestRunner::default();
    let strategy = metadata();
    let (mut taken, mut refused, mut causes) = (0, 0, BTreeMap::new());
    for number in 0..1_500 {
        let text = strategy.new_tree(&mut runner).unwrap().current();
        let event = NewEvent::raw("Noted", 1, "{}").with_metadata(text.clone());
        let ours = store.append(&mut tx, &aggregate("Order", number.to_string()), Any, &[event]).await;
        let mut nested = tx.begin().await.unwrap();
        let theirs = sqlx::query("SELECT $1::text::jsonb").bind(&text).execute(&mut *nested).await;
        nested.rollback().await.unwrap();
        let start: String = text.chars().take(300).collect();
        assert_eq!(ours.is_ok(), theirs.is_ok(), "{} bytes: {start}\n{ours:?}\n{theirs:?}", text.len());
        match ours {
            Ok(_) => taken += 1,
            Err(error) => {
                let Error::Event { fault: EventFault::InvalidMetadata { problem }, .. } = error else {
                    panic!("{error:?}")
                };
                // It names what the database would have stumbled over, unless that is further on than where it is no
                // JSON.
                let theirs = theirs.unwrap_err();
                let code = theirs
                    .as_database_error()
                    .and_then(sqlx::error::DatabaseError::code)
                    .unwrap_or_default()
                    .into_owned();
                let cause = match &*code {
                    "22003" => "holds a number",
                    "22P05" | "22P02" => "half of a surrogate pair",
                    "54001" => "is nested deeper",
                    _ => panic!("{theirs:?}"),
                };
                assert!(problem.contains(cause) || problem.contains("is not JSON"), "{code}: {problem}: {start}");
                causes.insert(cause, problem.contains(cause) || causes.get(cause).is_some_and(|it| *it));
                refused += 1;
            }
        }
    }
    assert!(taken > 300 && refused > 300, "{taken} taken, {refused} refused");
    assert!(causes.len() == 3 && causes.values().all(|is_named| *is_named), "{causes:?}");
    tx.commit().await.unwrap();
}
