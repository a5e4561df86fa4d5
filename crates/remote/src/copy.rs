//! Files to and from many nodes, as tar streams over ssh.
//!
//! Tar keeps modes, times and links, needs no protocol of its own and starts at once. A single file or directory that
//! gets a new name is unpacked beside it and renamed, so that it appears whole or not at all.

use crate::exec::{Cancel, Options, Outcome, Status, exited, spawn};
use crate::{Error, Ssh};
use api::Name;
use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

/// Bytes of tar carried since the last call, for a listener.
pub type Copied<'a> = &'a mut dyn FnMut(u64);

/// `$1` is where, `$2` says `into` if that must be a directory, `$3` is the one entry's name.
const UNPACK: &str = r#"set -eu
d=$1
if [ "$2" = into ] || [ -d "$d" ]; then
  mkdir -p "$d"
  exec tar -x -f - --no-same-owner -C "$d"
fi
t=$(mktemp -d "$(dirname "$d")/.oscarv-XXXXXX")
trap 'rm -rf "$t"' EXIT
tar -x -f - --no-same-owner -C "$t"
mv -f -T "$t/$3" "$d""#;

const PACK: &str = r#"set -eu
cd "$(dirname "$1")"
exec tar -c -f - "./$(basename "$1")""#;

/// Puts `sources` at `dest` on every node, as cp(1) would: into it if it is a directory, ends in `/` or must hold
/// several; under that name otherwise. A relative `dest` is relative to the home directory there.
pub async fn push(
    ssh: &Ssh,
    nodes: &[Name],
    sources: &[PathBuf],
    dest: &str,
    options: &Options,
    cancel: &Cancel,
    copied: Copied<'_>,
) -> Result<Vec<Outcome>, Error> {
    let mut tar = vec![OsString::from("-c"), "-f".into(), "-".into()];
    let mut names = BTreeSet::new();
    let mut last = OsString::new();
    for source in sources {
        let (parent, name) = parts(source)?;
        if !names.insert(name.clone()) {
            return Err(Error::SameName(name.to_string_lossy().into_owned()));
        }
        let mut member = OsString::from("./");
        member.push(&name);
        tar.extend(["-C".into(), parent.into_os_string(), member]);
        last = name;
    }
    let into = sources.len() != 1 || dest.is_empty() || dest.ends_with('/');
    let how = if into { "into" } else { "as" };
    let argv = [OsString::from(remote_path(dest)), how.into(), last];
    let jobs = nodes.iter().map(|node| {
        let mut pack = Command::new("tar");
        pack.args(&tar);
        (
            node.clone(),
            ssh.script(node, UNPACK, &argv),
            Side::Pack(pack),
        )
    });
    Ok(carry(jobs.collect(), options, cancel, copied).await)
}

/// Brings `source` from the nodes: from one as cp(1) would, from several into `dest/NODE/` each.
pub async fn get(
    ssh: &Ssh,
    nodes: &[Name],
    source: &str,
    dest: &Path,
    options: &Options,
    cancel: &Cancel,
    copied: Copied<'_>,
) -> Result<Vec<Outcome>, Error> {
    let argv = [OsString::from(remote_path(source))];
    let slash = dest.as_os_str().as_encoded_bytes().ends_with(b"/");
    let mut jobs = Vec::new();
    // Kept until all is done; what is left in it is removed then.
    let mut renamed = None;
    for node in nodes {
        let directory = if nodes.len() > 1 {
            dest.join(node)
        } else if slash || dest.is_dir() {
            dest.to_owned()
        } else {
            let (parent, _) = parts_of_new(dest)?;
            let made = tempfile::Builder::new()
                .prefix(".oscarv-")
                .tempdir_in(&parent)
                .map_err(Error::at(&parent))?;
            let path = made.path().to_owned();
            renamed = Some(made);
            path
        };
        if directory.exists() && !directory.is_dir() {
            return Err(Error::NotADirectory(directory));
        }
        std::fs::create_dir_all(&directory).map_err(Error::at(&directory))?;
        let mut unpack = Command::new("tar");
        // What comes is a node's word: tar itself refuses to leave the directory, and its owners are not ours.
        unpack.args([
            "-x",
            "-f",
            "-",
            "--no-same-owner",
            "--no-same-permissions",
            "-C",
        ]);
        unpack.arg(&directory);
        jobs.push((
            node.clone(),
            ssh.script(node, PACK, &argv),
            Side::Unpack(unpack),
        ));
    }
    let outcomes = carry(jobs, options, cancel, copied).await;
    if let Some(made) = renamed
        && outcomes.iter().all(Outcome::ok)
    {
        let mut entries = std::fs::read_dir(made.path()).map_err(Error::at(made.path()))?;
        if let Some(entry) = entries.next() {
            let from = entry.map_err(Error::at(made.path()))?.path();
            std::fs::rename(&from, dest).map_err(Error::at(dest))?;
        }
    }
    Ok(outcomes)
}

/// Our end of the stream.
enum Side {
    Pack(Command),
    Unpack(Command),
}

enum News {
    Copied(u64),
    Ended(Outcome),
}

