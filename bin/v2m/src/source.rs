//! Profiles as files: read, and their paths made absolute. A path in a profile is relative to the profile's file.

use crate::exit::{Code, Failure};
use anyhow::{Context as _, Result};
use api::Name;
use profile::{Boot, Checked, Vm};
use std::path::{Path, PathBuf};

/// What a person named: a VM that was created, or a profile.
pub enum Target {
    Vm(Name),
    Profile(PathBuf),
}

/// A VM that is there goes first; what has a `/` or a `.`, or is a file, is a profile.
pub fn target(text: &str, is_there: impl Fn(&Name) -> bool) -> Result<Target> {
    let name = Name::new(text);
    match name {
        Ok(name) if is_there(&name) => Ok(Target::Vm(name)),
        Ok(name) if !Path::new(text).is_file() => Ok(Target::Vm(name)),
        Err(why) if !text.contains(['/', '.']) && text != "-" && !Path::new(text).is_file() => Err(
            Failure::new(Code::Usage, format!("{text:?} names no VM: {why}"))
                .hint("a profile is named by its path: ./FILE")
                .into(),
        ),
        _ => Ok(Target::Profile(PathBuf::from(text))),
    }
}

/// The one profile in a file, as it stands there.
pub fn as_written(path: &Path) -> Result<Checked<Vm>> {
    let (bytes, name) = terminal::file::read(path)?;
    Ok(profile::vm_bytes(&bytes, &name)?)
}

/// The one profile in a file, ready for a driver.
pub fn read(path: &Path) -> Result<Vm> {
    let mut vm = as_written(path)?.value;
    resolve(&mut vm, &directory(path)?);
    Ok(vm)
}

/// All profiles in a file, ready for a driver: libv3m's `<profiles>` may hold many.
pub fn read_all(path: &Path) -> Result<Checked<Vec<Vm>>> {
    let (bytes, name) = terminal::file::read(path)?;
    let mut checked = profile::vms_bytes(&bytes, &name)?;
    if checked.value.is_empty() {
        return Err(Failure::new(Code::Usage, format!("{name} holds no profile")).into());
    }
    let directory = directory(path)?;
    for vm in &mut checked.value {
        resolve(vm, &directory);
    }
    Ok(checked)
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
