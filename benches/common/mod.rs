//! The payload that the benchmarks seal.

/// A payload of 1 KiB with 23 members. Three of them are protected strings of about 20 bytes.
pub(crate) fn payload() -> String {
    let mut members = vec![
        r#""customer_id":"cust_0000000042""#.to_owned(),
        r#""name":"Augusta Ada Lovelace""#.to_owned(),
        r#""email":"ada@example.invalid""#.to_owned(),
        r#""address":"12 St James's Square""#.to_owned(),
    ];
    for index in 0..19 {
        members.push(match index % 4 {
            0 => format!(r#""amount_{index}":{}"#, 12_345 + index),
            1 => format!(r#""lines_{index}":[{{"sku":"A-{index}","count":{index}}},{{"sku":"B-{index}","count":2}}]"#),
            2 => format!(r#""description_{index}":"a line of ordinary text, as orders have""#),
            _ => format!(r#""flags_{index}":{{"gift":true,"note":null}}"#),
        });
    }
    let filler = 1_024 - members.join(",").len() - 2;
    let end = members[6].len() - 1;
    members[6].insert_str(end, &" and more of it".repeat(10)[..filler]);
    format!("{{{}}}", members.join(","))
}
