//! One build, from the lock to the finished image.

use crate::apt;
use crate::catalogue::{Image, Images, on_disk, open_up};
use crate::digest::{self, Fields};
use crate::key::{Key, architecture};
use crate::layers::{self, Listing};
use crate::lock::Lock;
use crate::manifest::{self, Difference, Manifest, OpkgEntry};
use crate::sandbox::Sandbox;
use crate::steps::Step;
use crate::{Error, Result, check, disk, initrd, kernel};
use api::{Progress, Unit};
use opkg::Opkg;
use profile::Recipe;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::{SystemTime, UNIX_EPOCH};

#[derive(Clone, Debug, Default)]
pub struct BuildOptions {
    /// A name for the image.
    pub tag: Option<String>,
    /// Build anew, layers and all, even if it is there.
    pub force: bool,
}

/// What the steps of a build share.
pub(crate) struct Job<'a> {
    pub state: &'a Path,
    pub recipe: &'a Recipe,
    pub progress: &'a Progress,
    pub sandbox: &'a Sandbox,
    /// The tree.
    pub root: &'a Path,
    /// Room for half-made things, in `<state>/tmp`.
    pub work: &'a Path,
    /// Downloads: `archives` and `lists`.
    pub cache: PathBuf,
    pub epoch: u64,
    /// Are the package lists fresh?
    pub updated: Cell<bool>,
    /// What is known of the space that the whole build takes, in MiB.
    pub needed: Cell<u64>,
}

impl Job<'_> {
    /// More packages of so many MiB: once in the tree, once as a layer, once in the disk.
    pub fn needs(&self, mib: u64) {
        self.needed.set(self.needed.get() + 3 * mib);
    }
}

/// The time that everything gets which the build makes: of the distribution's release, so that it is after nothing that
/// packages brought and the same on every day.
fn epoch(recipe: &Recipe) -> u64 {
    match recipe.release.as_str() {
        "bullseye" => 1_628_899_200,
        "trixie" => 1_754_697_600,
        _ => 1_686_355_200,
    }
}

pub(crate) fn build(
    images: &Images,
    recipe: &Recipe,
    opkgs: &[Opkg],
    key: &Key,
    force: bool,
    progress: &Progress,
) -> Result<Image> {
    if recipe.distribution != "debian" {
        return Err(Error::Distribution {
            distribution: recipe.distribution.clone(),
        });
    }
    let unfit = check();
    if !unfit.is_empty() {
        let lines = unfit
            .into_iter()
            .map(|f| format!("  {}\n  hint: {}", f.what, f.remedy));
        return Err(Error::Unfit(lines.collect()));
    }
    let waited = Cell::new(false);
    let listener = progress.clone();
    let lock = Lock::take(&images.dir.join("build.lock"), || {
        waited.set(true);
        listener.note("another build is at work in this state directory: waiting for it to end");
    })?;
    // Somebody else may have made it while we waited.
    if let Some(image) = images.find(key)?
        && (!force || waited.get())
    {
        return Ok(image);
    }
    let log = images
        .dir
        .join("logs")
        .join(format!("image-{}.log", &key.as_str()[..16]));
    let _ = fs::remove_file(&log);
    let tmp = images.dir.join("tmp");
    let epoch = epoch(recipe);
    let sandbox = Sandbox::new(lock.fd(), log.clone(), &tmp, epoch);
    sweep(&sandbox, &tmp, progress)?;
    let work = Work::new(&sandbox, &tmp)?;
    let job = Job {
        state: &images.dir,
        recipe,
        progress,
        sandbox: &sandbox,
        root: &work.root,
        work: &work.path,
        cache: images.dir.join("cache/apt"),
        epoch,
        updated: Cell::new(false),
        needed: Cell::new(0),
    };
    let result = make(images, &job, opkgs, key, force).map_err(|error| full_disk(&job, error));
    if result.is_ok() {
        // What programs said on the way to a good image is of no use to anybody.
        let _ = fs::remove_file(&log);
    }
    result
}

