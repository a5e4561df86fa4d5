use crate::args::Down;
use crate::context::{Context, consent, runtime};
use crate::engine::{DownOptions, Error};
use crate::exit::{Code, Failure};
use crate::time;
use anyhow::Result;
use std::time::{Duration, Instant};

pub fn run(context: &Context, args: &Down) -> Result<Code> {
    let began = Instant::now();
    // Never the only one there is: what loses data is named.
    let name = args.cluster.as_ref().or(context.global.cluster.as_ref());
    let name = name.ok_or_else(|| {
        Failure::new(Code::Usage, "which cluster?")
            .hint("name it: oscarv down CLUSTER; `oscarv list` shows all")
    })?;
    let head = context.head()?;
    // Half-made clusters are not listed, and are taken down all the same.
    let runtime = runtime()?;
    let all = runtime.block_on(head.list())?;
    let known = all.into_iter().find(|c| c.name == *name);
    if let Some(cluster) = &known
        && !(args.yes || args.keep)
    {
        let nodes = super::status::count(cluster.nodes, "node");
        consent(
            &format!("{nodes} of {name} will lose their disks. Go on?"),
            "--yes",
        )?;
    }
    let shown = context.progress();
    let options = DownOptions {
        // What is removed anyway need not be put in order first.
        grace: match args.keep {
            true => args.grace.unwrap_or(Duration::from_secs(60)),
            false => Duration::ZERO,
        },
        keep: args.keep,
    };
    let ended = runtime.block_on(async {
        tokio::select! {
            ended = head.down(name, options, &shown.progress) => Ok(Some(ended)),
            signal = tokio::signal::ctrl_c() => signal.map(|()| None),
        }
    })?;
    shown.end();
    match ended {
        Some(Ok(())) => context.say(format!(
            "{name} is down after {}",
            time::show(began.elapsed())
        )),
        // It is as it should be: `down` can be repeated.
        Some(Err(error @ Error::NoSuchCluster { .. })) => {
            let hint = error.hint().unwrap_or_default();
            context.say(format!("{error}: nothing to take down; {hint}"));
        }
        Some(Err(error)) => return Err(error.into()),
        None => {
            context.say(format!(
                "interrupted; `oscarv down {name}` goes on from here"
            ));
            runtime.shutdown_background();
            return Ok(Code::Of(130));
        }
    }
    Ok(Code::Ok)
}
