//! Sealing and opening allocate their output and a few small buffers, however large the payload.

use allocation_counter::measure;
use eventseal::internals::Engine;
use eventseal::{NewEvent, aggregate, event, subject};

#[test]
fn memory_is_the_output_and_a_few_small_buffers() {
    for size in [100, 1_000, 100_000, 10_000_000] {
        let payload = format!(r#"{{"customer":"42","name":"Ada Lovelace","text":"{}","email":"ada@x"}}"#, "x".repeat(size));
        let schema = event("Placed").version(1).protect(&["/name", "/email"], subject("Customer", "/customer"));
        let engine = Engine::new(schema, aggregate("Order", "1"), NewEvent::raw("Placed", 1, payload)).unwrap();
        let sealed = engine.seal().unwrap();
        let output = u64::try_from(sealed.len()).unwrap();
        for (name, cost) in [("seal", measure(|| drop(engine.seal().unwrap()))), ("open", measure(|| drop(engine.open(&sealed).unwrap())))]
        {
            assert!(cost.count_total <= 24, "{name} of {size}: {cost:?}");
            assert!(cost.bytes_total <= output + 8_192, "{name} of {size}: {cost:?}");
        }
    }
}
