//! The lines of a copy of the shred log: JSON, as `docs/format.md` says.

use crate::crypto::primitives::Transcript;
use crate::keys::entry::{from_microseconds, keys_from_text, keys_to_text, microseconds};
use crate::keys::names::{KekId, KeyId, KeyScope};
use crate::keys::{
    DataKeyRecord, EntryMac, KekRecord, KekState, LogEntry, LogRow, ScopeAction, ScopeState, SealedEntry,
};
use crate::kms::WrappedKek;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use time::OffsetDateTime;
use uuid::Uuid;

const FORMAT: u64 = 1;

/// The hash of a row.
pub(crate) type Digest = [u8; 32];

/// What every line says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) namespace: String,
    /// The end of the chain, with this line.
    pub(crate) seq: u64,
    pub(crate) hash: Digest,
    /// A digest of the keys with which the copy can be checked.
    pub(crate) keys: String,
}

pub(super) enum Line {
    /// The wrapped integrity keys, and the key-encryption keys that wrap them.
    Keys(Stamp, CopiedKeys),
    Entry(Stamp, Box<SealedEntry>),
}

impl Line {
    pub(super) fn stamp(&self) -> &Stamp {
        match self {
            Self::Keys(stamp, _) | Self::Entry(stamp, _) => stamp,
        }
    }
}

/// What is needed to check a copy without the key table, except for the master key.
#[derive(Clone, Debug, Default)]
pub(crate) struct CopiedKeys {
    pub(crate) keys: Vec<DataKeyRecord>,
    pub(crate) keks: Vec<KekRecord>,
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

impl CopiedKeys {
    fn json(&self) -> Value {
        let keys = self.keys.iter().map(|key| {
            json!({
                "key_id": key.key_id.0.to_string(),
                "version": key.version,
                "kek_id": key.kek_id.0.to_string(),
                "wrapped_key": key.wrapped_key.as_ref().map(|wrapped| STANDARD.encode(wrapped)),
                "created_at": microseconds(key.created_at),
            })
        });
        let keks = self.keks.iter().map(|kek| {
            json!({
                "kek_id": kek.kek_id.0.to_string(),
                "partition": kek.partition,
                "provider": kek.provider,
                "master_key_id": kek.wrapped.master_key_id,
                "wrapped_kek": STANDARD.encode(&kek.wrapped.ciphertext),
                "created_at": microseconds(kek.created_at),
            })
        });
        json!({ "integrity_keys": keys.collect::<Vec<_>>(), "keks": keks.collect::<Vec<_>>() })
    }

    /// A digest of these keys, by which lines say which keys came before them.
    pub(crate) fn digest(&self) -> String {
        let number = |number: u64| number.to_be_bytes().to_vec();
        let time = |at: OffsetDateTime| microseconds(at).to_be_bytes().to_vec();
        let id = |id: Uuid| id.into_bytes().to_vec();
        let mut items = vec![b"eventseal/v1/copied-keys".to_vec(), number(self.keys.len() as u64)];
        for key in &self.keys {
            let wrapped = key.wrapped_key.clone().unwrap_or_default();
            items.extend([id(key.key_id.0), number(key.version.into()), id(key.kek_id.0), wrapped]);
            items.push(time(key.created_at));
        }
        for kek in &self.keks {
            items.extend([id(kek.kek_id.0), kek.partition.clone().into_bytes(), kek.provider.clone().into_bytes()]);
            items.extend([kek.wrapped.master_key_id.clone().into_bytes(), kek.wrapped.ciphertext.clone()]);
            items.push(time(kek.created_at));
        }
        hex(&Transcript::of(&items.iter().map(Vec::as_slice).collect::<Vec<_>>()).as_bytes()[..16])
    }

