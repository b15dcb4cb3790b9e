//! Fits text to the width of the terminal: tables and sentences.

use comfy_table::{CellAlignment, ColumnConstraint, ContentArrangement, Table, Width, presets};
use std::io::IsTerminal;

/// The width of a terminal that does not tell it.
const USUAL: usize = 80;
/// The smallest width to which the last column is wrapped.
const NARROW: usize = 12;
/// The space between columns.
const GAP: u16 = 2;

/// The width of a stream, if it is a terminal. Lines for files and pipes are not wrapped.
pub(super) fn width(stream: &impl IsTerminal) -> Option<usize> {
    stream.is_terminal().then(|| terminal_size::terminal_size().map_or(USUAL, |(width, _)| width.0.into()))
}

/// Lays out a table without lines. A `>` before the name of a column aligns it to the right.
///
/// Only the last column is wrapped. If the table is still too wide, each row is shown as a block with a line for each
/// column, because ids and times in pieces are of no use.
pub(crate) fn table(columns: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    laid_out(columns, &rows.into_iter().collect::<Vec<_>>(), width(&std::io::stdout()))
}

fn laid_out(columns: &[&str], rows: &[Vec<String>], width: Option<usize>) -> String {
    let names: Vec<&str> = columns.iter().map(|name| name.trim_start_matches('>')).collect();
    let mut table = plain();
    table.set_header(names.clone()).add_rows(rows.to_vec());
    for (column, name) in table.column_iter_mut().zip(columns) {
        if name.starts_with('>') {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let widths = table.column_max_content_widths();
    space(&mut table);
    let (Some(width), Some((last, others))) = (width, widths.split_last()) else { return table.trim_fmt() };
    let others: usize = others.iter().map(|width| usize::from(width + GAP)).sum();
    if others + usize::from(*last) <= width {
        return table.trim_fmt();
    }
    let words = rows.iter().filter_map(|row| row.last()).flat_map(|cell| cell.split_whitespace());
    let needed = words.map(|word| word.chars().count()).max().unwrap_or_default().max(NARROW);
    match width.checked_sub(others) {
        Some(room) if room >= needed => {
            wrap_last(&mut table, room);
            table.trim_fmt()
        }
        _ => row_by_row(&names, rows, width),
    }
}

fn row_by_row(names: &[&str], rows: &[Vec<String>], width: usize) -> String {
    let longest = names.iter().map(|name| name.chars().count()).max().unwrap_or_default();
    let blocks = rows.iter().map(|row| {
        let mut table = plain();
        let filled = names.iter().zip(row).filter(|(_, cell)| !cell.is_empty());
        table.add_rows(filled.map(|(name, cell)| vec![format!("{name:longest$}"), cell.clone()]));
        space(&mut table);
        wrap_last(&mut table, width.saturating_sub(longest + usize::from(GAP)).max(1));
        table.trim_fmt()
    });
    blocks.collect::<Vec<_>>().join("\n\n")
}

fn plain() -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table
}

fn space(table: &mut Table) {
    let last = table.column_count().saturating_sub(1);
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, if index == last { 0 } else { GAP }));
    }
}

fn wrap_last(table: &mut Table, room: usize) {
    // Set only now: with this setting, the table asks the terminal for its width by itself.
    table.set_content_arrangement(ContentArrangement::Dynamic);
    if let Some(column) = table.column_iter_mut().last() {
        column.set_constraint(ColumnConstraint::Absolute(Width::Fixed(u16::try_from(room).unwrap_or(u16::MAX))));
    }
}

/// Breaks lines that are too long, between words. The text behind a wide gap, as in a table, is indented to stay below
/// itself.
pub(super) fn wrapped(text: &str, width: Option<usize>) -> String {
    let Some(width) = width else { return text.to_owned() };
    let mut wrapped = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        let indent = indent(line, width);
        let mut used = 0;
        for word in line.split_inclusive(' ') {
            let visible = word.trim_end().chars().count();
            if used > indent && used + visible > width {
                wrapped.truncate(wrapped.trim_end_matches(' ').len());
                wrapped.push('\n');
                wrapped.extend(std::iter::repeat_n(' ', indent));
                used = indent;
            }
            wrapped.push_str(word);
            used += word.chars().count();
        }
    }
    wrapped
}

/// The indentation for the rest of a line that is broken.
fn indent(line: &str, width: usize) -> usize {
    let start = line.chars().take_while(|c| *c == ' ').count();
    let after_gap = line.rfind("  ").map(|at| line[..at + 2].chars().count()).filter(|at| *at <= width / 2);
    after_gap.unwrap_or(start).max(start)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "01234567-89ab-cdef-0123-456789abcdef";

    fn keys(width: Option<usize>) -> String {
        let row =
            |version: &str| vec![version.to_owned(), ID.to_owned(), "active, made 2026-01-02T03:04:05Z".to_owned()];
        laid_out(&[">KEY", "ID", "STATE"], &[row("1"), row("12")], width)
    }

    #[test]
    fn tables_fit() {
        let wide = keys(None);
        assert_eq!(wide.lines().count(), 3, "{wide}");
        assert_eq!(keys(Some(80)), wide, "it fits as it is");
        let wrapped = keys(Some(64));
        assert_eq!(wrapped.lines().nth(1).unwrap(), format!("  1  {ID}  active, made"), "{wrapped}");
        for width in [56, 60, 64, 79, 120] {
            let text = keys(Some(width));
            assert!(text.lines().all(|line| line.chars().count() <= width), "{width}:\n{text}");
            assert_eq!(text.matches(ID).count(), 2, "{width}: an id in pieces\n{text}");
            assert_eq!(text.matches("2026-01-02T03:04:05Z").count(), 2, "{width}: a time in pieces\n{text}");
        }
    }

    #[test]
    fn what_does_not_fit_is_shown_row_by_row() {
        let expected = format!("KEY    1\nID     {ID}\nSTATE  active, made 2026-01-02T03:04:05Z\n\n");
        assert!(keys(Some(60)).starts_with(&expected), "{}", keys(Some(60)));
    }

    #[test]
    fn sentences_fit() {
        let text =
            "ok       database     PostgreSQL, shop on a host with a long name, version 15\n  - one two three\nshort\n";
        assert_eq!(wrapped(text, None), text);
        let fits = wrapped(text, Some(44));
        assert_eq!(
            fits,
            concat!(
                "ok       database     PostgreSQL, shop on a\n",
                "                      host with a long name,\n",
                "                      version 15\n  - one two three\nshort\n"
            )
        );
        assert_eq!(
            wrapped("word-that-is-longer-than-the-line x\n", Some(10)),
            "word-that-is-longer-than-the-line\nx\n"
        );
    }
}
