//! A sensitive value has no `Display`.
use eventseal::Sensitive;

fn main() {
    println!("{}", Sensitive::Present("secret"));
}
