//! The steps of a plan that are done to nodes, nodes side by side.

use crate::base::Base;
use crate::head::Head;
use crate::layout::Layout;
use crate::node;
use crate::observe::Wanted;
use crate::record::Record;
use crate::up::{Case, blocking};
use crate::{Error, Result};
use api::{Name, Progress, Unit};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use plan::{Plan, Step};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use v3m::Driver;

/// So many nodes are worked on at once. Starting one takes the host some tens of milliseconds.
const AT_ONCE: usize = 32;
/// For a node that is restarted to end by itself.
const GRACE: Duration = Duration::from_secs(30);
/// Between two attempts to reach a node that boots.
const AGAIN: Duration = Duration::from_millis(500);
/// The exit code of ssh(1) where the connection is at fault and not the command.
const SSH_FAILED: i32 = 255;

impl Head {
    /// `end` is that of `up`'s time limit.
    pub(crate) async fn nodes(
        &self,
        case: &Case,
        image: &Base,
        wanted: &BTreeMap<Name, Wanted>,
        plan: &Plan,
        end: Instant,
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
                    self.step(case, driver, image, wanted.get(node), step, end)
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
        end: Instant,
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
                self.stop_gently(layout, driver, node, GRACE).await?;
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
            (Step::UpdateNode { node }, Some(wanted)) => self.update(case, node, wanted, end).await,
            _ => Ok(()),
        }
    }

    /// A running node learns of a change of the cluster without a restart: its identity disk is written anew and it
    /// is asked to read it.
    async fn update(&self, case: &Case, node: &Name, wanted: &Wanted, end: Instant) -> Result<()> {
        let (layout, record) = (&case.layout, &case.record);
        node::tell(layout, record, node, &wanted.identity, true)?;
        if record.backend == profile::Backend::Fake {
            // As a real one does, and it is ready at once.
            crate::events::append(&layout.events(node), "0.0 applied\n0.0 ready\n")?;
        } else {
            self.on_node(
                layout,
                node,
                &["/usr/lib/oscarv/oscarv-init", "apply", "/dev/vdb"],
                end,
            )
            .await?;
        }
        node::remember(layout, node, &wanted.identity)
    }

    /// Lets a node end by itself. Nothing in our images listens to the power button, so it is asked by ssh; one that
    /// cannot be reached is not waited for.
    pub(crate) async fn stop_gently(
        &self,
        layout: &Layout,
        driver: &dyn Driver,
        node: &Name,
        grace: Duration,
    ) -> Result<()> {
        let status = driver.status(node).await?;
        let mut left = grace;
        if status.state == v3m::State::Running && status.backend != profile::Backend::Fake {
            let end = Instant::now() + grace;
            let poweroff = ["systemctl", "--no-block", "poweroff"];
            left = match self.once_on_node(layout, node, &poweroff, end).await {
                Ok(()) => end.saturating_duration_since(Instant::now()),
                Err(_) => Duration::ZERO,
            };
        }
        driver.stop(node, left).await?;
        Ok(())
    }

    /// Runs a program on a node that may still be booting, as root.
    pub(crate) async fn on_node(
        &self,
        layout: &Layout,
        node: &Name,
        arguments: &[&str],
        end: Instant,
    ) -> Result<()> {
        loop {
            match self.once_on_node(layout, node, arguments, end).await {
                Err(Error::Unreachable { .. }) if Instant::now() + AGAIN < end => {
                    tokio::time::sleep(AGAIN).await;
                }
                other => return other,
            }
        }
    }

    /// Runs a program on a node, as root. Arguments are words without blanks.
    pub(crate) async fn once_on_node(
        &self,
        layout: &Layout,
        node: &Name,
        arguments: &[&str],
        end: Instant,
    ) -> Result<()> {
        let output = tokio::process::Command::new("ssh")
            .arg("-F")
            .arg(layout.ssh_config())
            .arg(format!("root@{node}"))
            .arg("--")
            .args(arguments)
            .stdin(std::process::Stdio::null())
            .kill_on_drop(true)
            .output();
        let output = tokio::time::timeout_at(end.into(), output)
            .await
            .map_err(|_| Error::Unreachable {
                node: node.clone(),
                said: format!("{} has not ended in time", arguments.join(" ")),
            })?
            .map_err(Error::start("ssh", "openssh-client"))?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        if output.status.code() == Some(SSH_FAILED) {
            return Err(Error::Unreachable {
                node: node.clone(),
                said,
            });
        }
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
        Ok(_) | Err(v3m::Error::NoSuchVm(_)) => {}
        Err(v3m::Error::WrongState {
            state: v3m::State::Defined | v3m::State::Absent,
            ..
        }) => {}
        Err(e) => return Err(e.into()),
    }
    driver.undefine(node).await?;
    node::unmake(layout, node)
}
