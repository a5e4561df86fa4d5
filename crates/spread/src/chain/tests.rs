//! Who stands where.

use super::*;

fn chain(hosts: usize) -> Chains {
    let mut chains = Chains::new(hosts, 1);
    (0..hosts).for_each(|host| chains.join(host));
    chains.changes();
    chains
}

#[test]
fn hosts_stand_as_they_are_listed_and_the_late_ones_at_the_end() {
    let mut chains = Chains::new(4, 1);
    chains.join(3);
    chains.join(1);
    chains.join(0);
    assert_eq!(chains.order(), [[0, 1, 3]]);
    chains.time(5.0);
    chains.join(2);
    assert_eq!(chains.order(), [[0, 1, 3, 2]]);
    assert_eq!(chains.parents(0), [Parent::Source]);
    assert_eq!(
        chains.parents(3),
        [Parent::Host(1), Parent::Host(0), Parent::Source]
    );
}

#[test]
fn who_is_gone_is_left_out_and_only_those_after_it_hear_of_it() {
    let mut chains = chain(20);
    chains.leave(4);
    let changed = chains.changes();
    assert!(changed.contains(&5) && !changed.contains(&3), "{changed:?}");
    assert_eq!(chains.parents(5)[0], Parent::Host(3));
    assert!(!chains.order()[0].contains(&4));
}

#[test]
fn a_parent_that_one_child_cannot_hear_goes_to_the_end() {
    let mut chains = chain(5);
    chains.complain(2, 1);
    assert_eq!(chains.order(), [[0, 2, 3, 4, 1]]);
    assert_eq!(chains.parents(2)[0], Parent::Host(0));
}

#[test]
fn several_chains_are_equally_long() {
    let mut chains = Chains::new(10, 3);
    (0..10).for_each(|host| chains.join(host));
    let mut lengths: Vec<usize> = chains.order().iter().map(|chain| chain.len()).collect();
    lengths.sort_unstable();
    assert_eq!(lengths, [3, 3, 4]);
}

/// Racks of so many hosts each, below one switch; the source is in the first.
fn racks(racks: u32, hosts: u32, chains: usize) -> Chains {
    let path = |host: u32| vec![0, 1 + host % racks];
    let count = (racks * hosts) as usize;
    let layout = Layout::new((0..racks * hosts).map(path).collect(), vec![0, 1]);
    Chains::ordered(layout, count, chains)
}

#[test]
fn hosts_of_a_rack_stand_together_however_they_are_listed() {
    let mut chains = racks(3, 3, 1);
    (0..9).rev().for_each(|host| chains.join(host));
    assert_eq!(chains.order(), [[0, 3, 6, 1, 4, 7, 2, 5, 8]]);
}

#[test]
fn hosts_that_have_it_already_are_sources_for_their_rack() {
    let mut chains = racks(3, 3, 1);
    (0..9).filter(|h| *h != 4).for_each(|h| chains.join(h));
    chains.whole(4);
    assert_eq!(chains.order(), [&[0, 3, 6][..], &[1, 7, 2, 5, 8]]);
    assert_eq!(chains.parents(1)[0], Parent::Host(4));
    assert_eq!(chains.parents(1).last(), Some(&Parent::Source));
    let others = [Parent::Host(8), Parent::Host(4)];
    assert_eq!(chains.parents(0)[0], Parent::Source);
    assert_eq!(chains.parents(0)[1..], others, "without the source");
    assert!(!chains.changes().contains(&4), "it needs nothing");
    // It goes: who had it from there stands behind the others.
    chains.time(3.0);
    chains.leave(4);
    assert_eq!(chains.order()[0], [0, 3, 6, 1, 7, 2, 5, 8]);
    assert_eq!(chains.changes(), [1, 2, 5, 7, 8]);
}

#[test]
fn several_sources_share_hosts_of_which_nothing_is_known() {
    let mut chains = Chains::new(11, 1);
    (0..11).for_each(|host| chains.join(host));
    chains.whole(3);
    chains.whole(10);
    assert_eq!(chains.order(), [[0, 1, 2], [4, 5, 6], [7, 8, 9]]);
}

#[test]
fn who_comes_late_gets_a_host_near_it_that_has_all() {
    let mut chains = racks(2, 4, 1);
    (0..6).for_each(|host| chains.join(host));
    assert_eq!(chains.order(), [[0, 2, 4, 1, 3, 5]]);
    chains.time(9.0);
    (0..5).for_each(|host| chains.done(host));
    chains.join(6);
    // 2 and 4 stand in 6's rack and give nobody anything; 4 is listed nearer.
    assert_eq!(chains.parents(6)[0], Parent::Host(4));
    chains.join(7);
    assert_eq!(chains.parents(7)[0], Parent::Host(1), "3 still gives to 5");
    assert_eq!(chains.parents(0)[0], Parent::Source);
}

