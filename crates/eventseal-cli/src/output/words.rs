//! Translates messages of the library. The library names methods, for programmers. This command names commands, for
//! operators.

/// Phrases of the library, each with its translation.
const WORDS: &[(&str, &str)] = &[
    (
        "reopen() starts a new generation if that is lawful",
        "eventseal reopen starts a new generation, if that is lawful",
    ),
    ("or schedule with ShredMode::KeepWorking", "or schedule with --mode keep-working"),
    (
        "enable() makes them usable again, or cancel() if a shred is scheduled",
        "eventseal enable makes them usable again, or eventseal cancel-shred if a shred is scheduled (eventseal \
         schedules)",
    ),
    (
        "cancel that, which makes its keys usable again",
        "eventseal cancel-shred makes its keys usable again, and ends the schedule",
    ),
    (
        "call keys().prepare() once at startup, and keys().create_kek() for each partition of your own, on a \
         connection that is not in a transaction",
        "run eventseal prepare, with --partition for one of your own",
    ),
    (
        "run their migrations first, with migrate() of the key store",
        "run eventseal migrate --namespace NAME, and look whether --schema and --prefix are right",
    ),
    (
        "call migrate() of the event store on it, or configure the names that its tables have",
        "run eventseal migrate --namespace NAME --events, or name its tables with --events-table and --streams",
    ),
    ("configure PostgresTables::heads_first();", "configure heads_first of PostgresTables in the application;"),
    (
        "run the newest migrations, with migrate() of the event store and of the key store, or correct the names that \
         the columns were configured with",
        "run eventseal migrate --namespace NAME, with --events for the tables of events, or see whether --streams is \
         right",
    ),
    (
        "pass a connection that is not in a transaction; if you began none, a begin() on it was cancelled, so close it \
         and take another one",
        "run the command again, on a connection of the server itself if a pooler is between",
    ),
    (
        "open it with PRAGMA synchronous = FULL, in sqlx with \
         SqliteConnectOptions::synchronous(SqliteSynchronous::Full)",
        "the setting synchronous of the database must be FULL",
    ),
    (
        "move it to the one that is configured with move_master_key(), or find out who made it active",
        "run eventseal move-master-key, or find out who made it active",
    ),
    ("name it with also_opens()", "name it with --from-aws-kms-key, or in EVENTSEAL_AWS_KMS_ALSO_OPENS"),
    ("name that one with also_opens()", "name that one with --from-aws-kms-key, or in EVENTSEAL_AWS_KMS_ALSO_OPENS"),
    ("kek_usage() lists those that are", "eventseal status lists those that are"),
    (
        "make it once with Keyring::create_file",
        "make it once with (umask 077; echo \"main:$(openssl rand -base64 32)\" > FILE)",
    ),
    ("pass one begun with begin() or begin_with(), not a bare connection and not a raw BEGIN", "please report this"),
];

/// Translates a message of the library.
pub(crate) fn in_commands(message: &str) -> String {
    WORDS.iter().fold(message.to_owned(), |message, (call, command)| message.replace(call, command))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::Path;

    /// Methods that only applications call. They need no translation, because the command seals, opens and appends
    /// nothing.
    const OF_APPLICATIONS: &[&str] = &[
        "deny_unknown_types()",
        // Of snapshots and blind indexes, which this command does not touch.
        "call migrate() of the snapshot store",
        "call migrate() of the table",
        "or find() its owner",
        "run drop_shredded()",
        "or clear() owners",
        // of PostgreSQL
        "gen_random_uuid()",
        "allow_unknown_types()",
        "protect_whole()",
        "pass_through_newer()",
        "allow_older_appends()",
        "accept_plaintext()",
        "scope_kind()",
        "pass_through_sealed()",
        "Owner::Aggregate.scope_kind",
        "EventFilter::event_types",
        // Functions of SQL.
        "setval()",
        "nextval()",
        "Keyring::from_file",
        "Sealer::seal",
    ];

    /// The folders and files of the library whose messages may reach this command.
    const SOURCES: &[&str] = &["error", "keys", "kms", "postgres", "sqlite", "sql"];

    /// Reads all sources of a module: its file, and those in its folder.
    fn read(path: &Path, found: &mut Vec<String>) {
        found.push(fs::read_to_string(path.with_extension("rs")).unwrap());
        let Ok(folder) = fs::read_dir(path) else { return };
        for entry in folder {
            let entry = entry.unwrap().path();
            if entry.extension().is_some_and(|extension| extension == "rs") {
                read(&entry.with_extension(""), found);
            }
        }
    }

    /// The first call in a text: `name()` or `Type::name`.
    fn call(text: &str) -> Option<&str> {
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':' || c == '.' || c == '(' || c == ')';
        text.split(|c: char| !is_name(c)).find(|word| {
            let call = word.strip_suffix("()").is_some_and(|name| name.ends_with(|c: char| c.is_ascii_alphabetic()));
            call || word
                .split_once("::")
                .is_some_and(|(of, name)| of.starts_with(char::is_uppercase) && !name.is_empty())
        })
    }

    /// A source without its tests and comments, and with each string on one line.
    fn code(source: &str) -> String {
        let source = source.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
        let lines = source.lines().map(str::trim_start).filter(|line| !line.starts_with("//"));
        lines.fold(String::new(), |code, line| match code.strip_suffix("\\\n") {
            Some(begun) => format!("{begun}{line}\n"),
            None => format!("{code}{line}\n"),
        })
    }

    /// The strings in some code.
    fn texts(code: &str) -> impl Iterator<Item = &str> {
        code.lines().flat_map(|line| line.split('"').skip(1).step_by(2))
    }

    #[test]
    fn messages_speak_of_commands() {
        let mut calls = 0;
        let mut untranslated = Vec::new();
        let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../src");
        let mut sources = Vec::new();
        SOURCES.iter().for_each(|module| read(&src.join(module), &mut sources));
        assert!(sources.len() > 50, "they were found: {}", sources.len());
        let sources: Vec<_> = sources.iter().map(|source| code(source)).collect();
        for text in sources.iter().flat_map(|code| texts(code)) {
            calls += usize::from(call(text).is_some());
            let said = OF_APPLICATIONS.iter().fold(in_commands(text), |said, elsewhere| said.replace(elsewhere, ""));
            untranslated.extend(call(&said).map(|call| format!("{call} in: {text}")));
        }
        assert!(untranslated.is_empty(), "add to WORDS what it is here, or to OF_APPLICATIONS: {untranslated:#?}");
        assert!(calls > 8, "they were found: {calls}");
    }

    #[test]
    fn calls_are_found() {
        for text in ["call keys().prepare() once", "with migrate() of", "Keyring::create_file"] {
            assert!(call(text).is_some(), "{text}");
        }
        for text in ["(a lock)", "eventseal::error", "sqlite::memory:", "a (b) c", "$(openssl rand)"] {
            assert_eq!(call(text), None);
        }
    }
}
