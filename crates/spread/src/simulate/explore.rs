#![allow(clippy::unwrap_used)]
use super::*;
#[test]
#[ignore]
fn explore() {
    for hosts in [8, 32] {
        for part in [0.5, 0.1] {
            for (up, down) in [(part, part), (part, 1.0), (1.0, part)] {
                let mut line = String::new();
                let places: Vec<usize> = if hosts == 8 {
                    (0..8).collect()
                } else {
                    vec![0, 1, 2, 15, 30, 31]
                };
                for slow in places {
                    let mut s = Scenario::new(hosts, 1200e6, 119e6);
                    s.hosts[slow].up = up;
                    s.hosts[slow].down = down;
                    let t = s.run();
                    let w = t
                        .iter()
                        .enumerate()
                        .filter(|(h, _)| *h != slow)
                        .map(|(_, t)| t.unwrap())
                        .fold(0.0, f64::max)
                        - s.floor();
                    line += &format!("{w:.2} ");
                }
                println!("{hosts} up {up} down {down}: {line}");
            }
        }
    }
    for part in [0.5, 0.1] {
        for slow in [
            vec![0, 1],
            vec![0, 1, 2],
            vec![2, 3],
            vec![2, 5],
            vec![1, 3, 5],
            vec![6, 7],
            vec![0, 15],
            vec![5, 10, 15, 20],
            vec![4, 5, 6],
        ] {
            let mut s = Scenario::new(32, 1200e6, 119e6);
            for h in &slow {
                s.hosts[*h].up = part;
                s.hosts[*h].down = part;
            }
            let t = s.run();
            let w = t
                .iter()
                .enumerate()
                .filter(|(h, _)| !slow.contains(h))
                .map(|(_, t)| t.unwrap())
                .fold(0.0, f64::max)
                - s.floor();
            println!("{slow:?} {part}: {w:.2}");
        }
    }
}
#[test]
#[ignore]
fn scale() {
    for n in [1000, 10000] {
        for (kill, slow) in [(0.0, 0.0), (0.01, 0.0), (0.0, 0.01)] {
            for chains in [1, 10] {
                let mut s = Scenario::new(n, 4294967296.0, 119.5e6);
                s.chains = chains;
                s.source_rate *= chains as f64;
                let mut dice = Dice(1);
                let mut out = vec![];
                for h in dice.choose((n as f64 * kill) as usize, n) {
                    s.hosts[h].killed = Some(dice.throw() * s.floor());
                    out.push(h);
                }
                for h in dice.choose((n as f64 * slow) as usize, n) {
                    s.hosts[h].up = 0.5;
                    s.hosts[h].down = 0.5;
                    out.push(h);
                }
                let b = std::time::Instant::now();
                let t = s.run();
                let w = t
                    .iter()
                    .enumerate()
                    .filter(|(h, _)| !out.contains(h))
                    .map(|(_, t)| t.unwrap())
                    .fold(0.0, f64::max);
                println!(
                    "{n} kill {kill} slow {slow} chains {chains}: {:.3} of {:.1}; took {:?}",
                    w / s.floor(),
                    s.floor(),
                    b.elapsed()
                );
            }
        }
    }
}
