//! What a source makes of what its hosts say: whom each of them is to ask, and what is reported.

use super::link::Said;
use super::versions::Company;
use super::{Host, State};
use crate::chain::{Chains, Parent};
use crate::manifest::{Hash, hex};
use crate::standing::{STRIKES, Standing};
use crate::transfer::Transfer;
use crate::wire::{FromReceiver, Report, ToReceiver};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

/// So often it is looked how all are doing.
const LOOK: Duration = Duration::from_millis(100);

/// A host that has said nothing for so long is not believed to be there, if its child misses it, too.
const QUIET: Duration = Duration::from_millis(250);

/// What hosts say waits for its turn, in this many lines; and so many are heard before something else is done.
pub(super) const SAID: usize = 256;

/// Notes of a host, and characters of a note.
const NOTES: usize = 50;
const NOTE: usize = 400;

/// At the beginning the next host is waited for so long, and all of them so long.
const NEXT_COMES: Duration = Duration::from_millis(20);
const ALL_COME: Duration = Duration::from_millis(250);

/// Before the first host is told whom to ask, as many as come at once are waited for: whoever gets another parent a moment
/// later has had for nothing what was on its way by then.
#[derive(Default)]
struct Gathering {
    here: usize,
    /// When the first one came, and the last one.
    came: Option<(Instant, Instant)>,
}

impl Gathering {
    /// So many of all have answered. Is it worth while to go on?
    fn look(&mut self, here: usize, all: usize) -> bool {
        if here > self.here {
            let now = Instant::now();
            self.here = here;
            self.came = Some((self.came.map_or(now, |(first, _)| first), now));
        }
        here < all
    }

    /// When it is enough; nothing while nobody is there.
    fn end(&self) -> Option<Instant> {
        let (first, last) = self.came?;
        Some((last + NEXT_COMES).min(first + ALL_COME))
    }
}

pub(super) struct Leader {
    pub chains: Chains,
    /// So many of the hosts are to get it; the others have it.
    pub needy: usize,
    pub hosts: Vec<Host>,
    /// When each was heard last.
    pub heard: Vec<Option<Instant>>,
    pub standing: Vec<Standing>,
    /// How each reaches the source.
    pub sources: Vec<Option<SocketAddr>>,
    /// Hashes of their certificates, and of ours.
    pub marks: Vec<Option<Hash>>,
    pub own_mark: Option<Hash>,
    pub addresses: Vec<SocketAddr>,
    pub orders: Vec<mpsc::UnboundedSender<ToReceiver>>,
    pub begin: Instant,
    /// How long the run had lasted then.
    pub before: Duration,
    /// Who else is at work for these hosts.
    pub company: Company,
    pub patience: Duration,
    pub transfer: Arc<Transfer>,
}

impl Leader {
    fn tell_progress(&mut self) {
        let header = &self.transfer.header;
        let frames = self.hosts.iter().map(|host| host.frames).max();
        let part = f64::from(frames.unwrap_or(0)) / f64::from(header.frames().max(1));
        let received = self.hosts.iter().map(|host| host.received).max();
        let left = header.size.saturating_sub(received.unwrap_or(0));
        self.chains.progress(part, left as f64);
    }

