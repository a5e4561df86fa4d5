//! Profiles as files: read, and their paths made absolute. A path in a profile is relative to the profile's file.

use crate::exit::{Code, Failure};
use anyhow::{Context as _, Result};
use api::Name;
use profile::{Boot, Note, Vm};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// What `terminal::file::read` calls standard input.
const STDIN: &str = "<stdin>";

/// What a person named: a VM that was created, or a profile.
pub enum Target {
    Vm(Name),
    Profile(PathBuf),
}

/// A VM that is there goes first; what has a `/` or a `.`, or is a file, is a profile.
pub fn target(text: impl AsRef<OsStr>, is_there: impl Fn(&Name) -> bool) -> Result<Target> {
    let path = Path::new(text.as_ref());
    let Some(text) = path.to_str() else {
        // No name of a VM, and it may be one of a file.
        return Ok(Target::Profile(path.to_owned()));
    };
    match Name::new(text) {
        Ok(name) if is_there(&name) => Ok(Target::Vm(name)),
        Ok(name) if !path.is_file() => Ok(Target::Vm(name)),
        Err(why) if !text.contains(['/', '.']) && text != "-" && !path.is_file() => Err(
            Failure::new(Code::Usage, format!("{text:?} names no VM: {why}"))
                .hint("a profile is named by its path: ./FILE")
                .into(),
        ),
        _ => Ok(Target::Profile(path.to_owned())),
    }
}

/// All profiles of a file.
pub struct Read {
    /// In words: a record holds text.
    pub file: PathBuf,
    pub vms: Vec<Vm>,
    pub notes: Vec<Note>,
    /// It is in libv3m's form: much of what a VM needs is not said there.
    pub original: bool,
}

/// All profiles in a file, ready for a driver: libv3m's `<profiles>` may hold many.
pub fn read_all(path: &Path) -> Result<Read> {
    let (bytes, name) = terminal::file::read(path)?;
    let mut read = of_bytes(&bytes, &name)?;
    let directory = directory(path)?;
    if path != Path::new("-") {
        read.file = PathBuf::from(path.to_string_lossy().as_ref());
    }
    for vm in &mut read.vms {
        resolve(vm, &directory);
    }
    Ok(read)
}

/// All profiles in a file's bytes, as they stand there.
pub fn of_bytes(bytes: &[u8], name: &str) -> Result<Read> {
    let checked =
        profile::vms_bytes(bytes, name).map_err(|errors| {
            match profile::cluster_bytes(bytes, name) {
                Err(_) => anyhow::Error::from(errors),
                Ok(_) => {
                    let message =
                        format!("{name} is the file of a cluster, and v2m runs single VMs");
                    let failure = Failure::new(Code::Usage, message);
                    failure.hint(format!("oscarv up {name}")).into()
                }
            }
        })?;
    if checked.value.is_empty() {
        return Err(Failure::new(Code::Usage, format!("{name} holds no profile")).into());
    }
    Ok(Read {
        file: PathBuf::from(name),
        vms: checked.value,
        notes: checked.notes,
        original: checked.original,
    })
}

/// A profile's file for a record. Standard input is no file, and keeps its name.
pub fn recorded(file: &Path) -> std::io::Result<PathBuf> {
    match file == Path::new(STDIN) {
        true => Ok(file.to_owned()),
        false => std::path::absolute(file),
    }
}

fn directory(path: &Path) -> Result<PathBuf> {
    let path = std::path::absolute(path)
        .with_context(|| format!("{} is not a file's path", path.display()))?;
    Ok(path.parent().unwrap_or(Path::new("/")).to_owned())
}

fn resolve(vm: &mut Vm, directory: &Path) {
    // Joining an absolute path gives that path.
    for disk in &mut vm.disks {
        disk.path = directory.join(&disk.path);
    }
    if let Boot::Kernel { kernel, initrd, .. } = &mut vm.boot {
        *kernel = directory.join(&kernel);
        if let Some(initrd) = initrd {
            *initrd = directory.join(&initrd);
        }
    }
}
