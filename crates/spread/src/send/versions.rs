//! One run for a version of a file: what is new in it goes to hosts that have the version before, and all of it, at the same
//! time, to those that say that they have not.

use super::house::House;
use super::{Host, Options, Part, Plan, State, send_in};
use crate::manifest::Id;
use crate::places::Places;
use crate::source::{Source, Wrong};
use crate::stream::Door;
use crate::transfer::Transfer;
use std::cell::RefCell;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::{Notify, oneshot};
use tokio::task::spawn_blocking;
use tokio::time::Instant;

/// What is sent.
pub enum What {
    /// All of it, to all.
    Whole(Source),
    /// What is new; and what makes all of it, if somebody needs that.
    News(
        Source,
        Box<dyn FnOnce() -> Result<Source, Wrong> + Send + 'static>,
    ),
}

/// How it went.
pub struct Sent {
    /// The hosts that were to get it, in their order.
    pub hosts: Vec<Host>,
    /// Hosts that were named to have it, as far as they are not among the others.
    pub from: Vec<Host>,
    /// What was sent; if some got what is new and others all of it, the transfer that is all of it.
    pub id: Id,
    /// What happened here.
    pub notes: Vec<String>,
}

/// What is to be said of what was sent.
fn notes(transfer: &Transfer) -> Option<String> {
    let mended = transfer.mended();
    (mended > 0).then(|| {
        format!(
            "{mended} frames that were remembered here were spoilt, and were made anew: the disk may be bad"
        )
    })
}

/// Whether somebody is at work, as the leaders of two transfers tell each other: hosts that are not there are waited for
/// as long as one of them still sends.
#[derive(Default)]
pub(super) struct Company {
    own: Arc<AtomicBool>,
    other: Arc<AtomicBool>,
}

impl Company {
    fn two() -> (Self, Self) {
        let (own, other) = (Arc::default(), Arc::default());
        let second = Self {
            own: Arc::clone(&other),
            other: Arc::clone(&own),
        };
        (Self { own, other }, second)
    }

    /// This one is at work, or not. Is anybody?
    pub fn work(&self, own: bool) -> bool {
        self.own.store(own, Ordering::Relaxed);
        own || self.other.load(Ordering::Relaxed)
    }
}

impl Drop for Company {
    fn drop(&mut self) {
        self.own.store(false, Ordering::Relaxed);
    }
}

/// Sends a version of a file to hosts, and returns when each of them has it, or will not have it.
///
/// `told` is called some ten times a second with the hosts as they are.
///
/// Errors: no port can be listened on.
pub async fn send_version(
    what: What,
    mut options: Options,
    plan: Plan,
    mut told: impl FnMut(&[Host]),
) -> io::Result<Sent> {
    let needy = options.hosts.len();
    let places = Places::of_hosts(options.hosts.iter().chain(&plan.from).map(|(_, at)| *at));
    let door = Door(options.tls.clone());
    let house = House::open(plan.listen, options.limit.take(), door, places).await?;
    match what {
        What::Whole(source) => {
            let (id, transfer) = (source.transfer.header.id, source.transfer.clone());
            let told = |hosts: &[Host]| told(&hosts[..needy]);
            let part = Part::default();
            let sent = send_in(&house, source.transfer.clone(), options, plan, part, told);
            let mut hosts = sent.await?;
            let from = hosts.split_off(needy);
            let notes = notes(&transfer).into_iter().collect();
            Ok(Sent {
                hosts,
                from,
                id,
                notes,
            })
        }
        What::News(source, whole) => two(&house, source, whole, options, plan, told).await,
    }
}

/// What is known of the hosts, of both transfers.
struct Seen<T> {
    hosts: Vec<Host>,
    /// What was said of those that need all of it until that was known.
    before: Vec<Option<Host>>,
    told: T,
}

impl<T: FnMut(&[Host])> Seen<T> {
    fn of_news(&mut self, hosts: &[Host]) {
        for (index, host) in hosts.iter().take(self.hosts.len()).enumerate() {
            if host.state != State::NoBase {
                self.hosts[index] = host.clone();
            } else if self.before[index].is_none() {
                self.before[index] = Some(host.clone());
                self.hosts[index].state = State::Away;
            }
        }
        (self.told)(&self.hosts);
    }

