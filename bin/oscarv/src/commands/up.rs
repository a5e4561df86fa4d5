use crate::args::Up;
use crate::context::{Context, consent, print, read_cluster, runtime};
use crate::engine::{Consent, UpOptions};
use crate::exit::Code;
use crate::{commands::status, time};
use anyhow::Result;
use plan::Plan;
use std::time::Instant;

pub fn run(context: &Context, args: &Up) -> Result<Code> {
    let began = Instant::now();
    let cluster = read_cluster(context, &args.file.file)?;
    let head = context.head()?;
    let runtime = runtime()?;
    let plan = runtime.block_on(head.plan(&cluster))?;
    if args.dry_run {
        match context.json() {
            true => context.document(&plan)?,
            false => print(format!("{plan}\n"))?,
        }
        return Ok(Code::Ok);
    }
    context.say(plan.to_string().trim_end());
    if let Some(loss) = loss(&plan).filter(|_| !args.yes) {
        consent(&format!("{loss}. Go on?"), "--yes")?;
    }
    let shown = context.progress();
    let options = UpOptions {
        time_limit: args.time_limit,
        wait: !args.no_wait,
        consent: match args.yes {
            true => Consent::Everything,
            false => Consent::To(plan.destructive().into_iter().cloned().collect()),
        },
    };
    let status = runtime.block_on(async {
        tokio::select! {
            status = head.up(&cluster, options, &shown.progress) => Ok(Some(status?)),
            signal = tokio::signal::ctrl_c() => signal.map(|()| None).map_err(anyhow::Error::from),
        }
    })?;
    shown.end();
    let Some(status) = status else {
        context.say(format!(
            "interrupted; `oscarv up {}` goes on from here, `oscarv down {}` takes it down",
            args.file.file.display(),
            cluster.name
        ));
        // What is still being done in threads is not waited for: every step can be cut off.
        runtime.shutdown_background();
        return Ok(Code::Of(130));
    };
    if context.json() {
        context.document(&status)?;
    } else if args.no_wait {
        context.say(format!(
            "{} runs after {}; `oscarv status {0}` says when it is ready",
            status.name,
            time::show(began.elapsed())
        ));
    } else {
        context.say(format!(
            "{} is {}: {} after {}",
            status.name,
            status::health(status.health).0,
            status::count(status.nodes.len(), "node"),
            time::show(began.elapsed())
        ));
    }
    Ok(Code::Ok)
}

/// What is lost, in words: `1 node is restarted; 2 nodes lose their disks`.
fn loss(plan: &Plan) -> Option<String> {
    let restarted = plan.summary.restart;
    let emptied = plan.summary.replace + plan.summary.remove;
    let mut parts = Vec::new();
    match restarted {
        0 => {}
        1 => parts.push("1 node is restarted, what runs on it ends".to_owned()),
        n => parts.push(format!("{n} nodes are restarted, what runs on them ends")),
    }
    match emptied {
        0 => {}
        1 => parts.push("1 node loses its disk".to_owned()),
        n => parts.push(format!("{n} nodes lose their disks")),
    }
    (!parts.is_empty()).then(|| parts.join("; "))
}
