#!/usr/bin/env python3
"""Reads sealed payloads, metadata, values and snapshots, format version 1, checks copies of the shred log, hashes values
as blind indexes do, and checks itself against the frozen vectors beside it.

Written from docs/format.md and nothing else, to show that the page is enough; section numbers are that
page's. It favours being read over being fast. Needs the package `cryptography`.

    python3 decrypt.py [vector files; all of them, unless some are named]
"""

import base64
import hashlib
import hmac
import json
import re
import sys
import uuid
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand


class Fault(Exception):
    """An error's kind, and its detail as the vectors name it."""

    def __init__(self, kind, detail=""):
        super().__init__(kind, detail)
        self.kind, self.detail = kind, detail


def tampered(check):
    return Fault("Tampered", check)


# ---- JSON texts: where things stand (section 2)

STRING = re.compile(rb'"(?:[^"\\\x00-\x1f]|\\["\\/bfnrt]|\\u[0-9A-Fa-f]{4})*"')
SCALAR = re.compile(STRING.pattern + rb"|-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?|true|false|null")
SPACE = re.compile(rb"[ \t\r\n]*")


class Value:
    """A value from `start` to `end`. `kind` is object, array, null or scalar."""

    def __init__(self, kind, start):
        self.kind, self.start, self.end = kind, start, start
        self.children = []  # of an object: (name, where the name starts, value); of an array: values


class Scanner:
    def __init__(self, text):
        self.text, self.at = text, 0

    def document(self):
        try:
            self.text.decode("utf-8")
        except UnicodeDecodeError:
            raise Fault("InvalidPayload") from None
        root = self.value(0)
        self.take(SPACE)
        if self.at < len(self.text):
            raise Fault("InvalidPayload")
        return root

    def take(self, pattern):
        match = pattern.match(self.text, self.at)
        if not match:
            raise Fault("InvalidPayload")
        self.at = match.end()
        return match.group()

    def sign(self, signs):
        """The next byte behind white space, if it is one of `signs`."""
        self.take(SPACE)
        found = self.text[self.at : self.at + 1]
        if not found or found not in signs:
            raise Fault("InvalidPayload")
        self.at += 1
        return found

    def value(self, depth):
        self.take(SPACE)
        start, opening = self.at, self.text[self.at : self.at + 1]
        if opening in (b"{", b"["):
            if depth == 128:
                raise Fault("LimitExceeded")
            value, closing, child = Value("object", start), b"}", self.member
            if opening == b"[":
                value, closing, child = Value("array", start), b"]", self.value
            self.sign(opening)
            self.take(SPACE)
            if self.text[self.at : self.at + 1] == closing:
                self.sign(closing)
            else:
                value.children.append(child(depth + 1))
                while self.sign(closing + b",") == b",":
                    value.children.append(child(depth + 1))
        else:
            value = Value("null" if self.take(SCALAR) == b"null" else "scalar", start)
        value.end = self.at
        return value

    def member(self, depth):
        self.take(SPACE)
        start = self.at
        name = json.loads(self.take(STRING))  # unescapes; an unpaired surrogate stays one, and equals no name
        self.sign(b":")
        return name, start, self.value(depth)


def members(value, name):
    return [child for child in value.children if child[0] == name] if value.kind == "object" else []


# ---- pointers (sections 1 and 2)

EACH = object()


def steps_of(pointer, in_plan=False):
    escapes = {"~0": "~", "~1": "/", "~2": "*"}
    unescape = lambda token: re.sub("~[012]", lambda match: escapes[match.group()], token)
    return [EACH if in_plan and token == "*" else unescape(token) for token in pointer.split("/")[1:]]


def places(value, steps, pointer=""):
    """The values at a place of a plan or an entry, beside their pointers."""
    if not steps:
        yield pointer, value
        return
    step, rest = steps[0], steps[1:]
    if value.kind == "null":
        return
    if value.kind == "object" and step is not EACH:
        found = members(value, step)
        if len(found) > 1:
            raise tampered("duplicate")
        for _, _, child in found:
            yield from places(child, rest, pointer + "/" + step.replace("~", "~0").replace("/", "~1"))
    elif value.kind == "array" and (step is EACH or is_index(step)):
        for index, child in enumerate(value.children):
            if step is EACH or int(step) == index:
                yield from places(child, rest, f"{pointer}/{index}")
    else:
        raise Fault("ShapeMismatch", pointer)


