//! The one place where the command line meets the rest: what it uses of it, and what its errors mean here.

use crate::exit::Code;
use anyhow::{Context as _, Result};
use image::Image;
use profile::Cluster;
use std::error::Error as StdError;
use std::path::Path;

pub use head::{
    Access, ClusterStatus, DownOptions, Head, Health, NodeStatus, Readiness, UpOptions,
};

/// The code that an error of another crate ends us with, where it is not just a failure.
pub fn code_of(error: &(dyn StdError + 'static)) -> Option<Code> {
    if let Some(error) = error.downcast_ref::<head::Error>() {
        return match error {
            head::Error::NoSuchCluster { .. } | head::Error::NoSuchNode { .. } => {
                Some(Code::NotFound)
            }
            head::Error::Busy { .. } => Some(Code::Busy),
            head::Error::NotReady { .. } => Some(Code::TimeLimit),
            head::Error::NoBackend { .. } | head::Error::TooLarge { .. } => Some(Code::Unfit),
            head::Error::Net(error) => of_net(error),
            head::Error::Image(error) => of_image(error),
            head::Error::Vm(error) => of_vm(error),
            head::Error::Opkg(_) => Some(Code::Usage),
            _ => None,
        };
    }
    if let Some(error) = error.downcast_ref::<image::Error>() {
        return of_image(error);
    }
    if error.is::<opkg::Error>() {
        return Some(Code::Usage);
    }
    None
}

fn of_net(error: &net::Error) -> Option<Code> {
    match error {
        net::Error::Missing { .. } => Some(Code::Unfit),
        _ => None,
    }
}

fn of_image(error: &image::Error) -> Option<Code> {
    match error {
        image::Error::Unfit(_) => Some(Code::Unfit),
        image::Error::NoImage(_) | image::Error::Ambiguous { .. } => Some(Code::NotFound),
        _ => None,
    }
}

fn of_vm(error: &v3m::Error) -> Option<Code> {
    match error {
        v3m::Error::Unusable { .. } => Some(Code::Unfit),
        _ => None,
    }
}

/// What an error of another crate advises.
pub fn hint_of(error: &(dyn StdError + 'static)) -> Option<String> {
    error
        .downcast_ref::<head::Error>()
        .and_then(head::Error::hint)
}

/// A driver to ask what this host can do. It defines no VM; where the state cannot be written yet, it gets a place
/// that goes with the second value.
pub fn probing_driver(state: &Path) -> Result<(v3m_qemu::QemuDriver, Option<tempfile::TempDir>)> {
    let options = v3m_qemu::Options::default;
    if state.is_dir()
        && let Ok(driver) = v3m_qemu::QemuDriver::open(&state.join("probe"), options())
    {
        return Ok((driver, None));
    }
    let made = tempfile::tempdir().context("no place for temporary files")?;
    let driver = v3m_qemu::QemuDriver::open(made.path(), options())?;
    Ok((driver, Some(made)))
}

/// The packages of a cluster's image, in order.
pub fn packages(state: &Path, cluster: &Cluster) -> Result<Vec<opkg::Opkg>> {
    let shipped = opkg::unpack_shipped(&state.join("packages"))?;
    Ok(opkg::Repository::open(&[shipped])?.resolve(&cluster.image.opkgs)?)
}

/// Images that clusters run, however the head names them.
pub fn used_images(head: &Head) -> Result<Vec<(api::Name, String)>> {
    let mut used = Vec::new();
    for cluster in head.list()? {
        let status = head.status(&cluster.name)?;
        used.extend(status.image.map(|image| (cluster.name, image)));
    }
    Ok(used)
}

pub fn is_used(image: &Image, used: &[(api::Name, String)]) -> bool {
    used.iter().any(|(_, name)| is(image, name))
}

/// The clusters that run an image.
pub fn users_of(head: &Head, image: &Image) -> Result<Vec<String>> {
    let used = used_images(head)?;
    let users = used.into_iter().filter(|(_, name)| is(image, name));
    Ok(users.map(|(cluster, _)| cluster.to_string()).collect())
}

fn is(image: &Image, name: &str) -> bool {
    [image.id.as_str(), image.key.as_str(), image.digest.as_str()].contains(&name)
}
