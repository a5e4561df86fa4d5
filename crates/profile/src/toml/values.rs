//! Values of a tree as the types that they should have; what has another type, and keys that nobody knows, are reported.

use super::sections::Section;
use super::{Key, Reader, Value};
use crate::error::{Span, quoted};
use crate::form::{Form, in_xml};
use crate::raw::{At, Field};
use crate::suggest::suggest;
use toml::de::{DeTable, DeValue};

impl Reader<'_, '_> {
    /// Reports it; the key that was probably meant.
    pub(super) fn unknown(
        &mut self,
        section: &Section,
        key: &Key<'_>,
        value: &Value<'_>,
    ) -> Option<&'static str> {
        let name = &**key.get_ref();
        if self.found.is_full() {
            let message = format!("unknown key {}", quoted(name));
            self.found.error(key.span(), message);
            return None;
        }
        let kind = match (self.form, value.get_ref()) {
            (Form::Xml, _) => "element or attribute",
            (Form::Toml, DeValue::Table(_)) => "section",
            (Form::Toml, _) => "key",
        };
        let place = match self.form {
            Form::Toml => section.what.to_owned(),
            Form::Xml => in_xml(section.what),
        };
        let message = format!("unknown {kind} {} in {place}", quoted(name));
        let homes = self
            .sections
            .iter()
            .filter(|home| home.names().any(|known| known == name));
        let homes: Vec<_> = homes.map(|home| home.opened).collect();
        // A word of another section is meant as it is, and one that others have for ours too.
        let otherwise = match value.get_ref() {
            // As `nodes = 3`, but not [[group.nodes]].
            DeValue::Array(_) | DeValue::Table(_) => None,
            _ => section.otherwise(name),
        };
        let near = match otherwise {
            None if homes.is_empty() => suggest(name, section.names()),
            other => other,
        };
        let problem = self.found.error(key.span(), message);
        if let Some(near) = near {
            problem.hint(format!("did you mean {near:?}?"));
        } else if !homes.is_empty() {
            problem.hint(format!("{name:?} is written {}", homes.join(", or ")));
        } else {
            let known: Vec<_> = section.names().collect();
            problem.hint(format!("known here: {}", known.join(", ")));
        }
        if !homes.is_empty() {
            // The [section] that it belongs to may be what could not be read.
            problem.doubtful();
        }
        near
    }

    /// `key` has a value of another type than `wanted`.
    fn mismatch(&mut self, section: &Section, key: &str, wanted: &str, value: &Value<'_>) {
        let written = self.text.get(value.span()).unwrap_or_default();
        let short = written.len() <= 40 && !written.contains('\n');
        let what = match (self.form, value.get_ref()) {
            (Form::Xml, DeValue::String(text)) => quoted(text),
            (_, other) => described(other).to_owned(),
        };
        let hint = match (wanted, value.get_ref()) {
            _ if self.form == Form::Xml => format!("write {}", section.example(key)),
            // Nothing, or less, is no size either.
            ("a text", DeValue::Integer(_))
                if short
                    && written.contains(|c| matches!(c, '1'..='9'))
                    && !written.starts_with('-')
                    && matches!(key, "memory" | "size" | "disk") =>
            {
                format!("write {key} = \"{written}M\" or {key} = \"{written}G\"")
            }
            // For others, quotes alone would not do.
            ("a text", DeValue::Integer(_) | DeValue::Float(_) | DeValue::Boolean(_))
                if short && matches!(key, "name" | "user") =>
            {
                format!("put it in quotes: {key} = \"{written}\"")
            }
            ("a list of texts", DeValue::String(_)) if short => {
                format!("put it in brackets: {key} = [{written}]")
            }
            ("a whole number" | "true or false", DeValue::String(text))
                if text.parse::<u32>().is_ok() || text.parse::<bool>().is_ok() =>
            {
                format!("write it without quotes: {key} = {text}")
            }
            _ => format!("write {}", section.example(key)),
        };
        self.found
            .error(
                value.span(),
                format!("{key:?} must be {wanted}, not {what}"),
            )
            .hint(hint);
    }

    pub(super) fn string(
        &mut self,
        section: &Section,
        key: &Key<'_>,
        value: &Value<'_>,
    ) -> Field<String> {
        if let DeValue::String(text) = value.get_ref() {
            return given(text.to_string(), value);
        }
        self.mismatch(section, key.get_ref(), "a text", value);
        Field::Bad
    }

    pub(super) fn boolean(
        &mut self,
        section: &Section,
        key: &Key<'_>,
        value: &Value<'_>,
    ) -> Field<bool> {
        match value.get_ref() {
            DeValue::Boolean(is) => return given(*is, value),
            DeValue::String(text) if self.form == Form::Xml => {
                if let Ok(is) = text.parse() {
                    return given(is, value);
                }
            }
            _ => {}
        }
        self.mismatch(section, key.get_ref(), "true or false", value);
        Field::Bad
    }

    pub(super) fn integer(
        &mut self,
        section: &Section,
        key: &Key<'_>,
        value: &Value<'_>,
    ) -> Field<i64> {
        let (digits, radix) = match value.get_ref() {
            DeValue::Integer(number) => (number.as_str(), number.radix()),
            DeValue::String(text) if self.form == Form::Xml && is_number(text) => (&**text, 10),
            _ => {
                self.mismatch(section, key.get_ref(), "a whole number", value);
                return Field::Bad;
            }
        };
        match i64::from_str_radix(digits, radix) {
            Ok(number) => given(number, value),
            Err(_) => {
                let message = format!("{:?} is too large a number", key.get_ref());
                self.found.error(value.span(), message);
                Field::Bad
            }
        }
    }

    pub(super) fn strings(
        &mut self,
        section: &Section,
        key: &Key<'_>,
        value: &Value<'_>,
    ) -> Field<Vec<At<String>>> {
        let DeValue::Array(items) = value.get_ref() else {
            self.mismatch(section, key.get_ref(), "a list of texts", value);
            return Field::Bad;
        };
        let mut list = Vec::with_capacity(items.len());
        for item in items.iter() {
            if let DeValue::String(text) = item.get_ref() {
                list.push(At {
                    value: text.to_string(),
                    span: item.span(),
                });
            } else {
                let what = described(item.get_ref());
                let message = format!("{:?} is a list of texts, not of {what}", key.get_ref());
                self.found
                    .error(item.span(), message)
                    .hint(format!("write {}", section.example(key.get_ref())));
            }
        }
        given(list, value)
    }

    pub(super) fn table<T: Default>(
        &mut self,
        section: &Section,
        key: &Key<'_>,
        value: &Value<'_>,
        read: impl FnOnce(&mut Self, &DeTable<'_>, Span) -> T,
    ) -> T {
        if let DeValue::Table(table) = value.get_ref() {
            return read(self, table, value.span());
        }
        self.mismatch(section, key.get_ref(), "a section", value);
        T::default()
    }

    /// A list of tables. One table that was written with single brackets is reported, and read.
    pub(super) fn tables<T>(
        &mut self,
        section: &Section,
        key: &Key<'_>,
        value: &Value<'_>,
        mut read: impl FnMut(&mut Self, &DeTable<'_>, Span) -> T,
    ) -> Field<Vec<T>> {
        let items = match value.get_ref() {
            DeValue::Array(items) => items,
            other => {
                let DeValue::Table(table) = other else {
                    self.mismatch(section, key.get_ref(), "a list of sections", value);
                    return Field::Bad;
                };
                let message = format!("a {} is opened with two brackets", key.get_ref());
                let hint = format!("write {}", section.example(key.get_ref()));
                self.found.error(value.span(), message).hint(hint);
                return given(vec![read(self, table, value.span())], value);
            }
        };
        let mut list = Vec::with_capacity(items.len());
        for item in items.iter() {
            match item.get_ref() {
                DeValue::Table(table) => list.push(read(self, table, item.span())),
                _ => self.mismatch(section, key.get_ref(), "a list of sections", item),
            }
        }
        given(list, value)
    }
}

fn given<T>(value: T, at: &Value<'_>) -> Field<T> {
    Field::Given(At {
        value,
        span: at.span(),
    })
}

fn is_number(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())
}

fn described(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "a number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a section",
    }
}
