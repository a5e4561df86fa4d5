//! Rules of nftables, given to `nft` on its standard input. Each text replaces its table as a whole, in one
//! transaction.

use crate::Error;
use crate::files::program;
use crate::links::{BRIDGE, UPLINK};
use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

/// In the cluster's namespace. Nodes may open connections to the world; nobody may open one to them. Link-local
/// addresses are not the world: on many clouds the machine's own credentials are served there.
pub(crate) fn inside(mtu: u32) -> String {
    let mss = mtu - 40;
    format!(
        r#"
add table inet oscarv
delete table inet oscarv
table inet oscarv {{
    chain forward {{
        type filter hook forward priority filter; policy drop;
        iifname "{BRIDGE}" oifname "{BRIDGE}" accept
        iifname "{BRIDGE}" oifname "{UPLINK}" ip daddr 169.254.0.0/16 drop
        tcp flags syn tcp option maxseg size set {mss}
        ct state established,related accept
        iifname "{BRIDGE}" oifname "{UPLINK}" ct state new accept
    }}
    chain input {{
        type filter hook input priority filter; policy accept;
        iifname "{UPLINK}" ct state established,related accept
        iifname "{UPLINK}" drop
    }}
    chain postrouting {{
        type nat hook postrouting priority srcnat; policy accept;
        oifname "{UPLINK}" masquerade
    }}
}}
"#
    )
}

/// No way out: everything that would be forwarded is dropped.
pub(crate) const INSIDE_CLOSED: &str = r#"
add table inet oscarv
delete table inet oscarv
table inet oscarv {
    chain forward {
        type filter hook forward priority filter; policy drop;
        iifname "br0" oifname "br0" accept
    }
}
"#;

/// On the host, as root: out with the address of the host, not to other clusters, not to the host itself but for DNS
/// (it may be the resolver), and nothing in.
pub(crate) fn outside(table: &str, link: &str, inner: Ipv4Addr) -> String {
    format!(
        r#"
add table inet {table}
delete table inet {table}
table inet {table} {{
    chain forward {{
        type filter hook forward priority filter; policy accept;
        iifname "{link}" oifname "ov*" drop
        iifname "{link}" meta nfproto ipv6 drop
        iifname "{link}" ip saddr != {inner} drop
        oifname "{link}" ct state established,related accept
        oifname "{link}" drop
    }}
    chain input {{
        type filter hook input priority filter; policy accept;
        iifname "{link}" ct state established,related accept
        iifname "{link}" meta l4proto {{ tcp, udp }} th dport 53 accept
        iifname "{link}" drop
    }}
    chain postrouting {{
        type nat hook postrouting priority srcnat; policy accept;
        ip saddr {inner} oifname != "{link}" masquerade
    }}
}}
"#
    )
}

/// Runs `nft` with `arguments` and `text`; in `space`, where one is given. Blocks for some 20 ms.
pub(crate) fn nft(
    arguments: &[&str],
    text: &str,
    space: Option<BorrowedFd<'_>>,
) -> Result<String, Error> {
    let path = program("nft").ok_or(Error::Missing {
        program: "nft",
        package: "nftables",
    })?;
    let mut command = Command::new(path);
    command
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    if let Some(space) = space.map(|fd| fd.as_raw_fd()) {
        let enter = move || match setns(space) {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        };
        // SAFETY: between fork and exec only a system call on a plain number is made.
        unsafe { command.pre_exec(enter) };
    }
    let cannot = || Error::io("cannot run nft");
    let mut child = command.spawn().map_err(cannot())?;
    // The text is far smaller than a pipe, so nft need not read for us to end writing.
    let written = child
        .stdin
        .take()
        .map_or(Ok(()), |mut pipe| pipe.write_all(text.as_bytes()));
    let output = child.wait_with_output().map_err(cannot())?;
    if output.status.success() {
        written.map_err(cannot())?;
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Error::Program {
        program: "nft",
        said: said
            .lines()
            .find(|l| !l.trim().is_empty())
            .unwrap_or("no message")
            .to_owned(),
    })
}

/// rustix's counterpart is not documented to be free of allocation, which is forbidden after a fork.
fn setns(space: i32) -> libc::c_int {
    // SAFETY: takes plain numbers only.
    unsafe { libc::setns(space, libc::CLONE_NEWNET) }
}
