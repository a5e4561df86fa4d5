//! Links, addresses and routes of one network namespace: the one in which the socket was opened.

use crate::Error;
use futures_util::TryStreamExt;
use rtnetlink::packet_route::link::{
    BridgeStpState, InfoData, InfoVeth, LinkAttribute, LinkFlags, LinkMessage,
};
use rtnetlink::{
    Handle, LinkBridge, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder,
    new_connection,
};
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsRawFd, BorrowedFd};

/// The cluster's bridge and the link that leads out, in the cluster's namespace.
pub(crate) const BRIDGE: &str = "br0";
pub(crate) const UPLINK: &str = "uplink";

/// A link, as far as we want to know it.
#[derive(Debug)]
pub(crate) struct Link {
    pub name: String,
    pub index: u32,
    pub alias: Option<String>,
    pub up: bool,
}

/// A connection to the kernel; its work is done by a task of the current runtime.
pub(crate) struct Links {
    handle: Handle,
    work: tokio::task::JoinHandle<()>,
}

impl Drop for Links {
    fn drop(&mut self) {
        self.work.abort();
    }
}

impl Links {
    pub fn open() -> Result<Self, Error> {
        let (connection, handle, _) =
            new_connection().map_err(Error::io("cannot open a netlink socket"))?;
        Ok(Self {
            handle,
            work: tokio::spawn(connection),
        })
    }

    pub async fn find(&self, name: &str) -> Result<Option<Link>, Error> {
        let mut links = self.handle.link().get().match_name(name).execute();
        match links.try_next().await.map_err(to_io) {
            Ok(link) => Ok(link.map(read)),
            Err(e) if e.raw_os_error() == Some(libc::ENODEV) => Ok(None),
            Err(e) => Err(Error::io(format!("cannot look for link {name}"))(e)),
        }
    }

    pub async fn all(&self) -> Result<Vec<Link>, Error> {
        let links: Vec<_> = self
            .handle
            .link()
            .get()
            .execute()
            .try_collect()
            .await
            .map_err(to_io)
            .map_err(Error::io("cannot list links"))?;
        Ok(links.into_iter().map(read).collect())
    }

    /// Makes the bridge where it is missing. It has its address from the start: else it would take the lowest one of
    /// its ports, change it as VMs come and go, and nodes would talk to a gateway that is no more.
    pub async fn bridge(&self, address: [u8; 6]) -> Result<(), Error> {
        let bridge = LinkMessageBuilder::<LinkBridge>::new(BRIDGE)
            .stp_state(BridgeStpState::Disabled)
            .forward_delay(0)
            .mcast_snooping(false)
            .mtu(1500)
            .address(address.to_vec())
            .up()
            .build();
        made(
            self.handle.link().add(bridge).execute().await,
            "cannot make the bridge",
        )
    }

    /// A pair: `name` here, `peer` in another namespace.
    pub async fn veth(
        &self,
        name: &str,
        peer: &str,
        space: BorrowedFd<'_>,
        mtu: u32,
    ) -> Result<(), Error> {
        let peer = LinkMessageBuilder::<LinkUnspec>::new()
            .name(peer)
            .mtu(mtu)
            .setns_by_fd(space.as_raw_fd())
            .build();
        let pair = LinkMessageBuilder::<LinkVeth>::new(name, "")
            .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
            .mtu(mtu)
            .build();
        self.handle
            .link()
            .add(pair)
            .execute()
            .await
            .map_err(to_io)
            .map_err(Error::io(format!("cannot make link {name}")))
    }

    /// Writes whose it is.
    pub async fn sign(&self, name: &str, alias: &str) -> Result<(), Error> {
        self.set(LinkUnspec::new_with_name(name).alias(alias).build(), name)
            .await
    }

    pub async fn set_up(&self, name: &str) -> Result<(), Error> {
        self.set(LinkUnspec::new_with_name(name).up().build(), name)
            .await
    }

    /// Makes it a port of the bridge, and sets it up.
    pub async fn plug(&self, name: &str, bridge: u32) -> Result<(), Error> {
        self.set(
            LinkUnspec::new_with_name(name)
                .controller(bridge)
                .up()
                .build(),
            name,
        )
        .await
    }

    async fn set(&self, message: LinkMessage, name: &str) -> Result<(), Error> {
        self.handle
            .link()
            .set(message)
            .execute()
            .await
            .map_err(to_io)
            .map_err(Error::io(format!("cannot change link {name}")))
    }

    pub async fn address(&self, name: &str, address: Ipv4Addr, prefix: u8) -> Result<(), Error> {
        let index = self.index(name).await?;
        made(
            self.handle
                .address()
                .add(index, IpAddr::V4(address), prefix)
                .execute()
                .await,
            &format!("cannot give {name} the address {address}"),
        )
    }

    pub async fn default_route(&self, gateway: Ipv4Addr) -> Result<(), Error> {
        let route = RouteMessageBuilder::<Ipv4Addr>::new()
            .gateway(gateway)
            .build();
        made(
            self.handle.route().add(route).execute().await,
            &format!("cannot set the default route to {gateway}"),
        )
    }

    pub async fn has_default_route(&self) -> Result<bool, Error> {
        let all = RouteMessageBuilder::<Ipv4Addr>::new().build();
        let mut routes = self.handle.route().get(all).execute();
        while let Some(route) = routes
            .try_next()
            .await
            .map_err(to_io)
            .map_err(Error::io("cannot list routes"))?
        {
            if route.header.destination_prefix_length == 0 {
                return Ok(true);
            }
        }
        Ok(false)
    }

    pub async fn index(&self, name: &str) -> Result<u32, Error> {
        let gone = || Error::io(format!("cannot find link {name}"))(io::ErrorKind::NotFound.into());
        Ok(self.find(name).await?.ok_or_else(gone)?.index)
    }

    /// Of a link that is gone: nothing happens.
    pub async fn remove(&self, link: &Link) -> Result<(), Error> {
        match self
            .handle
            .link()
            .del(link.index)
            .execute()
            .await
            .map_err(to_io)
        {
            Err(e) if e.raw_os_error() != Some(libc::ENODEV) => {
                Err(Error::io(format!("cannot remove link {}", link.name))(e))
            }
            _ => Ok(()),
        }
    }
}

/// What is there already is as good as made.
fn made(result: Result<(), rtnetlink::Error>, doing: &str) -> Result<(), Error> {
    match result.map_err(to_io) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(Error::io(doing)(e)),
        _ => Ok(()),
    }
}

fn read(message: LinkMessage) -> Link {
    let mut link = Link {
        name: String::new(),
        index: message.header.index,
        alias: None,
        up: message.header.flags.contains(LinkFlags::Up),
    };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::IfAlias(alias) => link.alias = Some(alias),
            _ => {}
        }
    }
    link
}

fn to_io(error: rtnetlink::Error) -> io::Error {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.to_io(),
        other => io::Error::other(other.to_string()),
    }
}
