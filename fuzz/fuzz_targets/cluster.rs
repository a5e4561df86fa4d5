//! Any bytes as a cluster file: no panic, and what is taken comes back from both forms that it is written in.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    match profile::cluster_bytes(bytes, "fuzz") {
        Err(errors) => {
            assert!(errors.len() > 0, "refused without a word");
            let said = errors.to_string();
            assert!(
                said.chars().all(|c| c == '\n' || !c.is_control()),
                "{said:?}"
            );
        }
        Ok(checked)
            if checked
                .notes
                .iter()
                .any(|note| note.to_string().contains(char::is_control)) =>
        {
            panic!("{:?}", checked.notes);
        }
        // A file of a few bytes can be a cluster of very many nodes.
        Ok(checked) if checked.value.nodes().count() > 1000 => {}
        Ok(checked) => {
            let cluster = checked.value;
            for text in [
                profile::to_toml(&cluster),
                profile::cluster_to_xml(&cluster),
            ] {
                match profile::cluster(&text, "written") {
                    Ok(again) => assert_eq!(again.value, cluster, "{text}"),
                    Err(errors) => panic!("{errors}\n---\n{text}"),
                }
            }
        }
    }
});
