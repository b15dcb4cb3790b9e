//! [`Keyring`]: master keys in a file or an environment variable, for services without a KMS.

use crate::crypto::random;
use crate::crypto::secret::SecretKey;
use crate::crypto::wrap::{unwrap_key, wrap_key};
use crate::error::{Error, KmsFault, Result};
use crate::kms::{KekContext, Kms, KmsFailure, WrappedKek};
use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::fmt;
use std::io::Read;
use std::path::Path;
use zeroize::{Zeroize, Zeroizing};

/// The largest size of a keyring, in bytes.
const MAX_FILE: u64 = 1 << 20;

/// Master keys on this machine, as a [`Kms`](crate::kms::Kms).
///
/// The text of a keyring has one entry a line, or several between commas: `id:base64 of 32 bytes`. The first entry is
/// *active*: it wraps new key-encryption keys. The other entries open what they wrapped before. A line that starts with
/// `#` is a comment.
///
/// ```text
/// # made by: echo "2026-11:$(openssl rand -base64 32)"
/// 2026-11:MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=
/// ```
///
/// Anybody who has the keyring and the key table can open every value that was not shredded. So keep the two apart, and
/// back up both.
pub struct Keyring {
    /// The entries by id. The first one is active.
    entries: Vec<(String, SecretKey)>,
}

impl Keyring {
    /// Reads the keyring in an environment variable.
    ///
    /// # Errors
    /// [`KmsFault::Keyring`] if the variable is not set or not a keyring.
    pub fn from_env(variable: &str) -> Result<Self> {
        let text = std::env::var(variable).map(Zeroizing::new).map_err(|_| {
            problem(format!(
                "environment variable {variable} is not set to text: set it to `id:base64 of 32 random bytes`, such as \
                 \"main:$(openssl rand -base64 32)\""
            ))
        })?;
        Self::parse(&text)
    }

