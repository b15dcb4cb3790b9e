//! A copy of the shred log in a file.

use super::copy::ShredLogCopy;
use super::rules::check_copied_lines;
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
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.open(&self.path)?;
        file.lock()?;
        if file.metadata()?.len() == 0 {
            self.sync_folder()?;
        }
        Ok(file)
    }

    /// The name of the file must outlast a crash too. It is seen to before the first line is added: the process that
    /// made the file may have ended before it could.
    fn sync_folder(&self) -> io::Result<()> {
        let Some(folder) = self.path.parent() else { return Ok(()) };
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        // Not every system lets a folder be opened.
        File::open(folder).map_or(Ok(()), |folder| folder.sync_all())
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

    fn add(&self, last: Option<&str>, lines: &[String]) -> Result<(), BoxError> {
        let mut file = self.open_for_appending()?;
        let (found, end) = last_line(&mut file)?;
        check_copied_lines(found.as_deref(), last, lines)?;
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
            return Err(error.into());
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
        self.add(last, lines)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::shred_log::rules::made;
    use futures::executor::block_on;

    #[test]
    fn the_last_line_is_found_wherever_chunks_end() {
        let folder = tempfile::tempdir().unwrap();
        let copy = FileCopy::new(folder.path().join("log"));
        let lines = made::lines(40, |n| n * 200);
        let mut last = None;
        for page in lines.chunks(3) {
            block_on(copy.append(last.as_deref(), page)).unwrap();
            last = block_on(copy.last()).unwrap();
            assert_eq!(last.as_ref(), page.last());
        }
        assert_eq!(block_on(copy.lines(0, 99)).unwrap(), lines);
        assert_eq!(block_on(copy.lines(39, 99)).unwrap(), lines[39..]);
        assert_eq!(block_on(copy.lines(2, 2)).unwrap(), lines[2..4]);
    }

    #[test]
    fn a_line_that_was_cut_off_is_not_read_and_cut_away() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let copy = FileCopy::new(&path);
        let lines = made::lines(3, |_| 3);
        let (all, begun) = (lines.join("\n") + "\n", lines[..2].join("\n") + "\n");
        for torn in ["", "torn", &"torn that is longer than what is added next ".repeat(99)] {
            std::fs::write(&path, format!("{begun}{torn}")).unwrap();
            assert_eq!(block_on(copy.last()).unwrap().as_ref(), Some(&lines[1]));
            assert_eq!(block_on(copy.lines(0, 9)).unwrap(), lines[..2]);
            block_on(copy.append(Some(&lines[1]), &lines[2..])).unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), all);
        }
        std::fs::write(&path, "torn").unwrap();
        block_on(copy.append(None, &lines)).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), all);
    }

    /// Threads and processes wait for one another: of several that go on from one line, one does.
    #[test]
    fn one_of_several_threads_adds() {
        let folder = tempfile::tempdir().unwrap();
        for round in 0..50 {
            let path = folder.path().join(format!("log {round}"));
            let begun = made::lines(1, |_| 1);
            block_on(FileCopy::new(&path).append(None, &begun)).unwrap();
            let start = std::sync::Barrier::new(4);
            let won: usize = std::thread::scope(|scope| {
                let threads: Vec<_> = (0..4)
                    .map(|_| {
                        scope.spawn(|| {
                            let (copy, own) = (FileCopy::new(&path), made::lines(2, |_| 9_000));
                            start.wait();
                            usize::from(block_on(copy.append(begun.last().map(String::as_str), &own[1..])).is_ok())
                        })
                    })
                    .collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).sum()
            });
            let lines = block_on(FileCopy::new(&path).lines(0, 9)).unwrap();
            assert_eq!((won, lines.len()), (1, 2), "round {round}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn the_file_is_its_owners_alone() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let copy = FileCopy::new(folder.path().join("log"));
        block_on(copy.append(None, &made::lines(1, |_| 1))).unwrap();
        assert_eq!(std::fs::metadata(copy.path()).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
