//! Start, change, stop, status.
//!
//! `up` binds the socket itself, before there is a holder, and hands it down: so a client that finds the socket may
//! connect at once, and is answered when the holder is ready, or sees the connection end when it fails.

use crate::client::{PATIENCE, ask};
use crate::files::{
    APPLIED, Dir, HOLDER_LOCK, HOLDER_LOG, SERVICES_LOCK, SOCKET, SPACE, SPEC, STATUS, Turn,
    is_root, program,
};
use crate::holder::Health;
use crate::wire::Request;
use crate::{Error, Spec, host};
use daemon::Spawned;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// How long a process that was killed, or whose parent was, may take to end.
const END: Duration = Duration::from_secs(10);

/// How long a holder that does not answer gets to show that it is ending.
const DYING: Duration = Duration::from_secs(2);

/// How a network is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    Absent,
    /// `warnings`: what does not work, while nodes reach each other.
    Up {
        pid: u32,
        warnings: Vec<String>,
    },
    /// `up` mends it.
    Broken {
        why: String,
    },
}

/// Makes the network as `spec` says, or changes the hosts, the domain and NAT of the running one; of a network that is
/// as it should be: nothing happens. Returns when taps can be had; see [`crate::settled`] for the rest.
///
/// `holder` is a command line that, with the directory appended, calls [`crate::holder_main`].
pub fn up(dir: &Path, spec: &Spec, holder: &[OsString]) -> Result<(), Error> {
    spec.check()?;
    have_programs(spec)?;
    let Some((_turn, dir)) = Turn::take(dir, true)? else {
        return Err(Error::at("cannot make", dir)(
            io::ErrorKind::NotFound.into(),
        ));
    };
    let lock = dir.join(HOLDER_LOCK);
    let failed = |reason: io::Error| Error::NotChanged {
        cluster: spec.cluster.clone(),
        reason: reason.to_string(),
    };
    if daemon::running(&lock)
        .map_err(Error::at("cannot read", &lock))?
        .is_some()
    {
        // Another one may have been killed just after he started the holder: then this waits until it is ready.
        match ask(dir.path(), &Request::Ready, PATIENCE) {
            Ok(_) => return change(&dir, spec, failed),
            // It may be in the middle of its end.
            Err(e) if !daemon::wait(&lock, DYING).map_err(Error::at("cannot read", &lock))? => {
                return Err(failed(e));
            }
            Err(_) => {}
        }
    }
    start(&dir, spec, holder)
}

fn have_programs(spec: &Spec) -> Result<(), Error> {
    let mut needed = vec![("dnsmasq", "dnsmasq-base"), ("nft", "nftables")];
    if spec.nat && !is_root() {
        needed.push(("pasta", "passt"));
    }
    match needed.into_iter().find(|(name, _)| program(name).is_none()) {
        Some((program, package)) => Err(Error::Missing { program, package }),
        None => Ok(()),
    }
}

fn change(dir: &Dir, spec: &Spec, failed: impl FnOnce(io::Error) -> Error) -> Result<(), Error> {
    let old: Option<Spec> = dir.read(APPLIED)?;
    if old.as_ref() == Some(spec) {
        return Ok(());
    }
    if let Some(what) = old.and_then(|old| old.fixed_difference(spec)) {
        return Err(Error::Changed {
            cluster: spec.cluster.clone(),
            what,
        });
    }
    dir.write(SPEC, spec)?;
    ask(dir.path(), &Request::Reload, PATIENCE)
        .map(drop)
        .map_err(failed)
}

fn start(dir: &Dir, spec: &Spec, holder: &[OsString]) -> Result<(), Error> {
    let [program, arguments @ ..] = holder else {
        return Err(Error::io("cannot start the holder")(
            io::ErrorKind::InvalidInput.into(),
        ));
    };
    end_services(dir)?;
    dir.remove(STATUS)?;
    dir.remove(SOCKET)?;
    dir.write(SPEC, spec)?;
    make_run(dir)?;
    let log = dir.append(HOLDER_LOG)?;
    let logged = log
        .metadata()
        .map_err(Error::at("cannot read", dir.path()))?
        .len();
    let socket = UnixListener::bind(dir.short(SOCKET))
        .and_then(|socket| {
            fs::set_permissions(dir.join(SOCKET), fs::Permissions::from_mode(0o600))
                .map(|()| socket)
        })
        .map_err(Error::at("cannot make", &dir.join(SOCKET)))?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .arg(dir.path())
        .current_dir("/")
        .stdout(OwnedFd::from(socket))
        .stderr(log);
    let spawned = daemon::spawn(&dir.join(HOLDER_LOCK), command)
        .map_err(Error::io(format!("cannot start {}", program.display())))?;
    if let Spawned::Started(mut child) = spawned {
        // For callers that live long: else the holder would stay as a zombie after its end.
        std::thread::spawn(move || child.wait());
    }
    let Err(error) = ask(dir.path(), &Request::Ready, PATIENCE) else {
        return Ok(());
    };
    // Not half a holder: the next `up` must find a running one or none.
    daemon::kill(&dir.join(HOLDER_LOCK), END).map_err(Error::io("cannot end the holder"))?;
    Err(Error::NotStarted {
        cluster: spec.cluster.clone(),
        reason: last_words(dir, logged).unwrap_or_else(|| error.to_string()),
    })
}