def is_index(token):
    return re.fullmatch("0|[1-9][0-9]*", token, re.ASCII) is not None and int(token) <= 4294967295


# ---- tokens and headers (sections 2 and 3)


def read_token(text):
    """The bytes of a token; None if the text is not one."""
    match = re.fullmatch(rb'"([A-Za-z0-9_-]*)"', text)
    if not match or len(match.group(1)) % 4 == 1:
        return None
    found = base64.urlsafe_b64decode(match.group(1) + b"=" * (-len(match.group(1)) % 4))
    # Decoding ignores unused bits; only the spelling with zeros comes back.
    return found if base64.urlsafe_b64encode(found).rstrip(b"=") == match.group(1) else None


FIELDS, WHOLE = 0, 1
SEALED, VOID = 0, 1
SNAPSHOT = 2


class Header:
    def __init__(self, data, part=0):
        self.data, self.at = data, 0
        self.check(len(data) <= 25165824)
        for item, supported in (("format", (1,)), ("suite", (1,)), ("part", (0, 1, 2, part)), ("mode", (FIELDS, WHOLE))):
            number = self.number(1)
            if number not in supported:
                raise Fault("Unsupported", item)
            self.check(item != "part" or number == part)
        self.mode = number
        self.take(16)  # the salt counts through the core only
        self.integrity_key = self.take(16)
        least = 0 if part == SNAPSHOT else 1
        self.keys = [self.take(16) for _ in range(self.count(least, 1024))]
        self.entries = [self.entry() for _ in range(self.count(least, 4096))]
        self.core = data[: self.at]
        self.tag = self.take(16)
        sealing = sorted({key for key, kind, _ in self.entries if kind == SEALED})
        self.commitments = [(key, self.take(32)) for key in sealing]
        pointers = [pointer for _, _, pointer in self.entries]
        self.check(self.at == len(data))
        self.check(len(set(self.keys)) == len(self.keys))
        self.check({key for key, _, _ in self.entries} == set(range(len(self.keys))))
        if part == SNAPSHOT:
            self.check(self.mode == WHOLE and set(pointers) <= {""})
            self.check([key for key, _, _ in self.entries] == list(range(len(self.keys))))
            return
        self.check(len(set(pointers)) == len(pointers))
        if self.mode == WHOLE:
            self.check(pointers == [""])
        else:
            self.check(all(pointer and pointer.split("/")[1] != "$seal" for pointer in pointers))

    def check(self, holds):
        if not holds:
            raise tampered("header-layout")

    def take(self, length):
        self.at += length
        self.check(self.at <= len(self.data))
        return self.data[self.at - length : self.at]

    def number(self, length):
        return int.from_bytes(self.take(length), "big")

    def count(self, least, most):
        number = self.number(2)
        self.check(least <= number <= most)
        return number

    def entry(self):
        key, kind, length = self.number(2), self.number(1), self.number(2)
        self.check(kind in (SEALED, VOID) and length <= 4096)
        try:
            pointer = self.take(length).decode("utf-8")
        except UnicodeDecodeError:
            raise tampered("header-layout") from None
        self.check(re.fullmatch("(/([^~/]|~[01])*)*", pointer) is not None)
        return key, kind, pointer


# ---- derivations (sections 4 and 10)


def digest(items):
    return hashlib.sha256(b"".join(len(item).to_bytes(4, "big") + item for item in items)).digest()


def expand(key, info, length):
    return HKDFExpand(algorithm=SHA256(), length=length, info=info).derive(key)


def transcript(case, core):
    names = (case["namespace"], case["aggregate_type"], case["aggregate_id"])
    event = (uuid.UUID(case["event_id"]).bytes, case["event_type"].encode(), str(case["event_version"]).encode())
    return digest([b"eventseal/v1", *(name.encode() for name in names), *event, core])


