//! `image`: disk images, and the snapshots of VMs.

use super::show;
use crate::args::{Format, Image, Snapshot};
use crate::context::Context;
use crate::exit::{Code, Failure};
use anyhow::Result;
use api::{Name, Unit};
use profile::DiskFormat;
use serde_json::json;
use std::path::Path;
use terminal::progress::bytes;
use terminal::table::{Cell, Table};
use terminal::{consent, small_runtime};
use v3m_qemu::disk;

pub fn run(context: &Context, image: Image) -> Result<Code> {
    match image {
        Image::Create {
            file,
            size,
            format,
            backing,
            backing_format,
        } => {
            let told = told(&file, format)?;
            match (backing, size) {
                (Some(base), size) => {
                    if told != DiskFormat::Qcow2 {
                        let message = format!("{} stands on another image", file.display());
                        return Err(Failure::new(Code::Usage, message)
                            .hint("only a qcow2 image can do that: --format qcow2")
                            .into());
                    }
                    disk::overlay(&file, &base, self::told(&base, backing_format)?, size)?;
                }
                (None, Some(size)) => disk::create(&file, told, size)?,
                (None, None) => {
                    let message = format!("how large is {} to be?", file.display());
                    let hint = "v2m image create FILE SIZE";
                    return Err(Failure::new(Code::Usage, message).hint(hint).into());
                }
            }
            show(context, &file, told)
        }
        Image::Info { file, format } => {
            let told = told(&file, format)?;
            show(context, &file, told)
        }
        Image::Resize {
            file,
            size,
            format,
            shrink,
        } => {
            let told = told(&file, format)?;
            disk::resize(&file, told, size, shrink)?;
            show(context, &file, told)
        }
        Image::Check { file, format } => {
            disk::check(&file, told(&file, format)?)?;
            if context.json() {
                context.document(&json!({ "path": file, "clean": true }))?;
            }
            context.say(format!("{} is clean", file.display()));
            Ok(Code::Ok)
        }
        Image::Convert(args) | Image::Export(args) => {
            let (from, to) = (
                told(&args.from, args.from_format)?,
                told(&args.to, args.to_format)?,
            );
            long(context, "convert", &args.from, |far| {
                disk::convert(&args.from, from, &args.to, to, far)
            })?;
            show(context, &args.to, to)
        }
        Image::Import(args) => {
            let to = told(&args.to, args.to_format)?;
            let from = args.from_format.map(DiskFormat::from);
            let found = long(context, "import", &args.from, |far| {
                disk::import(&args.from, from, &args.to, to, far)
            })?;
            if from.is_none() {
                let word = word(found);
                context.say(format!("{} was read as {word}", args.from.display()));
            }
            show(context, &args.to, to)
        }
        Image::Snapshot(args) => snapshot(context, args),
    }
}

/// Something that takes as long as the image is large: it says how far it is, from 0 to 1.
fn long<T>(
    context: &Context,
    stage: &str,
    from: &Path,
    work: impl FnOnce(&mut dyn FnMut(f64)) -> disk::Result<T>,
) -> Result<T> {
    let shown = context.progress();
    // Of the file that is read; one that cannot be looked at is refused in a moment.
    let total = std::fs::metadata(from).map_or(0, |m| m.len());
    shown.progress.started(stage, Some(total), Unit::Bytes);
    let done = work(&mut |far| {
        let bytes = (total as f64 * far) as u64;
        shown.progress.advanced(stage, bytes, Some(total), "");
    });
    match &done {
        Ok(_) => shown.progress.done(stage, ""),
        Err(_) => shown.progress.failed(stage, ""),
    }
    shown.end();
    Ok(done?)
}

/// The format that was told, or that the file's name ends in. It is never guessed from what a guest may have written.
fn told(file: &Path, format: Option<Format>) -> Result<DiskFormat> {
    if let Some(format) = format {
        return Ok(format.into());
    }
    let ending = file.extension().map(|e| e.to_string_lossy().to_lowercase());
    Ok(match ending.as_deref() {
        Some("qcow2") => DiskFormat::Qcow2,
        Some("vmdk") => DiskFormat::Vmdk,
        Some("vdi") => DiskFormat::Vdi,
        Some("raw" | "img") => DiskFormat::Raw,
        _ => {
            let message = format!("the name of {} does not tell its format", file.display());
            let hint =
                "tell it with --format (convert, import, export: --from-format, --to-format)";
            return Err(Failure::new(Code::Usage, message).hint(hint).into());
        }
    })
}

fn word(format: DiskFormat) -> &'static str {
    match format {
        DiskFormat::Raw => "raw",
        DiskFormat::Qcow2 => "qcow2",
        DiskFormat::Vmdk => "vmdk",
        DiskFormat::Vdi => "vdi",
    }
}

