//! Lists the repository's `packages/` so that the library carries them (`embedded.rs`).

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

fn main() -> io::Result<()> {
    let packages = Path::new(&required("CARGO_MANIFEST_DIR")?).join("../../packages");
    println!("cargo::rerun-if-changed={}", packages.display());
    let mut files = Vec::new();
    if packages.is_dir() {
        collect(&packages.canonicalize()?, Path::new(""), &mut files)?;
    }
    files.sort();
    let mut table = String::from("&[\n");
    for (relative, source) in &files {
        println!("cargo::rerun-if-changed={}", source.display());
        let executable = {
            use std::os::unix::fs::PermissionsExt;
            fs::metadata(source)?.permissions().mode() & 0o100 != 0
        };
        writeln!(
            table,
            "    File {{ path: {relative:?}, executable: {executable}, content: include_bytes!({source:?}) }},"
        )
        .map_err(io::Error::other)?;
    }
    table.push_str("]\n");
    fs::write(Path::new(&required("OUT_DIR")?).join("packages.rs"), table)
}

fn required(name: &str) -> io::Result<String> {
    env::var(name).map_err(|_| io::Error::other(format!("cargo did not set {name}")))
}

fn collect(
    directory: &Path,
    relative: &Path,
    files: &mut Vec<(String, PathBuf)>,
) -> io::Result<()> {
    println!("cargo::rerun-if-changed={}", directory.display());
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let relative = relative.join(entry.file_name());
        let kind = entry.file_type()?;
        if kind.is_dir() {
            collect(&entry.path(), &relative, files)?;
        } else if kind.is_file() {
            let name = relative
                .to_str()
                .ok_or_else(|| io::Error::other("a file name is not UTF-8"))?;
            files.push((name.to_owned(), entry.path()));
        } else {
            return Err(io::Error::other(format!(
                "{}: only files and directories can be shipped in packages/",
                entry.path().display()
            )));
        }
    }
    Ok(())
}