    /// Reads the keyring in a file or a pipe: `/dev/stdin`, `/dev/fd/3`, a shell's `<(…)`.
    ///
    /// On Unix, a file or pipe that other users may read or write is refused. There is one exception: the group may
    /// read a file that belongs to root. Platforms mount secrets like that for users who can't change file modes
    /// (Kubernetes with `fsGroup` and `defaultMode: 0440`, systemd, Docker with `mode: 0440`).
    ///
    /// # Errors
    /// [`KmsFault::Keyring`] if the file can't be read, is open to others or is not a keyring.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let unreadable = |error: std::io::Error| match error.kind() {
            std::io::ErrorKind::NotFound => {
                problem(format!("{} does not exist: make it once with Keyring::create_file", path.display()))
            }
            std::io::ErrorKind::PermissionDenied => problem(format!(
                "{} can't be read: {error}: give it to the user that runs this process; where a platform mounts it, \
                 {MOUNT}",
                path.display()
            )),
            _ => problem(format!("{} can't be read: {error}", path.display())),
        };
        let file = open(path).map_err(unreadable)?;
        let metadata = file.metadata().map_err(unreadable)?;
        #[cfg(unix)]
        check_access(path, &metadata)?;
        // The buffer has room for the whole file from the start: a growing buffer would leave copies of keys behind.
        // The size of a pipe is not known.
        let size = if metadata.is_file() { metadata.len().min(MAX_FILE) } else { MAX_FILE };
        let mut text = Zeroizing::new(String::with_capacity(usize::try_from(size).unwrap_or_default() + 1));
        file.take(MAX_FILE + 1).read_to_string(&mut text).map_err(unreadable)?;
        if text.len() as u64 > MAX_FILE {
            return Err(problem(format!("{} is larger than 1 MiB: it is not a keyring", path.display())));
        }
        Self::parse(&text)
    }

    /// Makes a new file with one random key, which only its owner may read, and returns the keyring.
    ///
    /// # Errors
    /// [`KmsFault::Keyring`] if the file exists or can't be written.
    pub fn create_file(path: impl AsRef<Path>, id: &str) -> Result<Self> {
        let path = path.as_ref();
        let ring = Self::generate(id)?;
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut text = Zeroizing::new(String::with_capacity(id.len() + 64));
        text.push_str(id);
        text.push(':');
        STANDARD.encode_string(ring.entries[0].1.expose(), &mut text);
        text.push('\n');
        options
            .open(path)
            .and_then(|mut file| std::io::Write::write_all(&mut file, text.as_bytes()).and_then(|()| file.sync_all()))
            .map_err(|error| match error.kind() {
                std::io::ErrorKind::AlreadyExists => {
                    problem(format!("{} exists already: read it with Keyring::from_file", path.display()))
                }
                _ => problem(format!("{} can't be created: {error}", path.display())),
            })?;
        Ok(ring)
    }

    /// A keyring with one random key, in memory only. It is for tests and demonstrations: what it wrapped can't be
    /// opened by any other process.
    ///
    /// # Errors
    /// [`KmsFault::Keyring`] if the id is not 1 to 64 letters, digits, `-`, `_` or `.`;
    /// [`KeyFault::Random`](crate::error::KeyFault::Random) if the operating system has no random bytes.
    pub fn generate(id: &str) -> Result<Self> {
        check_id(id)?;
        Ok(Self { entries: vec![(id.to_owned(), random::key()?)] })
    }

    /// Parses the text of a keyring.
    ///
    /// # Errors
    /// [`KmsFault::Keyring`] says which entry is wrong; it never repeats a key.
    pub fn parse(text: &str) -> Result<Self> {
        let mut entries: Vec<(String, SecretKey)> = Vec::new();
        let lines = text.lines().map(str::trim).filter(|line| !line.starts_with('#'));
        let parts = lines.flat_map(|line| line.split(',')).map(str::trim).filter(|entry| !entry.is_empty());
        for (number, entry) in (1..).zip(parts) {
            let (id, key) =
                entry.split_once(':').ok_or_else(|| problem(format!("entry {number} is not `id:base64`")))?;
            // The error shows the number only: if id and key were swapped, the "id" is a key.
            check_id(id).map_err(|_| problem(format!("entry {number} has an id that is not {ALLOWED_ID}")))?;
            if entries.iter().any(|(known, _)| known == id) {
                return Err(problem(format!(
                    "entry {number} has the id of an earlier one: ids are for ever, give the new key a new one"
                )));
            }
            let mut bytes = Zeroizing::new([0_u8; 33]);
            let length = STANDARD.decode_slice(key.trim(), &mut *bytes).unwrap_or_default();
            if length != 32 {
                return Err(problem(format!(
                    "entry {number} is not `id:base64 of 32 bytes`, in this order: make a key with `openssl rand \
                     -base64 32`"
                )));
            }
            let mut key = [0; 32];
            key.copy_from_slice(&bytes[..32]);
            entries.push((id.to_owned(), SecretKey::new(key)));
            key.zeroize();
        }
        if entries.is_empty() {
            return Err(problem("it has no entries: write `id:base64 of 32 random bytes`".to_owned()));
        }
        Ok(Self { entries })
    }

    /// The id of the key that wraps new key-encryption keys.
    #[must_use]
    pub fn active_id(&self) -> &str {
        &self.entries[0].0
    }
}

/// The remedy for a file whose mode this process can't change.
const MOUNT: &str = "mount it with mode 0400 for this user, or with 0440 for its group";

#[cfg(unix)]
fn open(path: &Path) -> std::io::Result<std::fs::File> {
    use std::os::fd::AsFd;
    let is_input = ["/dev/stdin", "/dev/fd/0", "/proc/self/fd/0"].iter().any(|input| path == Path::new(input));
    match std::fs::File::open(path) {
        // Standard input may be a pipe that another user made, before this process changed its user. Then it can't be
        // opened again by its path, but it is open already.
        Err(error) if is_input && error.kind() == std::io::ErrorKind::PermissionDenied => {
            std::io::stdin().as_fd().try_clone_to_owned().map(Into::into)
        }
        opened => opened,
    }
}

#[cfg(not(unix))]
fn open(path: &Path) -> std::io::Result<std::fs::File> {
    std::fs::File::open(path)
}

