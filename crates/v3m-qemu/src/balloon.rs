//! What guests say of their own memory, through the statistics of virtio-balloon.
//!
//! The balloon is never inflated: it is there for its figures. To a guest without a driver for it, it is a PCI device
//! that does nothing. QEMU asks the guest only when somebody looks: setting the interval asks at once, and not again for
//! an hour. The answer takes the guest a moment; one that is not new counts for nothing, since the guest that gave it may
//! be gone.
//!
//! Properties and names: QEMU, docs/interop/virtio-balloon-stats.rst; VIRTIO 1.2, 5.5.6.4.

use crate::home::Home;
use crate::qmp::Qmp;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::net::UnixStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// What `-device` says, and where QEMU's object tree has it then.
pub const DEVICE: &str = "virtio-balloon-pci,id=balloon";
const PATH: &str = "/machine/peripheral/balloon";
const INTERVAL: &str = "guest-stats-polling-interval";
/// For one VM, all in all: a QEMU that hangs, or is busy with another, has no figure this time.
const LIMIT: Duration = Duration::from_millis(200);
/// Between two looks for the guest's answer.
const STEP: Duration = Duration::from_millis(4);
/// So many seconds old an answer may be; QEMU tells its time in whole seconds.
const NEW: u64 = 1;
/// VMs that are asked at the same time.
const AT_ONCE: usize = 64;

/// Bytes that each guest uses, where it says so; in the order of the VMs.
pub async fn used(homes: Vec<Home>) -> Vec<Option<u64>> {
    let mut all = vec![None; homes.len()];
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let mut asked = JoinSet::new();
    for (at, home) in homes.into_iter().enumerate() {
        let places = places.clone();
        asked.spawn(async move {
            let _place = places.acquire_owned().await.ok()?;
            let answer = tokio::time::timeout(LIMIT, of(&home)).await;
            Some((at, answer.ok()??))
        });
    }
    while let Some(answer) = asked.join_next().await {
        if let Ok(Some((at, used))) = answer
            && let Some(place) = all.get_mut(at)
        {
            *place = Some(used);
        }
    }
    all
}

async fn of(home: &Home) -> Option<u64> {
    let stream = v3m::connect(&home.file("qmp.sock")).ok()?;
    stream.set_nonblocking(true).ok()?;
    let mut qmp = Qmp::new(UnixStream::from_std(stream).ok()?, LIMIT)
        .await
        .ok()?;
    let mut stats = get(&mut qmp).await?;
    // A driver of the guest's has given its first figures by itself.
    let when = |stats: &Value| stats["last-update"].as_u64().filter(|when| *when != 0);
    let oldest = now().saturating_sub(NEW);
    if when(&stats)? < oldest {
        for seconds in [0, 3600] {
            let arguments = json!({ "path": PATH, "property": INTERVAL, "value": seconds });
            qmp.execute("qom-set", arguments).await.ok()?;
        }
        while when(&stats)? < oldest {
            tokio::time::sleep(STEP).await;
            stats = get(&mut qmp).await?;
        }
    }
    in_use(&stats["stats"])
}

async fn get(qmp: &mut Qmp<UnixStream>) -> Option<Value> {
    let arguments = json!({ "path": PATH, "property": "guest-stats" });
    qmp.execute("qom-get", arguments).await.ok()
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

/// What neither is free nor could be at once. A figure that the guest does not give is 2^64 - 1.
fn in_use(stats: &Value) -> Option<u64> {
    let figure = |name: &str| stats[name].as_u64().filter(|value| *value != u64::MAX);
    let available = figure("stat-available-memory").or_else(|| figure("stat-free-memory"))?;
    figure("stat-total-memory")?.checked_sub(available)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_that_a_guest_does_not_give() {
        let all = json!({ "stat-total-memory": 100, "stat-available-memory": 70, "stat-free-memory": 30 });
        assert_eq!(in_use(&all), Some(30));
        let old = json!({ "stat-total-memory": 100, "stat-available-memory": u64::MAX, "stat-free-memory": 30 });
        assert_eq!(in_use(&old), Some(70));
        let none = json!({ "stat-total-memory": u64::MAX, "stat-free-memory": u64::MAX });
        assert_eq!(in_use(&none), None);
        assert_eq!(in_use(&json!({})), None);
    }
}
