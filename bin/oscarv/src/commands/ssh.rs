//! `ssh` and `run`: we become the ssh program, so that its terminal, its signals and its exit code are ours.

use crate::args::{OneCluster, Run, Ssh};
use crate::context::{Context, print};
use crate::engine::Access;
use crate::exit::{Code, Failure};
use anyhow::{Context as _, Result};
use api::Name;
use remote::Tty;
use std::ffi::OsString;
use std::io::IsTerminal;
use std::os::unix::process::CommandExt;

pub fn ssh(context: &Context, args: &Ssh) -> Result<Code> {
    let (access, node) = match args.node.as_deref() {
        Some(text) => {
            // `mpi:` means the head here, not all nodes.
            let text = if text.ends_with(':') {
                format!("{text}head")
            } else {
                text.to_owned()
            };
            context.node(&text)?
        }
        None => head_of(context, None)?,
    };
    become_ssh(context, &access, &node, args.who.user.clone(), &args.argv)
}

pub fn run(context: &Context, args: &Run) -> Result<Code> {
    let (access, node) = head_of(context, args.cluster.as_ref())?;
    let user = access.user.clone();
    become_ssh(context, &access, &node, Some(user), &args.argv)
}

pub fn config(context: &Context, args: &OneCluster) -> Result<Code> {
    let (access, _) = head_of(context, args.cluster.as_ref())?;
    let path = &access.ssh_config;
    let text = std::fs::read(path).with_context(|| format!("{} cannot be read", path.display()))?;
    print(text)?;
    Ok(Code::Ok)
}

fn head_of(context: &Context, cluster: Option<&Name>) -> Result<(Access, Name)> {
    let head = context.head()?;
    let cluster = context.cluster(&head, cluster)?;
    let access = head.access(&cluster)?;
    let node = access.head.clone();
    Ok((access, node))
}

fn become_ssh(
    context: &Context,
    access: &Access,
    node: &Name,
    user: Option<Name>,
    argv: &[OsString],
) -> Result<Code> {
    let terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    let tty = if terminal { Tty::Yes } else { Tty::No };
    let mut command = context.ssh(access, user).session(node, argv, tty);
    let error = command.exec();
    Err(
        Failure::new(Code::Unfit, format!("ssh could not be started: {error}"))
            .hint("sudo apt-get install openssh-client")
            .into(),
    )
}
