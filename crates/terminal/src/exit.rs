//! How a command ends: exit codes, and errors as people read them.

use std::error::Error as StdError;
use std::fmt;
use std::process::ExitCode;

/// How a command ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    Ok,
    Failed,
    /// Wrong usage, or a file with errors.
    Usage,
    /// This machine cannot do it.
    Unfit,
    NotFound,
    /// Another command works on it.
    Busy,
    TimeLimit,
    /// A number of the program's own: a program's on a node, 130 for an interruption.
    Of(u8),
}

impl Code {
    pub fn number(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Unfit => 3,
            Self::NotFound => 4,
            Self::Busy => 5,
            Self::TimeLimit => 6,
            Self::Of(code) => code,
        }
    }
}

impl From<Code> for ExitCode {
    fn from(code: Code) -> Self {
        Self::from(code.number())
    }
}

/// An error of the command line's own, with its code and what to do next.
#[derive(Debug)]
pub struct Failure {
    pub code: Code,
    pub message: String,
    pub hint: Option<String>,
}

impl Failure {
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            hint: None,
        }
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

/// Nobody reads our standard output any more: the program ends without a word, with the code of one that SIGPIPE ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReaderGone;

impl fmt::Display for ReaderGone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("nobody reads standard output any more")
    }
}

impl std::error::Error for ReaderGone {}

/// The code that an error ends the command with; `of` knows the errors of the program's own parts.
pub fn code_of(
    error: &anyhow::Error,
    of: impl Fn(&(dyn StdError + 'static)) -> Option<Code>,
) -> Code {
    for cause in error.chain() {
        if let Some(failure) = cause.downcast_ref::<Failure>() {
            return failure.code;
        }
        if cause.is::<profile::Errors>() {
            return Code::Usage;
        }
        if cause.is::<ReaderGone>() {
            return Code::Of(141);
        }
        if let Some(code) = of(cause) {
            return code;
        }
    }
    Code::Failed
}

/// Says on standard error how the command failed: [`render`], with nothing where nobody is left to hear it.
pub fn tell(
    error: &anyhow::Error,
    colored: bool,
    hint_of: impl Fn(&(dyn StdError + 'static)) -> Option<String>,
) {
    if !error.chain().any(|cause| cause.is::<ReaderGone>()) {
        let text = render(error, colored, hint_of);
        let _ = std::io::Write::write_all(&mut std::io::stderr(), (text + "\n").as_bytes());
    }
}

/// `error: …`, its causes, then what to do. Hints may also travel within a message, as lines of their own or at the end of
/// a line after `; try: `; `hint_of` knows what the errors of the program's own parts advise.
pub fn render(
    error: &anyhow::Error,
    colored: bool,
    hint_of: impl Fn(&(dyn StdError + 'static)) -> Option<String>,
) -> String {
    let paint = |code: &str, text: &str| match colored {
        true => format!("\x1b[{code}m{text}\x1b[0m"),
        false => text.to_owned(),
    };
    // A file's errors have places and marks of their own.
    if let Some(errors) = error.downcast_ref::<profile::Errors>() {
        return errors.to_string();
    }
    let mut lines: Vec<String> = Vec::new();
    let mut hints: Vec<String> = Vec::new();
    for (depth, cause) in error.chain().enumerate() {
        let mut first = true;
        for line in cause.to_string().lines().map(printable) {
            let line = line.as_str();
            if let Some(hint) = line.trim_start().strip_prefix("hint: ") {
                hints.push(hint.to_owned());
                continue;
            }
            let line = match line.split_once("; try: ") {
                Some((line, hint)) => {
                    hints.push(hint.to_owned());
                    line
                }
                None => line,
            };
            // Messages that name their cause already are not told it again.
            if first && depth > 0 && lines.last().is_some_and(|l| l.ends_with(line)) {
                continue;
            }
            lines.push(match (depth, first) {
                (0, true) => format!("{}: {line}", paint("1;31", "error")),
                (_, true) => format!("  because: {line}"),
                (_, false) => format!("    {}", line.trim_start()),
            });
            first = false;
        }
        if let Some(hint) = cause
            .downcast_ref::<Failure>()
            .and_then(|f| f.hint.as_ref())
        {
            hints.extend(hint.lines().map(str::to_owned));
        }
        hints.extend(hint_of(cause));
    }
    hints.dedup();
    lines.extend(
        hints
            .iter()
            .map(|h| format!("{}: {h}", paint("1;36", "hint"))),
    );
    lines.join("\n")
}

/// A line without control characters: a guest's words and files' names must not command our terminal.
pub fn printable(line: &str) -> String {
    line.chars()
        .filter(|c| !c.is_control() || *c == '\t')
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn errors_have_causes_and_hints() {
        let error: anyhow::Result<()> =
            Err(Failure::new(Code::NotFound, "there is no cluster x").hint("oscarv list"))
                .context("cannot open a shell\n  hint: first line");
        let error = error.unwrap_err();
        assert_eq!(
            render(&error, false, |_| None),
            "error: cannot open a shell\n  because: there is no cluster x\nhint: first line\nhint: oscarv list"
        );
        assert_eq!(code_of(&error, |_| None), Code::NotFound);
        assert_eq!(code_of(&anyhow::anyhow!("x"), |_| None), Code::Failed);
    }

    #[test]
    fn what_to_try_is_a_hint() {
        let error = anyhow::anyhow!(
            "there is no bridge a; try: sudo ip link add a type bridge\nand no b; try: c"
        );
        assert_eq!(
            render(&error, false, |_| None),
            "error: there is no bridge a\n    and no b\nhint: sudo ip link add a type bridge\nhint: c"
        );
    }

    #[test]
    fn a_reader_that_has_gone_is_a_code_of_its_own() {
        let error = anyhow::Error::from(ReaderGone).context("the table");
        assert_eq!(code_of(&error, |_| None), Code::Of(141));
    }

    #[test]
    fn a_cause_that_was_told_is_not_told_again() {
        let io = std::io::Error::other("disk on fire");
        let error = anyhow::Error::new(io).context("/x: disk on fire");
        assert_eq!(render(&error, false, |_| None), "error: /x: disk on fire");
    }
}
