//! The steps of a build, one a layer: what goes into each (its digest) and what it does to the tree.

use crate::apt::{self, Request, Watch};
use crate::build::Job;
use crate::digest::Fields;
use crate::key::{FORMAT, architecture};
use crate::sandbox::SCRIPT;
use crate::{Error, INIT, Result};
use opkg::{EntryKind, Opkg, Phase};
use profile::Recipe;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

/// Besides Debian's minbase: what any node needs to boot.
const BASE: [&str; 4] = ["systemd-sysv", "udev", "kmod", "iproute2"];

/// Where packages lie in an image.
const INSIDE: &str = "usr/lib/oscarv/packages";

pub(crate) enum Step {
    Base,
    /// The recipe's own distribution packages.
    Packages(Vec<String>),
    /// An OPKG, and the names of the packages up to it.
    Opkg(Box<Opkg>, Vec<String>),
}

impl Step {
    /// All steps of an image, from the bottom.
    pub fn all(recipe: &Recipe, opkgs: &[Opkg]) -> Vec<Self> {
        let mut steps = vec![Self::Base];
        let mut packages = recipe.packages.clone();
        packages.sort();
        packages.dedup();
        if !packages.is_empty() {
            steps.push(Self::Packages(packages));
        }
        let mut order = Vec::new();
        for opkg in opkgs {
            order.push(opkg.name.to_string());
            steps.push(Self::Opkg(Box::new(opkg.clone()), order.clone()));
        }
        steps
    }

    /// The name of this step's layer on top of the layer `below`.
    pub fn digest(&self, recipe: &Recipe, below: &str) -> String {
        let fields = Fields::new("oscarv layer")
            .add(FORMAT)
            .add(SCRIPT)
            .add(below)
            .add(self.name());
        match self {
            Self::Base => fields
                .add(architecture())
                .list(&sources(recipe))
                .list(&base_packages(recipe))
                .add(apt::DPKG_OPTIONS),
            Self::Packages(packages) => fields.list(packages),
            Self::Opkg(opkg, _) => fields
                .add(opkg.digest())
                .add(if brings_init(opkg) { INIT } else { &[] })
                .list(&distribution_packages(opkg, recipe)),
        }
        .hex()
    }

    /// The stage's name in progress and messages.
    pub fn name(&self) -> String {
        match self {
            Self::Base => "base".to_owned(),
            Self::Packages(_) => "packages".to_owned(),
            Self::Opkg(opkg, _) => format!("package {}", opkg.name),
        }
    }

    /// Does it to the tree.
    pub fn run(&self, job: &Job<'_>) -> Result<()> {
        match self {
            Self::Base => bootstrap(job),
            Self::Packages(packages) => {
                install(job, &self.name(), "the recipe's packages", packages)
            }
            Self::Opkg(opkg, order) => self.add_opkg(job, opkg, order),
        }
    }

    fn add_opkg(&self, job: &Job<'_>, opkg: &Opkg, order: &[String]) -> Result<()> {
        let stage = self.name();
        let packages = distribution_packages(opkg, job.recipe);
        let place = format!(
            "OPKG {} ({})",
            opkg.name,
            opkg.directory.join("opkg.toml").display()
        );
        if packages.is_empty() {
            job.progress.started(&stage, None, api::Unit::Items);
        } else {
            install(job, &stage, &place, &packages)?;
        }
        let said = |failed: crate::sandbox::Failed, what: String| {
            let needed = job.needed.get();
            let tail: Vec<&str> = failed
                .lines
                .iter()
                .rev()
                .take(12)
                .rev()
                .map(String::as_str)
                .collect();
            apt::disk_full(&failed.lines, job.state, needed).unwrap_or_else(|| {
                job.sandbox
                    .step(&what, &failed.status, tail.join("\n           "))
            })
        };
        let archive = stage_files(job, opkg, order)?;
        job.sandbox
            .script(
                "stdin-tar",
                &[job.root.as_os_str(), archive.as_os_str()],
                |_| {},
            )?
            .map_err(|failed| said(failed, format!("copying the files of OPKG {}", opkg.name)))?;
        let inside = format!("/{INSIDE}/{}", opkg.name);
        if opkg.scripts.contains_key(&Phase::ApiPostImage) {
            let script = format!("{inside}/scripts/{}", Phase::ApiPostImage);
            job.progress.note(format!("running {script}"));
            let package = format!("OSCARV_PACKAGE={inside}");
            let arguments: Vec<OsString> = vec![
                job.root.into(),
                "/usr/bin/env".into(),
                "-C".into(),
                inside.into(),
                package.into(),
                script.clone().into(),
            ];
            job.sandbox
                .script("chroot", &arguments, |_| {})?
                .map_err(|failed| said(failed, format!("{script} of OPKG {}", opkg.name)))?;
        }
        // Debian's packages enable everything they bring; a node starts what its role's target wants, no more.
        let services = &opkg.services;
        let with_common = |units: &[String]| [&services.common, units].concat();
        let (head, compute) = (with_common(&services.head), with_common(&services.compute));
        for (verb, target, units) in [
            ("disable", None, [&head[..], &compute[..]].concat()),
            ("add-wants", Some("oscarv-head.target"), head),
            ("add-wants", Some("oscarv-compute.target"), compute),
        ] {
            if units.is_empty() {
                continue;
            }
            if target.is_some_and(|t| !job.root.join("usr/lib/systemd/system").join(t).exists()) {
                return Err(bad(
                    opkg,
                    "it has services, which need the package base; add requires = [\"base\"]"
                        .to_owned(),
                ));
            }
            let mut arguments: Vec<OsString> = vec![
                job.root.into(),
                "systemctl".into(),
                verb.into(),
                "--".into(),
            ];
            arguments.extend(target.map(OsString::from));
            arguments.extend(units.into_iter().map(OsString::from));
            job.sandbox
                .script("chroot", &arguments, |_| {})?
                .map_err(|failed| {
                    said(failed, format!("systemctl {verb} for OPKG {}", opkg.name))
                })?;
        }
        // What packages made on their own account at installation is nobody's secret: every cluster gets its own.
        for secret in &opkg.secrets {
            let arguments: Vec<OsString> = vec![
                job.root.into(),
                "rm".into(),
                "-f".into(),
                "--".into(),
                secret.path.clone().into(),
            ];
            job.sandbox
                .script("chroot", &arguments, |_| {})?
                .map_err(|failed| said(failed, format!("removing {}", secret.path.display())))?;
        }
        Ok(())
    }
}

