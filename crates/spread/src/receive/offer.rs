//! What a host says to an offer: whether it takes it, and with what of it that is here.

use super::session::Session;
use super::{Comes, Event, Hub, Lines, REPORT, SAY};
use crate::gate::Guest;
use crate::manifest::Header;
use crate::place::{self, Files, Looked};
use crate::rereading::{Rereading, Wanted};
use crate::sign::Key;
use crate::stream::{Stream, Trust};
use crate::transfer::Transfer;
use crate::wire::{self, FromReceiver, Offer, ToReceiver};
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tokio::io::WriteHalf;
use tokio::sync::Notify;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, interval_at, sleep, timeout};

/// What another process, or what was displaced, does with a file is waited for so long.
const BUSY: Duration = Duration::from_secs(60);

/// Looks at an offer, and takes it. An error is a refusal.
pub(super) async fn offered(
    hub: &Arc<Hub>,
    lines: Lines,
    writer: &mut WriteHalf<Stream>,
    offer: &Offer,
    from: SocketAddr,
    source: Guest,
) -> io::Result<()> {
    let title = "oscarv spread: header";
    let refuse = |name: &str, why: String| {
        (hub.told)(Event::Refused {
            name: (!name.is_empty()).then(|| name.to_owned()),
            from,
            why: why.clone(),
        });
        Err(io::Error::other(why))
    };
    let key = hub.options.keys.iter().find(|key| {
        key.check(offer.header.as_bytes(), &offer.signature, title)
            .is_ok()
    });
    let Some(key) = key.cloned() else {
        return refuse(
            "",
            "it is signed by none of the keys that are trusted here: start the receiver with --key and \
             what oscarv spread key prints where it is sent from"
                .to_owned(),
        );
    };
    let header = match Header::read(&offer.header) {
        Ok(header) => header,
        Err(why) => return refuse("", why.to_string()),
    };
    let directory = hub.options.into.clone();
    let target = directory.join(&header.name);
    let (there, looked) = {
        let (directory, name) = (directory.clone(), header.name.clone());
        let there = spawn_blocking(move || {
            let begin = Instant::now();
            while !place::recover(&directory, &name)? && begin.elapsed() < BUSY {
                std::thread::sleep(Duration::from_millis(10));
            }
            io::Result::Ok(place::look(&directory, &name))
        });
        match looking(writer, &Rereading::default(), there).await?? {
            Ok(found) => found,
            Err(e) => {
                let why = format!(
                    "what was begun in {} cannot be done now: {e}",
                    target.display()
                );
                return refuse(&header.name, why);
            }
        }
    };
    // Not even to be replaced: there may be more in it than somebody thinks of.
    if there.is_none() && std::fs::symlink_metadata(&target).is_ok_and(|data| data.is_dir()) {
        return refuse(&header.name, place::directory(&target));
    }
    match &there {
        Some((old, true)) if old.same_version(&header) => {
            return has_it(hub, &header, lines, writer, source).await;
        }
        // Also if somebody has changed or removed it since: whoever says again what was offered once must not bring it
        // back.
        Some((old, same)) if old.created > header.created => {
            return refuse(&header.name, place::newer(old, *same, &header));
        }
        Some((_, true)) => {}
        Some((_, false)) | None if hub.options.replace || target.symlink_metadata().is_err() => {}
        _ => {
            return refuse(&header.name, place::stays(&target, there.is_some()));
        }
    }
    if let Err(e) = place::mounted(&target) {
        return refuse(&header.name, e.to_string());
    }
    let ended = Arc::new(Notify::new());
    // A newer offer, or the same again, displaces what is coming; an older one does not, nor does one by which the source
    // offers it to this host under a second name.
    {
        let mut coming = hub.coming.lock().unwrap_or_else(PoisonError::into_inner);
        let known = coming.get(&header.name);
        let why = match known {
            Some(now) if now.created > header.created => Some("what is coming is newer".to_owned()),
            Some(now) if now.run == offer.run && now.host != offer.host => {
                Some(format!("this is the same host as {}", now.host))
            }
            _ => None,
        };
        if let Some(why) = why {
            drop(coming);
            return refuse(&header.name, why);
        }
        // Whoever only asks hears first what would be refused.
        if offer.ask {
            return Err(io::Error::other(wire::LACKS));
        }
        if let Some(before) = known {
            before.ended.notify_one();
        }
        let comes = Comes {
            created: header.created,
            run: offer.run.clone(),
            host: offer.host.clone(),
            ended: ended.clone(),
        };
        coming.insert(header.name.clone(), comes);
    }
    let wanted = Wanted::default();
    let reading = &wanted.0;
    let opened = tokio::select! {
        opened = looking(writer, reading, open(&directory, &header, offer, &key, looked, reading)) => opened,
        () = ended.notified() => {
            displaced(writer).await;
            return Ok(());
        }
    };
    let session = match opened.and_then(|opened| opened) {
        // While this waited, what was displaced came to its end.
        Ok(Opened::Whole) => {
            hub.forget(&header.name, &ended);
            return has_it(hub, &header, lines, writer, source).await;
        }
        Ok(Opened::NoBase) => {
            hub.forget(&header.name, &ended);
            wire::write_line(writer, &FromReceiver::NoBase).await?;
            return Ok(());
        }
        Ok(Opened::Files(mut files, transfer, end)) => {
            if hub.options.tls.is_some() {
                files.make_private();
            }
            if hub.options.replace {
                files.replace();
            }
            if hub.options.in_place {
                files.change_in_place();
            }
            Session::new(transfer, *files, end, Trust::new(key, hub.door()))
        }
        Err(e) => Err(e),
    };
    let session = match session {
        Ok(session) => session,
        Err(e) => {
            hub.forget(&header.name, &ended);
            let directory = directory.display();
            let why = match e.kind() {
                io::ErrorKind::WouldBlock => {
                    format!("another process receives {} into {directory}", header.name)
                }
                _ if place::is_refused(&e) => e.to_string(),
                _ => format!("{directory} cannot be written to: {e}"),
            };
            return refuse(&header.name, why);
        }
    };
    let transfer = session.transfer.clone();
    hub.add(&transfer);
    // What comes is one for each name, and comes to its end.
    drop(source);
    (hub.told)(Event::Begun {
        header: header.clone(),
        from,
        transfer: transfer.clone(),
    });
    let result = tokio::select! {
        result = session.run(lines, writer, hub) => result,
        () = ended.notified() => {
            Err(displaced(writer).await)
        }
    };
    hub.forget(&header.name, &ended);
    if let Err(why) = &result {
        transfer.fail(why);
        hub.let_go(&transfer);
    }
    (hub.told)(match result {
        Ok(()) => Event::Done { header },
        Err(why) => Event::Failed { header, why },
    });
    Ok(())
}

