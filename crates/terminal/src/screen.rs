//! Where results and messages go, and in which form.

use crate::exit::{Code, Failure, ReaderGone, printable};
use crate::progress::{ProgressForm, Shown};
use crate::table::Table;
use anyhow::{Context as _, Result};
use clap::{ArgAction, Args, ValueEnum};
use serde::Serialize;
use std::io::{IsTerminal, Write};

/// The options that say how a program speaks.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Global options")]
pub struct Form {
    /// How results are written to standard output; messages and progress go to standard error
    #[arg(long, global = true, value_name = "FORM", default_value = "table")]
    pub output: Output,

    /// How progress is shown; auto: bars on a terminal, lines elsewhere
    #[arg(long, global = true, value_name = "FORM", default_value = "auto")]
    pub progress: ProgressForm,

    /// When to use colours; auto: on a terminal, unless NO_COLOR is set
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    pub color: When,

    /// Say more
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub verbose: u8,

    /// Say only what was asked for, and errors
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    Table,
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum When {
    Auto,
    Always,
    Never,
}

/// A program's two ways out: results on standard output, messages on standard error.
#[derive(Clone, Debug)]
pub struct Screen {
    form: Form,
    /// Colours on standard output.
    pub colored: bool,
    /// Colours on standard error.
    pub colored_messages: bool,
}

impl Screen {
    pub fn new(form: Form) -> Self {
        Self {
            colored: colors(form.color, std::io::stdout().is_terminal()),
            colored_messages: colors(form.color, std::io::stderr().is_terminal()),
            form,
        }
    }

    pub fn json(&self) -> bool {
        self.form.output == Output::Json
    }

    /// Was more asked for?
    pub fn verbose(&self) -> bool {
        self.form.verbose > 0
    }

    pub fn progress(&self) -> Shown {
        Shown::new(self.form.progress, self.form.quiet, self.colored_messages)
    }

    /// A message to the person: not a result. Names of files and words of guests in it do not command the terminal.
    pub fn say(&self, message: impl AsRef<str>) {
        if !self.form.quiet {
            let lines: Vec<String> = message.as_ref().split('\n').map(printable).collect();
            let _ = writeln!(std::io::stderr(), "{}", lines.join("\n"));
        }
    }

    /// A result: a table, or one JSON document.
    pub fn result<T: Serialize>(&self, value: &T, table: impl FnOnce() -> Table) -> Result<()> {
        if self.json() {
            self.document(value)
        } else {
            print(table().render(self.colored))
        }
    }

    /// A result that is JSON in any case.
    pub fn document<T: Serialize>(&self, value: &T) -> Result<()> {
        print(serde_json::to_string_pretty(value)? + "\n")
    }
}

/// Asks on the terminal. Without one the answer must have been given before, by `flag`.
pub fn consent(question: &str, flag: &str) -> Result<()> {
    if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        return Err(
            Failure::new(Code::Usage, format!("{question} Nobody is here to answer"))
                .hint(format!("say yes beforehand with {flag}"))
                .into(),
        );
    }
    let mut stderr = std::io::stderr();
    write!(stderr, "{question} [y/N] ")?;
    stderr.flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    match answer.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ => Err(Failure::new(Code::Failed, "nothing was done").into()),
    }
}

/// To standard output. A reader that has gone (`| head`) is [`ReaderGone`], which ends the program without a word.
pub fn print(text: impl AsRef<[u8]>) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    match stdout
        .write_all(text.as_ref())
        .and_then(|()| stdout.flush())
    {
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Err(ReaderGone.into()),
        Err(e) => Err(e).context("standard output cannot be written"),
        Ok(()) => Ok(()),
    }
}

/// Are colours wanted there?
pub fn colors(when: When, terminal: bool) -> bool {
    match when {
        When::Always => true,
        When::Never => false,
        // https://no-color.org
        When::Auto => terminal && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty()),
    }
}