    fn of_whole(&mut self, hosts: &[Host]) {
        for (index, host) in hosts.iter().take(self.hosts.len()).enumerate() {
            if let Some(before) = &self.before[index]
                && !matches!(host.state, State::Waiting | State::Elsewhere)
            {
                self.hosts[index] = after(before, host);
            }
        }
        (self.told)(&self.hosts);
    }
}

/// A host of which something was said before.
fn after(before: &Host, now: &Host) -> Host {
    let notes = before.notes.iter().chain(&now.notes);
    Host {
        received: before.received + now.received,
        notes: notes.cloned().collect(),
        ..now.clone()
    }
}

async fn two(
    house: &House,
    news: Source,
    whole: Box<dyn FnOnce() -> Result<Source, Wrong> + Send + 'static>,
    options: Options,
    plan: Plan,
    told: impl FnMut(&[Host]),
) -> io::Result<Sent> {
    let begin = Instant::now();
    let needy = options.hosts.len();
    let (mut turns, waiting): (Vec<_>, Vec<_>) = (0..needy)
        .map(|_| oneshot::channel())
        .map(|(turn, waiting)| (Some(turn), waiting))
        .unzip();
    let hosts = options.hosts.iter().map(|(name, _)| Host {
        name: name.clone(),
        ..Host::default()
    });
    let seen = RefCell::new(Seen {
        hosts: hosts.collect(),
        before: vec![None; needy],
        told,
    });
    let news_id = news.transfer.header.id;
    let needed = Notify::new();
    let (company, other) = Company::two();
    let again = Options {
        hosts: options.hosts.clone(),
        tls: options.tls.clone(),
        limit: None,
        ..options
    };
    let again_plan = plan.clone();
    let first = async {
        let part = Part {
            company,
            ..Part::default()
        };
        let told = |hosts: &[Host]| {
            for (host, turn) in hosts.iter().zip(&mut turns) {
                match host.state {
                    State::NoBase => {
                        if let Some(turn) = turn.take() {
                            let _ = turn.send(());
                            needed.notify_one();
                        }
                    }
                    State::Done | State::Refused | State::Failed => *turn = None,
                    _ => {}
                }
            }
            seen.borrow_mut().of_news(hosts);
        };
        let transfer = news.transfer.clone();
        let sent = send_in(house, transfer, options, plan, part, told).await;
        // Nobody else needs all of it.
        turns.clear();
        needed.notify_one();
        sent
    };
    let second = async {
        needed.notified().await;
        if seen.borrow().before.iter().all(Option::is_none) {
            return Ok(None);
        }
        other.work(true);
        let opened = spawn_blocking(whole).await.map_err(|e| e.to_string())?;
        let source = opened.map_err(|e| e.to_string())?;
        let part = Part {
            company: other,
            turns: waiting,
            before: begin.elapsed(),
        };
        let told = |hosts: &[Host]| seen.borrow_mut().of_whole(hosts);
        let transfer = source.transfer.clone();
        let id = transfer.header.id;
        let sent = send_in(house, transfer, again, again_plan, part, told).await;
        let mut sent = sent.map_err(|e| e.to_string())?;
        let note = notes(&source.transfer);
        Ok::<_, String>(Some((id, sent.split_off(needy), note)))
    };
    let (first, second) = tokio::join!(first, second);
    let mut from = first?.split_off(needy);
    let (mut id, mut why) = (news_id, "it does not have the version before".to_owned());
    let mut said = Vec::from_iter(notes(&news.transfer));
    match second {
        Ok(None) => {}
        Ok(Some((whole, others, note))) => {
            id = whole;
            said.extend(note);
            for (known, other) in from.iter_mut().zip(others) {
                if known.state != State::Done {
                    *known = other;
                }
            }
        }
        Err(e) => why = format!("all of it could not be sent: {e}"),
    }
    let mut hosts = seen.into_inner().hosts;
    for host in &mut hosts {
        if !matches!(host.state, State::Done | State::Refused | State::Failed) {
            host.state = State::Failed;
            host.notes.push(why.clone());
        }
    }
    Ok(Sent {
        hosts,
        from,
        id,
        notes: said,
    })
}
