//! `up`: does what the plan says, nodes side by side, and waits until they are ready.
//!
//! It takes the file, not the difference: killed at any moment and run again, it looks at what is and goes on.

use crate::access;
use crate::base::Base;
use crate::head::Head;
use crate::identity::Shared;
use crate::keys::Missing;
use crate::layout::Layout;
use crate::lock::Lock;
use crate::node;
use crate::observe::{self, Wanted};
use crate::record::{self, Record};
use crate::{ClusterStatus, Error, Result};
use api::{MiB, Name, Progress, Unit};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use image::BuildOptions;
use opkg::{Opkg, Phase};
use plan::{Plan, Step};
use profile::Cluster;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use v3m::Driver;

/// So many nodes are worked on at once. Starting one takes the host some tens of milliseconds.
const AT_ONCE: usize = 32;
/// For a node that is restarted to end by itself.
const GRACE: Duration = Duration::from_secs(30);

#[derive(Clone, Debug)]
pub struct UpOptions {
    /// For all nodes together to become ready.
    pub time_limit: Duration,
    /// Wait until every node is ready?
    pub wait: bool,
}

impl Default for UpOptions {
    fn default() -> Self {
        Self {
            time_limit: Duration::from_secs(600),
            wait: true,
        }
    }
}

/// The cluster's file and what belongs to it, worked out once.
struct Case {
    layout: Layout,
    record: Record,
    opkgs: Vec<Opkg>,
    image: Option<Base>,
}

impl Head {
    /// What `up` would do now. Changes nothing.
    pub async fn plan(&self, cluster: &Cluster) -> Result<Plan> {
        self.fits(cluster, &Progress::default()).await?;
        let case = self.case(cluster, None).await?;
        let observed = self
            .observe(&case.layout, &case.record, case.image.as_ref(), &case.opkgs)
            .await?;
        Ok(plan::up(cluster, &observed))
    }

    /// Makes the cluster as `cluster` says. Whether the plan loses something was asked before.
    pub async fn up(
        &self,
        cluster: &Cluster,
        options: UpOptions,
        progress: &Progress,
    ) -> Result<ClusterStatus> {
        let lock = Lock::take(&self.state, &cluster.name)?;
        let result = self.make_so(cluster, options, progress).await;
        if result.is_err()
            && matches!(record::get(&self.store, &cluster.name), Ok(None))
            && !self.layout(&cluster.name).root.exists()
        {
            // It was refused before anything was made; nothing stays of the attempt either.
            record::delete(&self.store, &cluster.name)?;
            lock.remove(&self.state, &cluster.name);
        }
        result
    }

    async fn make_so(
        &self,
        cluster: &Cluster,
        options: UpOptions,
        progress: &Progress,
    ) -> Result<ClusterStatus> {
        self.fits(cluster, progress).await?;
        let layout = self.layout(&cluster.name);
        // Nodes that were made hang in that slot's network, whether its holder lives or not.
        let bound = std::fs::read_dir(layout.root.join("disks"))
            .is_ok_and(|mut nodes| nodes.next().is_some())
            || matches!(net::status(&layout.net()), net::Status::Up { .. });
        let slot = record::slot(&self.store, &cluster.name, bound)?;
        let mut case = self.case(cluster, Some(slot)).await?;
        // First of all: whatever happens from here on, `down` and the next `up` know of it.
        record::put(&self.store, &case.record)?;
        case.layout.make()?;

        let image = match case.image.take() {
            Some(image) => image,
            None => self.build(cluster, case.opkgs.clone(), progress).await?,
        };
        case.record.image = image.id.clone();
        // A build takes minutes: the slot may be gone.
        case.record.slot = record::slot(&self.store, &cluster.name, bound)?;
        record::put(&self.store, &case.record)?;

        let Case {
            layout,
            record,
            opkgs,
            ..
        } = &case;
        let shared = Shared::new(layout, record, opkgs, Missing::Make)?;
        access::write_files(layout, record, &shared, &self.state, &self.program)?;
        let wanted = observe::wanted(layout, record, &image, &shared)?;
        let observed = self.observe(layout, record, Some(&image), opkgs).await?;
        let plan = plan::up(cluster, &observed);
        if plan
            .steps
            .iter()
            .any(|step| matches!(step, Step::MakeNetwork | Step::UpdateNetwork))
        {
            self.network(layout, record, progress).await?;
        }
        self.nodes(&case, &image, &wanted, &plan, progress).await?;
        if options.wait
            && plan
                .steps
                .iter()
                .any(|step| matches!(step, Step::WaitReady { .. }))
        {
            self.wait_ready(layout, record, options.time_limit, progress)
                .await?;
            self.deployed(opkgs, &case.record).await?;
        }
        self.status(&cluster.name).await
    }

