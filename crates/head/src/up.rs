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
use crate::observe;
use crate::record::{self, Record};
use crate::{ClusterStatus, Error, Result};
use api::{MiB, Progress, Unit};
use image::BuildOptions;
use opkg::{Opkg, Phase};
use plan::{Plan, Step};
use profile::{Backend, Cluster};
use std::time::{Duration, Instant};

#[derive(Clone, Debug)]
pub struct UpOptions {
    /// For all nodes together to become ready.
    pub time_limit: Duration,
    /// Wait until every node is ready?
    pub wait: bool,
    /// What may be lost.
    pub consent: Consent,
}

/// To steps that lose something, see [`Step::is_destructive`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Consent {
    /// To these and no others: what is may have changed since they were shown.
    To(Vec<Step>),
    Everything,
}

impl Consent {
    fn covers(&self, plan: &Plan) -> Result<()> {
        let Self::To(agreed) = self else {
            return Ok(());
        };
        let more = |step: &&&Step| !agreed.contains(step);
        let more: Vec<&Step> = plan.destructive().iter().filter(more).copied().collect();
        if more.is_empty() {
            return Ok(());
        }
        Err(Error::NotAgreed {
            steps: plan.only(&more),
        })
    }
}

impl Default for UpOptions {
    fn default() -> Self {
        Self {
            time_limit: Duration::from_secs(600),
            wait: true,
            consent: Consent::To(Vec::new()),
        }
    }
}

/// The cluster's file and what belongs to it, worked out once.
pub(crate) struct Case {
    pub layout: Layout,
    pub record: Record,
    pub opkgs: Vec<Opkg>,
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
        // Until the record says which image is used.
        let hold = self.images().hold(progress)?;
        let mut case = self.case(cluster, Some(slot)).await?;
        // Before anything is written down: what is refused leaves no trace.
        let observed = self
            .observe(&layout, &case.record, case.image.as_ref(), &case.opkgs)
            .await?;
        options.consent.covers(&plan::up(cluster, &observed))?;
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
        drop(hold);
        self.images().sweep(progress)?;

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
        // Nodes may have come to other ends while the image was built.
        options.consent.covers(&plan)?;
        if plan
            .steps
            .iter()
            .any(|step| matches!(step, Step::MakeNetwork | Step::UpdateNetwork))
        {
            self.network(layout, record, progress).await?;
        }
        let end = Instant::now() + options.time_limit;
        self.nodes(&case, &image, &wanted, &plan, end, progress)
            .await?;
        if options.wait {
            let is_in_plan = |what: fn(&Step) -> bool| plan.steps.iter().any(what);
            if is_in_plan(|step| matches!(step, Step::WaitReady { .. })) {
                self.wait_ready(layout, record, end, options.time_limit, progress)
                    .await?;
            }
            if is_in_plan(|step| matches!(step, Step::Deploy)) {
                self.deploy(layout, record, end).await?;
            }
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
        crate::host::fits(cluster, MiB(has), progress)
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
        if let Some(before) = &before {
            changeable(&layout, before, cluster, backend)?;
        }
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

    /// Have packages done what needs all nodes, with the cluster as `record` has it?
    pub(crate) fn is_deployed(&self, layout: &Layout, record: &Record, opkgs: &[Opkg]) -> bool {
        let any = opkgs
            .iter()
            .any(|opkg| opkg.scripts.contains_key(&Phase::ApiPostDeploy));
        !any || record.backend == Backend::Fake
            || std::fs::read_to_string(layout.deployed()).is_ok_and(|key| key == deployment(record))
    }

    async fn deploy(&self, layout: &Layout, record: &Record, end: Instant) -> Result<()> {
        let head = crate::identity::head(record);
        let phase = ["/usr/lib/oscarv/phase", "api-post-deploy"];
        self.on_node(layout, &head, &phase, end).await?;
        crate::layout::write(&layout.deployed(), deployment(record).as_bytes(), 0o600)
    }
}

/// Changes when there is something for the packages' last phase to do again.
fn deployment(record: &Record) -> String {
    let mut hash = blake3::Hasher::new();
    hash.update(record.image.as_bytes());
    for given in &record.assigned {
        hash.update(format!("{} {} {}\n", given.node, given.mac, given.address).as_bytes());
    }
    hash.finalize().to_hex().to_string()
}

/// Refuses what nodes that are there cannot follow.
fn changeable(layout: &Layout, before: &Record, cluster: &Cluster, backend: Backend) -> Result<()> {
    let fixed = |what, from: String, to: String| {
        Err(Error::Fixed {
            name: cluster.name.clone(),
            what,
            from,
            to,
        })
    };
    let (old, new) = (&before.cluster.network, &cluster.network);
    if (old.address, old.prefix) != (new.address, new.prefix)
        && matches!(net::status(&layout.net()), net::Status::Up { .. })
    {
        return fixed("subnet", old.to_string(), new.to_string());
    }
    let nodes = std::fs::read_dir(layout.root.join("disks"));
    // Neither driver would know the other's nodes.
    if (before.backend == Backend::Fake) != (backend == Backend::Fake)
        && nodes.is_ok_and(|mut nodes| nodes.next().is_some())
    {
        return fixed("type", before.backend.to_string(), backend.to_string());
    }
    Ok(())
}

pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(problem) => std::panic::resume_unwind(problem.into_panic()),
    }
}
