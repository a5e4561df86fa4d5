//! `spread simulate`: how long it would take on hosts that are not there.

use crate::args::SpreadSimulate;
use crate::context::Context;
use crate::exit::{Code, Failure};
use crate::table::{Table, number};
use anyhow::Result;
use serde_json::json;
use spread::simulate::{Dice, Scenario};

pub fn run(context: &Context, args: &SpreadSimulate) -> Result<Code> {
    let count = args.hosts as usize;
    let mut scenario = Scenario::new(count, args.size.bytes() as f64, args.rate.bytes() as f64);
    scenario.chains = args.chains.into();
    if let Some(rate) = args.source_rate {
        scenario.source_rate = rate.bytes() as f64;
    }
    let mut dice = Dice(args.seed);
    let mut faulty = vec![false; count];
    for text in &args.slow {
        let part = |part: &str| part.parse::<f64>().ok().filter(|p| *p > 0.0 && *p <= 1.0);
        let (hosts, part) = match some(text, count, part) {
            Some((number, Some(part))) => (dice.choose(number, count), part),
            _ => {
                let (host, part) = of_host(text, count, part, "a part of the rate, as in 0.5")?;
                (vec![host], part)
            }
        };
        for host in hosts {
            scenario.hosts[host].up = part;
            scenario.hosts[host].down = part;
            faulty[host] = true;
        }
    }
    let time = |text: &str| crate::time::parse(text).ok().map(|time| time.as_secs_f64());
    let what = "a time, as in 2s";
    let floor = scenario.floor();
    for text in &args.killed {
        if let Some((number, None)) = some(text, count, |_| None::<()>) {
            for host in dice.choose(number, count) {
                scenario.hosts[host].killed = Some(dice.throw() * floor);
                faulty[host] = true;
            }
            continue;
        }
        let (host, at) = of_host(text, count, time, what)?;
        scenario.hosts[host].killed = Some(at);
        faulty[host] = true;
    }
    for text in &args.cut {
        let (host, at) = of_host(text, count, time, what)?;
        scenario.hosts[host].cut = Some(at);
        faulty[host] = true;
    }
    for text in &args.late {
        let (host, at) = of_host(text, count, time, what)?;
        scenario.hosts[host].from = at;
    }
    for host in &args.have {
        let wrong = || Failure::new(Code::Usage, format!("there is no host {host} of {count}"));
        let index = (*host as usize).wrapping_sub(1);
        scenario.hosts.get_mut(index).ok_or_else(wrong)?.whole = true;
    }
    scenario.source_killed = args.source_killed.map(|time| time.as_secs_f64());
    let times = scenario.run();
    let mut done: Vec<f64> = times.iter().flatten().copied().collect();
    done.sort_by(f64::total_cmp);
    // Of those whom nothing befell.
    let others = times.iter().zip(&faulty).filter(|(_, faulty)| !**faulty);
    let others: Option<Vec<f64>> = others.map(|(time, _)| *time).collect();
    let others = others.map(|times| times.into_iter().fold(0.0, f64::max));
    let document = json!({ "floor": floor, "others": others, "seconds": times });
    context.result(&document, || {
        let mut table = Table::new(&[
            "HOSTS",
            "FLOOR",
            "FIRST",
            "MEDIAN",
            "LAST",
            "LAST/FLOOR",
            "OTHERS/FLOOR",
        ]);
        // Where nobody has it there is no first and no last.
        let seconds = |at: Option<&f64>| match at {
            Some(at) => format!("{at:.2} s"),
            None => "never".to_owned(),
        };
        let last = done.last();
        table.row(vec![
            number(done.len()),
            number(format!("{floor:.2} s")),
            number(seconds(done.first())),
            number(seconds(done.get(done.len() / 2))),
            number(seconds(last)),
            number(last.map_or("never".to_owned(), |last| format!("{:.3}", last / floor))),
            number(others.map_or("never".to_owned(), |time| format!("{:.3}", time / floor))),
        ]);
        table
    })?;
    Ok(Code::Ok)
}

/// Reads PART% or PART%:VALUE: how many hosts that is, at least one.
fn some<T>(
    text: &str,
    hosts: usize,
    value: impl Fn(&str) -> Option<T>,
) -> Option<(usize, Option<T>)> {
    let (part, rest) = text.split_once('%')?;
    let part = part.parse::<f64>().ok();
    let part = part.filter(|part| *part > 0.0 && *part <= 100.0)?;
    let number = ((part / 100.0 * hosts as f64).round() as usize).max(1);
    match rest.strip_prefix(':') {
        Some(rest) => Some((number, Some(value(rest)?))),
        None if rest.is_empty() => Some((number, None)),
        None => None,
    }
}

/// Reads HOST:VALUE; hosts count from 1.
fn of_host(
    text: &str,
    hosts: usize,
    value: impl Fn(&str) -> Option<f64>,
    what: &str,
) -> Result<(usize, f64)> {
    let read = || {
        let (host, rest) = text.split_once(':')?;
        let host = host
            .parse::<usize>()
            .ok()
            .filter(|h| (1..=hosts).contains(h))?;
        Some((host - 1, value(rest)?))
    };
    let wrong = || {
        Failure::new(
            Code::Usage,
            format!("{text:?} is not a host from 1 to {hosts}, a colon and {what}"),
        )
    };
    Ok(read().ok_or_else(wrong)?)
}
