//! Reads a TOML table key by key, remembers every problem with its place, and at the end complains about the keys that
//! nobody asked for. serde would stop at the first error and lose the places of values.

use crate::error::{Problem, suggestion};
use std::path::Path;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// One file on its way in.
pub(crate) struct Source<'a> {
    pub file: &'a Path,
    pub text: &'a str,
    pub problems: Vec<Problem>,
}

impl Source<'_> {
    pub fn problem(&mut self, at: usize, message: impl Into<String>, hint: Option<String>) {
        let problem = Problem {
            file: self.file.to_owned(),
            place: Some(place(self.text, at)),
            message: message.into(),
            hint,
        };
        self.problems.push(problem);
    }
}

/// Line and column (in characters), from 1.
fn place(text: &str, at: usize) -> (usize, usize) {
    let before = &text[..floor_char(text, at)];
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let line = before.matches('\n').count() + 1;
    (line, before[line_start..].chars().count() + 1)
}

fn floor_char(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

pub(crate) struct Table<'t, 'i> {
    table: &'t DeTable<'i>,
    at: usize,
    asked: Vec<&'static str>,
}

impl<'t, 'i> Table<'t, 'i> {
    pub fn new(table: &'t DeTable<'i>, at: usize) -> Self {
        Self {
            table,
            at,
            asked: Vec::new(),
        }
    }

    fn get(&mut self, key: &'static str) -> Option<&'t Spanned<DeValue<'i>>> {
        self.asked.push(key);
        self.table.get(key)
    }

    pub fn text(&mut self, source: &mut Source<'_>, key: &'static str) -> Option<(String, usize)> {
        let value = self.get(key)?;
        string(source, value, key)
    }

    pub fn required(&mut self, source: &mut Source<'_>, key: &'static str) -> (String, usize) {
        let given = self.table.contains_key(key);
        self.text(source, key).unwrap_or_else(|| {
            if !given {
                source.problem(
                    self.at,
                    format!("{key:?} is missing"),
                    Some(format!("add {key} = \"…\"")),
                );
            }
            (String::new(), self.at)
        })
    }

    /// A list of strings with their places.
    pub fn texts(&mut self, source: &mut Source<'_>, key: &'static str) -> Vec<(String, usize)> {
        let Some(value) = self.get(key) else {
            return Vec::new();
        };
        let Some(array) = value.get_ref().as_array() else {
            wrong(
                source,
                value,
                key,
                "a list of strings, as in [\"one\", \"two\"]",
            );
            return Vec::new();
        };
        array
            .iter()
            .filter_map(|item| string(source, item, key))
            .collect()
    }

    pub fn integer(&mut self, source: &mut Source<'_>, key: &'static str) -> Option<(i64, usize)> {
        let value = self.get(key)?;
        let number = value
            .get_ref()
            .as_integer()
            .and_then(|n| i64::from_str_radix(n.as_str(), n.radix()).ok());
        if number.is_none() {
            wrong(source, value, key, "a whole number");
        }
        number.map(|n| (n, value.span().start))
    }

    pub fn table(&mut self, source: &mut Source<'_>, key: &'static str) -> Option<Table<'t, 'i>> {
        let value = self.get(key)?;
        match value.get_ref().as_table() {
            Some(table) => Some(Table::new(table, value.span().start)),
            None => {
                wrong(source, value, key, &format!("a table, [{key}]"));
                None
            }
        }
    }

    pub fn tables(&mut self, source: &mut Source<'_>, key: &'static str) -> Vec<Table<'t, 'i>> {
        let Some(value) = self.get(key) else {
            return Vec::new();
        };
        let form = format!("tables, each headed [[{key}]]");
        let Some(array) = value.get_ref().as_array() else {
            wrong(source, value, key, &form);
            return Vec::new();
        };
        let mut tables = Vec::new();
        for item in array.iter() {
            match item.get_ref().as_table() {
                Some(table) => tables.push(Table::new(table, item.span().start)),
                None => wrong(source, item, key, &form),
            }
        }
        tables
    }

    /// Every key that was not asked for is a mistake.
    pub fn finish(self, source: &mut Source<'_>) {
        for (key, _) in self.table.iter() {
            let name = key.get_ref().as_ref();
            if !self.asked.contains(&name) {
                let hint = suggestion(name, self.asked.iter().copied());
                source.problem(
                    key.span().start,
                    format!("unknown key {name:?}"),
                    Some(hint),
                );
            }
        }
    }
}

fn string(
    source: &mut Source<'_>,
    value: &Spanned<DeValue<'_>>,
    key: &str,
) -> Option<(String, usize)> {
    let text = value.get_ref().as_str();
    if text.is_none() {
        wrong(source, value, key, "a string, in quotes");
    }
    text.map(|t| (t.to_owned(), value.span().start))
}

fn wrong(source: &mut Source<'_>, value: &Spanned<DeValue<'_>>, key: &str, form: &str) {
    let kind = value.get_ref().type_str();
    let message = format!("{key:?} must be {form}; here is: {kind}");
    source.problem(value.span().start, message, None);
}
