//! Where hosts stand: racks and switches. Decisions only, as `chain`.
//!
//! A host's path is the switches above it, from the top down. Two hosts are as far apart as there are links between
//! switches on the way. Hosts of which nothing is known stand at the top, each by itself.

use std::collections::HashMap;

/// The switches above a host, from the top down, by number.
pub type Path = Vec<u32>;

/// Where the hosts of a list stand, and the source.
#[derive(Clone, Debug, Default)]
pub struct Layout {
    paths: Vec<Path>,
    source: Path,
    /// Where each host comes if one goes through switch after switch, and otherwise as they are listed.
    rank: Vec<usize>,
}

impl Layout {
    /// Nothing is known of so many hosts but the order in which they are listed.
    pub fn flat(hosts: usize) -> Self {
        Self::new(vec![Path::new(); hosts], Path::new())
    }

    /// `paths`: of each host, in the order in which they are listed.
    pub fn new(paths: Vec<Path>, source: Path) -> Self {
        // Switches come in the order in which their first hosts are listed.
        let mut seen: HashMap<&[u32], usize> = HashMap::new();
        for (index, path) in paths.iter().enumerate() {
            for depth in 1..=path.len() {
                seen.entry(&path[..depth]).or_insert(index);
            }
        }
        let key = |host: usize| {
            let path: &[u32] = &paths[host];
            let mut key: Vec<usize> = (1..=path.len()).map(|depth| seen[&path[..depth]]).collect();
            key.push(host);
            key
        };
        let mut order: Vec<usize> = (0..paths.len()).collect();
        order.sort_by_cached_key(|host| key(*host));
        let mut rank = vec![0; paths.len()];
        for (place, host) in order.into_iter().enumerate() {
            rank[host] = place;
        }
        Self {
            paths,
            source,
            rank,
        }
    }

    pub fn rank(&self, host: usize) -> usize {
        self.rank[host]
    }

    /// Of a host, or of the source.
    pub fn path(&self, host: Option<usize>) -> &[u32] {
        host.map_or(&self.source, |host| &self.paths[host])
    }

    /// Links between switches on the way from one to the other; `None` is the source.
    pub fn distance(&self, one: Option<usize>, other: Option<usize>) -> usize {
        let (one, other) = (self.path(one), self.path(other));
        one.len() + other.len() - 2 * common(one, other)
    }

    /// Puts hosts in the order in which one that begins at `root` crosses each link between switches once in each
    /// direction: its own switch first, then what is next to that.
    pub fn sort(&self, root: Option<usize>, hosts: &mut [usize]) {
        let root = self.path(root);
        hosts.sort_by_cached_key(|host| {
            let near = common(root, &self.paths[*host]);
            (usize::MAX - near, self.rank[*host])
        });
    }

    /// Do both stand at the same switch, of which something is known?
    pub fn same_switch(&self, one: usize, other: usize) -> bool {
        !self.paths[one].is_empty() && self.paths[one] == self.paths[other]
    }

    /// How often a link between switches is crossed by who goes from one to the next, at most: of all links and both
    /// directions.
    pub fn crossings(&self, steps: impl IntoIterator<Item = (Option<usize>, usize)>) -> usize {
        let mut times: HashMap<(Path, bool), usize> = HashMap::new();
        for (from, to) in steps {
            let (from, to) = (self.path(from), self.path(Some(to)));
            let shared = common(from, to);
            for (path, down) in [(from, false), (to, true)] {
                for depth in shared + 1..=path.len() {
                    *times.entry((path[..depth].to_vec(), down)).or_default() += 1;
                }
            }
        }
        times.into_values().max().unwrap_or(0)
    }
}

/// How many switches from the top down are the same.
fn common(one: &[u32], other: &[u32]) -> usize {
    one.iter().zip(other).take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_labels_they_stand_as_listed_and_equally_near() {
        let layout = Layout::flat(4);
        assert_eq!(
            (0..4).map(|h| layout.rank(h)).collect::<Vec<_>>(),
            [0, 1, 2, 3]
        );
        assert_eq!(layout.distance(Some(0), Some(3)), 0);
        assert!(!layout.same_switch(0, 1));
    }

    #[test]
    fn racks_that_are_listed_in_disorder_are_put_together_the_sources_first() {
        // Two rows of two racks, and a host that nobody knows.
        let paths = [
            vec![0, 10],
            vec![1, 20],
            vec![0, 11],
            vec![],
            vec![0, 10],
            vec![1, 20],
        ];
        let layout = Layout::new(paths.to_vec(), vec![1, 21]);
        let mut hosts = [0, 1, 2, 3, 4, 5];
        layout.sort(None, &mut hosts);
        assert_eq!(hosts, [1, 5, 0, 4, 2, 3]);
        assert_eq!(layout.distance(None, Some(1)), 2);
        assert_eq!(layout.distance(Some(0), Some(1)), 4);
        assert_eq!(layout.distance(Some(0), Some(3)), 2);
        let steps = |hosts: &[usize]| {
            let mut before = None;
            hosts
                .iter()
                .map(|h| (before.replace(*h), *h))
                .collect::<Vec<_>>()
        };
        assert_eq!(layout.crossings(steps(&hosts)), 1);
        assert_eq!(layout.crossings(steps(&[0, 1, 2, 3, 4, 5])), 3);
    }
}
