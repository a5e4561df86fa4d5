//! What is asked of a running QEMU: to press the power button, to hold its guest, to let it go on.

use crate::driver::{COMMAND, QemuDriver, mark};
use crate::home::{Home, remove};
use crate::launch;
use crate::qmp::Qmp;
use api::Name;
use serde_json::json;
use std::time::{Duration, Instant};
use tokio::net::UnixStream;
use v3m::{Action, Driver, Error, Result, State};

impl QemuDriver {
    /// A connection to a VM's QEMU, each command on which has this limit.
    pub(crate) async fn connect(&self, home: &Home, limit: Duration) -> Result<Qmp<UnixStream>> {
        let failed = |e: &dyn std::fmt::Display| Error::Failed {
            name: home.name.clone(),
            reason: e.to_string(),
        };
        let stream = v3m::connect(&home.file("qmp.sock")).map_err(|e| failed(&e))?;
        stream.set_nonblocking(true).map_err(|e| failed(&e))?;
        let stream = UnixStream::from_std(stream).map_err(|e| failed(&e))?;
        Qmp::new(stream, limit).await.map_err(|e| failed(&e))
    }

    /// One QMP command to a VM.
    pub(crate) async fn command(&self, home: &Home, command: &str, limit: Duration) -> Result<()> {
        let failed = |e: &dyn std::fmt::Display| Error::Failed {
            name: home.name.clone(),
            reason: format!("{command}: {e}"),
        };
        let mut qmp = match self.connect(home, limit).await {
            Ok(qmp) => qmp,
            Err(Error::Failed { reason, .. }) => return Err(failed(&reason)),
            Err(e) => return Err(e),
        };
        let answer = qmp.execute(command, json!({})).await;
        answer.map(drop).map_err(|e| failed(&e))
    }

    /// Presses a VM's power button and waits; has its guest shut down? One whose QEMU does not answer is not asked twice.
    pub(crate) async fn ask(&self, name: &Name, state: State, grace: Duration) -> Result<bool> {
        let end = Instant::now() + grace;
        let home = self.home(name);
        // Only a guest that runs can hear its power button.
        let runs = match state {
            State::Running => true,
            State::Paused => self.resume(name).await.is_ok(),
            _ => false,
        };
        let limit = grace.min(COMMAND);
        if !runs
            || self
                .command(&home, "system_powerdown", limit)
                .await
                .is_err()
        {
            return Ok(false);
        }
        let left = end.saturating_duration_since(Instant::now());
        let gone = self.blocking(name, move |_, home| launch::wait_gone(home, left));
        Ok(gone.await? && self.status(name).await?.state == State::Stopped)
    }

    /// Pause and resume are one thing.
    pub(crate) async fn switch(&self, name: &Name, action: Action, command: &str) -> Result<()> {
        let home = Home::new(&self.inner.dir, name);
        // So that the marker is that of whoever came last.
        let _lock = self.blocking(name, |_, home| home.locked()).await?;
        if self.status(name).await?.state.check(action, name)? {
            if action == Action::Pause {
                mark(&home.file("paused"))?;
            }
            self.command(&home, command, COMMAND).await?;
        }
        if action == Action::Resume {
            // From here on a guest that stands still is one that could not go on.
            remove(&home.file("paused"))?;
        }
        Ok(())
    }
}