/// Our own writes find a full disk, too.
fn full_disk(job: &Job<'_>, error: Error) -> Error {
    match &error {
        Error::Io { source, .. } if source.raw_os_error() == Some(libc::ENOSPC) => {
            apt::full_error(job.state, job.needed.get())
        }
        _ => error,
    }
}

fn make(images: &Images, job: &Job<'_>, opkgs: &[Opkg], key: &Key, force: bool) -> Result<Image> {
    let (bootstrap, full) = apt::settings();
    for (name, text) in [("mmdebstrap.conf", bootstrap), ("apt.conf", full)] {
        let path = job.work.join(name);
        fs::write(&path, text).map_err(Error::io(&path))?;
    }
    let steps = Step::all(job.recipe, opkgs);
    let mut syncing = Vec::new();
    let made = tree(job, &steps, force, &mut syncing)
        .and_then(|tree| finish(job, opkgs, key, &tree, &mut syncing));
    // Also after a failure: layers that are good are kept.
    let synced: Result<()> = syncing.into_iter().try_for_each(|thread| {
        let died = |_| {
            Err(Error::io(job.work)(std::io::Error::other(
                "a thread of the build died",
            )))
        };
        thread.join().unwrap_or_else(died)
    });
    let (staged, mut manifest) = made?;
    synced?;
    let before = images.find(key)?;
    if let Some(before) = before.filter(|b| b.id != manifest.id) {
        manifest.differs = Some(difference(job, &before, &manifest)?);
        job.progress.note(format!(
            "the same inputs gave another image than before ({})",
            &before.id[..12]
        ));
    }
    let path = staged.join("manifest.json");
    let text = serde_json::to_vec_pretty(&manifest).map_err(|e| Error::io(&path)(e.into()))?;
    fs::write(&path, text).map_err(Error::io(&path))?;
    open_up(&path, 0o644)?;
    let place = images.dir.join("images").join(&manifest.id);
    if !place.is_dir() {
        for name in ["kernel", "initrd", "manifest.json"] {
            let path = staged.join(name);
            fs::File::open(&path)
                .and_then(|f| f.sync_all())
                .map_err(Error::io(path))?;
        }
        fs::rename(&staged, &place).map_err(Error::io(&place))?;
    }
    images.link("keys", key.as_str(), &manifest.id)?;
    images.load(&manifest.id, Some(key))
}

/// Files on their way to the disk for good.
type Syncing = Vec<JoinHandle<Result<()>>>;

/// What the steps made.
struct Tree {
    listing: Listing,
    layers: Vec<String>,
}

/// Takes the layers that are there and makes the others.
fn tree(job: &Job<'_>, steps: &[Step], force: bool, syncing: &mut Syncing) -> Result<Tree> {
    let mut below = String::new();
    let mut layers = Vec::new();
    let mut listing = None;
    for step in steps {
        let digest = step.digest(job.recipe, &below);
        let layer = layers::place(job.state, &digest);
        let stage = step.name();
        let stamp = if !force && listing.is_none() && layer.is_file() {
            job.progress.started(&stage, None, Unit::Items);
            layers::apply(job.sandbox, &layer, job.root)?;
            let size = fs::metadata(&layer).map_or(0, |m| m.len() >> 20);
            job.needed.set(job.needed.get() + 2 * size);
            job.progress.done(&stage, "from the cache");
            layers::stamp(&layer)?
        } else {
            let before = match listing.take() {
                Some(before) => before,
                None if layers.is_empty() => Listing::default(),
                None => Listing::read(job.sandbox, job.root)?,
            };
            let (after, stamp, thread) = run(job, step, &before, &layer)
                .inspect_err(|_| job.progress.failed(&stage, "failed"))?;
            syncing.push(thread);
            let message = format!(
                "{} files, {} MiB in all",
                after.files(),
                after.bytes() >> 20
            );
            job.progress.done(&stage, message);
            listing = Some(after);
            stamp
        };
        below = format!("{digest} {stamp}");
        layers.push(digest);
    }
    let listing = match listing {
        Some(listing) => listing,
        None => Listing::read(job.sandbox, job.root)?,
    };
    Ok(Tree { listing, layers })
}

