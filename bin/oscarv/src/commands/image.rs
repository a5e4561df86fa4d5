//! `image`: build and look after images.

use crate::args::Image as Args;
use crate::context::{Context, read_cluster};
use crate::engine;
use crate::exit::{Code, Failure};
use crate::progress;
use crate::table::{Cell, Table, number};
use anyhow::Result;
use image::{BuildOptions, Image, Removed};
use serde_json::{Value, json};

pub fn run(context: &Context, args: &Args) -> Result<Code> {
    let head = context.head()?;
    let images = head.images();
    match args {
        Args::Build { file, tag, force } => {
            let cluster = read_cluster(context, &file.file)?;
            let (opkgs, notes) = head.opkgs(&cluster.image.opkgs)?;
            for note in notes {
                context.say(format!("note: {note}"));
            }
            let shown = context.progress();
            let options = BuildOptions {
                tag: tag.clone(),
                force: *force,
            };
            let image = images.build(&cluster.image, &opkgs, options, &shown.progress)?;
            shown.end();
            context.result(&document(&image), || table(std::slice::from_ref(&image)))?;
        }
        Args::List => {
            let all = images.list()?;
            if all.is_empty() && !context.json() {
                context.say("there is no image; make one with: oscarv image build FILE");
                return Ok(Code::Ok);
            }
            let documents: Vec<_> = all.iter().map(document).collect();
            context.result(&json!({ "images": documents }), || table(&all))?;
        }
        Args::Show { image } => {
            let image = images.show(image)?;
            context.result(&full(&image), || details(&image))?;
        }
        Args::Remove { image, dry_run } => {
            let shown = context.progress();
            let removal = images.removal(&shown.progress)?;
            let found = images.show(image)?;
            let users = engine::users_of(&head, &found)?;
            if !users.is_empty() {
                return Err(Failure::new(
                    Code::Failed,
                    format!("image {} is used by {}", short(&found.id), users.join(", ")),
                )
                .hint(format!("take it down first: oscarv down {}", users[0]))
                .into());
            }
            let removed = removal.remove(&found.id, *dry_run)?;
            shown.end();
            told(context, &removed, *dry_run)?;
        }
        Args::Prune { dry_run } => {
            let shown = context.progress();
            let removal = images.removal(&shown.progress)?;
            let used = engine::used_images(&head)?;
            let removed = removal.prune(|image| engine::is_used(image, &used), *dry_run)?;
            shown.end();
            told(context, &removed, *dry_run)?;
        }
    }
    Ok(Code::Ok)
}

fn told(context: &Context, removed: &Removed, dry_run: bool) -> Result<()> {
    if context.json() {
        return context.document(&json!({
            "removed": removed.paths,
            "bytes": removed.bytes,
            "dry_run": dry_run,
        }));
    }
    let word = if dry_run {
        "would be removed"
    } else {
        "removed"
    };
    for path in &removed.paths {
        crate::context::print(format!("{}\n", path.display()))?;
    }
    context.say(format!(
        "{} {word}: {}",
        super::status::count(removed.paths.len(), "path"),
        progress::bytes(removed.bytes)
    ));
    Ok(())
}

fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

fn recipe(image: &Image) -> String {
    let recipe = &image.manifest.recipe;
    format!("{} {}", recipe.distribution, recipe.release)
}

fn opkgs(image: &Image) -> String {
    let names: Vec<_> = image
        .manifest
        .opkgs
        .iter()
        .map(|o| o.name.as_str())
        .collect();
    names.join(" ")
}

fn table(images: &[Image]) -> Table {
    let mut table = Table::new(&["IMAGE", "TAGS", "SYSTEM", "OPKGS", "PACKAGES", "SIZE"]);
    for image in images {
        table.row(vec![
            Cell::from(short(&image.id)),
            Cell::from(image.tags.join(" ")),
            Cell::from(recipe(image)),
            Cell::from(opkgs(image)),
            number(image.manifest.packages.len()),
            number(progress::bytes(on_disk(image))),
        ]);
    }
    table
}

/// Blocks in use: the disk is sparse.
fn on_disk(image: &Image) -> u64 {
    use std::os::unix::fs::MetadataExt;
    [&image.disk, &image.kernel, &image.initrd]
        .iter()
        .filter_map(|path| path.metadata().ok())
        .map(|m| m.blocks() * 512)
        .sum()
}

fn document(image: &Image) -> Value {
    json!({
        "id": image.id,
        "key": image.key.as_str(),
        "digest": image.digest,
        "tags": image.tags,
        "directory": image.directory,
        "bytes": on_disk(image),
        "recipe": image.manifest.recipe,
    })
}

fn full(image: &Image) -> Value {
    let mut value = document(image);
    if let (Value::Object(fields), Ok(manifest)) =
        (&mut value, serde_json::to_value(&image.manifest))
    {
        fields.insert("manifest".to_owned(), manifest);
    }
    value
}

fn details(image: &Image) -> Table {
    let mut table = Table::new(&["", ""]);
    let mut line = |key: &str, value: String| table.row(vec![Cell::from(key), Cell::from(value)]);
    line("id", image.id.clone());
    line("key", image.key.as_str().to_owned());
    line("root file system", image.digest.clone());
    line("tags", image.tags.join(" "));
    line("system", recipe(image));
    line("opkgs", opkgs(image));
    line("directory", image.directory.display().to_string());
    line("on disk", progress::bytes(on_disk(image)));
    for package in &image.manifest.packages {
        line("package", format!("{} {}", package.name, package.version));
    }
    table
}
