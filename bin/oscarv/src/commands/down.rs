use crate::args::Down;
use crate::context::{Context, consent, runtime};
use crate::engine::DownOptions;
use crate::exit::{Code, Failure};
use crate::time;
use anyhow::Result;
use std::time::Instant;

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
        && !args.yes
    {
        let nodes = super::status::count(cluster.nodes, "node");
        consent(
            &format!("{nodes} of {name} will lose their disks. Go on?"),
            "--yes",
        )?;
    }
    let shown = context.progress();
    let options = DownOptions { grace: args.grace };
    runtime.block_on(head.down(name, options, &shown.progress))?;
    shown.end();
    context.say(match known {
        Some(_) => format!("{name} is down after {}", time::show(began.elapsed())),
        None => format!("there is no cluster {name}: nothing is left of it"),
    });
    Ok(Code::Ok)
}
