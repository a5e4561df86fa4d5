//! Any bytes as what hosts say to each other: lines of control, and messages of a parent to its child. No panic, every
//! wait has an end, and nothing is good that is not in the manifest.
//!
//! The first byte says which it is: `c` control, `p` messages after the page, all others messages from the beginning.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::path::PathBuf;
use std::sync::OnceLock;
use tokio::runtime::Runtime;

static RUNTIME: OnceLock<Runtime> = OnceLock::new();
static DIR: OnceLock<PathBuf> = OnceLock::new();

fuzz_target!(|bytes: &[u8]| {
    let runtime = RUNTIME.get_or_init(|| {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_all().build().expect("a runtime")
    });
    let Some((kind, bytes)) = bytes.split_first() else {
        return;
    };
    runtime.block_on(async {
        match kind {
            b'c' => spread::fuzzing::lines(bytes).await,
            kind => {
                let dir = DIR.get_or_init(|| {
                    let shared = std::path::Path::new("/dev/shm");
                    let base = match shared.is_dir() {
                        true => shared.to_owned(),
                        false => std::env::temp_dir(),
                    };
                    base.join(format!("oscarv-fuzz-{}", std::process::id()))
                });
                spread::fuzzing::messages(bytes, *kind == b'p', dir).await;
                let _ = std::fs::remove_dir_all(dir);
            }
        }
    });
});
