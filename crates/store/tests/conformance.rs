//! What every store must do. A new implementation adds a module at the end, and nothing else.

#![allow(clippy::unwrap_used, reason = "a test may end so")]

use std::collections::HashSet;
use std::sync::Barrier;
use store::{Entry, Error, Expected, MAX_KEY, MAX_VALUE, Store, StoreJson};

/// A store that holds nothing, of which more handles can be had.
trait Fresh {
    fn open(&self) -> Box<dyn Store>;
}

fn get(store: &dyn Store, key: &str) -> Option<Vec<u8>> {
    store.get(key).unwrap().map(|entry| entry.value)
}

fn keys(store: &dyn Store, prefix: &str) -> Vec<String> {
    store
        .list(prefix)
        .unwrap()
        .into_iter()
        .map(|(key, _)| key)
        .collect()
}

fn values_come_back(fresh: &impl Fresh) {
    let store = fresh.open();
    assert_eq!(store.get("a").unwrap(), None);
    let all: Vec<u8> = (0..=255).collect();
    let generation = store.put("a", &all, Expected::Any).unwrap();
    assert_eq!(
        store.get("a").unwrap(),
        Some(Entry {
            value: all.clone(),
            generation
        })
    );
    store.put("a", b"", Expected::Any).unwrap();
    assert_eq!(get(&*store, "a"), Some(Vec::new()));
    // Another handle sees it, now and after the first is gone.
    let other = fresh.open();
    assert_eq!(get(&*other, "a"), Some(Vec::new()));
    drop(store);
    assert_eq!(get(&*other, "a"), Some(Vec::new()));
    let large = vec![7; MAX_VALUE];
    other.put("a", &large, Expected::Any).unwrap();
    assert!(get(&*fresh.open(), "a").unwrap() == large);
}

fn generations_only_grow(fresh: &impl Fresh) {
    let store = fresh.open();
    let mut last = 0;
    for round in 0..10 {
        for key in ["a", "b"] {
            let generation = store.put(key, b"same", Expected::Any).unwrap();
            assert!(
                generation > last,
                "{generation} after {last} in round {round}"
            );
            last = generation;
        }
        // The newest entry of all is deleted, and the store opened again: its number is not given out twice.
        store.delete("b", Expected::Any).unwrap();
        let generation = fresh.open().put("c", b"", Expected::Any).unwrap();
        assert!(generation > last);
        last = generation;
    }
}

fn what_is_expected_is_required(fresh: &impl Fresh) {
    let store = fresh.open();
    let conflict = |result: Result<u64, Error>| match result {
        Err(Error::Conflict(conflict)) => conflict,
        other => panic!("no conflict but {other:?}"),
    };
    let gone = conflict(store.put("k", b"1", Expected::Generation(1)));
    assert_eq!((gone.key.as_str(), gone.found), ("k", None));
    assert!(gone.to_string().contains("deleted"), "{gone}");

    let first = store.put("k", b"1", Expected::Absent).unwrap();
    let there = conflict(store.put("k", b"2", Expected::Absent));
    assert_eq!(there.found, Some(first));
    assert!(there.to_string().contains("exists already"), "{there}");

    let second = store.put("k", b"2", Expected::Generation(first)).unwrap();
    let stale = conflict(store.put("k", b"3", Expected::Generation(first)));
    assert_eq!(stale.found, Some(second));
    assert_eq!(get(&*store, "k"), Some(b"2".to_vec()));

    let delete = |expected| store.delete("k", expected).map(|()| 0);
    conflict(delete(Expected::Absent));
    conflict(delete(Expected::Generation(first)));
    delete(Expected::Generation(second)).unwrap();
    assert_eq!(store.get("k").unwrap(), None);
    delete(Expected::Any).unwrap();
    delete(Expected::Absent).unwrap();
    conflict(delete(Expected::Generation(second)));

    // Deleted and made again is not the same.
    let third = store.put("k", b"2", Expected::Absent).unwrap();
    assert!(third > second);
    conflict(store.put("k", b"3", Expected::Generation(second)));
}

fn lists_are_sorted_and_exact(fresh: &impl Fresh) {
    let store = fresh.open();
    let all = [
        "A", "a", "a/", "a/b", "a/b/c", "a/~", "a/~~", "a0", "ab", "b%", "b_", "b_1", "~",
    ];
    for key in all.iter().rev() {
        store.put(key, key.as_bytes(), Expected::Absent).unwrap();
    }
    assert_eq!(keys(&*store, ""), all);
    assert_eq!(keys(&*store, "a/"), ["a/", "a/b", "a/b/c", "a/~", "a/~~"]);
    assert_eq!(keys(&*store, "a/~"), ["a/~", "a/~~"]);
    assert_eq!(keys(&*store, "~"), ["~"]);
    // No character is a wild card.
    assert_eq!(keys(&*store, "b_"), ["b_", "b_1"]);
    assert_eq!(keys(&*store, "b%"), ["b%"]);
    assert!(keys(&*store, "c").is_empty());
    for (key, entry) in store.list("").unwrap() {
        assert_eq!(entry.value, key.as_bytes());
        assert_eq!(store.get(&key).unwrap(), Some(entry));
    }
}

