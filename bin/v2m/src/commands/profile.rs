//! `validate` and `convert`: profiles, without anything being made of them.

use crate::args::To;
use crate::context::Context;
use crate::exit::{Code, Failure};
use crate::source;
use anyhow::Result;
use api::Name;
use profile::{Note, Vm};
use serde_json::json;
use std::path::Path;
use terminal::print;

pub fn validate(context: &Context, file: &Path) -> Result<Code> {
    let (bytes, name) = terminal::file::read(file)?;
    if context.json()
        && let Err(errors) = profile::vms_bytes(&bytes, &name)
    {
        context.document(&json!({ "valid": false, "problems": errors }))?;
        return Ok(Code::Usage);
    }
    let mut read = source::of_bytes(&bytes, &name)?;
    let several = read.vms.len() > 1;
    let unchecked = read.vms.iter().filter(|vm| !vm.extra.is_empty());
    let unchecked: Vec<Note> = unchecked.map(|vm| unsafe_note(vm, several)).collect();
    read.notes.extend(unchecked);
    if context.json() {
        let document = json!({ "valid": true, "vms": read.vms, "notes": read.notes });
        context.document(&document)?;
        return Ok(Code::Ok);
    }
    for note in &read.notes {
        context.say(format!("note: {note}"));
    }
    let names = read.vms.iter().map(|vm| vm.name.as_str());
    let names = names.collect::<Vec<_>>().join(", ");
    print(format!("{name}: {names}: no errors\n"))?;
    Ok(Code::Ok)
}

/// Arguments for the hypervisor are its own language: they may name any file, and undo what keeps a guest in.
fn unsafe_note(vm: &Vm, several: bool) -> Note {
    let prefix = match several {
        true => format!("{}.", vm.name),
        false => String::new(),
    };
    Note {
        key: format!("{prefix}extra"),
        value: vm.extra.join(" "),
        reason: "unsafe: given to the hypervisor as it stands, not checked".to_owned(),
    }
}

/// The file's VM, or the one of this name, or its cluster, in another form.
pub fn convert(file: &Path, to: To, only: Option<&Name>) -> Result<Code> {
    let (bytes, name) = terminal::file::read(file)?;
    let errors = match profile::vms_bytes(&bytes, &name) {
        Ok(mut checked) => {
            if let Some(only) = only {
                let there: Vec<_> = checked.value.iter().map(|vm| vm.name.clone()).collect();
                if !there.is_empty() && !there.contains(only) {
                    let names: Vec<_> = there.iter().map(Name::as_str).collect();
                    let message = format!("{name} holds no profile {only}");
                    let failure = Failure::new(Code::Usage, message);
                    return Err(failure
                        .hint(format!("it holds {}", names.join(", ")))
                        .into());
                }
                checked.value.retain(|vm| *only == vm.name);
            }
            return vm(&checked.value, &name, to);
        }
        Err(errors) => errors,
    };
    let Ok(cluster) = profile::cluster_bytes(&bytes, &name) else {
        return Err(errors.into());
    };
    print(match to {
        To::Toml => profile::to_toml(&cluster.value),
        To::Xml => profile::cluster_to_xml(&cluster.value),
    })?;
    Ok(Code::Ok)
}

fn vm(vms: &[Vm], name: &str, to: To) -> Result<Code> {
    let [vm] = vms else {
        let message = match vms {
            [] => format!("{name} holds no profile"),
            several => format!(
                "{name} has {} profiles, and a file of today's has one",
                several.len()
            ),
        };
        let names: Vec<_> = vms.iter().map(|vm| vm.name.as_str()).collect();
        let failure = Failure::new(Code::Usage, message);
        return Err(match names.is_empty() {
            true => failure,
            false => failure.hint(format!("say which: --vm NAME, of {}", names.join(", "))),
        }
        .into());
    };
    print(match to {
        To::Toml => profile::vm_to_toml(vm)?,
        To::Xml => profile::vm_to_xml(vm)?,
    })?;
    Ok(Code::Ok)
}
