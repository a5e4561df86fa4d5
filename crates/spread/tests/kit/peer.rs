//! The protocol, as one writes it by hand: for sources, parents and children that are played by a test.

use spread::manifest::{Entry, FRAME, Header, Id, Page};
use spread::sign::Signer;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

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

/// A frame of this byte.
pub fn frame(byte: u8) -> Vec<u8> {
    vec![byte; FRAME as usize]
}

/// Such a frame, as a page has it.
pub fn raw(byte: u8) -> Entry {
    Entry::raw(FRAME, *blake3::hash(&frame(byte)).as_bytes())
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
            proof,
            page,
        }
    }

    /// A page as it goes over the wire, of any bytes.
    pub fn sign(signer: &Signer, page: &[u8], id: Id) -> Vec<u8> {
        let title = format!("oscarv spread {id}: page from 0");
        let signature = signer.sign(page, &title);
        let mut wire = (page.len() as u32).to_le_bytes().to_vec();
        wire.extend(page);
        wire.extend(signature.as_bytes());
        message(PAGE, &wire)
    }

    /// What is offered: the header's line and its signature.
    pub fn offered(&self) -> (&str, &str) {
        (&self.line, &self.proof)
    }

    /// The manifest's signature, as it comes at the end.
    pub fn end(&self, signer: &Signer) -> Vec<u8> {
        let mut manifest = format!("{}\n", self.line).into_bytes();
        // The page as it was signed, and its length before it.
        let len = u32::from_le_bytes(self.page[4..8].try_into().unwrap()) as usize;
        manifest.extend(&self.page[4..8 + len]);
        let title = format!("oscarv spread {}: manifest", self.header.id);
        message(END, signer.sign(&manifest, &title).as_bytes())
    }

    /// Offers it to a receiver, and names whom to ask.
    pub async fn offer(&self, to: SocketAddr, parents: &[SocketAddr]) -> Control {
        let mut control = Control::offer(to, &self.line, &self.proof).await;
        control.hear("accept").await;
        control.say(&serde_json::json!({"parents": parents})).await;
        control
    }
}

/// What a child says first: it wants all from there on.
pub fn want(id: Id, frame: u32, offset: u32) -> Vec<u8> {
    asks(id, frame, offset, false)
}

/// It wants this frame by itself.
pub fn want_one(id: Id, frame: u32) -> Vec<u8> {
    asks(id, frame, 0, true)
}

fn asks(id: Id, frame: u32, offset: u32, single: bool) -> Vec<u8> {
    let want = serde_json::json!({"want": {
        "id": id, "frame": frame, "offset": offset, "pages": 0, "single": single,
    }});
    format!("{want}\n").into_bytes()
}

/// Reads the next message: its kind, and what follows.
pub async fn hear(from: &mut TcpStream) -> std::io::Result<(u8, Vec<u8>)> {
    let mut head = [0; 4];
    from.read_exact(&mut head).await?;
    let mut what = vec![0; u32::from_le_bytes([head[0], head[1], head[2], 0]) as usize];
    from.read_exact(&mut what).await?;
    Ok((head[3], what))
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

    /// A source's, which offers this.
    pub async fn offer(to: SocketAddr, header: &str, signature: &str) -> Self {
        let offer = serde_json::json!({"offer": {"header": header, "signature": signature}});
        let mut control = Self::new(TcpStream::connect(to).await.unwrap());
        control.say(&offer).await;
        control
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
        timeout(super::LONG, lines).await.unwrap()
    }

    /// Listens until the other side has closed.
    pub async fn drain(&mut self) {
        let _ = tokio::io::copy(&mut self.stream, &mut tokio::io::sink()).await;
    }
}

/// Listens at a port of its own, and does this with each connection.
pub async fn listen<F>(serve: impl Fn(TcpStream) -> F + Send + Sync + 'static) -> SocketAddr
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(serve(stream));
        }
    });
    address
}

/// A parent, or a source's side for data, that does this with each child; it gets what the child has said first.
pub async fn parent<F>(serve: impl Fn(TcpStream, String) -> F + Send + Sync + 'static) -> SocketAddr
where
    F: Future<Output = ()> + Send + 'static,
{
    let serve = Arc::new(serve);
    listen(move |mut stream| {
        let serve = serve.clone();
        async move {
            if let Some(line) = first_line(&mut stream).await {
                serve(stream, line).await;
            }
        }
    })
    .await
}

/// Stands before somebody: does this with each connection, and one from here to it.
pub async fn before<F>(
    target: SocketAddr,
    carry: impl Fn(TcpStream, TcpStream) -> F + Send + Sync + 'static,
) -> SocketAddr
where
    F: Future<Output = ()> + Send + 'static,
{
    let carry = Arc::new(carry);
    listen(move |child| {
        let carry = carry.clone();
        async move {
            let parent = TcpStream::connect(target).await.unwrap();
            carry(child, parent).await;
        }
    })
    .await
}

/// The first line, and not a byte of what follows.
pub async fn first_line(stream: &mut TcpStream) -> Option<String> {
    let mut line = Vec::new();
    while line.last() != Some(&b'\n') {
        line.push(stream.read_u8().await.ok()?);
    }
    String::from_utf8(line).ok()
}

/// A host that takes an offer and asks for nothing; and where the source is, as soon as it has said so.
pub async fn idle() -> (SocketAddr, watch::Receiver<Option<SocketAddr>>) {
    let (found, source) = watch::channel(None);
    let address = parent(move |stream, _| {
        let found = found.clone();
        async move {
            let mut control = Control::new(stream);
            control.say(&serde_json::json!({"accept": {"frames": 0}})).await;
            let said = control.hear("parents").await;
            let said: serde_json::Value = serde_json::from_str(&said).unwrap();
            let list = said["parents"].as_array().unwrap();
            let source = list.last().unwrap().as_str().unwrap();
            found.send_replace(Some(source.parse().unwrap()));
            // As one that is there, and to which nothing comes.
            let report = serde_json::json!({"report": {"frame": 0, "received": 0, "good": 0, "parent": null}});
            let beats = async {
                loop {
                    control.say(&report).await;
                    sleep(Duration::from_millis(100)).await;
                }
            };
            beats.await
        }
    })
    .await;
    (address, source)
}

/// All that is said to whoever asks for something, until the connection is closed, which is not long waited for.
pub async fn answer(at: SocketAddr, ask: &serde_json::Value) -> Vec<u8> {
    let mut child = TcpStream::connect(at).await.unwrap();
    child
        .write_all(format!("{ask}\n").as_bytes())
        .await
        .unwrap();
    let mut said = Vec::new();
    let read = timeout(Duration::from_secs(10), child.read_to_end(&mut said)).await;
    read.unwrap_or_else(|_| panic!("{ask} is waited for: {} bytes", said.len()))
        .unwrap();
    said
}
