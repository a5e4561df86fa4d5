//! A look over an XML text before it is parsed: what a hostile file could make expensive is refused here.
//!
//! Entities are not expanded at all, so that there are no bombs; nothing is ever fetched; depth and attributes are
//! bounded. The look is a single pass, and no deeper than a counter.

use crate::error::Found;

/// Elements in one another; a real file has five.
const MOST_DEPTH: usize = 32;
/// Of one element; the parser compares each with each.
const MOST_ATTRIBUTES: usize = 64;

/// In a file; no form of ours has any. The parser copies those around an element for each that declares one.
const MOST_NAMESPACES: usize = 16;

/// False if the text is refused: `found` says why.
pub(super) fn harmless(text: &str, found: &mut Found<'_>) -> bool {
    if let Some(at) = text.find('\0') {
        found
            .syntax(at..at + 1, "not XML: a NUL byte")
            .hint("is this a text file?");
        return false;
    }
    if !utf8_declared(text, found) {
        return false;
    }
    if let Some((at, name)) = text.match_indices("xmlns:").nth(MOST_NAMESPACES) {
        let message = format!("a file has at most {MOST_NAMESPACES} namespaces");
        found.syntax(at..at + name.len(), message);
        return false;
    }
    let bytes = text.as_bytes();
    let mut at = 0;
    let mut depth = 0usize;
    while let Some(next) = text[at..].find('<') {
        at += next;
        let rest = &text[at..];
        if rest.starts_with("<!--") {
            at = end(text, at + 4, "-->");
        } else if rest.starts_with("<![CDATA[") {
            at = end(text, at + 9, "]]>");
        } else if rest.starts_with("<?") {
            at = end(text, at + 2, "?>");
        } else if rest.starts_with("<!ENTITY") {
            let span = at..at + "<!ENTITY".len();
            found
                .syntax(span, "a file may not define entities")
                .hint("write the text itself where &name; stands; &lt; &gt; &amp; &quot; and &apos; need no definition");
            return false;
        } else if rest.starts_with("<!") {
            // A DOCTYPE, or a declaration inside one: what is in it is looked at too.
            at += 2;
        } else if rest.starts_with("</") {
            depth = depth.saturating_sub(1);
            at += 2;
        } else {
            let tag = tag(bytes, at + 1);
            if tag.attributes > MOST_ATTRIBUTES {
                let message = format!("an element has more than {MOST_ATTRIBUTES} attributes");
                found.syntax(at..at + 1, message);
                return false;
            }
            if !tag.empty {
                depth += 1;
            }
            if depth > MOST_DEPTH {
                let message = format!("more than {MOST_DEPTH} elements in one another");
                found.syntax(at..at + 1, message);
                return false;
            }
            at = tag.end;
        }
    }
    true
}

/// After `what`, or the end of the text.
fn end(text: &str, from: usize, what: &str) -> usize {
    let rest = text.get(from..).unwrap_or_default();
    rest.find(what)
        .map_or(text.len(), |at| from + at + what.len())
}

struct Tag {
    end: usize,
    empty: bool,
    attributes: usize,
}

/// The rest of a tag, whose quotes may hold any character.
fn tag(bytes: &[u8], from: usize) -> Tag {
    let mut quote = None;
    let mut attributes = 0;
    for (at, byte) in bytes.iter().enumerate().skip(from) {
        match (quote, byte) {
            (Some(open), byte) if open == *byte => quote = None,
            (Some(_), _) => {}
            (None, b'"' | b'\'') => quote = Some(*byte),
            (None, b'=') => attributes += 1,
            (None, b'>') => {
                return Tag {
                    end: at + 1,
                    empty: bytes[at - 1] == b'/',
                    attributes,
                };
            }
            (None, _) => {}
        }
    }
    Tag {
        end: bytes.len(),
        empty: false,
        attributes,
    }
}

/// The text is UTF-8 by now; a declaration that says otherwise is wrong, whatever it meant.
fn utf8_declared(text: &str, found: &mut Found<'_>) -> bool {
    let start = text.len() - text.trim_start_matches('\u{feff}').len();
    let declaration = &text[start..end(text, start, "?>")];
    if !declaration.starts_with("<?xml") {
        return true;
    }
    let Some(at) = declaration.find("encoding") else {
        return true;
    };
    let value =
        declaration[at + "encoding".len()..].trim_start_matches([' ', '\t', '\r', '\n', '=']);
    let Some(quote) = value.chars().next().filter(|c| matches!(c, '"' | '\'')) else {
        return true;
    };
    let name = value[1..].split(quote).next().unwrap_or_default();
    if ["utf-8", "utf8", "us-ascii", "ascii"].contains(&name.to_ascii_lowercase().as_str()) {
        return true;
    }
    let from = start + (declaration.len() - value.len()) + 1;
    found
        .syntax(
            from..from + name.len(),
            "the encoding of a file is UTF-8, no other",
        )
        .hint("save it as UTF-8, and write encoding=\"UTF-8\" or leave it out");
    false
}