    pub(crate) fn line(&self, stamp: &Stamp) -> String {
        json!({
            "shred_log": FORMAT,
            "namespace": stamp.namespace,
            "seq": stamp.seq,
            "hash": hex(&stamp.hash),
            "keys": stamp.keys,
            "copied_keys": self.json(),
        })
        .to_string()
    }
}

pub(crate) fn entry_line(namespace: &str, keys: &str, sealed: &SealedEntry) -> String {
    let SealedEntry { row, entry } = sealed;
    // This text is made here, so it is JSON.
    let destroyed: Value = serde_json::from_str(&keys_to_text(&entry.keys)).unwrap_or_default();
    json!({
        "shred_log": FORMAT,
        "namespace": namespace,
        "seq": row.seq,
        "hash": hex(&row.hash),
        "keys": keys,
        "previous_hash": hex(&row.previous_hash),
        "mac_key_id": row.mac.key_id.0.to_string(),
        "mac": hex(&row.mac.mac),
        "entry": {
            "entry_id": entry.entry_id.to_string(),
            "kind": entry.scope.kind(),
            "id": entry.scope.id(),
            "scope_seq": entry.scope_seq,
            "at": microseconds(entry.at),
            "action": entry.action.as_str(),
            "state": entry.state.as_str(),
            "generation": entry.generation,
            "keys": destroyed,
            "until": entry.until.map(microseconds),
            "about": entry.about.map(|about| about.to_string()),
            "reason": entry.reason,
            "actor": entry.actor,
            "mac_key_id": entry.mac.map(|mac| mac.key_id.0.to_string()),
            "mac": entry.mac.map(|mac| hex(&mac.mac)),
        },
    })
    .to_string()
}

/// Reads a line. The error says what is wrong with it.
pub(super) fn parse(text: &str) -> Result<Line, String> {
    let line: Value = serde_json::from_str(text).map_err(|_| "is not JSON: it was cut off or altered".to_owned())?;
    let line = Fields(&line);
    match line.number("shred_log") {
        Ok(FORMAT) => {}
        Ok(newer) => return Err(format!("has format {newer}, and this version reads {FORMAT}: use a newer version")),
        Err(_) => return Err("is not of a shred log".to_owned()),
    }
    let stamp = Stamp {
        namespace: line.text("namespace")?.to_owned(),
        seq: line.number("seq")?,
        hash: line.bytes("hash")?,
        keys: line.text("keys")?.to_owned(),
    };
    if let Some(copied) = line.0.get("copied_keys") {
        let copied = Fields(copied);
        let keys = copied.list("integrity_keys")?.iter().map(|key| copied_key(&Fields(key)));
        let keks = copied.list("keks")?.iter().map(|kek| copied_kek(&Fields(kek)));
        let copied = CopiedKeys { keys: keys.collect::<Result<_, _>>()?, keks: keks.collect::<Result<_, _>>()? };
        if copied.digest() != stamp.keys {
            return Err("has other keys than it says: it was altered".to_owned());
        }
        return Ok(Line::Keys(stamp, copied));
    }
    let entry = entry(&line.inner("entry")?)?;
    let row = LogRow {
        seq: stamp.seq,
        entry_id: entry.entry_id,
        previous_hash: line.bytes("previous_hash")?,
        hash: stamp.hash,
        mac: EntryMac { key_id: KeyId(line.id("mac_key_id")?), mac: line.bytes("mac")? },
    };
    Ok(Line::Entry(stamp, Box::new(SealedEntry { row, entry })))
}

fn entry(line: &Fields<'_>) -> Result<LogEntry, String> {
    let mac = match line.optional("mac") {
        Some(_) => Some(EntryMac { key_id: KeyId(line.id("mac_key_id")?), mac: line.bytes("mac")? }),
        None => None,
    };
    Ok(LogEntry {
        entry_id: line.id("entry_id")?,
        scope: KeyScope::new(line.text("kind")?, line.text("id")?),
        scope_seq: line.small("scope_seq")?,
        at: line.time("at")?,
        action: ScopeAction::parse(line.text("action")?).map_err(|_| wrong("action"))?,
        state: ScopeState::parse(line.text("state")?).map_err(|_| wrong("state"))?,
        generation: line.small("generation")?,
        keys: keys_from_text(&line.inner("keys")?.0.to_string()).map_err(|_| wrong("keys"))?,
        until: line.optional("until").map(|_| line.time("until")).transpose()?,
        about: line.optional("about").map(|_| line.id("about")).transpose()?,
        reason: line.text("reason")?.to_owned(),
        actor: line.optional("actor").map(|_| line.text("actor").map(str::to_owned)).transpose()?,
        mac,
    })
}

fn copied_key(key: &Fields<'_>) -> Result<DataKeyRecord, String> {
    Ok(DataKeyRecord {
        key_id: KeyId(key.id("key_id")?),
        scope: KeyScope::integrity(),
        version: key.small("version")?,
        kek_id: KekId(key.id("kek_id")?),
        wrapped_key: Some(key.base64("wrapped_key")?),
        created_at: key.time("created_at")?,
        shredded_at: None,
        scope_state: ScopeState::Live,
    })
}

fn copied_kek(kek: &Fields<'_>) -> Result<KekRecord, String> {
    let created_at = kek.time("created_at")?;
    let wrapped =
        WrappedKek { master_key_id: kek.text("master_key_id")?.to_owned(), ciphertext: kek.base64("wrapped_kek")? };
    Ok(KekRecord {
        kek_id: KekId(kek.id("kek_id")?),
        partition: kek.text("partition")?.to_owned(),
        provider: kek.text("provider")?.to_owned(),
        wrapped,
        state: KekState::DecryptOnly,
        created_at,
        wrapped_at: created_at,
    })
}

fn wrong(name: &str) -> String {
    format!("has no valid {name:?}: it was altered")
}

/// A JSON object whose members are read by name.
struct Fields<'v>(&'v Value);

