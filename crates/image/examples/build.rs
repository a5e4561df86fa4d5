//! Builds an image and says where it is:
//! `cargo run -p oscarv-image --example build -- STATE RELEASE [--packages a,b] [--kernel K] [--mirror M] [--opkgs DIR name,name] [--force]`

use api::{Event, Name, Progress};
use image::{BuildOptions, Images};
use opkg::Repository;
use profile::Recipe;
use std::path::{Path, PathBuf};
use std::time::Instant;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut next = |what: &str| arguments.next().ok_or(format!("{what} is missing"));
    let state = PathBuf::from(next("STATE")?);
    let mut recipe = Recipe {
        distribution: "debian".to_owned(),
        release: next("RELEASE")?,
        packages: Vec::new(),
        opkgs: Vec::new(),
        kernel: None,
        mirror: None,
    };
    let mut options = BuildOptions::default();
    let mut directories = Vec::new();
    while let Ok(option) = next("option") {
        match option.as_str() {
            "--packages" => recipe.packages = next("list")?.split(',').map(str::to_owned).collect(),
            "--kernel" => recipe.kernel = Some(next("kernel")?),
            "--mirror" => recipe.mirror = Some(next("mirror")?),
            "--force" => options.force = true,
            "--opkgs" => {
                directories.push(PathBuf::from(next("directory")?));
                let names = next("names")?;
                recipe.opkgs = names.split(',').map(Name::new).collect::<Result<_, _>>()?;
            }
            other => return Err(format!("unknown option {other}").into()),
        }
    }
    let images = Images::open(&state)?;
    directories.push(opkg::unpack_shipped(&state.join("packages"))?);
    let opkgs = Repository::open(&directories)?.resolve(&recipe.opkgs)?;
    let start = Instant::now();
    let progress = Progress::new(move |event| {
        let seconds = start.elapsed().as_secs_f32();
        match event {
            Event::Advanced { .. } => {}
            event => println!("{seconds:7.2} {event:?}"),
        }
    });
    let image = images.build(&recipe, &opkgs, options, &progress);
    let image = image.map_err(|e| e.to_string())?;
    println!("{:7.2} done", start.elapsed().as_secs_f32());
    for path in [
        &image.disk,
        &image.kernel,
        &image.initrd,
        Path::new(&image.digest),
    ] {
        println!("{}", path.display());
    }
    Ok(())
}