def decrypt(enc, index, pointer, sealed):
    try:
        padded = AESGCM(enc).decrypt(index.to_bytes(12, "big"), sealed, pointer.encode())
    except (InvalidTag, ValueError):
        raise tampered("token") from None
    value = padded.rstrip(b"\0")
    if not padded or len(padded) % 32 or not value.endswith(b"\x80"):
        raise tampered("token")
    return value[:-1]


def unwrap(wrapped):
    namespace, kek_id = wrapped["namespace"].encode(), uuid.UUID(wrapped["kek_id"]).bytes
    (kind, bound), data = next(iter(wrapped["bound_to"].items())), bytes.fromhex(wrapped["wrapped"])
    if kind == "key_encryption_key":
        items = [b"eventseal/v1/kek", namespace, kek_id, bound["master_key_id"].encode()]
    else:
        scope = (bound["scope_kind"].encode(), bound["scope_id"].encode())
        key_id = uuid.UUID(bound["key_id"]).bytes
        items = [b"eventseal/v1/dek", namespace, key_id, *scope, bound["version"].to_bytes(4, "big"), kek_id]
    if len(data) != 65 or data[0] != 1:
        return None
    associated = digest([*items, data[1:17]])
    key = expand(bytes.fromhex(wrapped["wrapping_key"]), b"eventseal/v1/wrap" + associated, 32)
    try:
        return AESGCM(key).decrypt(bytes(12), data[17:], associated)
    except InvalidTag:
        return None


# ---- opening (section 6)


INTEGRITY = ("$eventseal", "integrity")


class Key:
    def __init__(self, row, status):
        self.status, self.scope = status, (row["scope_kind"], row["scope_id"])
        self.secret = bytes.fromhex(row["secret"]) if status == "live" else None


def keys_of(case, all_live=False):
    rows = ((row, "live" if all_live else row["status"]) for row in case["keys"])
    return {uuid.UUID(row["key_id"]).bytes: Key(row, status) for row, status in rows if status != "missing"}


def open_payload(case, text, keys):
    """The opened payload, and the pointers of what is redacted."""
    plan, accepting = case["plan"], case["accept_plaintext"]
    whole = any(field["pointer"] == "" for field in plan)

    # 1. The text.
    try:
        root = Scanner(text).document()
    except Fault as fault:
        if plan and not whole:
            raise
        might_be_sealed = re.search(rb"\$seal|\\u00(24|73|65|61|6c)", text, re.IGNORECASE)
        if not plan and (might_be_sealed if fault.kind == "LimitExceeded" else re.match(rb'\s*{"\$seal":"', text)):
            raise
        if accepting or not plan:
            return text, []
        raise Fault("Unsealed", "") from None
    seals = members(root, "$seal")
    if len(seals) > 1:
        raise tampered("duplicate")
    found = [(place, field) for field in plan if field["pointer"] for place in places(root, steps_of(field["pointer"], True))]
    stand_ins = {pointer: field["stand_in"] for (pointer, _), field in found} | {"": plan[0]["stand_in"] if whole else "null"}
    exposed = sorted((value.start, pointer) for (pointer, value), _ in found if value.kind != "null")

    # 2. Is there a seal?
    if not seals:
        if not accepting and (whole or exposed):
            raise Fault("Unsealed", "" if whole else exposed[0][1])
        return text, []

    # 3. The header.
    data = read_token(text[seals[0][2].start : seals[0][2].end])
    if data is None:
        raise tampered("header-encoding")
    header = Header(data, part=1 if case.get("document") == "metadata" else 0)

    # 4. The values.
    values = locate(root, header)

    # 5. Is everything covered?
    if header.mode == FIELDS and not accepting:
        covered = {pointer for _, _, pointer in header.entries}
        open_to_all = [""] if whole else [pointer for _, pointer in exposed if pointer not in covered]
        if open_to_all:
            raise Fault("Unsealed", open_to_all[0])

    # 6. to 8. Header and keys.
    encs = authenticate(transcript(case, header.core), header, keys)
    check_states(header, keys)

    # 9. The values, in the order in which they stand.
    pieces, redacted = [], []
    for index in sorted(range(len(values)), key=lambda index: values[index].start):
        key, kind, pointer = header.entries[index]
        value = text[values[index].start : values[index].end]
        token = read_token(value)
        if keys[header.keys[key]].status == "live":
            if kind == VOID:
                raise tampered("void-key")
            if token is None:
                raise tampered("token-encoding")
            opened = decrypt(encs[key], index, pointer, token)
        else:
            if kind == VOID and value != b"null":
                raise tampered("void-value")
            if kind == SEALED and (token is None or len(token) <= 16 or (len(token) - 16) % 32):
                raise tampered("token-shape")
            # A place that the plan does not mean has no stand-in of its own.
            opened = stand_ins.get(pointer, "null").encode()
            redacted.append(pointer)
        pieces.append((values[index].start, values[index].end, opened))

    # 10. The result.
    if header.mode == WHOLE:
        return pieces[0][2], redacted
    pieces.append((*cut(text, root, seals[0]), b""))
    result, copied = b"", 0
    for start, end, piece in sorted(pieces):
        result += text[copied:start] + piece
        copied = end
    return result + text[copied:], redacted


