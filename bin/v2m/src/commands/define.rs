//! `create` and `destroy`.

use super::many::{Found, ended};
use super::{power, show};
use crate::args::{Create, Destroy};
use crate::context::Context;
use crate::exit::Code;
use crate::record::Record;
use crate::source;
use crate::vms::Created;
use anyhow::Result;
use serde_json::json;
use std::path::PathBuf;
use terminal::{consent, small_runtime};

pub fn create(context: &Context, args: &Create) -> Result<Code> {
    let vms = context.vms();
    let runtime = small_runtime()?;
    let mut found = Found::default();
    // All are read before the first is made.
    let mut profiles = Vec::new();
    for file in &args.files {
        match source::read_all(file) {
            Ok(read) => profiles.push(read),
            Err(error) => found.failures.push(error),
        }
    }
    ended(context, std::mem::take(&mut found.failures))?;
    for read in profiles {
        context.filled_in(&read);
        for vm in read.vms {
            let name = vm.name.clone();
            let created = runtime.block_on(vms.create(vm, &read.file, false, args.replace));
            if let (Ok(created), false) = (&created, args.start) {
                context.say(match created {
                    Created::New => format!("{name} is defined; start it with: v2m start {name}"),
                    Created::Replaced => format!("{name} is defined anew"),
                    Created::Already => format!("{name} is there already, and the same"),
                });
            }
            found.add(created.and_then(|_| vms.record(&name)));
        }
    }
    if args.start {
        return power::start_all(context, found, None, std::time::Duration::ZERO);
    }
    if context.json() {
        let mut all = Vec::new();
        for record in &found.records {
            all.push(runtime.block_on(vms.status(record))?);
        }
        let shown = found.records.iter().zip(&all);
        let shown = shown.map(|(r, s)| show::shown(r, s));
        context.document(&json!({ "vms": shown.collect::<Vec<_>>() }))?;
    }
    ended(context, found.failures)
}

pub fn destroy(context: &Context, args: &Destroy) -> Result<Code> {
    let vms = context.vms();
    let Found {
        mut records,
        mut failures,
    } = Found::named(context, &args.vms.vms)?;
    records.sort_by(|a, b| a.vm.name.cmp(&b.vm.name));
    let named = |records: &[Record]| -> Vec<String> {
        let names = records.iter().map(|r| r.vm.name.to_string());
        names.collect()
    };
    // What no others but these have may go with them.
    let mut with: Vec<_> = records.iter().map(|r| r.vm.name.clone()).collect();
    let names = named(&records).join(", ");
    let mut disks: Vec<PathBuf> = Vec::new();
    for record in records.iter().filter(|_| args.disks) {
        let (going, staying) = vms.going(record, &with)?;
        disks.extend(going);
        staying.iter().for_each(|word| context.say(word));
    }
    let shown: Vec<_> = disks.iter().map(|d| d.display().to_string()).collect();
    if args.dry_run {
        context.say(format!("would remove: {names}"));
        if !shown.is_empty() {
            context.say(format!("with these disks: {}", shown.join(", ")));
        }
    } else {
        if !args.yes {
            let with = match shown.as_slice() {
                [] => String::new(),
                disks => format!(" with {}", disks.join(", ")),
            };
            consent(&format!("{names} will be removed{with}. Go on?"), "--yes")?;
        }
        let runtime = small_runtime()?;
        disks.clear();
        // Whose disks others have goes last: one of these that cannot be removed keeps them.
        records.sort_by_key(|record| !record.made.is_empty());
        records.retain(|record| {
            let disks_too = args.disks.then_some(with.as_slice());
            match runtime.block_on(vms.destroy(record, disks_too)) {
                Ok(gone) => {
                    context.say(format!("{} is removed", record.vm.name));
                    disks.extend(gone);
                    true
                }
                Err(error) => {
                    with.retain(|name| *name != record.vm.name);
                    failures.push(error);
                    false
                }
            }
        });
        records.sort_by(|a, b| a.vm.name.cmp(&b.vm.name));
    }
    if context.json() {
        let removed = named(&records);
        let document = json!({ "removed": removed, "disks": disks, "dry_run": args.dry_run });
        context.document(&document)?;
    }
    ended(context, failures)
}
