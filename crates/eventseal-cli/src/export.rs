//! `export`: writes the data of one person as lines of JSON.
//!
//! The command has no registry in code, so it knows no steps: it exports events at the version in which they were
//! stored.

use crate::args::Export;
use crate::connect::{AnyDb, Backend, Db, connect, postgres_store, sqlite_store};
use crate::interrupt;
use crate::master_key;
use crate::output::{Exit, Failure, Progress, Report, count, shown, tell};
use eventseal::erasure::{ExportItem, ExportLines, ExportOptions, ExportProgress, Exported};
use eventseal::error::{BoxError, MaintenanceFault};
use eventseal::kms::Kms;
use eventseal::store::{EventTable, PositionRange};
use eventseal::{Error, EventStore, GlobalPosition, KeyScope, Namespace, Schemas, SealedStore};
use serde_json::json;
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub(crate) async fn export(args: Export, json: bool) -> Result<Report, Failure> {
    let kms = master_key::open(&args.master_key).await?;
    match connect(&args.database).await? {
        AnyDb::Sqlite(db) => {
            let store = sqlite_store(&args.tables.names())?;
            run(db, store, kms, &args, json).await
        }
        AnyDb::Postgres(db) => {
            let store = postgres_store(&args.database, &args.tables.names())?;
            run(db, store, kms, &args, json).await
        }
    }
}

async fn run<C: Backend, S>(
    mut db: Db<C>,
    store: S,
    kms: Arc<dyn Kms>,
    args: &Export,
    json: bool,
) -> Result<Report, Failure>
where
    S: EventStore<Tx = C> + EventTable<Tx = C>,
{
    let namespace = db.namespace().await?;
    let scope = args.scope.key_scope();
    let store = SealedStore::with_keys(store, db.manager(kms), Schemas::new([]).map_err(Error::from)?);
    let mut options = ExportOptions::default();
    options.range =
        PositionRange { after: args.after.try_into()?, up_to: args.up_to.map(GlobalPosition::try_from).transpose()? };
    options.metadata = !args.no_metadata;
    options.use_index = !args.scan;
    let mut bar = Progress::new(json || args.out.is_none(), args.progress.progress_every, "positions");
    let after = args.after;
    let mut show = |progress: ExportProgress| {
        let from_start = |position: GlobalPosition| position.get().saturating_sub(after).unsigned_abs();
        bar.at(from_start(progress.position), from_start(progress.last));
    };
    // Nothing is written before the export has begun: what is refused leaves no output.
    let (mut out, mut lines) = (Some(Out::open(args.out.as_deref())?), None);
    let mut sink = |item: ExportItem<'_>| {
        begun(&mut lines, &mut out, &namespace, &scope).and_then(|lines| lines.write(item)).map_err(BoxError::from)
    };
    let exported = store.export(&mut db.connection, &scope, &options, &mut sink, &mut show).await.map_err(failed)?;
    begun(&mut lines, &mut out, &namespace, &scope).map_err(|error| unwritten(&error))?;
    if let Some(lines) = lines {
        lines.end(&exported).and_then(Out::keep).map_err(|error| unwritten(&error))?;
    }
    bar.finish();
    let report = report(&scope.to_string(), &exported, args.out.as_deref());
    match &args.out {
        Some(path) => {
            let mut report = report.of(&namespace, &db.place);
            report.json["file"] = path.to_string_lossy().into();
            Ok(report)
        }
        // The lines are the output. What is said about them goes to standard error.
        None => {
            if !json {
                tell(&format!("{}\n", report.text))?;
            }
            Ok(Report::printed().ending(report.exit))
        }
    }
}

/// The lines. They begin when they are asked for.
fn begun<'l>(
    lines: &'l mut Option<ExportLines<Out>>,
    out: &mut Option<Out>,
    namespace: &Namespace,
    scope: &KeyScope,
) -> io::Result<&'l mut ExportLines<Out>> {
    if let Some(out) = out.take() {
        *lines = Some(ExportLines::begin(out, namespace, scope)?);
    }
    lines.as_mut().ok_or_else(|| io::Error::other("an earlier write failed"))
}

/// The output: a file that gets its name when it is complete, or standard output.
enum Out {
    File { file: BufWriter<File>, name: PathBuf, unfinished: Unfinished },
    Standard(BufWriter<io::Stdout>),
}

/// A file that is not complete. It goes, unless it is kept.
struct Unfinished(Option<PathBuf>);

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(path) = self.0.take() {
            // What can't be removed has a name that says that it is not complete.
            let _ = std::fs::remove_file(path);
        }
    }
}