/// Refuses a file or pipe that other users may read or write.
#[cfg(unix)]
fn check_access(path: &Path, metadata: &std::fs::Metadata) -> Result<()> {
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    let kind = metadata.file_type();
    if !kind.is_file() && !kind.is_fifo() {
        return Err(problem(format!("{} is neither a file nor a pipe: name one that holds a keyring", path.display())));
    }
    let mode = metadata.mode() & 0o777;
    let of_root = metadata.uid() == 0;
    // Only root can set the group of a root's file, so a readable group was chosen by root.
    let closed = if of_root { 0o037 } else { 0o077 };
    if mode & closed == 0 {
        return Ok(());
    }
    let open_to = match mode & 0o007 {
        0 => "its group",
        _ => "every user",
    };
    let remedy = if of_root {
        format!("chmod 600 it, or where a platform mounts it, {MOUNT}")
    } else {
        "chmod 600 it; if others use this machine, they may have read it: give it new keys then".to_owned()
    };
    Err(problem(format!("{} is open to {open_to} (mode {mode:04o}): {remedy}", path.display())))
}

const ALLOWED_ID: &str = "1 to 64 letters, digits, '-', '_' or '.'";

fn check_id(id: &str) -> Result<()> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if id.is_empty() || id.len() > 64 || !id.bytes().all(allowed) {
        return Err(problem(format!("the id is not {ALLOWED_ID}")));
    }
    Ok(())
}

fn problem(problem: String) -> Error {
    Error::Kms(KmsFault::Keyring { problem })
}

/// Shows the ids of the entries, never the keys.
impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.entries.iter().map(|(id, _)| id)).finish()
    }
}

#[async_trait]
impl Kms for Keyring {
    fn provider(&self) -> &str {
        "keyring"
    }

    async fn master_key_id(&self) -> Result<String> {
        Ok(self.active_id().to_owned())
    }

    async fn generate_kek(&self, context: &KekContext) -> Result<WrappedKek> {
        self.wrap_kek(&random::key()?, context).await
    }

    async fn unwrap_kek(&self, wrapped: &WrappedKek, context: &KekContext) -> Result<SecretKey> {
        let refused = |failure, problem| Error::Kms(KmsFault::Refused { kek_id: context.kek_id, failure, problem });
        let id = &wrapped.master_key_id;
        let (_, master) = self.entries.iter().find(|(known, _)| known == id).ok_or_else(|| {
            refused(
                KmsFailure::KeyNotFound,
                format!("the keyring has no master key {id:?}: add the entry that wrapped it"),
            )
        })?;
        unwrap_key(master, &bound_to(context, id), &wrapped.ciphertext).ok_or_else(|| {
            let problem = format!(
                "it does not open under master key {id:?}: the row was altered, or the keyring has another key of that \
                 name"
            );
            refused(KmsFailure::WrongContext, problem)
        })
    }

    async fn wrap_kek(&self, kek: &SecretKey, context: &KekContext) -> Result<WrappedKek> {
        let (id, master) = &self.entries[0];
        let ciphertext = wrap_key(master, &bound_to(context, id), kek)?;
        Ok(WrappedKek { master_key_id: id.clone(), ciphertext })
    }

    async fn rewrap_kek(&self, wrapped: &WrappedKek, context: &KekContext) -> Result<WrappedKek> {
        self.wrap_kek(&self.unwrap_kek(wrapped, context).await?, context).await
    }
}

