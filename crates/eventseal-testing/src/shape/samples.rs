//! The shape that several sample payloads have in common.

use crate::number::is_float;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

pub(super) fn shape_of<'v>(samples: impl IntoIterator<Item = &'v Value>) -> Value {
    let mut seen = Seen::default();
    samples.into_iter().for_each(|sample| seen.add(sample));
    seen.shape()
}

/// What the samples have at one place.
#[derive(Default)]
struct Seen {
    count: usize,
    nulls: usize,
    /// The types of the values that are not objects, arrays or `null`.
    leaves: Vec<&'static str>,
    objects: usize,
    members: BTreeMap<String, Self>,
    lists: usize,
    elements: Option<Box<Self>>,
}

impl Seen {
    fn add(&mut self, value: &Value) {
        self.count += 1;
        match value {
            Value::Null => self.nulls += 1,
            Value::Object(members) => {
                self.objects += 1;
                members.iter().for_each(|(name, member)| self.members.entry(name.clone()).or_default().add(member));
            }
            Value::Array(elements) => {
                self.lists += 1;
                let seen = self.elements.get_or_insert_default();
                elements.iter().for_each(|element| seen.add(element));
            }
            Value::String(_) => self.leaf("string"),
            Value::Bool(_) => self.leaf("bool"),
            Value::Number(number) if is_float(number) => self.leaf("float"),
            Value::Number(_) => self.leaf("integer"),
        }
    }

    fn leaf(&mut self, name: &'static str) {
        if !self.leaves.contains(&name) {
            self.leaves.push(name);
            self.leaves.sort_unstable();
        }
    }

    fn shape(&self) -> Value {
        let mut leaves = self.leaves.clone();
        if leaves.contains(&"float") {
            leaves.retain(|name| *name != "integer");
        }
        let mut shapes: Vec<Value> = leaves.into_iter().map(Value::from).collect();
        if self.objects > 0 {
            let members = self.members.iter().map(|(name, seen)| {
                let shape = seen.shape();
                let is_missing = seen.count < self.objects && shape.get("option").is_none();
                (name.clone(), if is_missing { json!({ "default": shape }) } else { shape })
            });
            shapes.push(json!({ "struct": members.collect::<Map<_, _>>() }));
        }
        if self.lists > 0 {
            shapes.push(json!({ "list": self.elements.as_ref().map_or("any".into(), |seen| seen.shape()) }));
        }
        let shape = match shapes.len() {
            0 if self.nulls > 0 => return "null".into(),
            0 => "any".into(),
            1 => shapes.remove(0),
            _ => json!({ "one of": shapes }),
        };
        if self.nulls > 0 { json!({ "option": shape }) } else { shape }
    }
}
