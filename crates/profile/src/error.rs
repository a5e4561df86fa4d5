//! All that is wrong with a file, each thing with its place and the next step.
//!
//! While a file is read, problems are collected as byte spans ([`Found`]); lines, columns and what is shown of the
//! source are worked out once at the end, in one sweep over the text.

use crate::form::{Form, in_xml};
use serde::Serialize;
use std::fmt;
use unicode_width::UnicodeWidthChar;

/// Bytes of the text.
pub(crate) type Span = std::ops::Range<usize>;

/// Something that was left out of the file and filled in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Note {
    /// What was filled in, as in `image.release` or `group.compute.memory`.
    pub key: String,
    pub value: String,
    /// Why it has this value.
    pub reason: String,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} = {} ({})", self.key, self.value, self.reason)
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Error {
    pub message: String,
    /// What to do about it; several lines where there is more to say.
    pub hint: Option<String>,
    /// Counted from 1.
    pub line: usize,
    /// Counted from 1, in characters.
    pub column: usize,
    /// Bytes from the beginning of the file to the offending text and to its end.
    pub start: usize,
    pub end: usize,
    /// The offending text, cut where it is long; empty where something is missing.
    pub text: String,
    #[serde(skip)]
    view: View,
}

/// The part of the source line that is shown, and where the marks go (in columns of a terminal).
#[derive(Clone, Debug, PartialEq, Eq)]
struct View {
    line: String,
    before: usize,
    width: usize,
}

/// All that is wrong with a file; never empty. In the order of the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Errors {
    /// The file's name.
    source: String,
    errors: Vec<Error>,
    /// So many more were found than are told.
    more: usize,
}

/// Nobody reads more; a hostile file must not fill the memory with messages.
const MOST: usize = 1000;
/// So many are kept while a file is read: enough for the first [`MOST`] by place, whatever the order they are found in.
const MOST_KEPT: usize = 10_000;

impl Errors {
    pub fn source_name(&self) -> &str {
        &self.source
    }

    pub fn iter(&self) -> std::slice::Iter<'_, Error> {
        self.errors.iter()
    }

    #[allow(clippy::len_without_is_empty, reason = "it is never empty")]
    pub fn len(&self) -> usize {
        self.errors.len()
    }
}

impl<'a> IntoIterator for &'a Errors {
    type Item = &'a Error;
    type IntoIter = std::slice::Iter<'a, Error>;
    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl std::error::Error for Errors {}

impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let source = printable(&self.source);
        for (at, error) in self.errors.iter().enumerate() {
            if at > 0 {
                f.write_str("\n\n")?;
            }
            let Error { line, column, .. } = error;
            write!(f, "{source}:{line}:{column}: error: {}", error.message)?;
            let View {
                line,
                before,
                width,
            } = &error.view;
            if !line.is_empty() {
                write!(f, "\n    {line}\n    {:before$}{:^<width$}", "", "")?;
            }
            for hint in error.hint.iter().flat_map(|hint| hint.lines()) {
                write!(f, "\nhint: {hint}")?;
            }
        }
        if self.more > 0 {
            write!(f, "\n\nand {} errors more", self.more)?;
        }
        Ok(())
    }
}

/// A problem while the file is still being read.
#[derive(Debug)]
pub(crate) struct Problem {
    span: Span,
    message: String,
    hint: Option<String>,
    /// It may be only a consequence of a syntax error elsewhere.
    doubtful: bool,
    syntax: bool,
}

impl Problem {
    /// Adds a line of advice.
    pub fn hint(&mut self, hint: impl Into<String>) -> &mut Self {
        let hint = hint.into();
        self.hint = Some(match self.hint.take() {
            Some(before) => format!("{before}\n{hint}"),
            None => hint,
        });
        self
    }

    /// Says that it may be only a consequence of a syntax error elsewhere: not reported beside one.
    pub fn doubtful(&mut self) -> &mut Self {
        self.doubtful = true;
        self
    }
}

/// What was found while reading: problems and notes.
pub(crate) struct Found<'t> {
    text: &'t str,
    /// In whose words advice is given.
    form: Form,
    /// Before the key of every note, where a file has several things.
    prefix: String,
    /// Where each line begins.
    lines: Vec<usize>,
    problems: Vec<Problem>,
    /// Beyond [`MOST_KEPT`]: only counted.
    dropped: usize,
    notes: Vec<Note>,
    /// The file is in libv3m's form.
    pub original: bool,
}

impl<'t> Found<'t> {
    pub fn new(text: &'t str) -> Self {
        Self {
            text,
            form: Form::Toml,
            prefix: String::new(),
            lines: std::iter::once(0)
                .chain(text.match_indices('\n').map(|(at, _)| at + 1))
                .collect(),
            problems: Vec::new(),
            dropped: 0,
            notes: Vec::new(),
            original: false,
        }
    }

    /// Advice is written as for TOML; for XML it is put into XML's words.
    pub fn form(&mut self, form: Form) {
        self.form = form;
    }

    /// Notes from here on are of the thing of this name.
    pub fn about(&mut self, prefix: &str) {
        self.prefix = prefix.to_owned();
    }

    pub fn is_clean(&self) -> bool {
        self.problems.is_empty()
    }

    /// No more are kept: what is reported now need not be put into words with care.
    pub fn is_full(&self) -> bool {
        self.problems.len() >= MOST_KEPT
    }