/// One step, cleaned up after and kept as a layer.
fn run(
    job: &Job<'_>,
    step: &Step,
    before: &Listing,
    layer: &Path,
) -> Result<(Listing, String, JoinHandle<Result<()>>)> {
    let started = now();
    step.run(job)?;
    let arguments = [
        job.root.as_os_str().to_owned(),
        job.epoch.to_string().into(),
        started.to_string().into(),
    ];
    job.sandbox
        .script("clean", &arguments, |_| {})?
        .map_err(|f| {
            job.sandbox
                .step("cleaning the tree", &f.status, f.lines.join("\n"))
        })?;
    let after = Listing::read(job.sandbox, job.root)?;
    let (stamp, thread) = layers::save(job.sandbox, job.root, (before, &after), job.work, layer)?;
    Ok((after, stamp, thread))
}

/// Digest, kernel, initrd and disk of the tree, in a directory of their own.
fn finish(
    job: &Job<'_>,
    opkgs: &[Opkg],
    key: &Key,
    tree: &Tree,
    syncing: &mut Syncing,
) -> Result<(PathBuf, Manifest)> {
    let staged = job.work.join("image");
    fs::create_dir(&staged).map_err(Error::io(&staged))?;
    open_up(&staged, 0o755)?;

    let content = tree.listing.bytes();
    job.progress.started("digest", Some(content), Unit::Bytes);
    let rootfs = layers::digest(job.sandbox, job.root, |done| {
        job.progress
            .advanced("digest", done.min(content), Some(content), "");
    })?;
    job.progress.done("digest", rootfs[..16].to_owned());

    job.progress.started("disk", None, Unit::Items);
    let kernel = kernel::find(job.root)?;
    let (initrd, modules) = initrd::make(job.root, &kernel.release)?;
    let (kernel_path, initrd_path, disk_path) = (
        staged.join("kernel"),
        staged.join("initrd"),
        staged.join("disk.raw"),
    );
    fs::write(&kernel_path, &kernel.bytes).map_err(Error::io(&kernel_path))?;
    fs::write(&initrd_path, &initrd).map_err(Error::io(&initrd_path))?;
    let disk_size = disk::size(tree.listing.files(), content);
    disk::make(job.sandbox, job.root, &disk_path, disk_size, job.state)?;
    let path = disk_path.clone();
    syncing.push(std::thread::spawn(move || {
        fs::File::open(&path)
            .and_then(|f| f.sync_all())
            .map_err(Error::io(path))
    }));
    for path in [&kernel_path, &initrd_path, &disk_path] {
        open_up(path, 0o644)?;
    }
    let digests = BTreeMap::from([
        ("rootfs".to_owned(), rootfs.clone()),
        (
            "kernel".to_owned(),
            blake3::hash(&kernel.bytes).to_hex().to_string(),
        ),
        (
            "initrd".to_owned(),
            blake3::hash(&initrd).to_hex().to_string(),
        ),
        (
            "disk".to_owned(),
            digest::file(&disk_path).map_err(Error::io(&disk_path))?,
        ),
    ]);
    job.progress
        .done("disk", format!("{} MiB", disk_size >> 20));
    let id = Fields::new("oscarv image id")
        .add(&rootfs)
        .add(&digests["kernel"])
        .add(&digests["initrd"])
        .hex();
    let used = fs::metadata(&disk_path).map_or(0, |m| on_disk(&m));
    let opkg_entry = |o: &Opkg| OpkgEntry {
        name: o.name.to_string(),
        version: o.version.clone(),
        digest: o.digest().to_owned(),
    };
    let manifest = Manifest {
        format: 1,
        key: key.to_string(),
        id: id[..32].to_owned(),
        recipe: job.recipe.clone(),
        architecture: architecture().to_owned(),
        opkgs: opkgs.iter().map(opkg_entry).collect(),
        packages: manifest::installed(job.root).map_err(Error::io(job.root))?,
        kernel_release: kernel.release,
        kernel_unpacked: kernel.unpacked,
        layers: tree.layers.clone(),
        modules,
        digests,
        sizes: BTreeMap::from([
            ("disk".to_owned(), disk_size),
            ("disk-used".to_owned(), used),
            ("kernel".to_owned(), kernel.bytes.len() as u64),
            ("initrd".to_owned(), initrd.len() as u64),
            ("content".to_owned(), content),
        ]),
        files: tree.listing.files(),
        built: now(),
        built_by: format!("oscarv {}", env!("CARGO_PKG_VERSION")),
        epoch: job.epoch,
        sources: manifest::sources(&job.cache.join("lists")),
        differs: None,
    };
    Ok((staged, manifest))
}