/// Says that another offer has taken the place of this one, and returns it.
async fn displaced(writer: &mut WriteHalf<Stream>) -> String {
    let reason = "it was offered again, and goes on with that offer".to_owned();
    let failed = FromReceiver::Failed {
        reason: reason.clone(),
    };
    // Whoever is still there must not take it for a connection that broke, and offer it once more.
    let _ = timeout(SAY, wire::write_line(writer, &failed)).await;
    reason
}

/// Says that all of it is here, and stays until the source ends it.
async fn has_it(
    hub: &Hub,
    header: &Header,
    mut lines: Lines,
    writer: &mut WriteHalf<Stream>,
    source: Guest,
) -> io::Result<()> {
    let frames = header.frames();
    let gives = Some(hub.transfer(header.id).is_some_and(|t| t.complete()));
    wire::write_line(writer, &FromReceiver::Accept { frames, gives }).await?;
    wire::write_line(writer, &FromReceiver::Done).await?;
    // As long as the connection is there, the source knows that this host is.
    let end = async {
        while let Ok(Some(ToReceiver::Parents(_) | ToReceiver::Certificates(_))) =
            lines.next().await
        {}
    };
    source.says(end).await;
    Ok(())
}

/// Lets the source know that this is being worked at: it may take a while.
async fn looking<T>(
    writer: &mut WriteHalf<Stream>,
    reading: &Rereading,
    work: impl Future<Output = T>,
) -> io::Result<T> {
    tokio::pin!(work);
    let mut beats = interval_at(Instant::now() + REPORT, REPORT);
    loop {
        tokio::select! {
            done = &mut work => return Ok(done),
            _ = beats.tick() => {
                let line = match reading.frames() {
                    0 => FromReceiver::Looking,
                    frames => FromReceiver::Looked(frames),
                };
                wire::write_line(writer, &line).await?;
            }
        }
    }
}

/// What there is to receive a transfer with.
enum Opened {
    Files(Box<Files>, Arc<Transfer>, u64),
    /// It is there by now.
    Whole,
    /// What it is made from is not here.
    NoBase,
}

/// Opens the files; what was displaced may take a moment to let go of them.
async fn open(
    directory: &Path,
    header: &Header,
    offer: &Offer,
    key: &Key,
    mut looked: Option<Looked>,
    reading: &Rereading,
) -> io::Result<Opened> {
    let begin = Instant::now();
    loop {
        let (directory, header, offer, key) = (
            directory.to_owned(),
            header.clone(),
            offer.clone(),
            key.clone(),
        );
        let (looked, reading) = (looked.take(), reading.clone());
        let opened = spawn_blocking(move || {
            let base = match &header.base {
                None => None,
                Some(base) => match place::base(&directory, base, header.tree, looked) {
                    None => return Ok(Opened::NoBase),
                    base => base,
                },
            };
            let (line, signature) = (&offer.header, &offer.signature);
            match Files::open(&directory, &header, line, signature, &key, base, &reading) {
                Err(e) if place::is_there(&e) => Ok(Opened::Whole),
                other => other
                    .map(|(files, transfer, end)| Opened::Files(Box::new(files), transfer, end)),
            }
        });
        match opened.await? {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock && begin.elapsed() < BUSY => {
                sleep(Duration::from_millis(10)).await;
            }
            other => return other,
        }
    }
}
