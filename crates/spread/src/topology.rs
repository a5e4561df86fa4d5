//! A file that says which hosts are at which switch, in the form of Slurm's `topology.conf`.
//!
//! ```text
//! SwitchName=rack1 Nodes=node[1-32]
//! SwitchName=rack2 Nodes=node[33-64]
//! SwitchName=spine Switches=rack[1-2]
//! ```
//!
//! Source of the format: topology.conf(5), plugin topology/tree. `LinkSpeed` is read over, as there.

use crate::layout::{Layout, Path};
use std::collections::HashMap;

/// What is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct Wrong(Vec<String>);

/// Which hosts are at which switch, and which switches above which.
#[derive(Clone, Debug, Default)]
pub struct Topology {
    names: HashMap<String, u32>,
    above: Vec<Option<u32>>,
    hosts: HashMap<String, u32>,
}

/// A line, as it was read.
struct Line<'a> {
    number: usize,
    switch: u32,
    nodes: Vec<String>,
    switches: Vec<String>,
    name: &'a str,
}

impl Topology {
    /// `file`: its name, for what is wrong. `expand`: the names of a set, as in `node[1-8]`.
    ///
    /// Errors: all that is wrong, each as `FILE:LINE: what`.
    pub fn read(
        text: &str,
        file: &str,
        expand: impl Fn(&str) -> Result<Vec<String>, String>,
    ) -> Result<Self, Wrong> {
        let mut wrong = Vec::new();
        let mut topology = Self::default();
        let mut lines = Vec::new();
        for (number, line) in joined(text) {
            match topology.line(&line, &expand) {
                Ok(None) => {}
                Ok(Some((switch, nodes, switches))) => {
                    lines.push((number, switch, nodes, switches));
                }
                Err(why) => wrong.push(format!("{file}:{number}: {why}")),
            }
        }
        let names: Vec<String> = {
            let mut names = vec![String::new(); topology.above.len()];
            for (name, number) in &topology.names {
                names[*number as usize].clone_from(name);
            }
            names
        };
        for (number, switch, nodes, switches) in lines {
            let line = Line {
                number,
                switch,
                nodes,
                switches,
                name: &names[switch as usize],
            };
            if let Err(why) = topology.connect(&line, &names) {
                wrong.push(format!("{file}:{}: {why}", line.number));
            }
        }
        match wrong.is_empty() {
            true => Ok(topology),
            false => Err(Wrong(wrong)),
        }
    }

    /// A line gives a switch its number; what is below it may come later.
    #[expect(clippy::type_complexity)]
    fn line(
        &mut self,
        line: &str,
        expand: &impl Fn(&str) -> Result<Vec<String>, String>,
    ) -> Result<Option<(u32, Vec<String>, Vec<String>)>, String> {
        let line = line.split('#').next().unwrap_or_default();
        let (mut name, mut nodes, mut switches) = (None, Vec::new(), Vec::new());
        for word in line.split_whitespace() {
            let Some((key, value)) = word.split_once('=') else {
                return Err(format!("{word:?} is not of the form Key=value"));
            };
            match key.to_ascii_lowercase().as_str() {
                "switchname" => name = Some(value.to_owned()),
                "nodes" => nodes.extend(expand(value)?),
                "switches" => switches.extend(expand(value)?),
                "linkspeed" => {}
                "blockname" | "blocksizes" => {
                    return Err("blocks are not read, only switches (topology/tree)".to_owned());
                }
                _ => {
                    return Err(format!(
                        "{key:?} is none of SwitchName, Nodes, Switches and LinkSpeed"
                    ));
                }
            }
        }
        let Some(name) = name.filter(|name| !name.is_empty()) else {
            return match line.trim().is_empty() {
                true => Ok(None),
                false => Err("the line has no SwitchName".to_owned()),
            };
        };
        if nodes.is_empty() && switches.is_empty() {
            return Err(format!("{name} has neither Nodes nor Switches"));
        }
        if self.names.contains_key(&name) {
            return Err(format!("there is a line for {name} already"));
        }
        let number = self.above.len() as u32;
        self.names.insert(name, number);
        self.above.push(None);
        Ok(Some((number, nodes, switches)))
    }