    /// Refuses what this host's memory cannot carry, before anything is made. What the cluster's own nodes use already
    /// is not needed twice.
    async fn fits(&self, cluster: &Cluster, progress: &Progress) -> Result<()> {
        let mut has = 0;
        if record::get(&self.store, &cluster.name)?.is_some() {
            for node in self.status(&cluster.name).await?.nodes {
                has += node.pid.map_or(0, crate::host::memory_of);
            }
        }
        fits(cluster, MiB(has), progress)
    }

    /// `slot` is given when it is meant; a plan takes what there is.
    async fn case(&self, cluster: &Cluster, slot: Option<u16>) -> Result<Case> {
        let layout = self.layout(&cluster.name);
        let (opkgs, _) = self.opkgs(&cluster.image.opkgs)?;
        let before = record::get(&self.store, &cluster.name)?;
        let backend = match &before {
            // A cluster stays what it was made on, whatever `auto` would mean today.
            Some(before) if before.cluster.backend == cluster.backend => before.backend,
            _ => self.choose(cluster).await?,
        };
        let image = match Base::without_image(backend) {
            Some(none) => Some(none),
            None => {
                let key = self.images().key(&cluster.image, &opkgs);
                self.images().find(&key)?.map(Base::from)
            }
        };
        let assigned = plan::assign(
            cluster,
            before.as_ref().map_or(&[], |before| &before.assigned),
        )?;
        let record = Record {
            cluster: cluster.clone(),
            assigned,
            slot: slot
                .or(before.as_ref().map(|before| before.slot))
                .unwrap_or(0),
            backend,
            // Until another is built, its nodes stand on the one before.
            image: image
                .as_ref()
                .map(|image| image.id.clone())
                .or(before.as_ref().map(|before| before.image.clone()))
                .unwrap_or_default(),
            opkgs: opkgs.iter().map(|opkg| opkg.name.clone()).collect(),
        };
        Ok(Case {
            layout,
            record,
            opkgs,
            image,
        })
    }

    async fn build(
        &self,
        cluster: &Cluster,
        opkgs: Vec<Opkg>,
        progress: &Progress,
    ) -> Result<Base> {
        let (images, recipe, progress) = (
            self.images().clone(),
            cluster.image.clone(),
            progress.clone(),
        );
        let options = BuildOptions {
            tag: None,
            force: false,
        };
        blocking(move || Ok(images.build(&recipe, &opkgs, options, &progress)?.into())).await
    }

    async fn network(&self, layout: &Layout, record: &Record, progress: &Progress) -> Result<()> {
        progress.started("network", None, Unit::Items);
        let (directory, spec, holder) = (layout.net(), observe::net_spec(record), self.holder());
        let result = blocking(move || Ok(net::up(&directory, &spec, &holder)?)).await;
        match &result {
            Ok(()) => progress.done(
                "network",
                format!(
                    "{}/{}",
                    record.cluster.network.address, record.cluster.network.prefix
                ),
            ),
            Err(e) => progress.failed("network", e.to_string()),
        }
        result
    }

    async fn nodes(
        &self,
        case: &Case,
        image: &Base,
        wanted: &BTreeMap<Name, Wanted>,
        plan: &Plan,
        progress: &Progress,
    ) -> Result<()> {
        let mut work: BTreeMap<&Name, Vec<&Step>> = BTreeMap::new();
        for step in &plan.steps {
            if let Some(node) = step.node() {
                work.entry(node).or_default().push(step);
            }
        }
        if work.is_empty() {
            return Ok(());
        }
        let driver = self.driver(&case.layout, case.record.slot, case.record.backend)?;
        let (driver, total, done) = (driver.as_ref(), work.len() as u64, AtomicU64::new(0));
        progress.started("nodes", Some(total), Unit::Items);
        let each = stream::iter(work.into_iter().map(|(node, steps)| {
            let done = &done;
            async move {
                for step in steps {
                    self.step(case, driver, image, wanted.get(node), step)
                        .await?;
                }
                let done = done.fetch_add(1, Ordering::Relaxed) + 1;
                progress.advanced("nodes", done, Some(total), node.to_string());
                Ok::<(), Error>(())
            }
        }));
        let result = each
            .buffer_unordered(AT_ONCE)
            .try_collect::<Vec<()>>()
            .await;
        match &result {
            Ok(_) => progress.done("nodes", format!("{total} started or changed")),
            Err(e) => progress.failed("nodes", e.to_string()),
        }
        result.map(|_| ())
    }