fn show(context: &Context, file: &Path, format: DiskFormat) -> Result<Code> {
    let info = disk::info(file, format)?;
    context.result(&info, || {
        let mut table = Table::new(&["FIELD", "VALUE"]);
        let mut row = |key: &str, value: Cell| table.row(vec![Cell::from(key), value]);
        row("path", Cell::from(info.path.display()));
        row("format", Cell::from(word(info.format)));
        row("size", Cell::from(bytes(info.virtual_size)));
        row("takes", Cell::from(bytes(info.actual_size)));
        if let Some(backing) = &info.backing {
            row("stands on", Cell::from(backing.path.display()));
        }
        for snapshot in &info.snapshots {
            row("snapshot", Cell::from(&snapshot.name));
        }
        table
    })?;
    Ok(Code::Ok)
}

/// Of a VM by the driver, running or not; of a file by itself.
fn snapshot(context: &Context, what: Snapshot) -> Result<Code> {
    let vms = context.vms();
    let subject = match &what {
        Snapshot::Create { of, .. }
        | Snapshot::List { of }
        | Snapshot::Apply { of, .. }
        | Snapshot::Delete { of, .. } => of.clone(),
    };
    if let Snapshot::Apply {
        name, yes: false, ..
    } = &what
    {
        let question =
            format!("{subject} goes back to {name}: what was written since is lost. Go on?");
        consent(&question, "--yes")?;
    }
    let file = Path::new(&subject);
    let vm = Name::new(&subject).ok().filter(|name| vms.is_there(name));
    let Some(name) = vm else {
        if !file.exists() {
            return Err(match Name::new(&subject) {
                Ok(name) => v3m::Error::NoSuchVm(name).into(),
                Err(_) => {
                    let message = format!("there is no image {subject}");
                    Failure::new(Code::NotFound, message).into()
                }
            });
        }
        match what {
            Snapshot::Create { name, .. } => disk::snapshot_create(file, name.as_str())?,
            Snapshot::Apply { name, .. } => disk::snapshot_apply(file, &name)?,
            Snapshot::Delete { name, .. } => disk::snapshot_delete(file, &name)?,
            Snapshot::List { .. } => {}
        }
        let list = disk::snapshot_list(file)?;
        let list: Vec<_> = list
            .into_iter()
            .map(|s| (s.name, s.created, s.memory > 0))
            .collect();
        return shown(context, &list);
    };
    let record = vms.record(&show::name(&vms, name.as_str())?)?;
    let runtime = small_runtime()?;
    let driver = runtime.block_on(vms.defined(&record))?;
    let Some(can) = driver.snapshots() else {
        let message = format!("VMs of type {} have no snapshots", record.vm.backend);
        return Err(Failure::new(Code::Failed, message).into());
    };
    let list = runtime.block_on(async {
        match &what {
            Snapshot::Create { name: s, .. } => can.create(&name, s).await?,
            Snapshot::Apply { name: s, .. } => can.apply(&name, &ours(s)?).await?,
            Snapshot::Delete { name: s, .. } => can.delete(&name, &ours(s)?).await?,
            Snapshot::List { .. } => {}
        }
        anyhow::Ok(can.list(&name).await?)
    })?;
    let list: Vec<_> = list
        .into_iter()
        .map(|s| (s.name, s.created, s.memory))
        .collect();
    shown(context, &list)
}

/// The name of a snapshot of a VM's. Others are of its disks: another program made them.
fn ours(text: &str) -> Result<Name> {
    Name::new(text).map_err(|why| {
        let message = format!("a VM has no snapshot {text:?}: {why}");
        Failure::new(Code::Usage, message)
            .hint("one that another program made is a disk's: stop the VM, and name its disk")
            .into()
    })
}

/// Name, seconds since 1970, and whether it has a guest's memory.
fn shown(context: &Context, list: &[(String, u64, bool)]) -> Result<Code> {
    let document: Vec<_> = list
        .iter()
        .map(
            |(name, created, memory)| json!({ "name": name, "created": created, "memory": memory }),
        )
        .collect();
    context.result(&json!({ "snapshots": document }), || {
        let mut table = Table::new(&["SNAPSHOT", "CREATED", "WITH MEMORY"]);
        for (name, created, memory) in list {
            let memory = if *memory { "yes" } else { "no" };
            let row = [name.as_str(), &date(*created), memory];
            table.row(row.map(Cell::from).into());
        }
        table
    })?;
    Ok(Code::Ok)
}

/// A moment, as `2026-11-23 09:28:36 UTC`. Days to dates: H. Hinnant, chrono-compatible low-level date algorithms.
fn date(seconds: u64) -> String {
    let (days, second) = (seconds / 86_400 + 719_468, seconds % 86_400);
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

#[cfg(test)]
mod tests {
    #[test]
    fn dates() {
        for (seconds, text) in [
            (0, "1970-01-01 00:00:00 UTC"),
            (951_782_399, "2000-02-28 23:59:59 UTC"),
            (951_782_400, "2000-02-29 00:00:00 UTC"),
            (1_795_426_116, "2026-11-23 09:28:36 UTC"),
        ] {
            assert_eq!(super::date(seconds), text);
        }
    }
}
