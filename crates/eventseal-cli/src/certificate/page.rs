//! The certificate as a page for people: one file without scripts, which opens without a network and prints on A4.
//!
//! It is made from the JSON document, and shows every value of it once, in an element that names the value's place with
//! `data-json`. The rest of its text is the same for every certificate, but for the headline.

mod text;

use crate::output::{Failure, shown};
use serde_json::Value;
use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;
use text::{escaped, is_time, leaf_text};

const STYLE: &str = include_str!("page/style.css");

/// Refuses a file that is there already: it may be another certificate. This is asked before the long look at the
/// store.
pub(super) fn check_new(path: &Path) -> Result<(), Failure> {
    match path.symlink_metadata() {
        Ok(_) => Err(cannot_write(path, &io::ErrorKind::AlreadyExists.into())),
        Err(_) => Ok(()),
    }
}

/// Writes the page into a new file that only its owner can read. If that fails, there is no file.
pub(super) fn write(path: &Path, document: &Value) -> Result<(), Failure> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path).map_err(|error| cannot_write(path, &error))?;
    let written = file.write_all(page(document).as_bytes()).and_then(|()| file.sync_all());
    written.map_err(|error| {
        // Half a certificate is none. The first error is the one to report.
        let _ = fs::remove_file(path);
        cannot_write(path, &error)
    })
}

fn cannot_write(path: &Path, error: &io::Error) -> Failure {
    let path = shown(&path.to_string_lossy());
    let problem = match error.kind() {
        io::ErrorKind::AlreadyExists => format!("{path} is there already: name another file"),
        _ => format!("the page can't be written into {path}: {error}"),
    };
    Failure::failed("io", problem)
}

fn page(document: &Value) -> String {
    let page = Page { document };
    let scope = format!("{} {}", page.text("/scope/kind"), page.text("/scope/id"));
    let mut html = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"robots\" content=\"noindex\">\n\
         <title>Certificate of erasure: {scope}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n"
    );
    page.headline(&mut html);
    page.in_short(&mut html);
    page.horizon(&mut html);
    page.keys(&mut html);
    page.events(&mut html);
    page.entries(&mut html);
    page.before_the_shred(&mut html);
    page.scan(&mut html);
    let _ = write!(
        html,
        "<footer>Issued {} by {} for the namespace {} in {}. This page and its JSON say the same.</footer>\n</body>\n\
         </html>\n",
        page.leaf("/issued_at"),
        page.leaf("/library"),
        page.leaf("/namespace"),
        page.leaf("/database")
    );
    html
}

struct Page<'d> {
    document: &'d Value,
}

/// A table: the names of its columns (`>` aligns one to the right), and the member of each row that a column shows.
type Columns<'c> = &'c [(&'c str, &'c str)];