    pub async fn lead(
        mut self,
        mut said: mpsc::Receiver<(usize, Said)>,
        mut told: impl FnMut(&[Host]),
    ) -> Vec<Host> {
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        // Since when there is nobody who still receives.
        let mut idle = None;
        let mut gathering = Some(Gathering::default());
        loop {
            let enough = gathering.as_ref().and_then(Gathering::end);
            tokio::select! {
                () = sleep_until(enough.unwrap_or_else(Instant::now)), if enough.is_some() => {
                    gathering = None;
                }
                next = said.recv() => {
                    let Some((host, said_now)) = next else { break };
                    self.chains.time(self.begin.elapsed().as_secs_f64());
                    self.hear(host, said_now);
                    for _ in 1..SAID {
                        let Ok((host, more)) = said.try_recv() else { break };
                        self.hear(host, more);
                    }
                }
                _ = looks.tick() => {
                    self.chains.time(self.begin.elapsed().as_secs_f64());
                    self.tell_progress();
                    self.chains.look();
                    self.give_up();
                    told(&self.hosts);
                }
            }
            let away = |host: &Host| match host.state {
                State::Away => host.notes.is_empty(),
                state => state == State::Waiting,
            };
            let away = self.hosts.iter().filter(|host| away(host)).count();
            if let Some(gathered) = &mut gathering
                && !gathered.look(self.hosts.len() - away, self.hosts.len())
            {
                gathering = None;
            }
            if gathering.is_none() {
                self.order();
            }
            let open = |state| matches!(state, State::Away | State::Receiving | State::Waiting);
            let needy = &self.hosts[..self.needy];
            if !needy.iter().any(|host| open(host.state)) || self.transfer.failed().is_some() {
                break;
            }
            let mut known = needy.iter().zip(&self.standing);
            let at_work = known.any(|(host, standing)| match host.state {
                State::Receiving => true,
                State::Away => standing.is_looking(Instant::now()),
                _ => false,
            });
            let waits = needy.iter().any(|host| host.state == State::Waiting);
            if self.company.work(at_work) {
                idle = None;
            } else if idle.get_or_insert_with(Instant::now).elapsed() > self.patience && !waits {
                break;
            }
        }
        for host in 0..self.hosts.len() {
            let _ = self.orders[host].send(ToReceiver::Bye);
            let open = matches!(self.hosts[host].state, State::Away | State::Receiving);
            if open && host < self.needy {
                self.hosts[host].state = State::Failed;
                match self.transfer.failed() {
                    Some(why) => self.hosts[host].notes.push(why.to_string()),
                    None if self.hosts[host].notes.is_empty() => {
                        self.note(host, "it has not answered".to_owned());
                    }
                    None => {}
                }
            }
        }
        told(&self.hosts);
        self.hosts
    }

    fn hear(&mut self, host: usize, said: Said) {
        let now = self.begin.elapsed().as_secs_f64();
        self.heard[host] = Some(Instant::now());
        match said {
            Said::Here(source, mark) => {
                self.sources[host] = Some(source);
                self.marks[host] = mark;
                self.standing[host].comes();
            }
            Said::Gone(why) => {
                self.heard[host] = None;
                self.chains.leave(host);
                match self.hosts[host].state {
                    State::Receiving => {
                        self.note(host, format!("gone: {why}"));
                        self.hosts[host].state = State::Away;
                        if self.standing[host].gone() {
                            self.hosts[host].state = State::Failed;
                            self.note(
                                host,
                                format!("it came and went {STRIKES} times for nothing"),
                            );
                            let _ = self.orders[host].send(ToReceiver::Bye);
                        }
                    }
                    // Said once, not with every attempt.
                    State::Away if self.hosts[host].notes.is_empty() => {
                        self.note(host, format!("not reached: {why}"));
                    }
                    _ => {}
                }
            }
            Said::Turn(comes) => {
                self.heard[host] = None;
                self.hosts[host].state = match comes {
                    true => State::Away,
                    false => State::Elsewhere,
                };
            }
            Said::Line(line) => self.line(host, line, now),
        }
    }

    fn line(&mut self, host: usize, line: FromReceiver, now: f64) {
        match line {
            FromReceiver::Looking => self.standing[host].looks(0, Instant::now()),
            FromReceiver::Looked(frames) => self.standing[host].looks(frames, Instant::now()),
            FromReceiver::Accept { frames, gives } => {
                if now > 1.0 {
                    self.note(host, format!("joined with {frames} frames"));
                } else if frames > 0 {
                    self.note(host, format!("had {frames} frames"));
                }
                if self.hosts[host].state == State::Failed {
                    return;
                }
                self.hosts[host].frames = frames;
                let received = self.hosts[host].received;
                self.standing[host].heard(received, frames, Instant::now());
                if self.hosts[host].state != State::Done {
                    self.hosts[host].state = State::Receiving;
                }
                match gives {
                    None => self.chains.join(host),
                    Some(true) => self.chains.whole(host),
                    // It was started anew since: the file is there, but not what goes over the network.
                    Some(false) => self.chains.done(host),
                }
            }
            FromReceiver::Refuse { reason } => {
                self.hosts[host].state = State::Refused;
                self.note(host, reason);
            }
            FromReceiver::NoBase => {
                self.chains.leave(host);
                self.hosts[host].state = State::NoBase;
            }
            FromReceiver::Report(report) => self.report(host, &report),
            FromReceiver::Lost {
                parent,
                why,
                unreached,
            } => {
                self.note(host, format!("left {}: {why}", self.name(parent)));
                if let Some(parent) = self.parent_at(host, parent)
                    && self.standing[host].complains()
                {
                    let quiet = |at: Instant| at.elapsed() > QUIET;
                    match self.heard[parent].is_none_or(quiet) {
                        true => self.chains.leave(parent),
                        false if unreached => self.chains.keep_apart(host, parent),
                        false => self.chains.complain(host, parent),
                    }
                }
            }
            FromReceiver::Spoilt { parent, frame } => {
                let name = self.name(parent);
                self.note(host, format!("frame {frame} was spoilt by {name}"));
                if let Some(parent) = self.parent_at(host, parent)
                    && self.standing[host].complains()
                {
                    let child = self.hosts[host].name.clone();
                    self.note(parent, format!("spoilt frame {frame} for {child}"));
                }
            }
            FromReceiver::Done if self.hosts[host].state == State::Failed => {}
            FromReceiver::Done => {
                self.chains.done(host);
                let one = &mut self.hosts[host];
                one.state = State::Done;
                one.frames = self.transfer.header.frames();
                one.seconds.get_or_insert(now + self.before.as_secs_f64());
            }
            FromReceiver::Failed { reason } => {
                self.chains.leave(host);
                self.hosts[host].state = State::Failed;
                self.note(host, reason);
            }
        }
    }

