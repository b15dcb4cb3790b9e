//! Typed steps, whose samples are made up.

use super::*;

#[derive(Serialize, Deserialize)]
struct PatientV1 {
    id: Uuid,
    name: Sensitive<String>,
    insurance: Sensitive<Uuid>,
    born: Sensitive<Date>,
    tags: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct Patient {
    id: Uuid,
    name: Sensitive<String>,
    insurance: Sensitive<Uuid>,
    born: Sensitive<Date>,
    tags: Vec<String>,
    initial: Option<String>,
}

/// Reads dates only.
#[derive(Clone, Serialize)]
struct Date(String);

impl<'de> Deserialize<'de> for Date {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let parts: Vec<u32> = text.split('-').filter_map(|part| part.parse().ok()).collect();
        match parts.as_slice() {
            [1900..=2100, 1..=12, 1..=31] => Ok(Self(text)),
            _ => Err(serde::de::Error::custom("no date")),
        }
    }
}

fn patients(step: fn(PatientV1) -> Patient) -> Schemas {
    let protect = |schema: EventSchema| schema.protect(&["/name", "/insurance", "/born"], Owner::Aggregate);
    let schema = protect(protect(event("PatientRegistered").version(1)).version(2));
    Schemas::new([schema.upcast(1, move |old| Ok::<_, Never>(step(old)))]).unwrap()
}

fn upcast(old: PatientV1) -> Patient {
    Patient { id: old.id, name: old.name, insurance: old.insurance, born: old.born, tags: old.tags, initial: None }
}

#[test]
fn typed_steps_need_no_samples_and_get_values_of_their_form() {
    let right = patients(upcast);
    let tainted = TaintCheck::new(&right).check().unwrap();
    assert_eq!((tainted.steps, tainted.not_tainted.len()), (1, 0), "{tainted:?}");

    type Step = fn(PatientV1) -> Patient;
    let steps: [(Step, &str); 3] = [
        (
            |mut old| {
                old.tags.push(old.name.expose().unwrap().clone());
                upcast(old)
            },
            "/name",
        ),
        (
            |mut old| {
                old.tags.push(format!("insured as {}", old.insurance.expose().unwrap()));
                upcast(old)
            },
            "/insurance",
        ),
        (
            |mut old| {
                old.tags.push(old.born.expose().unwrap().0.clone());
                upcast(old)
            },
            "/born",
        ),
    ];
    for (step, protected) in steps {
        let found = leaks(TaintCheck::new(&patients(step)).check());
        assert!(
            !found.is_empty() && found.iter().all(|found| found.2 == protected && found.3.starts_with("payload/tags/")),
            "{found:?}"
        );
    }
}

/// A step that takes nothing but dates gets the sample's own, of which a part tells enough.
#[test]
fn the_year_of_a_checked_date_is_caught() {
    let born = || event("Met").version(1).protect(&["/born"], Owner::Aggregate);
    let step = |mut old: Value| {
        let format = time::format_description::well_known::Iso8601::DATE;
        let born = time::Date::parse(old["born"].as_str().unwrap_or_default(), &format)?;
        old["year"] = born.year().into();
        Ok::<_, time::error::Parse>(old)
    };
    let schemas = Schemas::new([born().version(2).protect(&["/born"], Owner::Aggregate).upcast(1, step)]).unwrap();
    let check = TaintCheck::new(&schemas).sample("Met", 1, json!({ "born": "1985-11-27" }));
    assert_eq!(leaks(check.check()), [leak(1, "Met 2", "/born", "payload/year")]);
    // Unless the sample says it elsewhere, too.
    let check = TaintCheck::new(&schemas).sample("Met", 1, json!({ "born": "1985-11-27", "since": "in 1985" }));
    assert_eq!(check.check().unwrap().steps, 1);
}