def locate(root, header):
    """The value of each entry."""
    if header.mode == WHOLE:
        values = [child for _, _, child in members(root, "$sealed")]
        if len(values) != 1 or len(root.children) != 2:
            raise tampered("values")
        return values
    try:
        values = [list(places(root, steps_of(pointer))) for _, _, pointer in header.entries]
    except Fault:
        raise tampered("values") from None
    if not all(values):
        raise tampered("values")
    return [value for [(_, value)] in values]


def authenticate(bound, header, keys):
    """The encryption key of each live key, by index, once the header is known to belong to what it is bound to."""
    encs = {}
    for index, commitment in header.commitments:
        key = keys.get(header.keys[index])
        if key and key.status == "live":
            if key.scope[0].startswith("$"):
                raise tampered("reserved-key")
            derived = expand(key.secret, b"eventseal/v1/seal" + bound + index.to_bytes(2, "big"), 64)
            if not hmac.compare_digest(derived[32:], commitment):
                raise tampered("commitment")
            encs[index] = derived[:32]
    if any(key_id not in keys or keys[key_id].status != "live" for key_id in header.keys):
        key = keys.get(header.integrity_key)
        if key and (key.scope != INTEGRITY or key.status == "shredded"):
            raise tampered("tag")
        if key and key.status == "live":
            tag = hmac.digest(key.secret, b"eventseal/v1/header" + bound, "sha256")[:16]
            if not hmac.compare_digest(tag, header.tag):
                raise tampered("tag")
    return encs


def check_states(header, keys):
    """Can every key be used, and may something be redacted?"""
    for key_id in header.keys:
        usable(key_id, keys)
    if any(keys[key_id].status == "shredded" for key_id in header.keys):
        usable(header.integrity_key, keys)


def usable(key_id, keys):
    if key_id not in keys:
        raise Fault("MissingKey", str(uuid.UUID(bytes=key_id)))
    if keys[key_id].status == "disabled":
        raise Fault("Disabled", " ".join(keys[key_id].scope))


def cut(text, root, seal):
    """From where to where the header is taken away, with one comma."""
    _, start, value = seal
    position = root.children.index(seal)
    if position + 1 < len(root.children):
        return start, text.index(b",", value.end) + 1
    if position > 0:
        return text.index(b",", root.children[position - 1][2].end), value.end
    return start, value.end


# ---- values outside of events (section 14)