/// `run/` is for dnsmasq, which reads it as nobody; all above it is closed to others.
fn make_run(dir: &Dir) -> Result<(), Error> {
    let run = dir.join("run");
    fs::create_dir_all(&run)
        .and_then(|()| fs::set_permissions(&run, fs::Permissions::from_mode(0o755)))
        .and_then(|()| fs::write(run.join("netns"), ""))
        .map_err(Error::at("cannot make", &run))
}

/// What the holder has said in its log since `from`.
fn last_words(dir: &Dir, from: u64) -> Option<String> {
    let log = fs::read(dir.join(HOLDER_LOG)).ok()?;
    let text = String::from_utf8_lossy(log.get(usize::try_from(from).ok()?..)?).into_owned();
    text.lines()
        .rfind(|line| !line.trim().is_empty())
        .map(str::to_owned)
}

/// Waits for dnsmasq and pasta of a holder that has ended; they end by themselves.
fn end_services(dir: &Dir) -> Result<(), Error> {
    let lock = dir.join(SERVICES_LOCK);
    let doing = || Error::io("cannot end dnsmasq and pasta");
    if daemon::wait(&lock, END).map_err(doing())? {
        return Ok(());
    }
    // Somebody has stopped their keeper.
    daemon::kill(&lock, END).map_err(doing())
}

/// Takes the network down, with everything that was made for it, and removes its directory. Of no network, or half a
/// one: fine. VMs should have ended before: they lose their network.
pub fn down(dir: &Path) -> Result<(), Error> {
    let Some((_turn, dir)) = Turn::take(dir, false)? else {
        return Ok(());
    };
    daemon::kill(&dir.join(HOLDER_LOCK), END).map_err(Error::io("cannot end the holder"))?;
    end_services(&dir)?;
    if is_root() {
        let slot = dir.spec().ok().flatten().map(|spec| spec.slot);
        host::remove(&dir, slot)?;
    }
    match fs::remove_dir_all(dir.path()) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            Err(Error::at("cannot remove", dir.path())(e))
        }
        _ => Ok(()),
    }
}

/// How it is, without asking it.
pub fn status(dir: &Path) -> Status {
    let there = |name: &str| dir.join(name).exists();
    match daemon::running(&dir.join(HOLDER_LOCK)) {
        Ok(Some(pid)) => match fs::read(dir.join(STATUS))
            .map(|bytes| serde_json::from_slice::<Health>(&bytes))
        {
            Ok(Ok(health)) => Status::Up {
                pid,
                warnings: health.warnings,
            },
            Ok(Err(e)) => Status::Broken {
                why: format!("{} is damaged: {e}", dir.join(STATUS).display()),
            },
            Err(_) => Status::Broken {
                why: "its holder is still starting, or was started by a command that was killed"
                    .to_owned(),
            },
        },
        Ok(None) if there(SPACE) => Status::Broken {
            why: "its holder has ended; `oscarv up` brings it back, running nodes keep running"
                .to_owned(),
        },
        Ok(None) if there(SPEC) => Status::Broken {
            why: "it was being made when the command was killed, or could not be made".to_owned(),
        },
        Ok(None) => Status::Absent,
        Err(e) => Status::Broken {
            why: format!("cannot read {}: {e}", dir.display()),
        },
    }
}

/// Does it run with exactly this specification?
pub fn is_current(dir: &Path, spec: &Spec) -> bool {
    matches!(daemon::running(&dir.join(HOLDER_LOCK)), Ok(Some(_)))
        && fs::read(dir.join(APPLIED))
            .is_ok_and(|there| serde_json::to_vec(spec).is_ok_and(|wanted| wanted == there))
}
