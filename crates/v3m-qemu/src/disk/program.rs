//! `qemu-img`, on an image that is held.
//!
//! As root it runs with the rights of whoever the image belongs to: where an image's owner leads it, he can go himself. An
//! image of root's in a directory of others is named by its open file, so that nothing comes into its place.

use super::header::{self, Header};
use super::{Error, Result, at, refused};
use crate::arguments::DriverName;
use files::Place;
use profile::DiskFormat;
use rustix::fs::{FileType, fstat};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

/// An image as `qemu-img` is told of it.
pub struct Image {
    /// As the person named it.
    pub shown: PathBuf,
    pub argument: PathBuf,
    user: Option<(u32, u32)>,
    /// What `argument` goes through; `qemu-img` gets them.
    held: Vec<Arc<OwnedFd>>,
}

impl Image {
    /// An image that is there, and as it was told to be. What its first bytes contradict is refused.
    pub fn open(path: &Path, told: DiskFormat) -> Result<(Self, Header)> {
        let (place, file, header) = look(path)?;
        agrees(path, told, &header)?;
        Ok((Self::held(path, place, file, &header)?, header))
    }

    fn held(path: &Path, place: Place, file: File, header: &Header) -> Result<Self> {
        let stat = fstat(&file).map_err(|e| at(path)(e.into()))?;
        let mut image = Self {
            shown: path.to_owned(),
            // No absolute path can be taken for an option or for a protocol (`nbd:…`).
            argument: std::path::absolute(path).map_err(at(path))?,
            user: None,
            held: Vec::new(),
        };
        let on_host = FileType::from_raw_mode(stat.st_mode) == FileType::BlockDevice;
        if !files::is_root() || on_host {
            return Ok(image);
        }
        let user = (stat.st_uid, crate::owner::group_of(stat.st_uid));
        let others = user.0 != 0 && crate::can_become(user.0);
        if others {
            image.user = Some(user);
        } else if files::sound(path).is_ok() {
            return Ok(image);
        }
        if !header.external {
            let file = Arc::new(OwnedFd::from(file));
            image.argument = through(&file);
            image.held.push(file);
        } else if others {
            // What it names relative to itself is found beside it.
            image.argument = through(place.directory()).join(place.name());
            image.held.push(place.directory().clone());
        } else {
            let reason = "it is root's, others can write to its directory, and it names other files; give it to its user \
                          (chown), or move it";
            return Err(refused(path, reason));
        }
        Ok(image)
    }

    /// A file in a directory of our own.
    pub fn within(shown: &Path, directory: Arc<OwnedFd>, name: &OsStr) -> Self {
        Self {
            shown: shown.to_owned(),
            argument: through(&directory).join(name),
            user: None,
            held: vec![directory],
        }
    }

    /// With our own rights: for what reads one image and writes another. `below`: what it stands on. Of another's image
    /// that is nothing but what he may read himself, and cannot change meanwhile.
    pub fn for_us(mut self, header: &Header, below: &[PathBuf]) -> Result<Self> {
        let Some((user, _)) = self.user.take() else {
            return Ok(self);
        };
        let theirs = |path: &PathBuf| {
            let found = Place::found(path).and_then(|place| place.handle()?.metadata());
            found.is_ok_and(|found| found.uid() == user || found.mode() & 0o004 != 0)
        };
        let known = !below.is_empty() && below.iter().all(theirs);
        if header.external && !(known && files::sound(&self.shown).is_ok()) {
            let reason = format!("it is user {user}'s, and names other files; let him do it");
            return Err(refused(&self.shown, &reason));
        }
        Ok(self)
    }

    pub fn run(&self, options: &[&str], rest: &[&OsStr]) -> Result<()> {
        self.said(options, rest).map(drop)
    }

    /// Runs `qemu-img OPTIONS REST`; what it says on standard output.
    pub fn said(&self, options: &[&str], rest: &[&OsStr]) -> Result<Vec<u8>> {
        self.with(&[], options, rest, &mut |_| {})
    }

