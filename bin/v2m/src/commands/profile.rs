//! `validate` and `convert`: profiles, without anything being made of them.

use crate::args::To;
use crate::context::Context;
use crate::exit::Code;
use crate::source;
use anyhow::Result;
use serde_json::json;
use std::path::Path;
use terminal::print;

pub fn validate(context: &Context, file: &Path) -> Result<Code> {
    let (bytes, name) = terminal::file::read(file)?;
    match profile::vms_bytes(&bytes, &name) {
        Ok(checked) if context.json() => {
            let document = json!({ "valid": true, "vms": checked.value, "notes": checked.notes });
            context.document(&document)?;
        }
        Ok(checked) => {
            for note in &checked.notes {
                context.say(format!("note: {note}"));
            }
            let names = checked.value.iter().map(|vm| vm.name.as_str());
            let names = names.collect::<Vec<_>>().join(", ");
            print(format!("{name}: {names}: no errors\n"))?;
        }
        Err(errors) if context.json() => {
            context.document(&json!({ "valid": false, "problems": errors }))?;
            return Ok(Code::Usage);
        }
        Err(errors) => return Err(errors.into()),
    }
    Ok(Code::Ok)
}

pub fn convert(file: &Path, to: To) -> Result<Code> {
    let vm = source::as_written(file)?.value;
    print(match to {
        To::Toml => profile::vm_to_toml(&vm)?,
        To::Xml => profile::vm_to_xml(&vm)?,
    })?;
    Ok(Code::Ok)
}