def open_value(case, text, keys):
    """The value, or None if it is redacted."""
    data = read_token(b'"' + text.encode() + b'"')
    if data is None:
        raise Fault("InvalidText")
    header, ciphertext = Header(data[:109], part=3), data[109:]
    header.check(header.mode == WHOLE and len(header.keys) == 1 and header.entries == [(0, SEALED, "")])
    if len(ciphertext) <= 16 or (len(ciphertext) - 16) % 32:
        raise tampered("ciphertext-shape")
    items = [item.encode() for item in case["context"]]
    context = b"".join(len(item).to_bytes(4, "big") + item for item in items)
    bound = digest([b"eventseal/v1/value", case["namespace"].encode(), context, header.core])
    encs = authenticate(bound, header, keys)
    key = keys.get(header.keys[0])
    if key and key.scope != (case["scope_kind"], case["scope_id"]):
        raise Fault("OtherOwner")
    check_states(header, keys)
    if key.status == "shredded":
        return None
    try:
        return decrypt(encs[0], 0, "", ciphertext)
    except Fault:
        raise tampered("ciphertext") from None


# ---- snapshots (section 16)


def open_snapshot(case, data, keys):
    """The state."""
    count = int.from_bytes(data[36:38], "big")
    kinds = data[38 + 16 * count + 2 :][2 : 5 * count : 5]
    length = 38 + 16 * count + 2 + 5 * count + 16 + 32 * kinds.count(SEALED)
    header, ciphertext = Header(data[:length], part=SNAPSHOT), data[length:]
    if len(ciphertext) <= 16 or (len(ciphertext) - 16) % 32:
        raise tampered("ciphertext-shape")
    texts = [case[name] for name in ("namespace", "aggregate_type", "aggregate_id", "aggregate_version")]
    items = [b"eventseal/v1/snapshot", *(str(text).encode() for text in texts), uuid.UUID(case["event_id"]).bytes]
    bound = digest([*items, case["state"].encode(), bytes.fromhex(case["fingerprint"]), header.core])

    integrity = keys.get(header.integrity_key)
    must_be(header.integrity_key, keys, "live")
    tag = hmac.digest(integrity.secret, b"eventseal/v1/header" + bound, "sha256")[:16]
    if integrity.scope != INTEGRITY or not hmac.compare_digest(tag, header.tag):
        raise tampered("tag")
    parts = {}
    for index, kind, _ in header.entries:
        must_be(header.keys[index], keys, "live" if kind == SEALED else "shredded")
        if kind == SEALED:
            key = keys[header.keys[index]]
            if key.scope[0].startswith("$"):
                raise tampered("reserved-key")
            parts[index] = expand(key.secret, b"eventseal/v1/seal" + bound + index.to_bytes(2, "big"), 64)
    for index, commitment in header.commitments:
        if not hmac.compare_digest(parts[index][32:], commitment):
            raise tampered("commitment")
    joined = expand(integrity.secret, b"eventseal/v1/snapshot" + bound, 32)
    joined += b"".join(part[:32] for part in parts.values())
    enc = expand(hmac.digest(bound, joined, "sha256"), b"eventseal/v1/snapshot", 32)
    try:
        return decrypt(enc, 0, "", ciphertext)
    except Fault:
        raise tampered("ciphertext") from None


def must_be(key_id, keys, status):
    if key_id not in keys or keys[key_id].status != status:
        raise Fault("KeyChanged", str(uuid.UUID(bytes=key_id)))


def keys_when_sealed(case):
    """The keys of a snapshot as they were when it was sealed."""
    status = lambda row: "shredded" if row["key_id"] in case["destroyed"] else "live"
    return {uuid.UUID(row["key_id"]).bytes: Key(row, status(row)) for row in case["keys"]}


# ---- blind indexes (section 15)


WHITE = "\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(map(chr, range(0x2000, 0x200B)))


def folded(text):
    for change in str.lower, str.upper, str.lower:
        text = "".join(change(character) for character in text)
    return text


def spell(spelling, value):
    if spelling == "email":
        value = value.strip(WHITE)
        local, _, domain = value.rpartition("@")
        if not local or not domain:
            raise Fault("InvalidValue")
    spelled = value if spelling == "exact" else folded(value)
    if not 0 < len(spelled.encode()) <= 65_536:
        raise Fault("InvalidValue")
    return spelled