async fn carry(
    jobs: Vec<(Name, Command, Side)>,
    options: &Options,
    cancel: &Cancel,
    copied: Copied<'_>,
) -> Vec<Outcome> {
    let order: Vec<Name> = jobs.iter().map(|(node, ..)| node.clone()).collect();
    let (sender, mut receiver) = mpsc::channel(256);
    let places = Arc::new(Semaphore::new(options.fanout.max(1)));
    let mut tasks = JoinSet::new();
    for (node, command, side) in jobs {
        let (options, cancel) = (options.clone(), cancel.clone());
        let (places, sender) = (places.clone(), sender.clone());
        tasks.spawn(async move {
            let _place = places.acquire_owned().await;
            let began = Instant::now();
            let limit = async {
                match options.limit {
                    Some(limit) => tokio::time::sleep(limit).await,
                    None => std::future::pending().await,
                }
            };
            let mut outcome = tokio::select! {
                biased;
                () = cancel.cancelled() => Outcome::of(node, Status::Interrupted),
                // Dropping it kills both ends; the node's script removes what it began.
                outcome = one(node.clone(), command, side, &sender) => outcome,
                () = limit => Outcome::of(node, Status::TimedOut),
            };
            outcome.took = began.elapsed();
            let _ = sender.send(News::Ended(outcome)).await;
        });
    }
    drop(sender);
    let mut outcomes = Vec::new();
    while let Some(news) = receiver.recv().await {
        match news {
            News::Copied(bytes) => copied(bytes),
            News::Ended(outcome) => outcomes.push(outcome),
        }
    }
    outcomes.sort_by_key(|o: &Outcome| order.iter().position(|node| *node == o.node));
    outcomes
}

async fn one(node: Name, ssh: Command, side: Side, sender: &mpsc::Sender<News>) -> Outcome {
    let pushes = matches!(side, Side::Pack(_));
    let (Side::Pack(tar) | Side::Unpack(tar)) = side;
    let mut outcome = Outcome::of(node, Status::Interrupted);
    let (mut ssh, mut tar) = match (spawn(ssh), spawn(tar)) {
        (Ok(ssh), Ok(tar)) => (ssh, tar),
        (Err(error), _) => {
            outcome.status = Status::NotStarted(format!("ssh: {error}"));
            return outcome;
        }
        (_, Err(error)) => {
            outcome.status = Status::NotStarted(format!("tar: {error}"));
            return outcome;
        }
    };
    let (from, to) = match pushes {
        true => (&mut tar, &mut ssh),
        false => (&mut ssh, &mut tar),
    };
    drop(from.stdin.take());
    let (stream, sink) = (from.stdout.take(), to.stdin.take());
    // Neither prints anything but errors.
    let (printed, ssh_errors, tar_errors) =
        (to.stdout.take(), ssh.stderr.take(), tar.stderr.take());
    let (_, mut printed, ssh_errors, tar_errors) = tokio::join!(
        pipe(stream, sink, sender),
        collect(printed),
        collect(ssh_errors),
        collect(tar_errors)
    );
    let (there, here) = (exited(ssh.wait().await), exited(tar.wait().await));
    printed.extend_from_slice(&ssh_errors);
    // Our tar has the cause where the other end had none, or died of our hanging up (SIGPIPE).
    if matches!(there, Status::Exited(0 | 141)) {
        printed.extend_from_slice(&tar_errors);
    }
    outcome.stderr = printed;
    outcome.status = if there == Status::Exited(0) {
        here
    } else {
        there
    };
    outcome
}

async fn collect(stream: Option<impl AsyncRead + Unpin>) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(stream) = stream {
        let _ = stream.take(1 << 20).read_to_end(&mut bytes).await;
    }
    bytes
}

/// Carries until the end, or until the other side closes: its exit code says why then.
async fn pipe(
    from: Option<impl AsyncRead + Unpin>,
    to: Option<impl AsyncWrite + Unpin>,
    sender: &mpsc::Sender<News>,
) {
    let (Some(mut from), Some(mut to)) = (from, to) else {
        return;
    };
    let mut buffer = vec![0; 128 << 10];
    loop {
        let read = match from.read(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(read) => read,
        };
        let bytes = buffer.get(..read).unwrap_or_default();
        if to.write_all(bytes).await.is_err() {
            break;
        }
        let _ = sender.send(News::Copied(read as u64)).await;
    }
}

/// The directory and the name of something that exists.
fn parts(source: &Path) -> Result<(PathBuf, OsString), Error> {
    if source.symlink_metadata().is_err() {
        return Err(Error::NoSource(source.to_owned()));
    }
    match source.file_name() {
        Some(_) => parts_of_new(source),
        // `.` and `..` have names once they are followed.
        None => parts_of_new(&source.canonicalize().map_err(Error::at(source))?),
    }
}

fn parts_of_new(path: &Path) -> Result<(PathBuf, OsString), Error> {
    let name = path
        .file_name()
        .ok_or_else(|| Error::NoName(path.to_owned()))?;
    let parent = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let parent = parent.canonicalize().map_err(Error::at(parent))?;
    Ok((parent, name.to_owned()))
}

/// A path for the other end: relative to the home directory, never an option.
fn remote_path(path: &str) -> String {
    let path = path.strip_prefix("~/").unwrap_or(path);
    match path {
        "" | "~" => ".".to_owned(),
        path if OsStr::new(path).as_encoded_bytes().starts_with(b"-") => format!("./{path}"),
        path => path.to_owned(),
    }
}

/// How many bytes of files there are under these, for a progress bar.
pub fn size_of(sources: &[PathBuf]) -> u64 {
    let mut total = 0;
    let mut open: Vec<PathBuf> = sources.to_vec();
    while let Some(path) = open.pop() {
        let Ok(found) = path.symlink_metadata() else {
            continue;
        };
        if found.is_dir() {
            let entries = std::fs::read_dir(&path).into_iter().flatten().flatten();
            open.extend(entries.map(|entry| entry.path()));
        }
        // Each entry has a header of 512 bytes, and content is filled up to blocks of that size.
        let content = if found.is_file() { found.len() } else { 0 };
        total += 512 + content.div_ceil(512) * 512;
    }
    total
}
