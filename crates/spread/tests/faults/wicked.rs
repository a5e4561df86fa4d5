//! Peers that do not keep to the protocol: sources, parents, receivers and children, as one writes them by hand.

use spread::manifest::{Entry, FRAME, Header, Id, Page};
use spread::sign::Signer;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::timeout;

pub const PAGE: u8 = 1;
pub const FRAME_AT: u8 = 2;
pub const DATA: u8 = 3;
pub const BAD: u8 = 4;
pub const BEAT: u8 = 5;
pub const END: u8 = 6;
pub const FAILED: u8 = 7;

/// A message of the connection for data.
pub fn message(kind: u8, what: &[u8]) -> Vec<u8> {
    let mut all = (what.len() as u32).to_le_bytes().to_vec();
    all[3] = kind;
    all.extend(what);
    all
}

pub fn frame_at(frame: u32, offset: u32) -> Vec<u8> {
    message(
        FRAME_AT,
        &[frame.to_le_bytes(), offset.to_le_bytes()].concat(),
    )
}

/// What a source has that makes its manifest as it likes.
pub struct Fake {
    pub header: Header,
    line: String,
    proof: String,
    pub page: Vec<u8>,
}

impl Fake {
    /// A file of these frames, in one page.
    pub fn new(signer: &Signer, name: &str, frames: Vec<Entry>) -> Self {
        let mut id = [0; 16];
        id.copy_from_slice(&blake3::hash(name.as_bytes()).as_bytes()[..16]);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let size = frames.len() as u64 * u64::from(FRAME);
        let header = Header::new(Id(id), name, size, now.as_nanos() as u64, None).unwrap();
        let line = header.line().unwrap();
        let proof = signer.sign(line.as_bytes(), "oscarv spread: header");
        let page = Page {
            first: 0,
            entries: frames,
        };
        let page = Self::sign(signer, &page.bytes(header.id), header.id);
        Self {
            header,
            line,
            proof: proof.unwrap(),
            page,
        }
    }

    /// A page as it goes over the wire, of any bytes.
    pub fn sign(signer: &Signer, page: &[u8], id: Id) -> Vec<u8> {
        let title = format!("oscarv spread {id}: page from 0");
        let signature = signer.sign(page, &title).unwrap();
        let mut wire = (page.len() as u32).to_le_bytes().to_vec();
        wire.extend(page);
        wire.extend(signature.as_bytes());
        message(PAGE, &wire)
    }

    /// Offers it to a receiver, and names whom to ask.
    pub async fn offer(&self, to: SocketAddr, parents: &[SocketAddr]) -> Control {
        let offer = serde_json::json!({"offer": {"header": self.line, "signature": self.proof}});
        let mut control = Control::new(TcpStream::connect(to).await.unwrap());
        control.say(&offer).await;
        control.hear("accept").await;
        control.say(&serde_json::json!({"parents": parents})).await;
        control
    }
}

/// A connection for control, from either side.
pub struct Control {
    stream: BufReader<TcpStream>,
}

impl Control {
    pub fn new(stream: TcpStream) -> Self {
        let stream = BufReader::new(stream);
        Self { stream }
    }

    pub async fn say(&mut self, what: &serde_json::Value) {
        // It may have gone; whoever waits for its answer sees that.
        let _ = self.stream.write_all(format!("{what}\n").as_bytes()).await;
    }

    /// The next line with these words.
    pub async fn hear(&mut self, words: &str) -> String {
        let lines = async {
            let mut line = String::new();
            while self.stream.read_line(&mut line).await.unwrap() > 0 {
                if line.contains(words) {
                    return line;
                }
                line.clear();
            }
            panic!("it has gone without {words:?}");
        };
        timeout(super::lab::LONG, lines).await.unwrap()
    }

    /// Listens until the other side has closed.
    pub async fn drain(&mut self) {
        let _ = tokio::io::copy(&mut self.stream, &mut tokio::io::sink()).await;
    }
}

/// A parent, or a source's side for data, that does this with each child; it gets what the child has said first.
pub async fn parent<F>(serve: impl Fn(TcpStream, String) -> F + Send + Sync + 'static) -> SocketAddr
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serve = Arc::new(serve);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let serve = serve.clone();
            tokio::spawn(async move {
                if let Some(line) = first_line(&mut stream).await {
                    serve(stream, line).await;
                }
            });
        }
    });
    address
}

/// The first line, and not a byte of what follows.
async fn first_line(stream: &mut TcpStream) -> Option<String> {
    let mut line = Vec::new();
    while line.last() != Some(&b'\n') {
        line.push(stream.read_u8().await.ok()?);
    }
    String::from_utf8(line).ok()
}

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
