use crate::args::FileArg;
use crate::context::{Context, print, read_file};
use crate::exit::Code;
use anyhow::Result;
use serde_json::json;

pub fn run(context: &Context, args: &FileArg) -> Result<Code> {
    let (bytes, name) = read_file(&args.file)?;
    match profile::cluster_bytes(&bytes, &name) {
        Ok(checked) if context.json() => {
            context.document(
                &json!({ "valid": true, "cluster": checked.value, "notes": checked.notes }),
            )?;
        }
        Ok(checked) => {
            for note in &checked.notes {
                context.say(format!("note: {note}"));
            }
            let nodes = super::status::count(checked.value.nodes().count(), "node");
            print(format!(
                "{name}: cluster {}, {nodes}: no errors\n",
                checked.value.name
            ))?;
        }
        Err(errors) if context.json() => {
            context.document(&json!({ "valid": false, "problems": errors }))?;
            return Ok(Code::Usage);
        }
        Err(errors) => return Err(errors.into()),
    }
    Ok(Code::Ok)
}
