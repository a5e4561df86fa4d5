//! A place with a CA, and receivers of which it is known what they have refused.

use crate::kit::{LONG, Place, noise, options};
use spread::authority::Authority;
use spread::limit::Limit;
use spread::receive::{self, Event};
use spread::send::{self, Host, State};
use spread::tls::{Clock, Tls};
use std::net::SocketAddr;
use std::ops::Deref;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// Stands at the beginning of every frame of the file that is sent: nobody on the way may see it.
pub const SECRET: &[u8] = b"nobody but those on the list may read this";

pub const DAY: Duration = Duration::from_secs(86400);

/// A place with a CA.
pub struct Cluster {
    place: Place,
    pub ca: Authority,
}

impl Deref for Cluster {
    type Target = Place;

    fn deref(&self) -> &Place {
        &self.place
    }
}

pub struct Receiver {
    pub address: SocketAddr,
    pub task: JoinHandle<()>,
    refused: Arc<Mutex<Vec<String>>>,
}

impl Receiver {
    /// What the receiver's screen says, when it says something.
    pub async fn refusal(&self) -> String {
        loop {
            if let Some(why) = self.refused.lock().unwrap().last() {
                return why.clone();
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Cluster {
    pub fn new() -> Self {
        let place = Place::new();
        let ca = Authority::load_or_make(&place.path("ca")).unwrap();
        Self { place, ca }
    }

    pub fn keep(&self, name: &str, bundle: &str) -> PathBuf {
        let file = self.write(&format!("{name}.bundle"), bundle.as_bytes());
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).unwrap();
        file
    }

    pub fn tls(&self, host: &str) -> Arc<Tls> {
        let bundle = self.ca.bundle(host, 1).unwrap();
        Arc::new(Tls::load(&self.keep(host, &bundle)).unwrap())
    }

    /// A bundle that is valid for so many days before and after now.
    pub fn tls_for(&self, host: &str, before: u32, after: u32, clock: Clock) -> Arc<Tls> {
        let now = SystemTime::now();
        let valid = now - DAY * before..now + DAY * after;
        let bundle = self.ca.bundle_for(host, valid).unwrap();
        Arc::new(Tls::load_at(&self.keep(host, &bundle), clock).unwrap())
    }

    /// Frames that do not compress, but for their beginning.
    pub fn secret(&self, mib: usize) -> PathBuf {
        let mut bytes = noise(7, mib << 20);
        for frame in bytes.chunks_mut(1 << 20) {
            frame[..SECRET.len()].copy_from_slice(SECRET);
        }
        self.write("source", &bytes)
    }

    pub async fn receive(&self, name: &str, tls: Option<Arc<Tls>>) -> Receiver {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut options = self.options(name);
        options.tls = tls;
        let refused = Arc::new(Mutex::new(Vec::new()));
        let saw = refused.clone();
        let task = tokio::spawn(async move {
            let told = move |event| {
                if let Event::Refused { why, .. } = event {
                    saw.lock().unwrap().push(why);
                }
            };
            receive::receive(listener, options, told).await.unwrap();
        });
        Receiver {
            address,
            task,
            refused,
        }
    }

    pub async fn send_to(
        &self,
        hosts: &[(&str, SocketAddr)],
        tls: Option<Arc<Tls>>,
        limit: Option<Limit>,
        told: impl FnMut(&[Host]),
    ) -> Vec<Host> {
        let source = self.source(&self.path("source"));
        let mut options = options(hosts, None);
        (options.limit, options.tls) = (limit, tls);
        let sent = send::send(source.transfer.clone(), options, told);
        tokio::time::timeout(LONG, sent).await.unwrap().unwrap()
    }

    /// One receiver and one source with these identities; what both say.
    pub async fn refused(
        &self,
        receiver: Option<Arc<Tls>>,
        source: Option<Arc<Tls>>,
    ) -> (String, String) {
        self.secret(2);
        let a = self.receive("a", receiver).await;
        let report = self
            .send_to(&[("a", a.address)], source, None, |_| {})
            .await;
        assert_eq!(report[0].state, State::Refused, "{report:?}");
        assert!(!self.path("a").exists(), "nothing was made");
        let there = tokio::time::timeout(Duration::from_secs(5), a.refusal()).await;
        (report[0].notes.join("; "), there.unwrap())
    }

    pub fn assert_has(&self, host: &str) {
        assert!(self.has(host, &self.path("source")));
    }
}
