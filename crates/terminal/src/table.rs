//! Results for people: aligned columns, with colours that mean something.

use std::fmt::Write;

/// How a cell is painted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    Plain,
    Good,
    Warning,
    Bad,
    Faint,
}

#[derive(Clone, Debug)]
pub struct Cell {
    text: String,
    tone: Tone,
    right: bool,
}

impl Cell {
    /// The text as it may be shown.
    pub fn text(&self) -> &str {
        &self.text
    }

    pub fn tone(mut self, tone: Tone) -> Self {
        self.tone = tone;
        self
    }
}

impl<T: ToString> From<T> for Cell {
    fn from(value: T) -> Self {
        // What comes from a node or a file must not command the terminal.
        let clean = |c: char| if c.is_control() { ' ' } else { c };
        Self {
            text: value.to_string().chars().map(clean).collect(),
            tone: Tone::Plain,
            right: false,
        }
    }
}

/// A number: aligned to the right.
pub fn number(value: impl ToString) -> Cell {
    Cell {
        right: true,
        ..Cell::from(value)
    }
}

pub struct Table {
    head: Vec<&'static str>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    pub fn new(head: &[&'static str]) -> Self {
        Self {
            head: head.to_vec(),
            rows: Vec::new(),
        }
    }

    pub fn row(&mut self, cells: Vec<Cell>) {
        self.rows.push(cells);
    }

    pub fn render(&self, colored: bool) -> String {
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            let head = self.head.get(column).map_or(0, |h| h.len());
            cells.map(|c| c.text.chars().count()).fold(head, usize::max)
        };
        let widths: Vec<usize> = (0..self.head.len()).map(width).collect();
        let mut out = String::new();
        let head = self.head.iter().enumerate().map(|(column, title)| {
            let right = self
                .rows
                .first()
                .and_then(|r| r.get(column))
                .is_some_and(|c| c.right);
            Cell {
                text: (*title).to_owned(),
                tone: Tone::Faint,
                right,
            }
        });
        line(&mut out, head, &widths, colored);
        for row in &self.rows {
            line(&mut out, row.iter().cloned(), &widths, colored);
        }
        out
    }
}

fn line(out: &mut String, cells: impl Iterator<Item = Cell>, widths: &[usize], colored: bool) {
    let mut text = String::new();
    for (cell, width) in cells.zip(widths) {
        if !text.is_empty() {
            text.push_str("  ");
        }
        let fill = " ".repeat(width.saturating_sub(cell.text.chars().count()));
        let painted = paint(cell.tone, &cell.text, colored);
        let _ = match cell.right {
            true => write!(text, "{fill}{painted}"),
            false => write!(text, "{painted}{fill}"),
        };
    }
    out.push_str(text.trim_end());
    out.push('\n');
}

pub fn paint(tone: Tone, text: &str, colored: bool) -> String {
    let code = match tone {
        _ if !colored || text.is_empty() => return text.to_owned(),
        Tone::Plain => return text.to_owned(),
        Tone::Good => "32",
        Tone::Warning => "33",
        Tone::Bad => "31",
        Tone::Faint => "2",
    };
    format!("\x1b[{code}m{text}\x1b[0m")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(&["NODE", "CPUS", "STATE"]);
        table.row(vec![
            "head".into(),
            number(1),
            Cell::from("running").tone(Tone::Good),
        ]);
        table.row(vec!["compute12".into(), number(128), "off\x1b[2J".into()]);
        table
    }

    #[test]
    fn columns_are_aligned() {
        assert_eq!(
            table().render(false),
            "NODE       CPUS  STATE\nhead          1  running\ncompute12   128  off [2J\n"
        );
    }

    #[test]
    fn colours_change_no_width() {
        let colored = table().render(true);
        assert!(colored.contains("\x1b[32mrunning\x1b[0m"));
        let mut plain = colored;
        for code in ["\x1b[32m", "\x1b[2m", "\x1b[0m"] {
            plain = plain.replace(code, "");
        }
        assert_eq!(plain, table().render(false));
    }
}