def blind_hash(case):
    """The value as it is hashed, and its hash; or why it is refused."""
    try:
        spelled = spell(case["spelling"], case["value"])
    except Fault as fault:
        return fault.kind
    key = expand(bytes.fromhex(case["secret"]), b"eventseal/v1/index", 32)
    items = [case["index"].encode(), spelled.encode()]
    text = b"".join(len(item).to_bytes(4, "big") + item for item in items)
    whole, bits = int.from_bytes(hmac.digest(key, text, "sha256"), "big"), case["bits"]
    length = (bits + 7) // 8
    return spelled, ((whole >> (256 - bits)) << (8 * length - bits)).to_bytes(length, "big").hex()


# ---- copies of the shred log (section 11)


MICROSECONDS, NUMBER, SHORT = range(-(2**63), 2**63), range(2**64), range(2**32)
ACTIONS = "shred reopen disable enable hold release schedule cancel fork adopt".split()
STATES = "live disabled withheld shredded".split()


def member(line, name, kind, limits=None):
    """A member of the line; Fault if it is not what it should be."""
    found = line.get(name) if isinstance(line, dict) else None
    if not isinstance(found, kind) or isinstance(found, bool) or (limits is not None and found not in limits):
        raise Fault("member")
    return found


def hex_member(line, name):
    found = member(line, name, str)
    if not re.fullmatch("[0-9a-f]{64}", found):
        raise Fault("member")
    return bytes.fromhex(found)


def id_member(line, name):
    try:
        return uuid.UUID(member(line, name, str)).bytes
    except ValueError:
        raise Fault("member") from None


def optional(line, name, read):
    return None if line.get(name) is None else read(line, name)


def time_member(line, name):
    return member(line, name, int, MICROSECONDS).to_bytes(8, "big", signed=True)


def count_member(line, name, limits=NUMBER):
    return member(line, name, int, limits).to_bytes(8, "big")


def copied_keys(line):
    """The integrity keys and key-encryption keys of a line of keys, and their digest."""
    keys, keks, items = [], [], []
    for key in member(line, "integrity_keys", list):
        wrapped = base64.b64decode(member(key, "wrapped_key", str))
        keys.append((id_member(key, "key_id"), member(key, "version", int, SHORT), id_member(key, "kek_id"), wrapped))
        items += [keys[-1][0], count_member(key, "version"), keys[-1][2], wrapped, time_member(key, "created_at")]
    for kek in member(line, "keks", list):
        wrapped = base64.b64decode(member(kek, "wrapped_kek", str))
        keks.append((id_member(kek, "kek_id"), member(kek, "master_key_id", str), wrapped))
        texts = [member(kek, name, str).encode() for name in ("partition", "provider", "master_key_id")]
        items += [keks[-1][0], *texts, wrapped, time_member(kek, "created_at")]
    return keys, keks, digest([b"eventseal/v1/copied-keys", len(keys).to_bytes(8, "big"), *items])[:16].hex()


