//! What holds for every text: nothing panics, places are true, and what is taken comes back.

#![allow(clippy::unwrap_used, reason = "a test may end so")]

use profile::{Cluster, cluster, cluster_bytes, cluster_to_xml, to_toml};
use proptest::prelude::*;

/// Words that cluster files are made of, and some that break them.
fn word() -> impl Strategy<Value = String> {
    prop_oneof![
        8 => prop::sample::select(vec![
            "[[group]]", "[image]", "[network]", "[[group.node]]", "[group]", "name = \"head\"", "name = \"mpi\"",
            "name = \"a\"", "name", "count = 3", "count = 0", "count = -1", "cpus = 2", "memory = \"512M\"",
            "memory = 512", "disk = \"4G\"", "role = \"head\"", "role = \"compute\"", "type = \"fake\"",
            "type = \"xen\"", "subnet = \"10.0.0.0/29\"", "subnet = \"10.0.0.1/8\"", "nat = false", "nat = 1",
            "mac = \"52:54:00:12:34:56\"", "address = \"10.77.0.9\"", "address = \"10.0.0.2\"", "opkgs = []",
            "opkgs = [\"slurm\"]", "packages = [\"g++\", 'x']", "packages = \"hpcc\"", "memroy = 3", "=", "\"", "'''",
            "[", "]", "{", "}", ",", "#", "\\u001b", "é", "計", "\t", "\r", "\0", "\u{202e}",
        ]).prop_map(str::to_owned),
        1 => ".{0,20}",
    ]
}

fn text() -> impl Strategy<Value = String> {
    let separator = prop::sample::select(vec!["\n", "\n", "\n", "\n", "\r\n", " ", ""]);
    proptest::collection::vec((word(), separator), 0..40)
        .prop_map(|words| words.into_iter().map(|(word, end)| word + end).collect())
}

fn judged(text: &str) -> Result<(), TestCaseError> {
    match cluster(text, "x.toml") {
        Ok(checked) => comes_back(&checked.value),
        Err(errors) => {
            prop_assert!(errors.len() > 0, "refused without a word");
            let mut last = 0;
            for error in &errors {
                prop_assert!(
                    error.start >= last && error.end >= error.start && error.end <= text.len()
                );
                last = error.start;
                let before = &text[..error.start];
                let line = before.rsplit('\n').next().unwrap();
                prop_assert_eq!(error.line, before.matches('\n').count() + 1);
                prop_assert_eq!(error.column, line.chars().count() + 1);
                if error.text.chars().count() <= 200 {
                    prop_assert_eq!(&error.text, &text[error.start..error.end]);
                }
            }
            let said = errors.to_string();
            prop_assert!(
                said.chars().all(|c| c == '\n' || !c.is_control()),
                "{:?}",
                said
            );
            Ok(())
        }
    }
}

fn comes_back(value: &Cluster) -> Result<(), TestCaseError> {
    let written = to_toml(value);
    match cluster(&written, "written.toml") {
        Ok(again) => {
            prop_assert_eq!(&again.value, value);
            prop_assert_eq!(again.notes, [], "a written file says everything");
        }
        Err(errors) => prop_assert!(false, "{}\n---\n{}", errors, written),
    }
    let written = cluster_to_xml(value);
    match cluster(&written, "written.xml") {
        Ok(again) => {
            prop_assert_eq!(&again.value, value);
            prop_assert_eq!(again.notes, []);
        }
        Err(errors) => prop_assert!(false, "{}\n---\n{}", errors, written),
    }
    Ok(())
}

prop_compose! {
    /// A good file, with whatever a file can say.
    fn good()(
        kind in prop::sample::select(vec!["auto", "qemu", "kvm", "fake"]),
        groups in proptest::collection::vec(
            (1usize..6, 1u16..256, 128u64..1 << 30, 1024u64..1 << 30, any::<[bool; 3]>()), 0..5),
        packages in proptest::collection::btree_set("[a-z0-9][a-z0-9+.-]{1,12}", 0..6),
        opkgs in proptest::collection::btree_set("[a-z][a-z0-9]{0,8}", 0..5).prop_shuffle_set(),
        (kernel, mirror, domain, nat, prefix) in (
            proptest::option::of("linux-[a-z0-9]{1,9}"),
            proptest::option::of("https?://[a-z0-9.:-]{1,20}/[a-z0-9_~%/]{0,20}"),
            "[a-z][a-z0-9]{0,9}(\\.[a-z][a-z0-9]{0,9}){0,3}",
            any::<bool>(),
            8u8..=24,
        ),
    ) -> String {
        let list = |items: Vec<String>| items.iter().map(|i| format!("{i:?}")).collect::<Vec<_>>().join(", ");
        let mut out = format!("name = \"c\"\ntype = {kind:?}\n[image]\npackages = [{}]\nopkgs = [{}]\n",
            list(packages.into_iter().collect()), list(opkgs));
        for (key, value) in [("kernel", kernel), ("mirror", mirror)] {
            if let Some(value) = value {
                out += &format!("{key} = {value:?}\n");
            }
        }
        out += &format!("[network]\nsubnet = \"10.0.0.0/{prefix}\"\ndomain = {domain:?}\nnat = {nat}\n");
        out += "[[group]]\nname = \"head\"\n";
        for (at, (count, cpus, memory, disk, [fake, named, placed])) in groups.into_iter().enumerate() {
            out += &format!("[[group]]\nname = \"g{at}x\"\ncount = {count}\ncpus = {cpus}\n");
            out += &format!("memory = \"{memory}M\"\ndisk = \"{disk} MiB\"\n");
            if fake {
                out += "type = \"fake\"\n";
            }
            for node in 0..count {
                out += "[[group.node]]\n";
                if named && node % 2 == 1 {
                    out += &format!("name = \"special-{at}-{node}\"\n");
                }
                if placed && node == 1 {
                    out += &format!("mac = \"52-54-00-00-00-{at:02X}\"\naddress = \"10.0.0.{}\"\n", 10 + at);
                }
            }
        }
        out
    }
}

trait Shuffle: Strategy {
    /// In any order.
    fn prop_shuffle_set(self) -> BoxedStrategy<Vec<String>>;
}

impl<S> Shuffle for S
where
    S: Strategy<Value = std::collections::BTreeSet<String>> + 'static,
{
    fn prop_shuffle_set(self) -> BoxedStrategy<Vec<String>> {
        self.prop_map(|set| set.into_iter().collect::<Vec<_>>())
            .prop_shuffle()
            .boxed()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn words_of_cluster_files(text in text()) {
        judged(&text)?;
    }

    #[test]
    fn any_text(text in ".*") {
        judged(&text)?;
    }

    #[test]
    fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        if let Err(errors) = cluster_bytes(&bytes, "x.toml") {
            prop_assert!(!errors.to_string().is_empty());
        }
    }

    #[test]
    fn a_good_file_with_one_character_changed(text in good(), at in any::<prop::sample::Index>(), to in any::<char>()) {
        let mut characters: Vec<char> = text.chars().collect();
        let at = at.index(characters.len());
        characters[at] = to;
        judged(&characters.into_iter().collect::<String>())?;
    }

    #[test]
    fn good_files_come_back(text in good()) {
        match cluster(&text, "good.toml") {
            Ok(checked) => comes_back(&checked.value)?,
            Err(errors) => prop_assert!(false, "{}", errors),
        }
    }
}

/// A parser's own message had a control character of the file in it.
#[test]
fn a_control_character_in_a_tag_is_not_told_raw() {
    judged("<\u{c0}\u{1}").unwrap();
}
