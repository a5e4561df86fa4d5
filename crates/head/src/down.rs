//! `down`: the cluster ends and nothing of it is left.

use crate::head::Head;
use crate::layout::{Layout, remove_all};
use crate::lock::Lock;
use crate::record::{self, Record};
use crate::step::remove;
use crate::up::blocking;
use crate::{Error, Result};
use api::{Name, Progress, Unit};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use profile::Backend;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use v3m::{Driver, State};

const AT_ONCE: usize = 32;

#[derive(Clone, Debug, Default)]
pub struct DownOptions {
    /// For the nodes to end by themselves. Zero: at once; nothing is lost by it that is not removed anyway.
    pub grace: Duration,
    /// Keep disks, keys and addresses: the next `up` goes on with them.
    pub keep: bool,
}

impl Head {
    /// Ends the cluster. One that is not there, not even in part, is `NoSuchCluster`.
    pub async fn down(&self, name: &Name, options: DownOptions, progress: &Progress) -> Result<()> {
        let lock = Lock::take(&self.state, name)?;
        let layout = self.layout(name);
        let record = record::get(&self.store, name)?;
        if record.is_none() && !layout.root.exists() {
            // An `up` that was killed at its very beginning has no more than a slot.
            record::delete(&self.store, name)?;
            lock.remove(&self.state, name);
            self.record(name)?;
            return Ok(());
        }
        let result = self.end(name, &layout, record, &options, progress).await;
        if result.is_ok() {
            self.images().sweep(progress)?;
        }
        if result.is_ok() && !options.keep {
            lock.remove(&self.state, name);
        }
        result
    }

    async fn end(
        &self,
        name: &Name,
        layout: &Layout,
        record: Option<Record>,
        options: &DownOptions,
        progress: &Progress,
    ) -> Result<()> {
        if layout.root.exists() {
            let (slot, backend) = record
                .as_ref()
                .map_or((0, Backend::Auto), |record| (record.slot, record.backend));
            let driver = self.driver(layout, slot, backend)?;
            self.end_nodes(layout, driver.as_ref(), options, progress)
                .await?;
            progress.started("network", None, Unit::Items);
            let directory = layout.net();
            if directory.exists() {
                blocking(move || Ok(net::down(&directory)?)).await?;
            }
            progress.done("network", "gone");
        }
        match record {
            Some(_) if options.keep => Ok(()),
            _ => {
                remove_all(&layout.root)?;
                record::delete(&self.store, name)
            }
        }
    }

    async fn end_nodes(
        &self,
        layout: &Layout,
        driver: &dyn Driver,
        options: &DownOptions,
        progress: &Progress,
    ) -> Result<()> {
        let nodes = self.traces(layout, driver).await?;
        let (total, done) = (nodes.len() as u64, AtomicU64::new(0));
        progress.started("nodes", Some(total), Unit::Items);
        let each = stream::iter(nodes.into_iter().map(|(node, status)| {
            let done = &done;
            async move {
                if !options.keep {
                    remove(layout, driver, &node, options.grace).await?;
                } else if status.is_some_and(|status| status.state != State::Defined) {
                    self.stop_gently(layout, driver, &node, options.grace)
                        .await?;
                }
                let done = done.fetch_add(1, Ordering::Relaxed) + 1;
                progress.advanced("nodes", done, Some(total), node.to_string());
                Ok::<(), Error>(())
            }
        }));
        each.buffer_unordered(AT_ONCE)
            .try_collect::<Vec<()>>()
            .await?;
        progress.done(
            "nodes",
            format!(
                "{total} {}",
                if options.keep { "stopped" } else { "removed" }
            ),
        );
        Ok(())
    }
}
