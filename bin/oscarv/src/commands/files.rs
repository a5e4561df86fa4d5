//! `push` and `get`.

use super::exec::{cancel_on_interrupt, summary, told, unstarted};
use crate::args::{Get, Many, Push};
use crate::context::{Context, small_runtime};
use crate::exit::{Code, Failure};
use anyhow::Result;
use api::{Progress, Unit};
use remote::Options;

pub fn push(context: &Context, args: &Push) -> Result<Code> {
    let Some((dest, sources)) = args.paths.split_last() else {
        return Err(Failure::new(Code::Usage, "nothing to push").into());
    };
    let dest = dest
        .to_str()
        .ok_or_else(|| Failure::new(Code::Usage, "the destination is not UTF-8 text"))?;
    let (access, nodes) = context.nodes(&args.nodes)?;
    let ssh = context.ssh(&access, args.who.user.clone());
    let total = remote::size_of(sources).saturating_mul(nodes.len() as u64);
    let shown = context.progress();
    let outcomes = small_runtime()?.block_on(async {
        let cancel = cancel_on_interrupt();
        let mut count = counter(&shown.progress, "push", Some(total));
        remote::push(
            &ssh,
            &nodes,
            sources,
            dest,
            &options(&args.many),
            &cancel,
            &mut count,
        )
        .await
    })?;
    shown.end();
    unstarted(&outcomes)?;
    let code = told(context, &outcomes, &access.cluster);
    if code == Code::Ok {
        context.say(format!("pushed to {}", summary(&outcomes)));
    }
    Ok(code)
}

pub fn get(context: &Context, args: &Get) -> Result<Code> {
    let (access, nodes) = context.nodes(&args.nodes)?;
    let ssh = context.ssh(&access, args.who.user.clone());
    let shown = context.progress();
    let outcomes = small_runtime()?.block_on(async {
        let cancel = cancel_on_interrupt();
        let mut count = counter(&shown.progress, "get", None);
        let options = options(&args.many);
        remote::get(
            &ssh,
            &nodes,
            &args.source,
            &args.dest,
            &options,
            &cancel,
            &mut count,
        )
        .await
    })?;
    shown.end();
    unstarted(&outcomes)?;
    let code = told(context, &outcomes, &access.cluster);
    if code == Code::Ok {
        context.say(format!("got from {}", summary(&outcomes)));
    }
    Ok(code)
}

fn options(many: &Many) -> Options {
    Options {
        fanout: many.fanout.into(),
        limit: many.time_limit,
        ..Options::default()
    }
}

/// Adds up bytes for a bar. The tar stream has a little more than the files.
fn counter<'a>(progress: &'a Progress, stage: &'a str, total: Option<u64>) -> impl FnMut(u64) + 'a {
    progress.started(stage, total, Unit::Bytes);
    let mut done = 0;
    move |bytes| {
        done += bytes;
        progress.advanced(stage, total.map_or(done, |t| done.min(t)), total, "");
    }
}
