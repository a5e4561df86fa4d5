//! A host that lies: it says that it has everything, and plays a trick on whoever asks it.

use crate::kit::peer::{BAD, BEAT, Control, DATA, FAILED, FRAME_AT, message, parent};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;

/// What a host that says it has everything does to its children.
#[derive(Clone, Copy, Debug)]
pub enum Trick {
    /// A byte now and then.
    Dribble,
    /// Only signs of life.
    Beats,
    /// Each piece is wrong.
    Spoil,
    /// Each frame is said to be bad.
    AllBad,
    /// Says that the source has given up.
    Over,
    /// Data without end that nobody asked for.
    Flood,
}

/// A host that takes an offer, says at once that it has all, and then plays its trick on whoever asks it.
///
/// Also returns whether it stands in the chain by now, and how often somebody has asked it for data.
pub async fn host(
    trick: Trick,
) -> (
    SocketAddr,
    watch::Receiver<Option<SocketAddr>>,
    Arc<AtomicU32>,
) {
    let asked = Arc::new(AtomicU32::new(0));
    let count = asked.clone();
    // Where it can have the real thing.
    let (found, source) = watch::channel(None);
    let (found, is_in) = (Arc::new(found), source.clone());
    let address = parent(move |stream, line| {
        let (found, mut source) = (found.clone(), source.clone());
        let count = count.clone();
        async move {
            if line.starts_with("{\"offer\"") {
                let mut control = Control::new(stream);
                let accept = serde_json::json!({"accept": {"frames": 0}});
                control.say(&accept).await;
                let parents = control.hear("parents").await;
                control.say(&"done".into()).await;
                let said: serde_json::Value = serde_json::from_str(&parents).unwrap();
                let list = said["parents"].as_array().unwrap();
                let source: SocketAddr = list.last().unwrap().as_str().unwrap().parse().unwrap();
                found.send_replace(Some(source));
                control.drain().await;
            } else {
                count.fetch_add(1, Ordering::Relaxed);
                let at = *source.wait_for(Option::is_some).await.unwrap();
                play(trick, stream, &line, at.unwrap()).await;
            }
        }
    })
    .await;
    (address, is_in, asked)
}

async fn play(trick: Trick, mut child: TcpStream, line: &str, source: SocketAddr) {
    let beat = message(BEAT, &[]);
    match trick {
        Trick::Over => {
            let _ = child.write_all(&message(FAILED, b"all is over")).await;
            return;
        }
        Trick::Beats => {
            while child.write_all(&beat).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            return;
        }
        Trick::Flood => {
            let flood = message(DATA, &[7; 1 << 16]);
            while child.write_all(&flood).await.is_ok() {}
            return;
        }
        Trick::Dribble | Trick::Spoil | Trick::AllBad => {}
    }
    let Ok(mut real) = TcpStream::connect(source).await else {
        return;
    };
    let _ = real.write_all(line.as_bytes()).await;
    let mut head = [0; 4];
    while real.read_exact(&mut head).await.is_ok() {
        let mut body = vec![0; u32::from_le_bytes([head[0], head[1], head[2], 0]) as usize];
        if real.read_exact(&mut body).await.is_err() {
            return;
        }
        let said = match (trick, head[3]) {
            (Trick::Dribble, DATA) => {
                for byte in &body {
                    let one = message(DATA, &[*byte]);
                    if child.write_all(&one).await.is_err() {
                        return;
                    }
                    tokio::time::sleep(Duration::from_millis(300)).await;
                }
                continue;
            }
            (Trick::Spoil, DATA) => {
                body[0] ^= 1;
                message(DATA, &body)
            }
            (Trick::AllBad, FRAME_AT) => message(BAD, &body[..4]),
            (Trick::AllBad, DATA) => continue,
            (_, kind) => message(kind, &body),
        };
        if child.write_all(&said).await.is_err() {
            return;
        }
    }
}