    fn report(&mut self, host: usize, report: &Report) {
        if self.hosts[host].state == State::Failed {
            return;
        }
        self.chains.report(host, report.received);
        self.standing[host].heard(report.received, report.good, Instant::now());
        let parent = report.parent.and_then(|parent| self.host_at(parent));
        let parent = parent.map(|parent| self.hosts[parent].name.clone());
        let one = &mut self.hosts[host];
        one.received = report.received;
        one.frames = report.good;
        one.parent = parent;
        // It was only quiet for a while, and taken out.
        if one.state == State::Receiving {
            self.chains.stay(host);
        }
    }

    /// Tells hosts their parents, where these are others than before.
    fn order(&mut self) {
        for host in self.chains.changes() {
            let parents = self.chains.parents(host).into_iter();
            let known = parents.filter_map(|parent| match parent {
                Parent::Host(parent) => Some((self.addresses[parent], self.marks[parent])),
                Parent::Source => self.sources[host].map(|address| (address, self.own_mark)),
            });
            let known: Vec<_> = known.collect();
            let marks = known
                .iter()
                .filter_map(|(address, mark)| Some((*address, hex(&(*mark)?))));
            let marks: Vec<_> = marks.collect();
            if !marks.is_empty() {
                let _ = self.orders[host].send(ToReceiver::Certificates(marks));
            }
            let addresses = known.into_iter().map(|(address, _)| address).collect();
            let _ = self.orders[host].send(ToReceiver::Parents(addresses));
        }
    }

    /// Hosts that are there, and to which nothing comes.
    fn give_up(&mut self) {
        for host in 0..self.hosts.len() {
            if self.hosts[host].state != State::Receiving {
                continue;
            }
            let whole = self.hosts[host].frames == self.transfer.header.frames();
            if let Some(most) = self.standing[host].stalled(whole, Instant::now()) {
                self.chains.leave(host);
                self.hosts[host].state = State::Failed;
                let seconds = most.as_secs();
                self.note(host, format!("nothing has come to it for {seconds} s"));
                let _ = self.orders[host].send(ToReceiver::Bye);
            }
        }
    }

    /// What a host says of itself and of others is shown to people: it is kept short, and has no control characters.
    fn note(&mut self, host: usize, what: String) {
        let seconds = (self.before + self.begin.elapsed()).as_secs_f64();
        let notes = &mut self.hosts[host].notes;
        let plain = |c: char| if c.is_control() { ' ' } else { c };
        let what: String = what.chars().take(NOTE).map(plain).collect();
        let said = |note: &String| note.split_once(": ").is_some_and(|(_, said)| said == what);
        if notes.len() < NOTES && !notes.last().is_some_and(said) {
            notes.push(format!("{seconds:.1} s: {what}"));
        }
    }

    fn host_at(&self, address: SocketAddr) -> Option<usize> {
        self.addresses.iter().position(|one| *one == address)
    }

    /// Which of this host's parents that is. Of others it has nothing to say.
    fn parent_at(&self, host: usize, address: SocketAddr) -> Option<usize> {
        let parents = self.chains.parents(host);
        let its = |parent: &usize| parents.contains(&Parent::Host(*parent));
        self.host_at(address).filter(its)
    }

    fn name(&self, address: SocketAddr) -> String {
        match self.host_at(address) {
            Some(host) => self.hosts[host].name.clone(),
            None => "the source".to_owned(),
        }
    }
}
