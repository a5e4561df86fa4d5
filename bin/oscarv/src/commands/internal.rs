//! What is started by others than people: ssh's way to a node, and the process that holds a network.

use crate::context::Context;
use crate::exit::{Code, Failure};
use anyhow::{Context as _, Result};
use api::Name;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::Path;
use std::time::Duration;

/// How long a node may take to answer on a port.
const PATIENCE: Duration = Duration::from_secs(20);

pub fn dial(context: &Context, cluster: &Name, host: &str, port: u16) -> Result<Code> {
    let access = context.head()?.access(cluster)?;
    let address = match host.parse::<Ipv4Addr>() {
        Ok(address) => address,
        Err(_) => {
            let node = access.nodes.iter().find(|node| node.name.as_str() == host);
            let unknown = || {
                Failure::new(
                    Code::NotFound,
                    format!("cluster {cluster} has no node {host}"),
                )
            };
            node.ok_or_else(unknown)?.address
        }
    };
    let stream = net::dial(&access.net, SocketAddrV4::new(address, port), PATIENCE)
        .with_context(|| format!("port {port} of {host} cannot be reached"))?;
    net::send_fd_over_stdout(&stream).context("the connection could not be handed over to ssh")?;
    Ok(Code::Ok)
}

/// Becomes the holder of a network; it says in its own log how it went.
pub fn net_holder(directory: &Path) -> Result<Code> {
    let code = net::holder_main(directory);
    match code == std::process::ExitCode::SUCCESS {
        true => Ok(Code::Ok),
        false => Ok(Code::Failed),
    }
}
