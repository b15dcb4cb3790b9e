//! The cost of sealing and opening in memory, compared with a lower bound.
//!
//! `cargo bench --bench seal --features internals`
//!
//! All rows are measured in turns within one run, so that changes of the machine's speed affect all of them alike. Look
//! at the ratios. `floor` is the lower bound for any scheme with one ciphertext for each field: three AES-256-GCM seals
//! of 32 bytes under a ready key, and one copy of the payload.

#![allow(missing_docs, reason = "a benchmark")]

mod common;

use aes_gcm::aead::{AeadInOut, KeyInit};
use aes_gcm::{Aes256Gcm, Nonce};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use eventseal::internals::Engine;
use eventseal::{NewEvent, aggregate, event, subject};
use std::hint::black_box;
use std::time::Instant;

const ROUNDS: usize = 300;
const ITERATIONS: u32 = 300;

fn main() {
    let payload = common::payload();
    let plain_schema = event("OrderPlaced").version(1);
    let schema =
        event("OrderPlaced").version(1).protect(&["/name", "/email", "/address"], subject("Customer", "/customer_id"));
    let new = NewEvent::raw("OrderPlaced", 1, payload.clone());
    let engine = Engine::new(schema, aggregate("Order", "ord_123"), new.clone()).unwrap();
    let plain = Engine::new(plain_schema, aggregate("Order", "ord_123"), new).unwrap();
    let sealed = engine.seal().unwrap();
    assert_eq!(engine.open(&sealed).unwrap().unwrap(), payload.as_bytes());
    assert!(plain.open(payload.as_bytes()).unwrap().is_none());

    let cipher = Aes256Gcm::new(&[7; 32].into());
    let floor = || {
        let copy = black_box(payload.as_bytes()).to_vec();
        for index in 0..3_u8 {
            let mut nonce = [0; 12];
            nonce[11] = index;
            let mut buffer = [index; 32];
            let tag =
                cipher.encrypt_inout_detached(&Nonce::from(nonce), b"/email", buffer.as_mut_slice().into()).unwrap();
            black_box((buffer, tag));
        }
        black_box(copy);
    };
    let rows: [(&str, &dyn Fn()); 4] = [
        ("floor", &floor),
        ("seal", &|| drop(black_box(engine.seal().unwrap()))),
        ("open", &|| drop(black_box(engine.open(black_box(&sealed)).unwrap()))),
        ("open current and unprotected", &|| drop(black_box(plain.open(black_box(payload.as_bytes())).unwrap()))),
    ];
    let mut times = vec![Vec::with_capacity(ROUNDS); rows.len()];
    for round in 0..ROUNDS + 20 {
        for (row, (_, run)) in rows.iter().enumerate() {
            let start = Instant::now();
            for _ in 0..ITERATIONS {
                run();
            }
            let nanoseconds = start.elapsed().as_secs_f64() * 1e9 / f64::from(ITERATIONS);
            if round >= 20 {
                times[row].push(nanoseconds);
            }
        }
    }
    println!("payload {} bytes, 3 protected values, 1 key scope; medians of {ROUNDS} rounds", payload.len());
    println!("{:<32}{:>10}{:>12}", "", "ns", "× floor");
    let mut floor = 0.0;
    for ((name, _), times) in rows.iter().zip(&mut times) {
        times.sort_by(f64::total_cmp);
        let median = times[times.len() / 2];
        if *name == "floor" {
            floor = median;
        }
        println!("{name:<32}{median:>10.0}{:>12.2}", median / floor);
    }
    hostile(&engine);
}

/// The cost of refusing a forged payload, whose header can't be authenticated before its places are found. The header
/// has the largest number of pointers, of nearly the largest length, over many members that none of them names. It is
/// compared with the same bytes with a malformed header, which is refused before any place is looked for.
fn hostile(engine: &Engine) {
    const POINTERS: u16 = 4_096;
    let members = ",\"y\":0".repeat(1_000_000);
    let payload = |last: u16| {
        let mut header = [&[1, 1, 0, 0][..], &[7; 32], &[0, 1], &[4; 16], &POINTERS.to_be_bytes()].concat();
        for number in 1..=POINTERS {
            let pointer = format!("/{}{:04x}", "x".repeat(4_080), if number == POINTERS { last } else { number });
            header.extend_from_slice(
                &[&[0, 0, 0][..], &u16::try_from(pointer.len()).unwrap().to_be_bytes(), pointer.as_bytes()].concat(),
            );
        }
        header.extend_from_slice(&[9; 48]);
        format!("{{\"$seal\":\"{}\"{members}}}", URL_SAFE_NO_PAD.encode(header)).into_bytes()
    };
    let median = |payload: &[u8]| {
        let mut times: Vec<f64> = (0..9)
            .map(|_| {
                let start = Instant::now();
                black_box(engine.open(black_box(payload)).unwrap_err());
                start.elapsed().as_secs_f64() * 1e3
            })
            .collect();
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    };
    // The last pointer repeats that of another entry, so the header is malformed.
    let (hostile, malformed) = (payload(POINTERS), payload(1));
    let (took, floor) = (median(&hostile), median(&malformed));
    println!(
        "\nhostile header, {} MB, {POINTERS} pointers: {took:.0} ms, × {:.2} of refusing it unread",
        hostile.len() / 1_000_000,
        took / floor
    );
}
