//! The one place where the command line meets the rest: what it uses of it, and what its errors mean here.

use crate::exit::Code;
use anyhow::Result;
use image::Image;
use std::error::Error as StdError;

pub use head::{
    Access, ClusterStatus, Consent, DownOptions, Error, Head, Health, NodeStatus, Readiness,
    UpOptions,
};

/// The code that an error of another crate ends us with, where it is not just a failure.
pub fn code_of(error: &(dyn StdError + 'static)) -> Option<Code> {
    if let Some(error) = error.downcast_ref::<head::Error>() {
        return match error {
            head::Error::NoSuchCluster { .. } | head::Error::NoSuchNode { .. } => {
                Some(Code::NotFound)
            }
            head::Error::Busy { .. } => Some(Code::Busy),
            head::Error::NotReady { late: true, .. } => Some(Code::TimeLimit),
            head::Error::NoBackend { .. } | head::Error::TooLarge { .. } => Some(Code::Unfit),
            head::Error::Net(error) => of_net(error),
            head::Error::Image(error) => of_image(error),
            head::Error::Vm(error) => of_vm(error),
            head::Error::Missing { .. } => Some(Code::Unfit),
            head::Error::Opkg(opkg::Error::Io { .. }) => None,
            head::Error::Opkg(_) => Some(Code::Usage),
            _ => None,
        };
    }
    if let Some(error) = error.downcast_ref::<image::Error>() {
        return of_image(error);
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
        v3m::Error::Unusable { .. } | v3m::Error::Unfit { .. } => Some(Code::Unfit),
        _ => None,
    }
}

/// What an error of another crate advises.
pub fn hint_of(error: &(dyn StdError + 'static)) -> Option<String> {
    error
        .downcast_ref::<head::Error>()
        .and_then(head::Error::hint)
}

/// Images that clusters stand on.
pub fn used_images(head: &Head) -> Result<Vec<(api::Name, String)>> {
    Ok(head.images_used()?)
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