    /// Puts what a line says in its place.
    fn connect(&mut self, line: &Line, names: &[String]) -> Result<(), String> {
        for node in &line.nodes {
            if let Some(other) = self.hosts.insert(node.clone(), line.switch)
                && other != line.switch
            {
                let other = &names[other as usize];
                return Err(format!("{node} is at {} and at {other}", line.name));
            }
        }
        for below in &line.switches {
            let Some(number) = self.names.get(below).copied() else {
                return Err(format!("there is no line for the switch {below}"));
            };
            if let Some(other) = self.above[number as usize]
                && other != line.switch
            {
                let other = &names[other as usize];
                return Err(format!("{below} is below {} and below {other}", line.name));
            }
            self.above[number as usize] = Some(line.switch);
            let mut at = Some(line.switch);
            while let Some(switch) = at {
                if switch == number {
                    self.above[number as usize] = None;
                    return Err(format!("{below} would be below itself"));
                }
                at = self.above[switch as usize];
            }
        }
        Ok(())
    }

    /// Is anything known of this host?
    pub fn has(&self, host: &str) -> bool {
        self.find(host).is_some()
    }

    fn find(&self, host: &str) -> Option<u32> {
        // With a domain or without, as Slurm's names are the short ones.
        let short = host.split('.').next().unwrap_or(host);
        self.hosts.get(host).or(self.hosts.get(short)).copied()
    }

    fn path(&self, host: &str) -> Path {
        let mut path = Path::new();
        let mut at = self.find(host);
        while let Some(switch) = at {
            path.push(switch);
            at = self.above[switch as usize];
        }
        path.reverse();
        path
    }

    /// Where these hosts stand.
    pub fn layout<'a>(&self, hosts: impl Iterator<Item = &'a str>, source: &str) -> Layout {
        Layout::new(
            hosts.map(|host| self.path(host)).collect(),
            self.path(source),
        )
    }
}

/// Lines with their numbers; one that ends with a backslash goes on in the next.
fn joined(text: &str) -> Vec<(usize, String)> {
    let mut lines: Vec<(usize, String)> = Vec::new();
    let mut goes_on = false;
    for (index, line) in text.lines().enumerate() {
        let part = line.strip_suffix('\\');
        let words = part.unwrap_or(line);
        match lines.last_mut().filter(|_| goes_on) {
            Some((_, before)) => before.push_str(words),
            None => lines.push((index + 1, words.to_owned())),
        }
        goes_on = part.is_some();
    }
    lines
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn expand(set: &str) -> Result<Vec<String>, String> {
        match set.contains('!') {
            true => Err(format!("{set:?} is not a set of names")),
            false => Ok(set.split(',').map(str::to_owned).collect()),
        }
    }

    fn wrong(text: &str) -> String {
        Topology::read(text, "t.conf", expand)
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn a_tree_as_slurm_writes_it() {
        let text = "# two racks\nSwitchName=top Switches=r1,r2\nswitchname=r1 nodes=a,b LinkSpeed=100 # old\n\n\
                    SwitchName=r2 \\\n  Nodes=c\n";
        let topology = Topology::read(text, "t.conf", expand).unwrap();
        let layout = topology.layout(["a", "c.example.org", "b", "z"].into_iter(), "c");
        assert_eq!(layout.path(Some(0)), [0, 1]);
        assert_eq!(layout.path(Some(1)), [0, 2]);
        assert_eq!(layout.path(None), [0, 2]);
        assert!(layout.path(Some(3)).is_empty());
        assert!(topology.has("b") && !topology.has("z"));
    }

    #[test]
    fn all_that_is_wrong_is_said_with_its_line() {
        let text = "SwitchName=a Nodes=x\nNodes=y\nSwitchName=a Nodes=z\nSwitchName=b Nodes\nSwitchName=c\n\
                    SwitchName=d Nodes=!\nSwitchName=e Nodes=x\nSwitchName=f Switches=nowhere\nSpeed=3\nBlockName=b1";
        assert_eq!(
            wrong(text).lines().collect::<Vec<_>>(),
            [
                "t.conf:2: the line has no SwitchName",
                "t.conf:3: there is a line for a already",
                "t.conf:4: \"Nodes\" is not of the form Key=value",
                "t.conf:5: c has neither Nodes nor Switches",
                "t.conf:6: \"!\" is not a set of names",
                "t.conf:9: \"Speed\" is none of SwitchName, Nodes, Switches and LinkSpeed",
                "t.conf:10: blocks are not read, only switches (topology/tree)",
                "t.conf:7: x is at e and at a",
                "t.conf:8: there is no line for the switch nowhere",
            ]
        );
        let ring = "SwitchName=a Switches=b\nSwitchName=b Switches=a\nSwitchName=c Switches=c";
        let said = wrong(ring);
        assert!(said.contains("t.conf:2: a would be below itself"), "{said}");
        assert!(said.contains("t.conf:3: c would be below itself"), "{said}");
        let two = "SwitchName=a Switches=c\nSwitchName=b Switches=c\nSwitchName=c Nodes=x";
        assert_eq!(wrong(two), "t.conf:2: c is below b and below a");
    }
}
