//! `exec`: one command on many nodes.

use crate::args::Exec;
use crate::context::{Context, print, small_runtime};
use crate::exit::{Code, Failure};
use crate::table::{Tone, paint};
use crate::time;
use anyhow::Result;
use api::Name;
use remote::{Cancel, Event, Folded, Options, Outcome, Status, Stream};
use serde_json::json;
use std::io::Write;

pub fn run(context: &Context, args: &Exec) -> Result<Code> {
    let (access, nodes) = context.nodes(&args.nodes)?;
    let ssh = context.ssh(&access, args.who.user.clone());
    let options = Options {
        fanout: args.many.fanout.into(),
        limit: args.many.time_limit,
        ..Options::default()
    };
    let width = nodes.iter().map(|n| n.as_str().len()).max().unwrap_or(0);
    // One node's output is passed on as it comes, with nothing added; so that it is for pipes, too.
    let plain = nodes.len() == 1 && !context.json() && !args.stream;
    let streamed = args.stream && !context.json();
    let outcomes = small_runtime()?.block_on(async {
        let cancel = cancel_on_interrupt();
        let on = |event: Event<'_>| match event {
            Event::Output(_, stream, bytes) if plain => pass(stream, bytes),
            Event::Output(node, stream, bytes) if streamed => {
                pass(stream, &prefixed(node, width, bytes, context.colored))
            }
            _ => {}
        };
        remote::exec(&ssh, &nodes, &args.argv, &options, &cancel, on).await
    });
    unstarted(&outcomes)?;
    if context.json() {
        context.document(&document(&outcomes))?;
    } else {
        if !plain && !streamed {
            for answer in remote::fold(&outcomes) {
                show(&answer, context.colored)?;
            }
        }
        for (nodes, status) in remote::fold_ends(&outcomes) {
            if let Some(why) = ending(status, &access.cluster) {
                let nodes = paint(Tone::Bad, &nodes, context.colored_messages);
                let _ = writeln!(std::io::stderr(), "{nodes}: {why}");
            }
        }
    }
    for outcome in outcomes
        .iter()
        .filter(|o| o.dropped > 0 && !plain && !streamed)
    {
        context.say(format!(
            "{}: its output was too long; the last {} bytes are not shown (use --stream)",
            outcome.node, outcome.dropped
        ));
    }
    Ok(Code::Of(remote::highest(&outcomes)))
}

/// ssh that does not start at all is one error, not one for each node.
pub fn unstarted(outcomes: &[Outcome]) -> Result<()> {
    let why = outcomes.iter().find_map(|o| match &o.status {
        Status::NotStarted(why) => Some(why),
        _ => None,
    });
    match why {
        Some(why) => Err(
            Failure::new(Code::Unfit, format!("ssh could not be started: {why}"))
                .hint(
                    "sudo apt-get install openssh-client; `oscarv check` says what else is missing",
                )
                .into(),
        ),
        None => Ok(()),
    }
}

/// Ctrl-C ends what runs on the nodes, in good order; the second one ends us.
pub fn cancel_on_interrupt() -> Cancel {
    let cancel = Cancel::default();
    let ends = cancel.clone();
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            ends.cancel();
        }
        if tokio::signal::ctrl_c().await.is_ok() {
            std::process::exit(130);
        }
    });
    cancel
}

fn pass(stream: Stream, bytes: &[u8]) {
    match stream {
        Stream::Out => {
            // The only error that print cannot end us with is one of the terminal's.
            let _ = print(bytes);
        }
        Stream::Err => {
            let _ = std::io::stderr().write_all(bytes);
        }
    }
}

fn prefixed(node: &Name, width: usize, bytes: &[u8], colored: bool) -> Vec<u8> {
    let prefix = paint(Tone::Faint, &format!("{node:>width$}: "), colored);
    let mut out = Vec::with_capacity(bytes.len() + 64);
    for line in bytes.split_inclusive(|b| *b == b'\n') {
        out.extend_from_slice(prefix.as_bytes());
        out.extend_from_slice(line);
    }
    if !out.ends_with(b"\n") {
        out.push(b'\n');
    }
    out
}

