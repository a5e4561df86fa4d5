//! Any bytes as a VM profile: no panic, and what is taken comes back from both forms that it is written in.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    match profile::vms_bytes(bytes, "fuzz") {
        Err(errors) => {
            assert!(errors.len() > 0, "refused without a word");
            let said = errors.to_string();
            assert!(
                said.chars().all(|c| c == '\n' || !c.is_control()),
                "{said:?}"
            );
        }
        Ok(checked) => {
            let notes: String = checked.notes.iter().map(ToString::to_string).collect();
            assert!(!notes.contains(char::is_control), "{notes:?}");
            for vm in checked.value {
                let toml = profile::vm_to_toml(&vm).expect("a profile's VM can be written");
                let xml = profile::vm_to_xml(&vm).expect("a profile's VM can be written");
                for text in [toml, xml] {
                    match profile::vm(&text, "written") {
                        Ok(again) => assert_eq!(again.value, vm, "{text}"),
                        Err(errors) => panic!("{errors}\n---\n{text}"),
                    }
                }
            }
        }
    }
});