    /// The same, also on these images; tells how far it is, from 0 to 1, where it is asked to say so (`-p`).
    pub fn with(
        &self,
        others: &[&Self],
        options: &[&str],
        rest: &[&OsStr],
        far: &mut dyn FnMut(f64),
    ) -> Result<Vec<u8>> {
        let mut command = Command::new("qemu-img");
        command.args(options).args(rest).stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let images = || others.iter().copied().chain([self]);
        let held = images().flat_map(|image| &image.held);
        let held: Vec<_> = held.map(|fd| fd.as_raw_fd()).collect();
        let user = self.user;
        // SAFETY: the closure runs between fork and exec and makes only system calls, on memory made before the fork.
        unsafe {
            command.pre_exec(move || become_user(&held, user));
        }
        // After that: whoever becomes another user forgets it.
        daemon::dies_with_us(&mut command);
        let mut child = command.spawn().map_err(Error::Program)?;
        let mut complaint = child.stderr.take();
        // In a thread: neither pipe may be full.
        let reader = std::thread::spawn(move || {
            let mut text = Vec::new();
            let read = complaint.as_mut().map(|pipe| pipe.read_to_end(&mut text));
            read.transpose().map(|_| text)
        });
        let failed = |e: io::Error| at(&self.shown)(e);
        let mut said = Vec::new();
        if let Some(pipe) = child.stdout.take() {
            listen(pipe, &mut said, far).map_err(failed)?;
        }
        let status = child.wait().map_err(failed)?;
        if status.success() {
            return Ok(said);
        }
        let text = reader.join().ok().and_then(io::Result::ok);
        let mut text = String::from_utf8_lossy(&text.unwrap_or_default()).into_owned();
        for image in images() {
            let argument = image.argument.display().to_string();
            text = text.replace(&argument, &image.shown.display().to_string());
        }
        let reason = crate::fit::in_use(&text).unwrap_or_else(|| {
            let line = text.lines().find(|line| !line.trim().is_empty());
            let line = line.unwrap_or("qemu-img failed without a word");
            line.trim_start_matches("qemu-img: ").to_owned()
        });
        Err(refused(&self.shown, &about(&self.shown, &reason)))
    }
}

/// The message begins with the image's name: what is said of the image itself does not say it again.
fn about(shown: &Path, reason: &str) -> String {
    let name = shown.display().to_string();
    match reason.strip_prefix(&name) {
        Some(rest) if rest.starts_with(" is ") => format!("it{rest}"),
        _ => reason.to_owned(),
    }
}

/// The name of an open directory or file for a process that has inherited it.
fn through(fd: &impl AsRawFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

/// Where an image is, the image, and what it says of itself.
pub fn look(path: &Path) -> Result<(Place, File, Header)> {
    let place = Place::found(path).map_err(at(path))?;
    let file = place.open(false).map_err(at(path))?;
    let header = header::read(&file).map_err(at(path))?;
    Ok((place, file, header))
}

/// A format that the first bytes contradict is refused: see module `fit`.
fn agrees(path: &Path, told: DiskFormat, header: &Header) -> Result<()> {
    let reason = match (told, header.format) {
        (told, Some(found)) if told != found => format!(
            "it is told to be {}, and begins as {} does",
            told.driver(),
            found.driver()
        ),
        (DiskFormat::Raw, _) | (_, Some(_)) => return Ok(()),
        (told, None) => format!("it does not begin as {} does", told.driver()),
    };
    Err(refused(path, &reason))
}

fn listen(mut pipe: impl Read, said: &mut Vec<u8>, far: &mut dyn FnMut(f64)) -> io::Result<()> {
    let mut buffer = [0; 4096];
    loop {
        match pipe.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(length) => said.extend_from_slice(&buffer[..length]),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(e),
        }
        // `    (12.50/100%)\r`, see util/qemu-progress.c.
        let text = String::from_utf8_lossy(said);
        if let Some((before, _)) = text.rsplit_once("/100%)")
            && let Some(percent) = before
                .rsplit('(')
                .next()
                .and_then(|p| p.trim().parse().ok())
        {
            let percent: f64 = percent;
            far(percent / 100.0);
            said.clear();
        }
    }
}

/// In the child, before it is `qemu-img`.
fn become_user(held: &[i32], user: Option<(u32, u32)>) -> io::Result<()> {
    let check = |result: libc::c_int| match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    };
    // SAFETY: plain system calls on plain integers, and an empty group list.
    unsafe {
        for fd in held {
            check(libc::fcntl(*fd, libc::F_SETFD, 0))?;
        }
        if let Some((uid, gid)) = user {
            check(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))?;
            check(libc::setgroups(0, std::ptr::null()))?;
            check(libc::setresgid(gid, gid, gid))?;
            check(libc::setresuid(uid, uid, uid))?;
        }
    }
    Ok(())
}