impl<'v> Fields<'v> {
    fn optional(&self, name: &str) -> Option<&'v Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    fn inner(&self, name: &str) -> Result<Fields<'v>, String> {
        self.optional(name).map(Fields).ok_or_else(|| wrong(name))
    }

    fn text(&self, name: &str) -> Result<&'v str, String> {
        self.optional(name).and_then(Value::as_str).ok_or_else(|| wrong(name))
    }

    fn number(&self, name: &str) -> Result<u64, String> {
        self.optional(name).and_then(Value::as_u64).ok_or_else(|| wrong(name))
    }

    fn small(&self, name: &str) -> Result<u32, String> {
        self.number(name)?.try_into().map_err(|_| wrong(name))
    }

    fn time(&self, name: &str) -> Result<OffsetDateTime, String> {
        self.optional(name).and_then(Value::as_i64).and_then(from_microseconds).ok_or_else(|| wrong(name))
    }

    fn id(&self, name: &str) -> Result<Uuid, String> {
        Uuid::try_parse(self.text(name)?).map_err(|_| wrong(name))
    }

    fn list(&self, name: &str) -> Result<&'v [Value], String> {
        self.optional(name).and_then(Value::as_array).map(Vec::as_slice).ok_or_else(|| wrong(name))
    }

    fn base64(&self, name: &str) -> Result<Vec<u8>, String> {
        STANDARD.decode(self.text(name)?).map_err(|_| wrong(name))
    }

    fn bytes(&self, name: &str) -> Result<Digest, String> {
        let text = self.text(name)?.as_bytes();
        let mut bytes = [0; 32];
        if text.len() != 64 {
            return Err(wrong(name));
        }
        for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
            let digit = |digit: u8| (digit as char).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
            let (Some(high), Some(low)) = (digit(pair[0]), digit(pair[1])) else { return Err(wrong(name)) };
            *byte = high << 4 | low;
        }
        Ok(bytes)
    }
}
