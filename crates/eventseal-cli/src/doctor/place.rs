//! Checks where the key tables are. On SQLite: who may read the file. On PostgreSQL: which schema they are in, and
//! whether it is the one that is meant.

use super::checks::Checks;
use crate::args;
use crate::connect::Db;
use eventseal::Error;
use sqlx::postgres::PgConnection;

/// Checks the mode of a SQLite file. Every user who can read it has all wrapped keys and the names of all scopes.
#[cfg(unix)]
pub(super) fn file_mode(path: &std::path::Path, checks: &mut Checks) {
    use std::os::unix::fs::PermissionsExt;
    let with = |ending: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(ending);
        std::path::PathBuf::from(name)
    };
    let files = [path.to_owned(), with("-wal"), with("-shm")];
    // A database in memory has no file, and not every database has a -wal and a -shm file.
    let modes =
        files.iter().filter_map(|file| Some((file, std::fs::metadata(file).ok()?.permissions().mode() & 0o777)));
    // Of several files that are equally open, the first is reported: the database itself.
    let Some((file, mode)) = modes.min_by_key(|(_, mode)| std::cmp::Reverse(mode & 0o007)) else { return };
    if mode & 0o007 == 0 {
        return checks.good("file mode", format!("{mode:04o}, closed to others"));
    }
    let found = format!("{} is open to every user of this machine (mode {mode:04o})", file.display());
    checks.problem("file mode", found, "chmod 600 it, and its -wal and -shm files; or 660, if its group shall use it");
}

#[cfg(not(unix))]
pub(super) fn file_mode(_: &std::path::Path, _: &mut Checks) {}

/// Checks in which schema the key tables are found. Without `--schema` the `search_path` decides that, and every
/// session has its own.
pub(super) async fn search_path(db: &mut Db<PgConnection>, args: &args::Database, checks: &mut Checks) {
    let table = format!("\"{}key_namespace\"", args.prefix);
    let found = sqlx::query_as::<_, (Option<String>, Vec<String>, String)>(
        r#"SELECT (SELECT n.nspname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                   WHERE c.oid = to_regclass($1)),
             ARRAY(SELECT n.nspname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                   WHERE c.relkind IN ('r', 'p') AND quote_ident(c.relname) IN ($1, trim(both '"' from $1))
                   ORDER BY 1),
             current_setting('search_path')"#,
    );
    let (schema, all, path) = match found.bind(&table).fetch_one(&mut db.connection).await {
        Ok(found) => found,
        Err(source) => {
            let error = Error::database("looking for the key tables", source);
            return checks.failed("schema", &error, "let this user read pg_class and pg_namespace");
        }
    };
    if args.schema.is_some() {
        return;
    }
    match (schema, &all[..]) {
        (Some(schema), [_]) => checks.good("schema", format!("{schema}, by search_path {path}")),
        (Some(schema), _) => {
            let found = format!("{schema}, by search_path {path}; there are key tables in {} too", all.join(", "));
            checks.problem("schema", found, "name the one that is meant with --schema, and in the application");
        }
        (None, []) => {}
        (None, _) => {
            let found = format!("search_path {path} does not lead to the key tables in {}", all.join(", "));
            checks.problem("schema", found, "pass --schema, or ALTER ROLE … SET search_path");
        }
    }
}
