//! `spread receive`: takes what sources send, until interrupted.

use super::{signer, stand_back};
use crate::args::SpreadReceive;
use crate::commands::spread_bundle;
use crate::context::{Context, runtime};
use crate::exit::Code;
use anyhow::{Context as _, Result};
use spread::receive::{self, Event};
use spread::sign::Key;

pub fn run(context: &Context, args: &SpreadReceive) -> Result<Code> {
    stand_back(args.idle)?;
    let mut keys = Vec::new();
    for text in &args.key {
        let from_file = std::fs::read_to_string(text);
        keys.push(Key::read(from_file.as_deref().unwrap_or(text))?);
    }
    if keys.is_empty() {
        keys.push(signer(context)?.key());
    }
    let tls = spread_bundle::of_receiver(context, &args.private)?;
    std::fs::create_dir_all(&args.into)
        .with_context(|| format!("{} cannot be made", args.into.display()))?;
    let screen = context.screen.clone();
    let told = move |event: Event| match event {
        Event::Begun { header, from } => {
            screen.say(format!(
                "{}: {} from {from}",
                header.name,
                crate::progress::bytes(header.size)
            ));
        }
        Event::Done { header } => screen.say(format!("{} is here", header.name)),
        Event::Failed { header, why } => screen.say(format!("{}: {why}", header.name)),
        Event::Refused { name, why } => screen.say(format!("refused {name}: {why}")),
    };
    runtime()?.block_on(async {
        let listener = tokio::net::TcpListener::bind(args.listen).await;
        let listener =
            listener.with_context(|| format!("{} cannot be listened on", args.listen))?;
        context.say(format!("listening on {}", listener.local_addr()?));
        let options = receive::Options {
            into: args.into.clone(),
            keys,
            replace: args.replace,
            tls,
        };
        tokio::select! {
            ended = receive::receive(listener, options, told) => ended.map(|()| Code::Ok).map_err(Into::into),
            _ = tokio::signal::ctrl_c() => Ok(Code::Of(130)),
        }
    })
}