    async fn step(
        &self,
        case: &Case,
        driver: &dyn Driver,
        image: &Base,
        wanted: Option<&Wanted>,
        step: &Step,
    ) -> Result<()> {
        let (layout, record) = (&case.layout, &case.record);
        match (step, wanted) {
            (Step::RemoveNode { node }, _) => remove(layout, driver, node, Duration::ZERO).await,
            (Step::ReplaceNode { node, .. }, Some(wanted)) => {
                remove(layout, driver, node, Duration::ZERO).await?;
                make(layout, record, driver, image, wanted).await
            }
            (Step::CreateNode { .. }, Some(wanted)) => {
                make(layout, record, driver, image, wanted).await
            }
            (Step::RestartNode { node, .. }, Some(wanted)) => {
                driver.stop(node, GRACE).await?;
                driver.undefine(node).await?;
                make(layout, record, driver, image, wanted).await?;
                start(layout, driver, node).await
            }
            (Step::StartNode { node }, Some(wanted)) => {
                // Of a node that was only stopped, what it is told may have changed meanwhile.
                make(layout, record, driver, image, wanted).await?;
                start(layout, driver, node).await
            }
            (Step::ResumeNode { node }, _) => Ok(driver.resume(node).await?),
            (Step::UpdateNode { node }, Some(wanted)) => self.update(case, node, wanted).await,
            _ => Ok(()),
        }
    }

    /// A running node learns of a change of the cluster without a restart: its identity disk is written anew and it
    /// is asked to read it.
    async fn update(&self, case: &Case, node: &Name, wanted: &Wanted) -> Result<()> {
        let (layout, record) = (&case.layout, &case.record);
        node::tell(layout, record, node, &wanted.identity, true)?;
        if record.backend != profile::Backend::Fake {
            self.on_node(
                layout,
                node,
                &["/usr/lib/oscarv/oscarv-init", "apply", "/dev/vdb"],
            )
            .await?;
        }
        node::remember(layout, node, &wanted.identity)
    }

    /// All nodes are ready: packages may do what needs them all.
    async fn deployed(&self, opkgs: &[Opkg], record: &Record) -> Result<()> {
        let any = opkgs
            .iter()
            .any(|opkg| opkg.scripts.contains_key(&Phase::ApiPostDeploy));
        if !any || record.backend == profile::Backend::Fake {
            return Ok(());
        }
        let head = crate::identity::head(record);
        self.on_node(
            &self.layout(&record.cluster.name),
            &head,
            &["/usr/lib/oscarv/phase", "api-post-deploy"],
        )
        .await
    }

    /// Runs a program on a node, as root. Arguments are words without blanks.
    pub(crate) async fn on_node(
        &self,
        layout: &Layout,
        node: &Name,
        arguments: &[&str],
    ) -> Result<()> {
        let output = tokio::process::Command::new("ssh")
            .arg("-F")
            .arg(layout.ssh_config())
            .arg(format!("root@{node}"))
            .arg("--")
            .args(arguments)
            .stdin(std::process::Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .map_err(Error::start("ssh", "openssh-client"))?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Err(Error::Program {
            program: format!("{} on node {node}", arguments.join(" ")),
            said,
        })
    }
}

async fn make(
    layout: &Layout,
    record: &Record,
    driver: &dyn Driver,
    image: &Base,
    wanted: &Wanted,
) -> Result<()> {
    {
        let (layout, record, image) = (layout.clone(), record.clone(), image.clone());
        let (group, vm, identity) = (
            wanted.group.clone(),
            wanted.definition.clone(),
            wanted.identity.clone(),
        );
        blocking(move || node::make(&layout, &record, &image, &group, &vm, &identity)).await?;
    }
    match driver.define(&wanted.definition).await {
        // Left by a command that was killed before it could write what the node is made from.
        Err(v3m::Error::DefinedOtherwise { name }) => {
            driver.undefine(&name).await?;
            driver.define(&wanted.definition).await?;
        }
        other => other?,
    }
    Ok(())
}

async fn start(layout: &Layout, driver: &dyn Driver, node: &Name) -> Result<()> {
    if driver.status(node).await?.state != v3m::State::Running {
        Head::forget_reports(layout, node)?;
    }
    Ok(driver.start(node).await?)
}

pub(crate) async fn remove(
    layout: &Layout,
    driver: &dyn Driver,
    node: &Name,
    grace: Duration,
) -> Result<()> {
    match driver.stop(node, grace).await {
        Ok(()) | Err(v3m::Error::NoSuchVm(_)) => {}
        Err(v3m::Error::WrongState {
            state: v3m::State::Defined | v3m::State::Absent,
            ..
        }) => {}
        Err(e) => return Err(e.into()),
    }
    driver.undefine(node).await?;
    node::unmake(layout, node)
}

/// Refuses what this host's memory cannot carry.
fn fits(cluster: &Cluster, has: MiB, progress: &Progress) -> Result<()> {
    let free = crate::host::memory_available()?;
    let cpus = std::thread::available_parallelism().map_or(1, |n| n.get() as u32);
    let mut reasons = Vec::new();
    for finding in plan::fits(cluster, MiB(free.0 + has.0), cpus) {
        if finding.is_refusal() {
            reasons.push(finding.to_string());
        } else {
            progress.note(finding.to_string());
        }
    }
    if reasons.is_empty() {
        return Ok(());
    }
    Err(Error::TooLarge {
        name: cluster.name.clone(),
        reasons,
    })
}

pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(problem) => std::panic::resume_unwind(problem.into_panic()),
    }
}