fn show(answer: &Folded<'_>, colored: bool) -> Result<()> {
    if answer.stdout.is_empty() && answer.stderr.is_empty() {
        return Ok(());
    }
    let title = match answer.count {
        1 => answer.nodes.clone(),
        count => format!("{} ({count})", answer.nodes),
    };
    print(paint(Tone::Faint, &format!("── {title}"), colored) + "\n")?;
    for (stream, bytes) in [(Stream::Out, answer.stdout), (Stream::Err, answer.stderr)] {
        if !bytes.is_empty() {
            pass(stream, bytes);
            if !bytes.ends_with(b"\n") {
                pass(stream, b"\n");
            }
        }
    }
    Ok(())
}

/// What there is to say of an end other than 0.
pub fn ending(status: &Status, cluster: &Name) -> Option<String> {
    match status {
        Status::Exited(0) => None,
        Status::Exited(255) => Some(format!(
            "could not be reached (code 255); see `oscarv status {cluster}`"
        )),
        Status::Exited(code @ 129..=192) => {
            Some(format!("ended by signal {} (code {code})", code - 128))
        }
        Status::Exited(code) => Some(format!("exit code {code}")),
        Status::TimedOut => {
            Some("the time limit passed; the command was ended (code 124)".to_owned())
        }
        Status::Interrupted => Some("interrupted; the command was ended".to_owned()),
        Status::NotStarted(why) => Some(why.clone()),
    }
}

/// `{"code": …, "nodes": [{"node", "code", "end", "seconds", "stdout", "stderr"}]}`; output that is not UTF-8 has
/// replacement characters.
fn document(outcomes: &[Outcome]) -> serde_json::Value {
    let nodes: Vec<_> = outcomes
        .iter()
        .map(|o| {
            json!({
                "node": o.node,
                "code": o.status.code(),
                "end": match o.status {
                    Status::Exited(_) => "exited",
                    Status::TimedOut => "timed-out",
                    Status::Interrupted => "interrupted",
                    Status::NotStarted(_) => "not-started",
                },
                "seconds": (o.took.as_secs_f64() * 1000.0).round() / 1000.0,
                "stdout": String::from_utf8_lossy(&o.stdout),
                "stderr": String::from_utf8_lossy(&o.stderr),
                "dropped": o.dropped,
            })
        })
        .collect();
    json!({ "code": remote::highest(outcomes), "nodes": nodes })
}

/// How a copy or a test on many nodes went, as messages; the code.
pub fn told(context: &Context, outcomes: &[Outcome], cluster: &Name) -> Code {
    for answer in remote::fold(outcomes) {
        let Some(why) = ending(answer.status, cluster) else {
            continue;
        };
        let nodes = paint(Tone::Bad, &answer.nodes, context.colored_messages);
        let said = String::from_utf8_lossy(answer.stderr);
        let _ = writeln!(std::io::stderr(), "{nodes}: {why}");
        for line in said.trim().lines().take(10) {
            let _ = writeln!(std::io::stderr(), "  {line}");
        }
    }
    let worst = |status: &Status| outcomes.iter().any(|o| o.status == *status);
    match () {
        () if worst(&Status::Interrupted) => Code::Of(130),
        () if worst(&Status::TimedOut) => Code::TimeLimit,
        () if outcomes.iter().all(Outcome::ok) => Code::Ok,
        () => Code::Failed,
    }
}

/// `3 nodes in 1.2 s`.
pub fn summary(outcomes: &[Outcome]) -> String {
    let took = outcomes.iter().map(|o| o.took).max().unwrap_or_default();
    format!(
        "{} in {}",
        super::status::count(outcomes.len(), "node"),
        time::show(took)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_has_its_node() {
        let node = Name::new("n1").unwrap();
        assert_eq!(prefixed(&node, 4, b"a\nb", false), b"  n1: a\n  n1: b\n");
    }

    #[test]
    fn ends_are_told_apart() {
        let cluster = Name::new("mpi").unwrap();
        let told = |status| ending(&status, &cluster).unwrap_or_default();
        assert_eq!(told(Status::Exited(0)), "");
        assert_eq!(told(Status::Exited(7)), "exit code 7");
        assert_eq!(told(Status::Exited(137)), "ended by signal 9 (code 137)");
        assert!(told(Status::Exited(255)).contains("oscarv status mpi"));
    }
}