/// One image serves both roles, so it has the packages of both.
fn distribution_packages(opkg: &Opkg, recipe: &Recipe) -> Vec<String> {
    let set = opkg.packages_for(&recipe.distribution, &recipe.release, architecture());
    let mut all: Vec<String> = set
        .common
        .into_iter()
        .chain(set.head)
        .chain(set.compute)
        .collect();
    all.sort();
    all.dedup();
    all
}

fn base_packages(recipe: &Recipe) -> Vec<String> {
    let mut packages: Vec<String> = BASE.map(str::to_owned).to_vec();
    let default = || format!("linux-image-cloud-{}", architecture());
    packages.push(recipe.kernel.clone().unwrap_or_else(default));
    packages
}

/// Lines for apt. A mirror of the user's own is taken as it is, without updates from elsewhere.
fn sources(recipe: &Recipe) -> Vec<String> {
    let release = &recipe.release;
    match &recipe.mirror {
        Some(mirror) => vec![format!("deb {mirror} {release} main")],
        None => vec![
            format!("deb http://deb.debian.org/debian {release} main"),
            format!("deb http://deb.debian.org/debian {release}-updates main"),
            format!("deb http://deb.debian.org/debian-security {release}-security main"),
        ],
    }
}

fn bootstrap(job: &Job<'_>) -> Result<()> {
    let options = job.work.join("dpkg-options");
    fs::write(&options, apt::DPKG_OPTIONS).map_err(Error::io(&options))?;
    let settings = job.work.join("mmdebstrap.conf");
    let mut arguments: Vec<OsString> = vec![
        job.root.into(),
        job.cache.clone().into(),
        "mmdebstrap".into(),
    ];
    let fixed = [
        "--mode=root",
        "--variant=minbase",
        "--format=directory",
        "--verbose",
        "--skip=check/empty,essential/unlink,cleanup/apt/cache,cleanup/apt/lists,output/dev",
    ];
    arguments.extend(fixed.map(OsString::from));
    arguments.push(with("--architectures=", architecture()));
    arguments.push(with("--include=", base_packages(job.recipe).join(",")));
    arguments.push(with("--aptopt=", settings));
    arguments.push(with("--dpkgopt=", options));
    arguments.push(job.recipe.release.clone().into());
    arguments.push(job.root.into());
    arguments.extend(sources(job.recipe).into_iter().map(OsString::from));
    let mut watch = Watch::new(job.progress, "base");
    let result = job
        .sandbox
        .script("bootstrap", &arguments, |line| watch.line(line))?;
    job.needs(watch.needed.max(320));
    match result {
        Ok(()) => {
            job.updated.set(true);
            Ok(())
        }
        Err(failed) => Err(apt::explain(
            &failed,
            job.sandbox.log(),
            &job.request("the base system", "the recipe"),
        )),
    }
}

fn with(option: &str, value: impl AsRef<std::ffi::OsStr>) -> OsString {
    let mut text = OsString::from(option);
    text.push(value);
    text
}

