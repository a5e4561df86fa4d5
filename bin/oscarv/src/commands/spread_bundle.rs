//! `spread bundle`, and the bundles of private sources and receivers.

use crate::args::{Private, SpreadBundle as Args};
use crate::context::Context;
use crate::exit::{Code, Failure};
use crate::table::{Cell, Table};
use anyhow::{Context as _, Result};
use serde_json::json;
use spread::authority::Authority;
use spread::tls::Tls;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

pub fn run(context: &Context, args: &Args) -> Result<Code> {
    let hosts = names(&args.hosts)?;
    let authority = Authority::load_or_make(&authority(context))?;
    if args.revoke {
        return revoke(context, &authority, &hosts);
    }
    let own = own(context);
    let name = own_name();
    // Made anew only where it is needed: receivers here may be at work with it.
    if !hosts.contains(&name) && Tls::load(&own).is_err() {
        authority.bundle_into(&name, args.days, &own)?;
        context.say(format!("this host's own, {name}: {}", own.display()));
    }
    std::fs::create_dir_all(&args.into)
        .with_context(|| format!("{} cannot be made", args.into.display()))?;
    let mut made = Vec::new();
    for host in &hosts {
        let file = match *host == name {
            true => own.clone(),
            false => args.into.join(format!("{host}.pem")),
        };
        authority.bundle_into(host, args.days, &file)?;
        made.push((host, file));
    }
    let document: Vec<_> = made
        .iter()
        .map(|(host, file)| json!({ "name": host, "file": file }))
        .collect();
    context.result(&json!({ "hosts": document }), || {
        let mut table = Table::new(&["HOST", "BUNDLE"]);
        for (host, file) in &made {
            table.row(vec![
                Cell::from(host.as_str()),
                Cell::from(file.display().to_string()),
            ]);
        }
        table
    })?;
    Ok(Code::Ok)
}

fn revoke(context: &Context, authority: &Authority, hosts: &[String]) -> Result<Code> {
    let mut revoked = Vec::new();
    for host in hosts {
        if !authority.revoke(host)? {
            let message = format!("no bundle of {host} was made here, or it is revoked already");
            return Err(Failure::new(Code::NotFound, message).into());
        }
        revoked.push(host);
    }
    context.result(&json!({ "revoked": revoked }), || {
        let mut table = Table::new(&["REVOKED"]);
        for host in &revoked {
            table.row(vec![Cell::from(host.as_str())]);
        }
        table
    })?;
    Ok(Code::Ok)
}

/// The identity that content is sent with; none: in plain. Where the CA is, only hosts with their newest bundle get it.
pub fn of_source(context: &Context, args: &Private) -> Result<Option<Arc<Tls>>> {
    let tls = load(context, args)?;
    let tls = tls.map(|tls| tls.only_newest(&authority(context)));
    Ok(tls.transpose()?.map(Arc::new))
}

/// The identity of a receiver; none: it takes what is plain.
pub fn of_receiver(context: &Context, args: &Private) -> Result<Option<Arc<Tls>>> {
    Ok(load(context, args)?.map(Arc::new))
}

fn load(context: &Context, args: &Private) -> Result<Option<Tls>> {
    if !args.private {
        return Ok(None);
    }
    let file = args.bundle.clone().unwrap_or_else(|| own(context));
    if !file.exists() {
        let message = format!("this host has no bundle: there is no {}", file.display());
        return Err(Failure::new(Code::Failed, message)
            .hint("make one for each host in one place, where content is sent from: oscarv spread bundle HOST…; then copy this host's to that file")
            .into());
    }
    Ok(Some(Tls::load(&file)?))
}

fn authority(context: &Context) -> PathBuf {
    context.state.join("spread/ca")
}

fn own(context: &Context) -> PathBuf {
    context.state.join("spread/bundle.pem")
}

/// What this machine is called; sources need a name only for people.
fn own_name() -> String {
    let uname = rustix::system::uname();
    let name = uname.nodename().to_string_lossy().to_ascii_lowercase();
    let fit = !name.is_empty()
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-.".contains(&b));
    match fit {
        true => name,
        false => "source".to_owned(),
    }
}

/// All hosts of these words.
fn names(words: &[String]) -> Result<Vec<String>> {
    let mut names = Vec::new();
    let wrong = |message: String| {
        Failure::new(Code::Usage, message).hint(
            "hosts are written as in node[1-8],server.example.org,10.0.0.9, and without ports",
        )
    };
    for word in words {
        let address = word.parse::<IpAddr>().is_ok();
        if !address && word.contains(':') {
            return Err(wrong(format!(
                "{word:?}: a bundle is for a host, whatever its port"
            ))
            .into());
        }
        if !address && word.contains('[') {
            let set = remote::parse_hosts(word).map_err(|e| wrong(e.to_string()))?;
            names.extend(set.iter().map(|name| name.to_ascii_lowercase()));
        } else {
            names.push(word.to_ascii_lowercase());
        }
    }
    Ok(names)
}