def parse_line(text):
    """A line whose members are what they should be."""
    try:
        line = json.loads(text)
    except ValueError:
        raise Fault("json") from None
    if member(line, "shred_log", int, NUMBER) != 1:
        raise Fault("format")
    found = {"namespace": member(line, "namespace", str), "seq": member(line, "seq", int, NUMBER)}
    found |= {"hash": hex_member(line, "hash"), "keys": member(line, "keys", str)}
    if "copied_keys" in line:
        *found["copied"], name = copied_keys(line["copied_keys"])
        if name != found["keys"]:
            raise Fault("keys")
        return found
    entry = member(line, "entry", dict)
    destroyed = []
    for key in member(entry, "keys", list):
        key = dict(zip(("key_id", "version", "kek_id", "created_at"), key))
        destroyed += [id_member(key, "key_id"), count_member(key, "version", SHORT), id_member(key, "kek_id")]
        destroyed.append(time_member(key, "created_at"))
    present = lambda item: b"" if item is None else b"\x01" + item
    text_member = lambda line, name: member(line, name, str).encode()
    mac = optional(entry, "mac", hex_member)
    key_id = None if mac is None else id_member(entry, "mac_key_id")
    found["entry"] = {
        "scope": (member(entry, "kind", str), member(entry, "id", str)),
        "scope_seq": member(entry, "scope_seq", int, SHORT),
        "may_lack_mac": entry["action"] in ("shred", "reopen", "disable", "enable")
        and not entry["keys"] and entry.get("until") is None and entry.get("about") is None,
        "mac": mac,
        "mac_key_id": key_id,
        "items": [
            id_member(entry, "entry_id"),
            text_member(entry, "kind"),
            text_member(entry, "id"),
            count_member(entry, "scope_seq", SHORT),
            time_member(entry, "at"),
            member(entry, "action", str, ACTIONS).encode(),
            member(entry, "state", str, STATES).encode(),
            count_member(entry, "generation", SHORT),
            b"".join(destroyed),
            present(optional(entry, "until", time_member)),
            present(optional(entry, "about", id_member)),
            text_member(entry, "reason"),
            present(optional(entry, "actor", text_member)),
            present(key_id),
        ],
    }
    found |= {"previous_hash": hex_member(line, "previous_hash"), "mac": hex_member(line, "mac")}
    return found | {"mac_key_id": id_member(line, "mac_key_id")}


def log_keys(case):
    """The keys of the log that the copy brings, opened: K_log by the id of the integrity key."""
    found = {}
    for text in case["lines"]:
        try:
            line = parse_line(text)
        except Fault:
            continue
        if "copied" not in line or line["namespace"] != case["namespace"]:
            continue
        keys, keks = line["copied"]
        for key_id, version, kek_id, wrapped in keys:
            place = {"namespace": case["namespace"], "kek_id": str(uuid.UUID(bytes=kek_id))}
            for found_id, master_key_id, wrapped_kek in keks:
                if found_id == kek_id and master_key_id == case["master_key_id"]:
                    bound = {"key_encryption_key": {"master_key_id": master_key_id}}
                    kek = unwrap({**place, "wrapping_key": case["master_key"], "wrapped": wrapped_kek.hex(), "bound_to": bound})
                    bound = {"key_id": str(uuid.UUID(bytes=key_id)), "scope_kind": INTEGRITY[0], "scope_id": INTEGRITY[1]}
                    bound = {"data_key": {**bound, "version": version}}
                    secret = kek and unwrap({**place, "wrapping_key": kek.hex(), "wrapped": wrapped.hex(), "bound_to": bound})
                    if secret:
                        found[key_id] = expand(secret, b"eventseal/v1/log", 32)
    return found


def check_entry(namespace, entry, keys, before):
    """The transcript and the digest of an entry, once it is known to be authentic."""
    number, last, authenticated = before
    if entry["scope_seq"] != number + 1:
        raise Fault("entry-number")
    bound = digest([b"eventseal/v1/entry", namespace, *entry["items"], last])
    if entry["mac"] is None:
        if authenticated or not entry["may_lack_mac"]:
            raise Fault("no-mac")
    elif entry["mac_key_id"] not in keys:
        raise Fault("key")
    elif not hmac.compare_digest(hmac.digest(keys[entry["mac_key_id"]], b"eventseal/v1/entry" + bound, "sha256"), entry["mac"]):
        raise Fault("entry-mac")
    return bound, digest([b"eventseal/v1/entry-digest", bound, entry["mac"] or b""])