impl Page<'_> {
    fn value(&self, place: &str) -> &Value {
        self.document.pointer(place).unwrap_or(&Value::Null)
    }

    /// A text of the document, for a place where no element can stand.
    fn text(&self, place: &str) -> String {
        escaped(&shown(self.value(place).as_str().unwrap_or_default()))
    }

    /// A value of the document, in an element that names its place.
    fn leaf(&self, place: &str) -> String {
        let name = place.rsplit('/').next().unwrap_or_default();
        let class = match name {
            "digest" | "hash" => " class=\"hash\"",
            name if is_time(name) => " class=\"time\"",
            "key_id" | "entry" | "hold" | "event" | "schedule" => " class=\"id\"",
            _ if place.contains("/keys/") && self.value(place).is_string() && name.parse::<usize>().is_ok() => {
                " class=\"id\""
            }
            "kind" if !place.starts_with("/scope") && !place.starts_with("/similar") => " class=\"kind\"",
            _ => "",
        };
        format!("<span{class} data-json=\"{place}\">{}</span>", leaf_text(name, self.value(place)))
    }

    fn items(&self, place: &str) -> impl Iterator<Item = String> {
        let place = place.to_owned();
        (0..self.value(&place).as_array().map_or(0, Vec::len)).map(move |index| format!("{place}/{index}"))
    }

    /// A list of sentences, or the text that there are none.
    fn sentences(&self, html: &mut String, place: &str, none: &str) {
        let items: Vec<String> = self.items(place).map(|item| format!("<li>{}</li>\n", self.leaf(&item))).collect();
        list(html, &items.concat(), none);
    }

    /// Findings, each with its kind.
    fn findings(&self, html: &mut String, place: &str) {
        let item = |at: String| {
            format!("<li>{} {}</li>\n", self.leaf(&format!("{at}/text")), self.leaf(&format!("{at}/kind")))
        };
        list(html, &self.items(place).map(item).collect::<String>(), "Nothing.");
    }

    fn table(&self, html: &mut String, place: &str, columns: Columns<'_>, sum: Option<&str>, none: &str) {
        if self.items(place).next().is_none() {
            let _ = writeln!(html, "<p class=\"none\">{none}</p>");
            if sum.is_none() {
                return;
            }
        }
        let class = |name: &str| if name.starts_with('>') { " class=\"n\"" } else { "" };
        html.push_str("<table>\n<thead><tr>");
        for (name, _) in columns {
            let _ = write!(html, "<th scope=\"col\"{}>{}</th>", class(name), name.trim_start_matches('>'));
        }
        html.push_str("</tr></thead>\n<tbody>\n");
        for row in self.items(place) {
            html.push_str("<tr>");
            for (name, member) in columns {
                let _ = write!(html, "<td{}>{}</td>", class(name), self.leaf(&format!("{row}/{member}")));
            }
            html.push_str("</tr>\n");
        }
        html.push_str("</tbody>\n");
        if let Some(sum) = sum {
            html.push_str("<tfoot><tr>");
            for (index, (name, member)) in columns.iter().enumerate() {
                let at = format!("{sum}/{member}");
                let cell = match (index, self.document.pointer(&at)) {
                    (0, None) => "All".to_owned(),
                    (_, None) => String::new(),
                    (_, Some(_)) => self.leaf(&at),
                };
                let _ = write!(html, "<td{}>{cell}</td>", class(name));
            }
            html.push_str("</tr></tfoot>\n");
        }
        html.push_str("</table>\n");
    }

    /// Names with their values.
    fn pairs(&self, html: &mut String, pairs: &[(&str, String)]) {
        html.push_str("<dl>\n");
        for (name, place) in pairs {
            let _ = writeln!(html, "<dt>{name}</dt><dd>{}</dd>", self.leaf(place));
        }
        html.push_str("</dl>\n");
    }

    fn headline(&self, html: &mut String) {
        let is = |place| self.value(place) == &Value::Bool(true);
        let (class, headline, meaning) = match (is("/erased"), is("/proved")) {
            (true, true) => (
                "proved",
                "Erased",
                "Every key of this scope is destroyed. A copy of the shred log proves it. Nothing that these keys seal \
                 can be read in this database.",
            ),
            (true, false) => (
                "erased",
                "Erased, not proved yet",
                "Every key of this scope is destroyed. Nothing that these keys seal can be read in this database. No \
                 copy of the shred log proves it yet: see below.",
            ),
            (false, _) => {
                ("not-erased", "Not erased", "This is no proof of an erasure. Below is why, and what was found.")
            }
        };
        let _ = write!(
            html,
            "<header>\n<h1>Certificate of erasure</h1>\n<p class=\"of\">{} {}</p>\n</header>\n\
             <div class=\"verdict {class}\"><strong>{headline}</strong>\n<p>{meaning}</p></div>\n",
            self.leaf("/scope/kind"),
            self.leaf("/scope/id")
        );
    }

    fn in_short(&self, html: &mut String) {
        html.push_str("<h2>In short</h2>\n");
        let pairs = [
            ("Erased", "/erased"),
            ("Proved by a copy of the log", "/proved"),
            ("State of the scope", "/state"),
            ("Generation", "/generation"),
            ("Keys that open values", "/live_keys"),
        ];
        self.pairs(html, &pairs.map(|(name, place)| (name, place.to_owned())));
        for (heading, place) in [("Why it is not erased", "/why_not"), ("Please note", "/remarks")] {
            if self.items(place).next().is_some() {
                let _ = writeln!(html, "<h3>{heading}</h3>");
                self.findings(html, place);
            }
        }
    }

    fn horizon(&self, html: &mut String) {
        html.push_str("<h2>By when no copy opens anything</h2>\n");
        if self.value("/horizon").is_null() {
            let _ = writeln!(html, "<p>There was no shred, so there is no such time: {}</p>", self.leaf("/horizon"));
            return;
        }
        let known = self.value("/horizon/at").is_string();
        if known {
            let _ = writeln!(
                html,
                "<p>From {} on, no copy of the keys opens what was shredded at {}, if all of this is true:</p>",
                self.leaf("/horizon/at"),
                self.leaf("/horizon/shredded_at")
            );
        } else {
            let _ = writeln!(
                html,
                "<p>Known time: {}. Copies from before the shred at {} may still hold the keys, because:</p>",
                self.leaf("/horizon/at"),
                self.leaf("/horizon/shredded_at")
            );
            self.sentences(html, "/horizon/unknown", "");
            html.push_str("<p>What was assumed:</p>\n");
        }
        self.sentences(html, "/horizon/assumptions", "Nothing.");
    }

    fn keys(&self, html: &mut String) {
        html.push_str("<h2>Keys</h2>\n<p class=\"intro\">Every key that the scope ever had, as far as is known.</p>\n");
        let columns = [
            (">Version", "version"),
            ("Key", "key_id"),
            ("State", "standing"),
            ("Made", "created_at"),
            ("Destroyed", "destroyed_at"),
            ("By entry", "entry"),
        ];
        self.table(html, "/keys", &columns, None, "The scope never had a key.");
    }

    fn events(&self, html: &mut String) {
        html.push_str(
            "<h2>Stored events</h2>\n<p class=\"intro\">Events with fields that these keys seal. Fields of others are \
             not counted.</p>\n",
        );
        let columns = [
            ("Type", "type"),
            (">Version", "version"),
            (">Events", "events"),
            (">Events unreadable", "unreadable_events"),
            (">Events readable", "readable_events"),
            (">Events lost", "lost_events"),
            (">Fields unreadable", "unreadable_fields"),
            (">Fields erased before", "void_fields"),
            (">Fields readable", "readable_fields"),
            (">Fields lost", "lost_fields"),
        ];
        self.table(html, "/event_types", &columns, Some("/events"), "There are no such events.");
        html.push_str(
            "<p>Unreadable: the key is destroyed. Erased before: the scope was shredded before the event was sealed. \
             Lost: the key is missing, which is no erasure.</p>\n",
        );
        let doubts = [
            ("/malformed_seals", "Events with a header that can't be read"),
            ("/unknown_keys", "Events that name a key without a row"),
        ];
        for (place, what) in doubts {
            let _ = writeln!(html, "<p>{what}: {}.</p>", self.leaf(&format!("{place}/events")));
            let columns = [(">Position", "position"), ("Event", "event")];
            if self.items(&format!("{place}/first")).next().is_some() {
                self.table(html, &format!("{place}/first"), &columns, None, "");
            }
        }
    }

    fn entries(&self, html: &mut String) {
        html.push_str(
            "<h2>Entries in the shred log</h2>\n<p class=\"intro\">Every decision about the scope, oldest first.</p>\n",
        );
        if self.items("/entries").next().is_none() {
            html.push_str("<p class=\"none\">There are none.</p>\n");
        }
        for at in self.items("/entries") {
            let _ = writeln!(
                html,
                "<section class=\"entry\">\n<h3>{}. {}</h3>",
                self.leaf(&format!("{at}/number")),
                self.leaf(&format!("{at}/action"))
            );
            let members = [
                ("When", "at"),
                ("Reason", "reason"),
                ("By", "actor"),
                ("Generation from then on", "generation"),
                ("Authenticity", "authenticity"),
                ("Place in the chain", "log/standing"),
                ("Number in the chain", "log/seq"),
                ("Hash in the chain", "log/hash"),
                ("Digest", "digest"),
                ("Entry", "entry"),
            ];
            let there = members.iter().filter(|(_, member)| self.document.pointer(&format!("{at}/{member}")).is_some());
            let pairs: Vec<_> = there.map(|(name, member)| (*name, format!("{at}/{member}"))).collect();
            self.pairs(html, &pairs);
            let keys: String =
                self.items(&format!("{at}/keys")).map(|key| format!("<li>{}</li>\n", self.leaf(&key))).collect();
            if !keys.is_empty() {
                let _ = write!(html, "<p>Keys that it destroyed:</p>\n<ul>\n{keys}</ul>\n");
            }
            html.push_str("</section>\n");
        }
    }

    fn before_the_shred(&self, html: &mut String) {
        html.push_str("<h2>Holds and schedule</h2>\n");
        let columns = [
            ("Hold", "hold"),
            ("Since", "since"),
            ("Until", "until"),
            ("Released", "released_at"),
            ("In force", "in_force"),
            ("By", "actor"),
            ("Reason", "reason"),
        ];
        self.table(html, "/holds", &columns, None, "The scope was never on hold.");
        if self.value("/schedule").is_null() {
            let _ = writeln!(html, "<p>Scheduled shred: {}</p>", self.leaf("/schedule"));
        } else {
            let members = [("Scheduled shred", "schedule"), ("Due", "due"), ("Since", "since"), ("By", "actor")];
            let pairs = members.iter().chain(&[("Reason", "reason")]);
            self.pairs(html, &pairs.map(|(name, member)| (*name, format!("/schedule/{member}"))).collect::<Vec<_>>());
        }
        html.push_str("<h2>Other scopes under this id</h2>\n");
        let columns = [("Kind", "kind"), ("Id", "id"), ("State", "state")];
        self.table(html, "/similar", &columns, None, "There are none, in this or another usual spelling of the id.");
    }

    fn scan(&self, html: &mut String) {
        let _ = writeln!(
            html,
            "<h2>What was looked at</h2>\n<p>The keys, the shred log, and {} stored events: those after position {}, \
             up to position {}. By an index of seals: {}.</p>",
            self.leaf("/scan/looked_at"),
            self.leaf("/scan/after"),
            self.leaf("/scan/up_to"),
            self.leaf("/scan/index_used")
        );
        let pairs = [
            ("Entries of the shred log", "/log/seq"),
            ("Hash of the last one", "/log/hash"),
            ("All as they were written", "/log/sound"),
        ];
        self.pairs(html, &pairs.map(|(name, place)| (name, place.to_owned())));
        html.push_str("<h3>Copies of the shred log</h3>\n");
        if self.items("/log/copies").next().is_none() {
            html.push_str("<p class=\"none\">None.</p>\n");
        }
        for at in self.items("/log/copies") {
            let members = [
                ("Copy", "copy"),
                ("Its entries", "seq"),
                ("Hash of its last one", "hash"),
                ("What it is to the log", "state"),
            ];
            self.pairs(html, &members.map(|(name, member)| (name, format!("{at}/{member}"))));
        }
        html.push_str("<h2>What was not looked at</h2>\n");
        self.sentences(html, "/not_looked_at", "Nothing.");
    }
}

fn list(html: &mut String, items: &str, none: &str) {
    let _ = match (items, none) {
        ("", "") => Ok(()),
        ("", none) => writeln!(html, "<p class=\"none\">{none}</p>"),
        (items, _) => write!(html, "<ul>\n{items}</ul>\n"),
    };
}