fn bound_to<'a>(context: &'a KekContext, master_key_id: &'a str) -> [&'a [u8]; 4] {
    [b"eventseal/v1/kek", context.namespace.as_str().as_bytes(), context.kek_id.0.as_bytes(), master_key_id.as_bytes()]
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=";

    #[test]
    fn the_first_entry_is_active() {
        let ring = Keyring::parse(&format!("# comment\n\n new:{KEY}\nold:{KEY}, older: {KEY}\n")).unwrap();
        assert_eq!(ring.active_id(), "new");
        assert_eq!(ring.entries.len(), 3);
        assert_eq!(format!("{ring:?}"), r#"["new", "old", "older"]"#);
    }

    #[test]
    fn i9_a_bad_keyring_is_refused_without_repeating_it() {
        let hex = "4d4445794d7a51314e6a63344f5441784d6a4d304e5459334f446b774d54497a";
        let unpadded = KEY.trim_end_matches('=');
        for (text, entry) in [
            ("".to_owned(), "no entries"),
            ("# only".to_owned(), "no entries"),
            ("no colon".to_owned(), "entry 1"),
            ("a:short".to_owned(), "entry 1"),
            (format!("b:{KEY}\na:{KEY}\na:{KEY}"), "entry 3"),
            (format!("sp ace:{KEY}"), "entry 1"),
            (format!("b:{KEY},a:{KEY}x"), "entry 2"),
            ("a:AAAA".to_owned(), "entry 1"),
            // Id and key were swapped, so the "id" is a key.
            (format!("{hex}:main"), "entry 1"),
            (format!("{hex}:{hex}"), "entry 1"),
            (format!("b:{KEY}\n{unpadded}:main"), "entry 2"),
            (format!("{KEY}:main"), "entry 1"),
            (format!("{hex}:{KEY}\n{hex}:{KEY}"), "entry 2"),
        ] {
            let error = Keyring::parse(&text).unwrap_err();
            assert!(matches!(error, Error::Kms(KmsFault::Keyring { .. })));
            let shown = format!("{error} {error:?}");
            assert!(shown.contains(entry), "{shown}");
            assert!(!shown.contains("MDEy") && !shown.contains(&hex[..8]), "{shown}");
        }
    }

    #[test]
    fn a_file_that_is_too_large_is_not_read_to_its_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keyring");
        Keyring::create_file(&path, "main").unwrap();
        let comments = "#".repeat(1 << 20);
        std::fs::write(&path, format!("main:{KEY}\n{comments}")).unwrap();
        let error = Keyring::from_file(&path).unwrap_err();
        assert!(error.to_string().contains("larger than 1 MiB"), "{error}");
    }

    /// The metadata of a pipe gives its size as 0, whatever comes out of it.
    #[cfg(unix)]
    #[test]
    fn a_pipe_is_read_up_to_the_limit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keyring");
        assert!(std::process::Command::new("mkfifo").args(["-m", "600"]).arg(&path).status().unwrap().success());
        let write = |text: Vec<u8>| {
            let path = path.clone();
            std::thread::spawn(move || {
                std::io::Write::write_all(&mut std::fs::OpenOptions::new().write(true).open(path)?, &text)
            })
        };
        let writer = write(format!("main:{KEY}\n").into_bytes());
        assert_eq!(Keyring::from_file(&path).unwrap().active_id(), "main");
        writer.join().unwrap().unwrap();
        let writer = write(vec![b'#'; 8 << 20]);
        let error = Keyring::from_file(&path).unwrap_err();
        assert!(error.to_string().contains("larger than 1 MiB"), "{error}");
        assert!(writer.join().unwrap().is_err(), "it was read to its end");
    }

    #[cfg(unix)]
    #[test]
    fn a_file_that_others_may_read_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keyring");
        Keyring::create_file(&path, "main").unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(Keyring::from_file(&path).unwrap().active_id(), "main");
        assert!(Keyring::create_file(&path, "main").is_err(), "an existing keyring must not be overwritten");
        let of_root = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(&path).unwrap()) == 0;
        for mode in [0o640, 0o440, 0o604, 0o660, 0o644, 0o444, 0o606, 0o620, 0o610] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let read = Keyring::from_file(&path);
            if of_root && [0o640, 0o440].contains(&mode) {
                assert_eq!(read.unwrap().active_id(), "main", "{mode:o}: as platforms mount it");
                continue;
            }
            let error = read.unwrap_err().to_string();
            assert!(error.contains("chmod 600") && error.contains(&format!("{mode:04o}")), "{error}");
            // On a platform, a readable file of root need not have been read by anybody, so new keys are not asked for.
            assert_eq!(error.contains("new keys"), !of_root, "{error}");
        }
    }

    /// A file of a user other than root may not be readable by its group.
    #[cfg(unix)]
    #[test]
    fn a_file_of_a_user_is_for_that_user_alone() {
        use std::os::unix::fs::{PermissionsExt, chown};
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keyring");
        Keyring::create_file(&path, "main").unwrap();
        // Only root can change the owner of a file. If the test does not run as root, the file belongs to a user
        // already.
        let _ = chown(&path, Some(65_534), None);
        assert_eq!(Keyring::from_file(&path).unwrap().active_id(), "main");
        for mode in [0o640, 0o440, 0o444, 0o660] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let error = Keyring::from_file(&path).unwrap_err().to_string();
            assert!(error.contains("chmod 600") && error.contains("new keys"), "{error}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn what_is_neither_a_file_nor_a_pipe_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        for path in [folder.path(), Path::new("/dev/zero"), Path::new("/dev/null")] {
            let error = Keyring::from_file(path).unwrap_err().to_string();
            assert!(error.contains("neither a file nor a pipe"), "{error}");
        }
    }
}
