//! What sealing costs, beside what it can't cost less than.
//!
//! `cargo bench --bench seal --features internals`
//!
//! All rows are measured in turns within one run, so that a machine whose speed drifts slows all of
//! them alike; ratios are what counts. `floor` is three AES-256-GCM seals of 32 bytes under a ready key
//! and one copy of the payload: what any scheme with one ciphertext a field has to pay.

#![allow(missing_docs, reason = "a benchmark")]

mod common;

use aes_gcm::aead::{AeadInOut, KeyInit};
use aes_gcm::{Aes256Gcm, Nonce};
use eventseal::internals::Engine;
use eventseal::{NewEvent, aggregate, event, subject};
use std::hint::black_box;
use std::time::Instant;

const ROUNDS: usize = 300;
const ITERATIONS: u32 = 300;

fn main() {
    let payload = common::payload();
    let plain_schema = event("OrderPlaced").version(1);
    let schema = event("OrderPlaced").version(1).protect(&["/name", "/email", "/address"], subject("Customer", "/customer_id"));
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
            let tag = cipher.encrypt_inout_detached(&Nonce::from(nonce), b"/email", buffer.as_mut_slice().into()).unwrap();
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
}
