use crate::args::OneNode;
use crate::context::Context;
use crate::exit::{Code, Failure};
use anyhow::Result;
use terminal::{console, small_runtime};

pub fn run(context: &Context, args: &OneNode) -> Result<Code> {
    let (access, node) = context.node(&args.node)?;
    let head = context.head()?;
    let found = small_runtime()?.block_on(head.console(&access.cluster, &node))?;
    console::past(&found.log)?;
    let mut far = found.connect().map_err(|e| {
        Failure::new(
            Code::Failed,
            format!("the console of {node} cannot be reached: {e}"),
        )
        .hint(format!(
            "does it run? `oscarv status {0}`; what it printed: `oscarv logs {0}:{node}`",
            access.cluster
        ))
    })?;
    console::attach(&context.screen, node.as_str(), &mut far)?;
    Ok(Code::Ok)
}
