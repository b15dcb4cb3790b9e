//! A copy of the shred log in a file.

use super::copy::ShredLogCopy;
use crate::error::BoxError;
use crate::keys::manager::lock;
use async_trait::async_trait;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// How much is read at a time to find the last line.
const CHUNK: u64 = 4096;

/// A copy of the shred log in a file: a line of JSON for each entry.
///
/// The file is created when lines are first added, for its owner alone (0600). Lines are added under a lock on the
/// file, and are on the disk when a call returns. A line that was cut off by a crash is not read, and is cut away
/// before more is added. If the disk is full, the file is as it was before. Reading and writing block the thread.
///
/// Keep it on another machine than the key database, or move it there: a restore of the whole machine must not reach
/// it.
#[derive(Debug)]
pub struct FileCopy {
    path: PathBuf,
    /// The index of a line, and where it begins: pages are read one after the other.
    place: Mutex<(u64, u64)>,
}

impl FileCopy {
    /// The copy in this file, which need not exist yet.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), place: Mutex::new((0, 0)) }
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn open(&self) -> io::Result<Option<File>> {
        match File::open(&self.path) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn open_for_appending(&self) -> io::Result<File> {
        let is_new = !self.path.exists();
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.open(&self.path)?;
        if is_new && let Some(folder) = self.path.parent() {
            let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
            // The name of the file must outlast a crash too. Not every system lets a folder be opened.
            if let Ok(folder) = File::open(folder) {
                folder.sync_all()?;
            }
        }
        file.lock()?;
        Ok(file)
    }

    fn read(&self, from: u64, limit: u32) -> io::Result<Vec<String>> {
        let Some(mut file) = self.open()? else { return Ok(Vec::new()) };
        let (mut line, mut offset) = *lock(&self.place);
        if line > from || offset > file.metadata()?.len() {
            (line, offset) = (0, 0);
        }
        file.seek(SeekFrom::Start(offset))?;
        let (mut reader, mut lines) = (BufReader::new(file), Vec::new());
        while lines.len() < limit as usize {
            let mut bytes = Vec::new();
            reader.read_until(b'\n', &mut bytes)?;
            if bytes.pop() != Some(b'\n') {
                // The end, or a line that was cut off.
                break;
            }
            offset += bytes.len() as u64 + 1;
            line += 1;
            if line > from {
                lines.push(text(bytes)?);
            }
        }
        *lock(&self.place) = (line, offset);
        Ok(lines)
    }

    fn add(&self, last: Option<&str>, lines: &[String]) -> io::Result<()> {
        let mut file = self.open_for_appending()?;
        let (found, end) = last_line(&mut file)?;
        if found.as_deref() != last {
            return Err(io::Error::other("somebody else has added to it meanwhile: export again"));
        }
        let mut bytes = Vec::with_capacity(lines.iter().map(|line| line.len() + 1).sum());
        for line in lines {
            bytes.extend_from_slice(line.as_bytes());
            bytes.push(b'\n');
        }
        file.set_len(end)?;
        file.seek(SeekFrom::Start(end))?;
        if let Err(error) = file.write_all(&bytes).and_then(|()| file.sync_all()) {
            // Should this fail too, a part of a line is left, which nobody reads, or whole lines, which are right.
            drop(file.set_len(end));
            return Err(error);
        }
        Ok(())
    }
}

fn text(bytes: Vec<u8>) -> io::Result<String> {
    String::from_utf8(bytes).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "a line is not UTF-8"))
}

/// The last whole line, and where it ends.
fn last_line(file: &mut File) -> io::Result<(Option<String>, u64)> {
    let length = file.metadata()?.len();
    let (mut begin, mut tail) = (length, Vec::new());
    loop {
        let end = tail.iter().rposition(|byte| *byte == b'\n');
        let before = end.and_then(|end| tail[..end].iter().rposition(|byte| *byte == b'\n'));
        match (end, before) {
            (Some(end), Some(before)) => {
                return Ok((Some(text(tail[before + 1..end].to_vec())?), begin + end as u64 + 1));
            }
            (Some(end), None) if begin == 0 => return Ok((Some(text(tail[..end].to_vec())?), end as u64 + 1)),
            (None, _) if begin == 0 => return Ok((None, 0)),
            _ => {}
        }
        let more = begin.min(CHUNK.max(tail.len() as u64));
        begin -= more;
        let mut bytes = vec![0; usize::try_from(more).unwrap_or(usize::MAX)];
        file.seek(SeekFrom::Start(begin))?;
        file.read_exact(&mut bytes)?;
        bytes.extend_from_slice(&tail);
        tail = bytes;
    }
}

#[async_trait]
impl ShredLogCopy for FileCopy {
    fn name(&self) -> String {
        self.path.display().to_string()
    }

    async fn last(&self) -> Result<Option<String>, BoxError> {
        Ok(match self.open()? {
            Some(mut file) => last_line(&mut file)?.0,
            None => None,
        })
    }

    async fn lines(&self, from: u64, limit: u32) -> Result<Vec<String>, BoxError> {
        Ok(self.read(from, limit)?)
    }

    async fn append(&self, last: Option<&str>, lines: &[String]) -> Result<(), BoxError> {
        Ok(self.add(last, lines)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::executor::block_on;

    #[test]
    fn lines_are_added_and_found() {
        let folder = tempfile::tempdir().unwrap();
        let copy = FileCopy::new(folder.path().join("log"));
        assert!(block_on(copy.last()).unwrap().is_none() && block_on(copy.lines(0, 9)).unwrap().is_empty());
        let lines: Vec<String> = (0..40_u32).map(|n| format!("{n}{}", "x".repeat(n as usize * 20))).collect();
        let mut last = None;
        for page in lines.chunks(7) {
            block_on(copy.append(last.as_deref(), page)).unwrap();
            last = block_on(copy.last()).unwrap();
            assert_eq!(last.as_ref(), page.last());
        }
        for (from, limit) in [(0, 100), (3, 2), (5, 1), (6, 100), (2, 2), (39, 5), (40, 5)] {
            let expected: Vec<String> = lines.iter().skip(from).take(limit).cloned().collect();
            let found = block_on(copy.lines(from as u64, u32::try_from(limit).unwrap())).unwrap();
            assert_eq!(found, expected, "{from}, {limit}");
        }
        assert!(block_on(copy.append(Some("another"), &lines)).is_err(), "somebody else has added lines");
        assert!(block_on(copy.append(None, &lines)).is_err());
    }

    #[test]
    fn a_line_that_was_cut_off_is_not_read_and_cut_away() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let copy = FileCopy::new(&path);
        for torn in ["", "torn", "to rn that is longer than what is added next"] {
            std::fs::write(&path, format!("one\ntwo\n{torn}")).unwrap();
            assert_eq!(block_on(copy.last()).unwrap().as_deref(), Some("two"));
            assert_eq!(block_on(copy.lines(0, 9)).unwrap(), ["one", "two"]);
            block_on(copy.append(Some("two"), &["three".to_owned()])).unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), "one\ntwo\nthree\n");
        }
        std::fs::write(&path, "torn").unwrap();
        block_on(copy.append(None, &["one".to_owned()])).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "one\n");
    }

    #[cfg(unix)]
    #[test]
    fn the_file_is_its_owners_alone() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let copy = FileCopy::new(folder.path().join("log"));
        block_on(copy.append(None, &["one".to_owned()])).unwrap();
        assert_eq!(std::fs::metadata(copy.path()).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
