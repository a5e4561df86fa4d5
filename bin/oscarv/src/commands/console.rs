use crate::args::OneNode;
use crate::context::Context;
use crate::exit::{Code, Failure};
use anyhow::Result;
use terminal::{console, small_runtime};
use v3m::Held;

pub fn run(context: &Context, args: &OneNode) -> Result<Code> {
    let (access, node) = context.node(&args.node)?;
    let head = context.head()?;
    let found = small_runtime()?.block_on(head.console(&access.cluster, &node))?;
    let unreachable = |e: std::io::Error| {
        Failure::new(
            Code::Failed,
            format!("the console of {node} cannot be reached: {e}"),
        )
        .hint(format!(
            "does it run? `oscarv status {0}`; what it printed: `oscarv logs {0}:{node}`",
            access.cluster
        ))
    };
    let _ours = match found.hold().map_err(unreachable)? {
        Held::Ours(file) => file,
        Held::Others(who) => {
            let by = who.map_or("another process".to_owned(), |pid| format!("process {pid}"));
            let message = format!("the console of {node} is in use by {by}");
            return Err(Failure::new(Code::Failed, message).into());
        }
    };
    console::past(&found.log)?;
    let mut far = found.connect().map_err(unreachable)?;
    console::attach(&context.screen, node.as_str(), &mut far)?;
    Ok(Code::Ok)
}