/// A child was put behind a parent that it cannot reach again and again, and said each time that it could not.
#[test]
fn two_that_cannot_reach_each_other_do_not_stand_together_again() {
    let mut chains = chain(5);
    chains.keep_apart(2, 1);
    assert_eq!(chains.order(), [[0, 1, 3, 2, 4]]);
    assert!(!chains.parents(2).contains(&Parent::Host(1)));
    assert!(!chains.parents(1).contains(&Parent::Host(2)));
    // Whoever stood between them goes; one of them is put last, and the other one, too.
    chains.time(2.0);
    chains.leave(3);
    assert_eq!(chains.order(), [[0, 1, 4, 2]]);
    chains.complain(4, 1);
    assert_eq!(chains.order(), [[0, 2, 4, 1]]);
    chains.join(3);
    assert_eq!(chains.order(), [[0, 2, 4, 1, 3]]);
    // Somebody comes back, who may be reached by now.
    chains.join(2);
    assert_eq!(chains.order(), [[0, 4, 1, 3, 2]]);
    chains.leave(3);
    assert_eq!(chains.order(), [[0, 4, 1, 2]]);
}

#[test]
fn the_last_of_a_chain_that_cannot_reach_its_parent_gets_the_one_before_it() {
    let mut chains = chain(3);
    chains.keep_apart(2, 1);
    assert_eq!(chains.order(), [[1, 0, 2]]);
    assert_eq!(chains.changes(), [0, 1, 2]);
}

#[test]
fn where_there_are_only_two_the_child_asks_the_root() {
    let mut chains = chain(2);
    chains.keep_apart(1, 0);
    assert_eq!(chains.order(), [[0, 1]]);
    assert_eq!(chains.parents(1), [Parent::Source]);
    assert_eq!(chains.changes(), [0, 1]);
}

#[test]
fn a_root_that_cannot_be_reached_by_the_first_has_another_child() {
    let mut chains = Chains::new(4, 1);
    (0..3).for_each(|host| chains.join(host));
    chains.whole(3);
    let of_root = |chains: &mut Chains| {
        let links = chains.links();
        let mut links = links
            .iter()
            .filter(|(parent, _)| *parent == Parent::Host(3));
        links.next().map(|(_, child)| *child)
    };
    let first = of_root(&mut chains).unwrap();
    chains.keep_apart(first, 3);
    assert!(!chains.parents(first).contains(&Parent::Host(3)));
    assert!(chains.parents(first).contains(&Parent::Source));
    chains.time(2.0);
    // Who comes anew to be put somewhere is not put there, either.
    chains.whole(3);
    chains.keep_apart(0, 3);
    chains.keep_apart(2, 3);
    chains.uproot(3);
    assert_ne!(of_root(&mut chains), Some(0));
}

/// Who has nothing yet would make wait whoever has it nearly all.
#[test]
fn nobody_who_is_far_behind_is_put_between_two() {
    let mut chains = chain(4);
    (0..3).for_each(|host| chains.report(host, 1 << 30));
    chains.keep_apart(2, 1);
    assert_eq!(chains.order(), [[1, 0, 2, 3]]);
    chains.report(0, 2 << 30);
    chains.keep_apart(2, 0);
    assert_eq!(chains.order(), [[1, 0, 2, 3]]);
    assert_eq!(chains.parents(2), [Parent::Source]);
    chains.done(3);
    chains.keep_apart(2, 0);
    assert_eq!(chains.order(), [[1, 0, 3, 2]]);
}

/// A link that lets through some more at once before its rate counts (a token bucket) made the first host look slow, and
/// another one was tried in its place: a tenth of a second for nothing.
#[test]
fn what_a_link_lets_through_at_its_beginning_is_no_rate() {
    let mut chains = chain(8);
    for tick in 0..40 {
        let now = f64::from(tick) / 10.0;
        chains.time(now);
        chains.progress(now / 7.0, (7.0 - now) * 2.5e6);
        for host in 0..8 {
            let burst = if tick > 0 { 400_000 } else { 0 };
            chains.report(host, (now * 2.5e6) as u64 + burst);
        }
        chains.look();
        assert_eq!(chains.order(), [[0, 1, 2, 3, 4, 5, 6, 7]], "after {now} s");
    }
}
