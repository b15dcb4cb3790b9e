//! The events that are measured.

use eventseal::schema::EventSchema;
use eventseal::{NewEvent, Schemas, event, subject};

pub const TYPE: &str = "OrderPlaced";
/// The protected places of [`order`].
pub const PLACES: [&str; 3] = ["/name", "/email", "/address"];
const CUSTOMER: &str = "cust_0000000042";

/// A payload of 1 KiB with 23 members. Three of them are protected strings of about 20 bytes.
pub fn order() -> String {
    let members = members();
    let payload = filled(members, 1_024);
    assert_eq!(payload.len(), 1_024);
    payload
}

fn members() -> Vec<String> {
    let mut members = vec![
        format!(r#""customer_id":"{CUSTOMER}""#),
        r#""name":"Augusta Ada Lovelace""#.to_owned(),
        r#""email":"ada@example.invalid""#.to_owned(),
        r#""address":"12 St James's Square""#.to_owned(),
    ];
    members.extend((0..19).map(member));
    members
}

/// A member that nobody protects.
fn member(index: usize) -> String {
    match index % 4 {
        0 => format!(r#""amount_{index}":{}"#, 12_345 + index),
        1 => format!(r#""lines_{index}":[{{"sku":"A-{index}","count":{index}}},{{"sku":"B-{index}","count":2}}]"#),
        2 => format!(r#""description_{index}":"a line of ordinary text, as orders have""#),
        _ => format!(r#""flags_{index}":{{"gift":true,"note":null}}"#),
    }
}

/// An object of these members. The text in the seventh of them makes it as long as this.
fn filled(mut members: Vec<String>, bytes: usize) -> String {
    let filler = bytes.saturating_sub(members.join(",").len() + 2);
    let end = members[6].len() - 1;
    members[6].insert_str(end, &" and more of it".repeat(filler / 15 + 1)[..filler]);
    format!("{{{}}}", members.join(","))
}

/// The payload of [`order`] with more of the members that nobody protects, up to this many bytes.
pub fn large(bytes: usize) -> String {
    let (mut members, mut length) = (members(), 1_024);
    for index in 19.. {
        let next = member(index);
        length += next.len() + 1;
        if length > bytes {
            break;
        }
        members.push(next);
    }
    filled(members, bytes)
}

/// The payload of [`order`], with this many protected strings of 20 bytes in place of the three. Returns their places.
pub fn with_fields(count: usize) -> (String, Vec<String>) {
    let mut members = members();
    members.drain(1..4);
    members.extend((0..count).map(|index| format!(r#""field_{index:03}":"twenty bytes of text""#)));
    (format!("{{{}}}", members.join(",")), (0..count).map(|index| format!("/field_{index:03}")).collect())
}

/// The payload of [`order`] within this many objects, each in the other. Returns its places.
pub fn deep(levels: usize) -> (String, Vec<String>) {
    let payload = format!(r#"{}{}{}"#, r#"{"inner":"#.repeat(levels), order(), "}".repeat(levels));
    let path = "/inner".repeat(levels);
    (payload, PLACES.iter().map(|place| format!("{path}{place}")).collect())
}

/// The payload of [`order`] of another customer.
pub fn order_of(customer: &str) -> String {
    order().replace(CUSTOMER, customer)
}

/// Events with the payload of [`order`], of this customer.
pub fn events(customer: &str, count: usize) -> Vec<NewEvent> {
    let payload = order_of(customer);
    (0..count).map(|_| NewEvent::raw(TYPE, 1, payload.clone())).collect()
}

/// The customer of this number.
pub fn customer(number: usize) -> String {
    format!("cust_{number:010}")
}

/// The type of [`events`], whose sensitive fields are their customer's.
pub fn placed() -> EventSchema {
    event(TYPE).version(1).protect(&PLACES, subject("Customer", "/customer_id"))
}

pub fn schemas() -> Schemas {
    Schemas::new([placed()]).expect("the schema is valid")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[test]
    fn payloads_are_as_large_as_they_say_and_hold_what_is_protected() {
        let payload: Value = serde_json::from_str(&order()).unwrap();
        assert_eq!(payload.as_object().unwrap().len(), 23);
        assert_eq!([16_384, 1_048_576].map(|bytes| large(bytes).len()), [16_384, 1_048_576]);
        let all = [(order(), PLACES.map(str::to_owned).to_vec()), with_fields(100), deep(64)];
        for (payload, places) in all {
            let payload: Value = serde_json::from_str(&payload).unwrap();
            for place in places {
                assert!(payload.pointer(&place).unwrap().is_string(), "{place}");
            }
        }
    }
}
