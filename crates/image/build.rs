//! Compiles `oscarv-init`, the first program of a virtual node, as a static program that `image::INIT` carries.
//!
//! It has no dependencies by design, so one call of the compiler is enough; cargo could not build a binary with other
//! flags as an input of a library.

use std::path::Path;
use std::process::Command;
use std::{env, io};

fn main() -> io::Result<()> {
    let sources = Path::new(&required("CARGO_MANIFEST_DIR")?).join("../../bin/oscarv-init/src");
    let output = Path::new(&required("OUT_DIR")?).join("oscarv-init");
    println!("cargo::rerun-if-changed={}", sources.display());
    println!("cargo::rustc-env=OSCARV_INIT={}", output.display());
    let status = Command::new(required("RUSTC")?)
        .args([
            "--edition",
            "2024",
            "--crate-name",
            "oscarv_init",
            "--crate-type",
            "bin",
        ])
        .args(["--target", &required("TARGET")?])
        .args([
            "-C",
            "opt-level=s",
            "-C",
            "target-feature=+crt-static",
            "-C",
            "panic=abort",
        ])
        .args(["-C", "strip=symbols", "-o"])
        .arg(&output)
        .arg(sources.join("main.rs"))
        .status()?;
    if status.success() {
        Ok(())
    } else {
        Err(io::Error::other(format!(
            "oscarv-init did not compile ({status})"
        )))
    }
}

fn required(name: &str) -> io::Result<String> {
    env::var(name).map_err(|_| io::Error::other(format!("cargo did not set {name}")))
}