impl Out {
    fn open(path: Option<&Path>) -> Result<Self, Failure> {
        let Some(name) = path else { return Ok(Self::Standard(BufWriter::new(io::stdout()))) };
        if name.try_exists().unwrap_or(true) {
            let problem = format!("{} exists already: name another file", shown(&name.to_string_lossy()));
            return Err(Failure::refused("file_exists", problem));
        }
        let mut partial = name.as_os_str().to_owned();
        partial.push(".incomplete");
        let partial = PathBuf::from(partial);
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.open(&partial).map_err(|error| {
            let name = shown(&partial.to_string_lossy());
            let remedy = match error.kind() {
                io::ErrorKind::AlreadyExists => "an earlier export was cut off, or one is running: remove it",
                _ => "look whether its folder exists, and may be written to",
            };
            Failure::failed("io", format!("{name} can't be made: {error}; {remedy}"))
        })?;
        interrupt::kept(format!("nothing was changed; {} is not complete", shown(&partial.to_string_lossy())));
        Ok(Self::File { file: BufWriter::new(file), name: name.to_owned(), unfinished: Unfinished(Some(partial)) })
    }

    /// Gives a file its name. It is on the disk then.
    fn keep(self) -> io::Result<()> {
        let Self::File { file, name, mut unfinished } = self else { return Ok(()) };
        file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
        let Some(partial) = &unfinished.0 else { return Ok(()) };
        // A hard link fails if somebody made a file of that name meanwhile, and a rename would replace it.
        match std::fs::hard_link(partial, &name) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(error),
            Ok(()) => {}
            // Not every file system has hard links.
            Err(_) => {
                std::fs::rename(partial, &name)?;
                unfinished.0 = None;
            }
        }
        drop(unfinished);
        let folder = name.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // The name must outlast a crash too. Not every system lets a folder be opened.
        File::open(folder).map_or(Ok(()), |folder| folder.sync_all())?;
        interrupt::kept(format!("{} is complete", shown(&name.to_string_lossy())));
        Ok(())
    }
}

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::File { file, .. } => file.write(bytes),
            Self::Standard(out) => out.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::File { file, .. } => file.flush(),
            Self::Standard(out) => out.flush(),
        }
    }
}

/// The export could not be written.
fn unwritten(error: &io::Error) -> Failure {
    let problem =
        format!("the export can't be written: {error}; what was written is not complete, and a file is removed");
    Failure::failed("io", problem)
}

fn failed(error: Error) -> Failure {
    match &error {
        Error::Maintenance(MaintenanceFault::Sink(source)) => match source.downcast_ref::<io::Error>() {
            Some(source) => unwritten(source),
            None => error.into(),
        },
        _ => error.into(),
    }
}

fn report(scope: &str, exported: &Exported, out: Option<&Path>) -> Report {
    let mut text = format!(
        "{}: {} with {}{}.",
        shown(scope),
        count(exported.events, "event"),
        count(exported.fields, "value"),
        out.map(|path| format!(", in {}", shown(&path.to_string_lossy()))).unwrap_or_default()
    );
    if exported.erased > 0 {
        text += &format!("\n{} erased: their keys were shredded.", were(exported.erased, "value"));
    }
    if exported.left_out > 0 {
        text += &format!("\n{} of others left out.", were(exported.left_out, "value"));
    }
    text += "\nEvents are as they were stored: this command knows no steps. What was stored in the clear before it was \
             sealed is not searched.";
    let mut report = Report::new(
        String::new(),
        json!({
            "complete": exported.is_complete(),
            "events": exported.events,
            "fields": exported.fields,
            "erased": exported.erased,
            "left_out": exported.left_out,
            "lost": exported.lost,
            "withheld": exported.withheld,
            "unreadable": exported.unreadable,
        }),
    );
    if !exported.is_complete() {
        text += "\n\nThe export is not complete:";
        if exported.unreadable > 0 {
            text += &format!(
                "\n  {} can't be read, and named in it: restore them, and export again",
                count(exported.unreadable, "event")
            );
        }
        if exported.withheld > 0 {
            text += &format!("\n  {} in metadata, which --no-metadata left out", count(exported.withheld, "value"));
        }
        if exported.lost > 0 {
            text += &format!(
                "\n  {} without a row for their key, so nobody knows whose they are: restore the key table",
                count(exported.lost, "value")
            );
        }
        report = report.ending(Exit::Failed);
    }
    report.text = text;
    report
}

fn were(number: u64, what: &str) -> String {
    format!("{} {}", count(number, what), if number == 1 { "was" } else { "were" })
}
