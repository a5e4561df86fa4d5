//! `create` and `destroy`.

use super::{power, show};
use crate::args::{Create, Destroy, Many, Start};
use crate::context::Context;
use crate::exit::Code;
use crate::source;
use crate::vms::Created;
use anyhow::Result;
use serde_json::json;
use std::path::PathBuf;
use terminal::{consent, runtime, small_runtime};

pub fn create(context: &Context, args: &Create) -> Result<Code> {
    let vms = context.vms();
    // All are read before the first is made.
    let mut read = Vec::new();
    for file in &args.files {
        let checked = source::read_all(file)?;
        context.notes(&checked.notes);
        read.extend(checked.value.into_iter().map(|vm| (file, vm)));
    }
    let runtime = small_runtime()?;
    let mut names = Vec::new();
    for (file, vm) in read {
        let name = vm.name.clone();
        let created = runtime.block_on(vms.create(vm, file, false, args.replace))?;
        if !args.start {
            context.say(match created {
                Created::New => format!("{name} is defined; start it with: v2m start {name}"),
                Created::Replaced => format!("{name} is defined anew"),
                Created::Already => format!("{name} is there already, and the same"),
            });
        }
        names.push(name.to_string());
    }
    if args.start {
        let start = Start {
            vms: Many { vms: names },
            wait_ready: None,
            time_limit: std::time::Duration::ZERO,
        };
        return power::start(context, &start);
    }
    if context.json() {
        let records = names.iter().map(|name| show::name(&vms, name));
        let records = records
            .map(|name| vms.record(&name?))
            .collect::<Result<Vec<_>>>()?;
        let mut all = Vec::new();
        for record in &records {
            all.push(runtime.block_on(vms.status(record))?);
        }
        let shown = records.iter().zip(&all).map(|(r, s)| show::shown(r, s));
        context.document(&json!({ "vms": shown.collect::<Vec<_>>() }))?;
    }
    Ok(Code::Ok)
}

pub fn destroy(context: &Context, args: &Destroy) -> Result<Code> {
    let vms = context.vms();
    let mut records = Vec::new();
    for text in &args.vms.vms {
        records.push(vms.record(&show::name(&vms, text)?)?);
    }
    records.sort_by(|a, b| a.vm.name.cmp(&b.vm.name));
    records.dedup_by(|a, b| a.vm.name == b.vm.name);
    let names: Vec<_> = records.iter().map(|r| r.vm.name.to_string()).collect();
    let disks: Vec<PathBuf> = match args.disks {
        true => records.iter().flat_map(|r| r.made.clone()).collect(),
        false => Vec::new(),
    };
    let shown: Vec<_> = disks.iter().map(|d| d.display().to_string()).collect();
    if args.dry_run {
        context.say(format!("would remove: {}", names.join(", ")));
        if !shown.is_empty() {
            context.say(format!("with these disks: {}", shown.join(", ")));
        }
    } else {
        if !args.yes {
            let with = match shown.as_slice() {
                [] => String::new(),
                disks => format!(" with {}", disks.join(", ")),
            };
            consent(
                &format!("{} will be removed{with}. Go on?", names.join(", ")),
                "--yes",
            )?;
        }
        let runtime = runtime()?;
        for record in &records {
            runtime.block_on(vms.destroy(record, args.disks))?;
            context.say(format!("{} is removed", record.vm.name));
        }
    }
    if context.json() {
        let document = json!({ "removed": names, "disks": disks, "dry_run": args.dry_run });
        context.document(&document)?;
    }
    Ok(Code::Ok)
}