def read_log(case):
    """The end of a copy, and what is derived of its entries; or the number of a line, and why it is refused."""
    keys, namespace = log_keys(case), case["namespace"].encode()
    end, scopes, texts, found = (0, bytes(32)), {}, {}, []
    for at, text in enumerate(case["lines"], 1):
        try:
            line = parse_line(text)
            if line["namespace"] != case["namespace"]:
                raise Fault("namespace")
            if "copied" in line:
                if (line["seq"], line["hash"]) != end:
                    raise Fault("place")
                continue
            if line["seq"] <= end[0]:
                if texts.get(line["seq"]) != text:
                    raise Fault("repeated")
                continue
            entry = line["entry"]
            before = scopes.get(entry["scope"], (0, b"", False))
            bound, of_entry = check_entry(namespace, entry, keys, before)
            scopes[entry["scope"]] = (entry["scope_seq"], of_entry, before[2] or entry["mac"] is not None)
            if line["seq"] != end[0] + 1:
                raise Fault("row-number")
            if line["previous_hash"] != end[1]:
                raise Fault("previous-hash")
            row = digest([b"eventseal/v1/log", namespace, line["seq"].to_bytes(8, "big"), end[1], of_entry])
            if row != line["hash"]:
                raise Fault("hash")
            if line["mac_key_id"] not in keys:
                raise Fault("key")
            if not hmac.compare_digest(hmac.digest(keys[line["mac_key_id"]], b"eventseal/v1/log" + row, "sha256"), line["mac"]):
                raise Fault("row-mac")
        except Fault as fault:
            return at, fault.kind
        end = (line["seq"], row)
        texts[line["seq"]] = text
        found.append({"transcript": bound.hex(), "digest": of_entry.hex()})
    return end[0], end[1].hex(), found


# ---- the vectors (section 13)


def as_bytes(value):
    return bytes.fromhex(value["hex"]) if isinstance(value, dict) else value.encode()


def outcome(case, text, keys, opening=open_payload):
    try:
        return opening(case, text, keys)
    except Fault as fault:
        return fault.kind, fault.detail


def main(paths):
    passed, failed = 0, 0

    def report(name, expected, found):
        nonlocal passed, failed
        passed, failed = passed + (found == expected), failed + (found != expected)
        print(f"ok    {name}" if found == expected else f"FAIL  {name}\n      expected {expected!r}\n      found    {found!r}")

    for path in paths:
        vectors = json.loads(path.read_text(encoding="utf-8"))
        for case in vectors.get("logs", []):
            expected = (case["line"], case["error"]) if "error" in case else (case["seq"], case["hash"], case["entries"])
            report(f"{path.stem} {case['name']}", expected, read_log(case))
        for case in vectors.get("cases", []):
            expected = (case["error"], case["detail"]) if "error" in case else (as_bytes(case["opened"]), case["redacted"])
            found = outcome(case, as_bytes(case["stored"]), keys_of(case))
            if "sealed" in case:
                expected += (as_bytes(case["plaintext"]), [])
                found += outcome(case, as_bytes(case["sealed"]), keys_of(case, all_live=True))
            report(f"{path.stem} {case['name']}", expected, found)
        for case in vectors.get("values", []):
            opened = as_bytes(case["opened"]) if "opened" in case else None
            expected = (case["error"], case["detail"]) if "error" in case else opened
            found = outcome(case, case["stored"], keys_of(case), open_value)
            report(f"{path.stem} {case['name']}", expected, found)
            if "sealed" in case:
                found = outcome(case, case["sealed"], keys_of(case, all_live=True), open_value)
                report(f"{path.stem} {case['name']}, all live", as_bytes(case["plaintext"]), found)
        for case in vectors.get("snapshots", []):
            expected = (case["error"], case["detail"]) if "error" in case else as_bytes(case["opened"])
            found = outcome(case, bytes.fromhex(case["stored"]), keys_of(case), open_snapshot)
            report(f"{path.stem} {case['name']}", expected, found)
            if "sealed" in case:
                found = outcome(case, bytes.fromhex(case["sealed"]), keys_when_sealed(case), open_snapshot)
                report(f"{path.stem} {case['name']}, when sealed", as_bytes(case["plaintext"]), found)
        for case in vectors.get("hashes", []):
            expected = case["error"] if "error" in case else (case["spelled"], case["hash"])
            report(f"{path.stem} {case['name']}", expected, blind_hash(case))
        for wrapped in vectors.get("wrapped_keys", []):
            key = unwrap(wrapped)
            report(f"{path.stem} {wrapped['name']}", wrapped["key"], key and key.hex())
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    here = Path(__file__).resolve().parent
    sys.exit(main([here / name for name in sys.argv[1:]] or sorted(here.glob("v1_*.json"))))
