//! `spread receive`: takes what sources send, until interrupted.

use super::{PORT, signer, stand_back};
use crate::args::SpreadReceive;
use crate::commands::spread_bundle;
use crate::context::{Context, runtime};
use crate::exit::{Code, Failure};
use anyhow::{Context as _, Result};
use api::{Progress, Unit};
use spread::Transfer;
use spread::manifest::{FRAME, Header};
use spread::port;
use spread::receive::{self, Event};
use spread::sign::Key;
use std::collections::HashMap;
use std::convert::Infallible;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use terminal::Screen;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{MissedTickBehavior, interval};

/// So often it is said how far it is.
const LOOK: Duration = Duration::from_millis(200);

/// What is longer is no path that somebody typed.
const LONGEST: usize = 120;

const HOW: &str = "oscarv spread key prints it, where files are sent from";

pub fn run(context: &Context, args: &SpreadReceive) -> Result<Code> {
    stand_back(args.idle)?;
    let mut keys = args
        .key
        .iter()
        .map(|text| key(text))
        .collect::<Result<Vec<_>>>()?;
    if keys.is_empty() {
        keys.push(signer(context)?.key());
    }
    let tls = spread_bundle::of_receiver(context, &args.private)?;
    std::fs::create_dir_all(&args.into)
        .with_context(|| format!("{} cannot be made", args.into.display()))?;
    let shown = context.progress();
    let coming = Arc::new(Coming {
        progress: shown.progress.clone(),
        screen: context.screen.clone(),
        open: Mutex::default(),
    });
    let told = {
        let coming = coming.clone();
        move |event| coming.hear(event)
    };
    runtime()?.block_on(async {
        // Before anybody can know that this is here.
        let mut terminated = signal(SignalKind::terminate())?;
        let listener = match args.listen {
            Some(address) => port::listen(address)
                .with_context(|| format!("{address} cannot be listened on"))?,
            None => port::listen_everywhere(PORT)
                .with_context(|| format!("port {PORT} cannot be listened on"))?,
        };
        context.say(format!("listening on {}", listener.local_addr()?));
        let options = receive::Options {
            into: args.into.clone(),
            keys,
            replace: args.replace,
            in_place: args.in_place,
            tls,
        };
        tokio::select! {
            ended = receive::receive(listener, options, told) => ended.map(|()| Code::Ok).map_err(Into::into),
            _ = tokio::signal::ctrl_c() => Ok(Code::Of(130)),
            // So services are ended.
            _ = terminated.recv() => Ok(Code::Ok),
            never = coming.tell() => match never {},
        }
    })
}

/// What comes at the moment, and shows how far it is.
struct Coming {
    progress: Progress,
    screen: Screen,
    /// By name: from whom, and what.
    open: Mutex<HashMap<String, (SocketAddr, Arc<Transfer>)>>,
}

impl Coming {
    fn open(&self) -> MutexGuard<'_, HashMap<String, (SocketAddr, Arc<Transfer>)>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends its stage, unless something newer of that name comes already.
    fn ended(&self, header: &Header) -> bool {
        let mut open = self.open();
        let its = open.get(&header.name);
        let its = its.is_some_and(|(_, transfer)| transfer.header.id == header.id);
        if its {
            open.remove(&header.name);
        }
        its
    }

    fn hear(&self, event: Event) {
        let progress = &self.progress;
        match event {
            Event::Begun {
                header,
                from,
                transfer,
            } => {
                progress.started(&header.name, Some(header.size), Unit::Bytes);
                self.open().insert(header.name, (from, transfer));
            }
            Event::Done { header } if self.ended(&header) => {
                let (name, size) = (&header.name, header.size);
                progress.advanced(name, size, Some(size), "");
                progress.done(name, "it is here");
            }
            Event::Failed { header, why } if self.ended(&header) => {
                progress.failed(&header.name, why);
            }
            Event::Done { header } => self.screen.say(format!("{} is here", header.name)),
            Event::Failed { header, why } => self.screen.say(format!("{}: {why}", header.name)),
            Event::Refused { name, from, why } => self.screen.say(match name {
                Some(name) => format!("refused {name} from {from}: {why}"),
                None => format!("refused what {from} offered: {why}"),
            }),
        }
    }

    /// Says how far all are, as long as this is wanted.
    async fn tell(&self) -> Infallible {
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            looks.tick().await;
            for (name, (from, transfer)) in self.open().iter() {
                let size = transfer.header.size;
                let bytes = u64::from(transfer.count().0) * u64::from(FRAME);
                let from = format!("from {from}");
                self.progress
                    .advanced(name, bytes.min(size), Some(size), from);
            }
        }
    }
}

/// A key, or the file that it is in. What a file has is never shown: it may be a secret.
fn key(text: &str) -> Result<Key> {
    let wrong = |message: String| Failure::new(Code::Usage, message);
    match std::fs::read_to_string(text) {
        Ok(content) => Ok(Key::read(&content).map_err(|e| wrong(format!("{text}: {e}")))?),
        Err(e) if e.kind() == ErrorKind::NotFound => match Key::read(text) {
            Ok(key) => Ok(key),
            // Where a file with its path was meant, a key has no business.
            Err(_) if text.len() <= LONGEST && !text.contains('\n') => {
                let message = format!("--key: there is no file {text}, and it is not a public key");
                Err(wrong(message).hint(HOW).into())
            }
            Err(e) => Err(wrong(format!("--key: {e}")).hint(HOW).into()),
        },
        Err(e) => {
            Ok(Key::read(text).map_err(|_| wrong(format!("--key: {text} cannot be read: {e}")))?)
        }
    }
}