fn install(job: &Job<'_>, stage: &str, place: &str, packages: &[String]) -> Result<()> {
    let mut watch = Watch::new(job.progress, stage);
    let fixed: Vec<OsString> = vec![
        job.root.into(),
        job.cache.clone().into(),
        job.work.join("apt.conf").into(),
        "apt-get".into(),
    ];
    let mut runs = Vec::new();
    if !job.updated.replace(true) {
        runs.push((
            vec!["update".to_owned(), "--error-on=any".to_owned()],
            "reading the package lists",
        ));
    }
    let mut arguments = vec!["install".to_owned(), "--yes".to_owned(), "--".to_owned()];
    arguments.extend(packages.iter().cloned());
    runs.push((arguments, stage));
    for (arguments, step) in runs {
        let mut all = fixed.clone();
        all.extend(arguments.into_iter().map(OsString::from));
        let result = job.sandbox.script("apt", &all, |line| watch.line(line))?;
        if let Err(failed) = result {
            job.needs(watch.needed);
            return Err(apt::explain(
                &failed,
                job.sandbox.log(),
                &job.request(step, place),
            ));
        }
    }
    job.needs(watch.needed);
    Ok(())
}

/// The package that every image has also has `oscarv-init` inside the root: a running node applies a new identity with it.
fn brings_init(opkg: &Opkg) -> bool {
    opkg.name.as_str() == "base"
}

/// A tar of what an OPKG brings into the image: its `files/`, itself, the lists of its services, the order of all.
fn stage_files(job: &Job<'_>, opkg: &Opkg, order: &[String]) -> Result<std::path::PathBuf> {
    let again = Opkg::load(&opkg.directory).map_err(|e| bad(opkg, e.to_string()))?;
    if again.digest() != opkg.digest() {
        return Err(bad(
            opkg,
            format!(
                "{} changed during the build; start it again",
                opkg.directory.display()
            ),
        ));
    }
    let stage = job.work.join(format!("stage-{}", opkg.name));
    let own = stage.join(INSIDE).join(opkg.name.as_str());
    fs::create_dir_all(own.join("services")).map_err(Error::io(&own))?;
    for entry in opkg.entries().map_err(|e| bad(opkg, e.to_string()))? {
        let from = opkg.directory.join(&entry.path);
        let to = match entry.path.strip_prefix("files") {
            Ok(inside) => stage.join(inside),
            Err(_) => own.join(&entry.path),
        };
        copy(&from, &to, &entry.kind).map_err(Error::io(&from))?;
    }
    if brings_init(opkg) {
        let path = stage.join("usr/lib/oscarv/oscarv-init");
        fs::write(&path, INIT)
            .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(0o755)))
            .map_err(Error::io(&path))?;
    }
    let lists = [
        ("common", &opkg.services.common),
        ("head", &opkg.services.head),
        ("compute", &opkg.services.compute),
    ];
    for (role, units) in lists {
        let path = own.join("services").join(role);
        fs::write(&path, lines(units)).map_err(Error::io(path))?;
    }
    let path = stage.join(INSIDE).join("order");
    fs::write(&path, lines(order)).map_err(Error::io(path))?;
    let archive = job.work.join(format!("{}.tar", opkg.name));
    let mut arguments: Vec<OsString> = [
        "--create",
        "--sort=name",
        "--format=posix",
        "--owner=root:0",
        "--group=root:0",
    ]
    .into_iter()
    .chain(["--mode=u=rwX,go=rX"])
    .map(OsString::from)
    .collect();
    arguments.push(with("--mtime=@", job.epoch.to_string()));
    arguments.extend([
        OsString::from("--directory"),
        stage.into(),
        "--file".into(),
        archive.clone().into(),
        ".".into(),
    ]);
    job.sandbox.must("tar", &arguments)?;
    Ok(archive)
}

fn copy(from: &Path, to: &Path, kind: &EntryKind) -> std::io::Result<()> {
    match kind {
        EntryKind::Directory => fs::create_dir_all(to),
        EntryKind::Symlink(target) => symlink(target, to),
        EntryKind::File { executable } => {
            fs::copy(from, to)?;
            let mode = if *executable { 0o755 } else { 0o644 };
            fs::set_permissions(to, fs::Permissions::from_mode(mode))
        }
    }
}

fn lines(items: &[String]) -> String {
    items.iter().map(|item| format!("{item}\n")).collect()
}

fn bad(opkg: &Opkg, why: String) -> Error {
    Error::Opkg {
        name: opkg.name.to_string(),
        why,
    }
}

impl Job<'_> {
    fn request<'a>(&'a self, step: &'a str, place: &'a str) -> Request<'a> {
        Request {
            step,
            place,
            distribution: &self.recipe.distribution,
            release: &self.recipe.release,
            state: self.state,
            needed: self.needed.get(),
        }
    }
}
