//! The two forms of a file, TOML and XML, and advice in the words of either.

use crate::error::{Found, Span};

/// How a file is written; its first character tells, never its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Toml,
    Xml,
}

impl Form {
    /// XML is what begins with `<`: no TOML does.
    pub fn of(text: &str) -> Self {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        if text.trim_start().starts_with('<') {
            Self::Xml
        } else {
            Self::Toml
        }
    }
}

/// For a cluster where a VM is wanted.
pub(crate) fn not_a_vm(place: Span, found: &mut Found<'_>) {
    found
        .syntax(place, "this is a cluster, not a VM")
        .hint("clusters are for oscarv: oscarv validate FILE");
}

/// For a VM where a cluster is wanted.
pub(crate) fn not_a_cluster(place: Span, found: &mut Found<'_>) {
    found
        .syntax(place, "this is a VM, not a cluster")
        .hint("single VMs are for v2m: v2m validate FILE");
}

/// `key = "value"` and `[section]` of a piece of advice, as they are written in XML.
pub(crate) fn in_xml(advice: &str) -> String {
    let lines: Vec<String> = advice.lines().map(line_in_xml).collect();
    lines.join("\n")
}

fn line_in_xml(line: &str) -> String {
    let mut out = String::new();
    let mut rest = sections_in_xml(line);
    // Each round takes one `key = value`.
    while let Some((before, after)) = rest.split_once(" = ") {
        let key_at = before
            .rfind(|c: char| !(c.is_ascii_lowercase() || c == '-'))
            .map_or(0, |at| {
                at + before[at..].chars().next().map_or(1, char::len_utf8)
            });
        let key = before[key_at..].to_owned();
        let (values, length) = values(after);
        if key.is_empty() || length == 0 {
            break;
        }
        out.push_str(&before[..key_at]);
        for value in values {
            out.push_str(&format!("<{key}>{value}</{key}>"));
        }
        rest = after[length..].to_owned();
    }
    out + &rest
}

/// A text, a list of texts, a number or a word at the beginning, and how long it is.
fn values(text: &str) -> (Vec<String>, usize) {
    if let Some(list) = text.strip_prefix('[') {
        let Some(end) = list.find(']') else {
            return (Vec::new(), 0);
        };
        let items = list[..end]
            .split(',')
            .map(|item| item.trim().trim_matches('"'));
        return (items.map(str::to_owned).collect(), end + 2);
    }
    if let Some(quoted) = text.strip_prefix('"') {
        return match quoted.find('"') {
            Some(end) => (vec![quoted[..end].to_owned()], end + 2),
            None => (Vec::new(), 0),
        };
    }
    let end = text
        .find(|c: char| !c.is_ascii_alphanumeric())
        .unwrap_or(text.len());
    (vec![text[..end].to_owned()], end)
}

/// `[[group.node]]` → `<node>`.
fn sections_in_xml(line: &str) -> String {
    let line = line
        .replace(
            "at the top of the file, before the first [section]",
            "directly in the element that holds all others",
        )
        .replace(
            " on a line of its own, with two brackets, its keys below",
            ", with its keys inside",
        )
        .replace(
            " on a line of its own, its keys below",
            ", with its keys inside",
        );
    let mut out = String::new();
    let mut rest = line.as_str();
    while let Some(at) = rest.find('[') {
        let name = rest[at..].trim_start_matches('[');
        let brackets = rest.len() - at - name.len();
        let end = name
            .find(|c: char| !(c.is_ascii_lowercase() || c == '-' || c == '.'))
            .unwrap_or(name.len());
        let closing = "]".repeat(brackets);
        if end > 0 && name[end..].starts_with(&closing) && !rest[..at].ends_with(" = ") {
            let element = name[..end].rsplit('.').next().unwrap_or_default();
            out.push_str(&rest[..at]);
            out.push_str(&format!("<{element}>"));
            rest = &name[end + brackets..];
        } else {
            out.push_str(&rest[..at + brackets]);
            rest = name;
        }
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::{Form, in_xml};

    #[test]
    fn forms() {
        assert_eq!(Form::of(" \n<vm/>"), Form::Xml);
        assert_eq!(Form::of("\u{feff}<vm/>"), Form::Xml);
        assert_eq!(Form::of("name = \"<\""), Form::Toml);
        assert_eq!(Form::of(""), Form::Toml);
    }

    #[test]
    fn advice_in_xml() {
        let same = [
            "did you mean \"memory\"?",
            "it is one of: a, b",
            "write a = \"",
            "[ é = [",
            "",
        ];
        for text in same {
            assert_eq!(in_xml(text), text);
        }
        for (toml, xml) in [
            (
                "write memory = \"4M\" or so",
                "write <memory>4M</memory> or so",
            ),
            (
                "order = [\"disk\", \"cdrom\"]",
                "<order>disk</order><order>cdrom</order>",
            ),
            (
                "below a [[group.node]]: cpus = 3.",
                "below a <node>: <cpus>3</cpus>.",
            ),
            (
                "write below [cloud-init]: nat = true",
                "write below <cloud-init>: <nat>true</nat>",
            ),
        ] {
            assert_eq!(in_xml(toml), xml);
        }
    }
}