fn bad_keys_and_values_are_refused(fresh: &impl Fresh) {
    let store = fresh.open();
    let long = "k".repeat(MAX_KEY + 1);
    for bad in ["", " ", "a b", "a\n", "a\0b", "ä", "\u{7f}", long.as_str()] {
        for result in [
            store.get(bad).map(drop),
            store.put(bad, b"", Expected::Any).map(drop),
            store.delete(bad, Expected::Any),
        ] {
            assert!(
                matches!(result, Err(Error::Key { .. })),
                "{bad:?}: {result:?}"
            );
        }
        assert_eq!(store.list(bad).is_err(), !bad.is_empty(), "{bad:?}");
    }
    store.put(&long[1..], b"", Expected::Absent).unwrap();
    let large = vec![0; MAX_VALUE + 1];
    let result = store.put("large", &large, Expected::Any);
    assert!(matches!(result, Err(Error::TooLarge { .. })), "{result:?}");
    assert_eq!(keys(&*store, "large"), [""; 0]);
}

fn json(fresh: &impl Fresh) {
    let store = fresh.open();
    let value = vec![("one".to_owned(), 1), ("two".to_owned(), 2)];
    let generation = store.put_json("j/1", &value, Expected::Absent).unwrap();
    assert_eq!(
        store.get_json("j/1").unwrap(),
        Some((value.clone(), generation))
    );
    assert_eq!(
        store.list_json("j/").unwrap(),
        [("j/1".to_owned(), value, generation)]
    );
    assert_eq!(store.get_json::<bool>("j/2").unwrap(), None);
    let error = store.get_json::<bool>("j/1").unwrap_err();
    assert!(matches!(error, Error::Value { .. }));
    assert!(error.to_string().contains("j/1"), "{error}");
}

/// Many count one number up at once, half of them through one handle: none of their steps is lost.
fn nobody_overwrites_unseen(fresh: &(impl Fresh + Sync)) {
    const THREADS: u64 = 6;
    const STEPS: u64 = 25;
    let shared = fresh.open();
    let barrier = Barrier::new(THREADS as usize);
    let count = |store: &dyn Store| {
        barrier.wait();
        let mut generations = Vec::new();
        while generations.len() < STEPS as usize {
            let (number, expected) = match store.get_json::<u64>("n").unwrap() {
                Some((number, generation)) => (number, Expected::Generation(generation)),
                None => (0, Expected::Absent),
            };
            match store.put_json("n", &(number + 1), expected) {
                Ok(generation) => generations.push(generation),
                Err(e) => assert!(e.is_conflict(), "{e}"),
            }
        }
        generations
    };
    let generations: Vec<u64> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|at| {
                let (shared, count) = (&shared, &count);
                scope.spawn(move || match at % 2 {
                    0 => count(&**shared),
                    _ => count(&*fresh.open()),
                })
            })
            .collect();
        threads
            .into_iter()
            .flat_map(|thread| thread.join().unwrap())
            .collect()
    });
    assert_eq!(
        shared.get_json::<u64>("n").unwrap().unwrap().0,
        THREADS * STEPS
    );
    let distinct: HashSet<u64> = generations.iter().copied().collect();
    assert_eq!(distinct.len(), generations.len());
}

/// Many open a store that does not exist yet, at once.
fn all_may_be_first(fresh: &(impl Fresh + Sync)) {
    let barrier = Barrier::new(8);
    std::thread::scope(|scope| {
        for at in 0..8 {
            let barrier = &barrier;
            scope.spawn(move || {
                barrier.wait();
                let store = fresh.open();
                store
                    .put(&format!("first/{at}"), b"", Expected::Absent)
                    .unwrap();
            });
        }
    });
    assert_eq!(fresh.open().list("first/").unwrap().len(), 8);
}

macro_rules! conformance {
    ($fresh:expr; $($check:ident)*) => {
        $(
            #[test]
            fn $check() {
                super::$check(&$fresh);
            }
        )*
    };
}

mod sqlite {
    use super::Fresh;
    use store::{Sqlite, Store};
    use tempfile::TempDir;

    impl Fresh for TempDir {
        fn open(&self) -> Box<dyn Store> {
            Box::new(Sqlite::open(&self.path().join("store.sqlite")).unwrap())
        }
    }

    conformance! {
        TempDir::new().unwrap();
        values_come_back
        generations_only_grow
        what_is_expected_is_required
        lists_are_sorted_and_exact
        bad_keys_and_values_are_refused
        json
        nobody_overwrites_unseen
        all_may_be_first
    }
}
