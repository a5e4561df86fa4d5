//! Any bytes as what a QEMU says, on its socket and in its journal: no panic, and every wait has an end.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::json;
use std::time::Duration;
use tokio::io::{join, sink};
use v3m_qemu::qmp::Qmp;

const LIMIT: Duration = Duration::from_secs(5);

fuzz_target!(|bytes: &[u8]| {
    v3m_qemu::fuzzing::journal(bytes);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let Ok(mut qmp) = Qmp::new(join(bytes, sink()), LIMIT).await else {
            return;
        };
        // The negotiation was number 0.
        let _ = qmp.execute("query-status", json!({})).await;
        while qmp.event().await.is_ok() {}
        assert!(qmp.execute("query-status", json!({})).await.is_err());
    });
});
