//! The way out of a cluster: rules in its namespace, and a veth pair with rules on the host as root, pasta as an
//! ordinary user. It comes after the bridge, and its failure is a warning: nodes reach each other without it.

use crate::files::program;
use crate::holder::Holder;
use crate::keeper::Order;
use crate::links::{Links, UPLINK};
use crate::services::State;
use crate::{Error, Spec, host, rules};
use rtnetlink::MulticastGroup;
use std::fs;
use std::os::fd::AsFd;
use std::rc::Rc;
use tokio::task::spawn_local;

impl Holder {
    /// As root: the pair of links. Its host's end stays down until its rules are there.
    pub(crate) async fn link_out(&self, spec: &Spec, found: bool) -> Result<(), Error> {
        let Some((host, mtu)) = &self.outside else {
            return Ok(());
        };
        let keep = found && self.links.find(UPLINK).await?.is_some();
        host::make_link(host, &self.dir, spec, self.space.as_fd(), keep, *mtu).await?;
        let (inner, outer) = spec.link();
        self.links.set_up(UPLINK).await?;
        self.links.address(UPLINK, inner, 30).await?;
        self.links.default_route(outer).await
    }

    pub(crate) fn start_way(self: &Rc<Self>) {
        self.way.set(State::Starting);
        let holder = self.clone();
        let task = spawn_local(async move {
            let spec = holder.spec();
            if let Err(reason) = holder.rules(&spec).await {
                holder.way.set(State::Failed(reason));
            } else if !spec.nat {
                holder.way.set(State::Off);
            } else if let Some((host, _)) = &holder.outside {
                holder
                    .way
                    .set(match holder.open_as_root(host, &spec).await {
                        Ok(()) => State::Up,
                        Err(reason) => State::Failed(reason),
                    });
            } else {
                tokio::join!(holder.run_pasta(&spec), holder.watch_routes());
            }
        });
        if let Some(old) = self.way_task.borrow_mut().replace(task) {
            old.abort();
        }
    }

    /// Rules first, forwarding after them.
    async fn rules(&self, spec: &Spec) -> Result<(), String> {
        let mtu = self.outside.as_ref().map_or(1500, |(_, mtu)| *mtu);
        let text = if spec.nat {
            rules::inside(mtu)
        } else {
            rules::INSIDE_CLOSED.to_owned()
        };
        self.hand
            .order(|id| Order::Rules { id, text }, None)
            .await?;
        let switch = "/proc/sys/net/ipv4/ip_forward";
        fs::write(switch, if spec.nat { "1" } else { "0" })
            .map_err(|e| format!("cannot write {switch}: {e}"))
    }

    async fn open_as_root(&self, host: &Links, spec: &Spec) -> Result<(), String> {
        let text = host::rules(&self.dir, spec);
        self.hand
            .order(|id| Order::Forward { id, text }, None)
            .await?;
        host::open_link(host, spec).await.map_err(|e| e.chain())
    }

    async fn run_pasta(&self, spec: &Spec) {
        let (inner, outer) = spec.link();
        let argv = async || {
            let path =
                program("pasta").ok_or("is not installed; run: sudo apt-get install passt")?;
            let mut argv = vec![path.to_string_lossy().into_owned()];
            // Its own addresses and not a copy of the host's: those may be the cluster's, too.
            for text in [
                "--foreground",
                "--stderr",
                "--ipv4-only",
                "--config-net",
                "--no-map-gw",
                "--no-netns-quit",
            ] {
                argv.push(text.to_owned());
            }
            let options = [
                ("--netns", "/tmp/netns".to_owned()),
                ("--tcp-ports", "none".to_owned()),
                ("--udp-ports", "none".to_owned()),
                ("--tcp-ns", "none".to_owned()),
                ("--udp-ns", "none".to_owned()),
                ("--ns-ifname", UPLINK.to_owned()),
                ("--mtu", "1500".to_owned()),
                ("--address", inner.to_string()),
                ("--netmask", "30".to_owned()),
                ("--gateway", outer.to_string()),
            ];
            argv.extend(
                options
                    .into_iter()
                    .flat_map(|(name, value)| [name.to_owned(), value]),
            );
            Ok(argv)
        };
        // It says nothing when it is ready; the route that it makes does.
        self.way.supervise(argv, |_| false).await;
    }

    async fn watch_routes(&self) {
        let Ok((connection, _, mut news)) =
            rtnetlink::new_multicast_connection(&[MulticastGroup::Ipv4Route])
        else {
            return;
        };
        let connection = spawn_local(connection);
        while futures_util::StreamExt::next(&mut news).await.is_some() {
            if self.links.has_default_route().await.unwrap_or(false) {
                self.way.set(State::Up);
            }
        }
        connection.abort();
    }

    pub(crate) async fn change_way(self: &Rc<Self>, new: &Spec) -> Result<(), Error> {
        if let Some(task) = self.way_task.borrow_mut().take() {
            task.abort();
        }
        self.way.end().await;
        if let (Some((host, _)), false) = (&self.outside, new.nat)
            && let Some(link) = host.find(&host::link_name(new.slot)).await?
        {
            host.remove(&link).await?;
        }
        self.start_way();
        Ok(())
    }
}
