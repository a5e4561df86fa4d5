//! Progress of `spread send`: all of it in one stage, and each host in its own.

use api::{Progress, Unit};
use spread::send::{Host, State};
use std::collections::HashMap;
use terminal::progress::Shown;

/// Hosts whose progress is shown one by one to people. Programs are told of all, of more than these once a second.
const FEW: usize = 16;

/// Looks (ten a second) after which programs are told of many hosts.
const SELDOM: u32 = 10;

/// Tells how far hosts are, until they have it or will not have it.
pub struct Teller {
    progress: Progress,
    for_programs: bool,
    name: String,
    size: u64,
    looks: u32,
    /// Of hosts of which something was said: whether that was the last.
    ended: HashMap<String, bool>,
}

impl Teller {
    pub fn new(shown: &Shown, name: &str, size: u64, hosts: usize) -> Self {
        let total = Some(size * hosts as u64);
        shown.progress.started(name, total, Unit::Bytes);
        Self {
            progress: shown.progress.clone(),
            for_programs: shown.for_programs,
            name: name.to_owned(),
            size,
            looks: 0,
            ended: HashMap::new(),
        }
    }

    pub fn tell(&mut self, hosts: &[Host]) {
        let done = hosts.iter().filter(|h| h.state == State::Done).count();
        let message = format!("{done} of {} hosts have it", hosts.len());
        let sum = hosts.iter().map(|host| self.bytes(host)).sum();
        let total = self.size * hosts.len() as u64;
        self.progress
            .advanced(&self.name, sum, Some(total), message);
        let each = match hosts.len() <= FEW {
            true => true,
            false => self.for_programs && self.looks.is_multiple_of(SELDOM),
        };
        self.looks = self.looks.wrapping_add(1);
        if each {
            hosts.iter().for_each(|host| self.tell_of(host));
        }
    }

    /// All is over: what was begun is ended.
    pub fn end(&mut self, hosts: &[Host]) {
        let few = hosts.len() <= FEW || self.for_programs;
        hosts
            .iter()
            .filter(|_| few)
            .for_each(|host| self.tell_of(host));
        let done = hosts.iter().filter(|h| h.state == State::Done).count();
        match done == hosts.len() {
            true => self
                .progress
                .done(&self.name, format!("{done} hosts have it")),
            false => {
                let message = format!("{done} of {} hosts have it", hosts.len());
                self.progress.failed(&self.name, message);
            }
        }
    }

    fn tell_of(&mut self, host: &Host) {
        let stage = format!("{} to {}", self.name, host.name);
        let is_over = matches!(host.state, State::Done | State::Refused | State::Failed);
        match self.ended.get(&host.name) {
            Some(true) => return,
            Some(false) => {}
            // Of whoever is not there nothing is said.
            None if host.state == State::Away => return,
            None => self.progress.started(&stage, Some(self.size), Unit::Bytes),
        }
        self.ended.insert(host.name.clone(), is_over);
        match host.state {
            State::Done => {
                self.progress
                    .advanced(&stage, self.size, Some(self.size), "");
                self.progress.done(&stage, "it is there");
            }
            _ if is_over => {
                let why = host.notes.last().map_or("", String::as_str);
                self.progress.failed(&stage, why);
            }
            _ => {
                let from = host.parent.as_deref().unwrap_or("here");
                let (bytes, from) = (self.bytes(host), format!("from {from}"));
                self.progress.advanced(&stage, bytes, Some(self.size), from);
            }
        }
    }

    fn bytes(&self, host: &Host) -> u64 {
        let frame = u64::from(spread::manifest::FRAME);
        (u64::from(host.frames) * frame).min(self.size)
    }
}
