//! Key material can't be copied by accident.
use eventseal::kms::SecretKey;

fn main() {
    let key = SecretKey::new([0; 32]);
    let _ = key.clone();
}