    pub fn error(&mut self, span: Span, message: impl Into<String>) -> &mut Problem {
        self.push(span, message.into(), false)
    }

    pub fn syntax(&mut self, span: Span, message: impl Into<String>) -> &mut Problem {
        self.push(span, message.into(), true)
    }

    fn push(&mut self, span: Span, message: String, syntax: bool) -> &mut Problem {
        if self.is_full() {
            self.dropped += 1;
            self.problems.pop();
        }
        self.problems.push(Problem {
            span,
            message,
            hint: None,
            doubtful: false,
            syntax,
        });
        let last = self.problems.len() - 1;
        &mut self.problems[last]
    }

    /// Not kept beside a problem: nothing is made of a file that has one.
    pub fn note(
        &mut self,
        key: impl Into<String>,
        value: impl fmt::Display,
        reason: impl Into<String>,
    ) {
        if !self.is_clean() {
            return;
        }
        self.notes.push(Note {
            key: format!("{}{}", self.prefix, key.into()),
            value: value.to_string(),
            reason: reason.into(),
        });
    }

    /// The line of a place, counted from 1.
    pub fn line(&self, at: usize) -> usize {
        self.lines.partition_point(|start| *start <= at).max(1)
    }

    pub fn into_notes(self) -> Vec<Note> {
        self.notes
    }

    pub fn into_errors(mut self, source: &str) -> Errors {
        let mut problems = std::mem::take(&mut self.problems);
        problems.sort_by_key(|p| (p.span.start, !p.syntax));
        self.drop_consequences(&mut problems);
        let more = problems.len().saturating_sub(MOST) + self.dropped;
        problems.truncate(MOST);
        let mut errors = Vec::with_capacity(problems.len());
        // The problems are sorted, so that the characters of a long line are counted once, not once a problem.
        let (mut line, mut counted, mut characters) = (1, 0, 0);
        for problem in problems {
            let start = floor(self.text, problem.span.start);
            let end = floor(self.text, problem.span.end).max(start);
            let number = self.line(start);
            let begin = self.lines[number - 1];
            if number != line || counted < begin {
                (line, counted, characters) = (number, begin, 0);
            }
            characters += self.text[counted..start].chars().count();
            counted = start;
            errors.push(Error {
                message: problem.message,
                hint: match self.form {
                    Form::Toml => problem.hint,
                    Form::Xml => problem.hint.map(|hint| in_xml(&hint)),
                },
                line: number,
                column: characters + 1,
                start,
                end,
                text: cut(&self.text[start..end], 200),
                view: self.view(begin, start, end),
            });
        }
        Errors {
            source: source.to_owned(),
            errors,
            more,
        }
    }

    /// One syntax error makes others: on its line, and everywhere by what was not read because of it.
    fn drop_consequences(&self, problems: &mut Vec<Problem>) {
        if !problems.iter().any(|p| p.syntax) {
            return;
        }
        let mut broken = std::collections::HashSet::new();
        problems.retain(|p| !p.syntax || broken.insert(self.line(p.span.start)));
        problems.retain(|p| p.syntax || !(p.doubtful || broken.contains(&self.line(p.span.start))));
    }

    /// What is shown of the line: all of a short one, a window around the place of a long one.
    fn view(&self, begin: usize, start: usize, end: usize) -> View {
        const AROUND: usize = 60;
        let before = self.text[begin..start].char_indices().rev();
        let from = before
            .take(AROUND)
            .last()
            .map_or(start, |(at, _)| begin + at);
        let after = self.text[start..].char_indices().take(AROUND);
        let to = after
            .take_while(|(_, c)| !matches!(c, '\n' | '\r'))
            .last()
            .map_or(start, |(at, c)| start + at + c.len_utf8());
        let cut_before = from > begin;
        let cut_after = !matches!(self.text[to..].chars().next(), None | Some('\n' | '\r'));

        let left = printable(&self.text[from..start]);
        let left = if cut_before {
            format!("…{left}")
        } else {
            left.trim_start().to_owned()
        };
        let right = printable(&self.text[start..to]);
        let ellipsis = if cut_after { "…" } else { "" };
        View {
            line: format!("{left}{right}{ellipsis}").trim_end().to_owned(),
            before: columns(&left),
            width: columns(&printable(&self.text[start..end.min(to).max(start)])).max(1),
        }
    }
}

/// How wide a text is on a terminal.
fn columns(text: &str) -> usize {
    text.chars().map(|c| c.width().unwrap_or(0)).sum()
}

/// No control characters: a file must not be able to command the terminal that shows an error in it.
pub(crate) fn printable(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\t' => ' ',
            c if c.is_control() || is_bidi(c) => char::REPLACEMENT_CHARACTER,
            c => c,
        })
        .collect()
}

/// Characters that reorder the text around them.
fn is_bidi(c: char) -> bool {
    matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}')
}

fn floor(text: &str, at: usize) -> usize {
    text.floor_char_boundary(at.min(text.len()))
}

/// At most `limit` characters of it.
fn cut(text: &str, limit: usize) -> String {
    match text.char_indices().nth(limit) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

/// A value as it is shown in a message: quoted, escaped, not long.
pub(crate) fn quoted(text: &str) -> String {
    format!("{:?}", cut(text, 60))
}