/// What distinguishes the image at hand from the one that the same inputs gave before.
fn difference(job: &Job<'_>, before: &Image, now: &Manifest) -> Result<Difference> {
    let packages = manifest::package_changes(&before.manifest.packages, &now.packages);
    let mut files = Vec::new();
    if packages.is_empty() && before.digest != now.digests["rootfs"] {
        let arguments = [
            job.root.as_os_str(),
            before.disk.as_os_str(),
            job.work.as_os_str(),
        ];
        let seen = |line: &str| files.push(line.to_owned());
        // Whatever happens, the image is good; only its description would be shorter.
        if let Err(failed) = job.sandbox.script("compare", &arguments, seen)? {
            files = failed.lines;
        }
        files.truncate(20);
    }
    Ok(Difference {
        from: before.id.clone(),
        packages,
        files,
    })
}

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_secs())
}

/// Removes what killed builds and removals left, by whoever holds the lock: so nobody uses it.
pub(crate) fn sweep_with(images: &Images, lock: &Lock, progress: &Progress) -> Result<()> {
    let tmp = images.dir.join("tmp");
    let log = images.dir.join("logs").join("sweep.log");
    let sandbox = Sandbox::new(lock.fd(), log.clone(), &tmp, 0);
    let result = sweep(&sandbox, &tmp, progress);
    if result.is_ok() {
        let _ = fs::remove_file(log);
    }
    result
}

fn sweep(sandbox: &Sandbox, tmp: &Path, progress: &Progress) -> Result<()> {
    let mut noted = false;
    for entry in fs::read_dir(tmp).map_err(Error::io(tmp))? {
        let entry = entry.map_err(Error::io(tmp))?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if !name.starts_with("build-") && !name.starts_with("removed-") {
            continue;
        }
        if !noted {
            progress.note("clearing away what an interrupted command left");
            noted = true;
        }
        sandbox.remove(&entry.path())?;
    }
    Ok(())
}

/// A directory in `<state>/tmp` that goes away with the build, and the tree in it.
struct Work<'a> {
    sandbox: &'a Sandbox,
    path: PathBuf,
    root: PathBuf,
}

impl<'a> Work<'a> {
    fn new(sandbox: &'a Sandbox, tmp: &Path) -> Result<Self> {
        let made = tempfile::Builder::new()
            .prefix("build-")
            .tempdir_in(tmp)
            .map_err(Error::io(tmp))?;
        let path = made.keep();
        let root = path.join("root");
        let work = Self {
            sandbox,
            path,
            root,
        };
        fs::create_dir(&work.root).map_err(Error::io(&work.root))?;
        open_up(&work.root, 0o755)?;
        Ok(work)
    }
}

impl Drop for Work<'_> {
    fn drop(&mut self) {
        // If this fails, the next build sweeps.
        let _ = self.sandbox.remove(&self.path);
    }
}
