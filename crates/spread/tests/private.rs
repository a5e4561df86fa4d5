//! A source and receivers in one process, over loopback, with TLS.

#![allow(clippy::unwrap_used)]

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use spread::authority::Authority;
use spread::limit::Limit;
use spread::receive::{self, Event, Options};
use spread::send::{self, Host, State};
use spread::sign::Signer;
use spread::source::{self, From};
use spread::tls::{Clock, Tls};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// Stands at the beginning of every frame of the file that is sent: nobody on the way may see it.
const SECRET: &[u8] = b"nobody but those on the list may read this";

const DAY: Duration = Duration::from_secs(86400);

struct Place {
    dir: TempDir,
    signer: Arc<Signer>,
    ca: Authority,
}

struct Receiver {
    address: SocketAddr,
    task: JoinHandle<()>,
    refused: Arc<Mutex<Vec<String>>>,
}

impl Receiver {
    /// What the receiver's screen says, when it says something.
    async fn refusal(&self) -> String {
        loop {
            if let Some(why) = self.refused.lock().unwrap().last() {
                return why.clone();
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self {
            ca: Authority::load_or_make(&dir.path().join("ca")).unwrap(),
            dir,
            signer: Arc::new(Signer::new().unwrap()),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, bundle: &str) -> PathBuf {
        let file = self.path(&format!("{name}.bundle"));
        std::fs::write(&file, bundle).unwrap();
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).unwrap();
        file
    }

    fn tls(&self, host: &str) -> Arc<Tls> {
        let bundle = self.ca.bundle(host, 1).unwrap();
        Arc::new(Tls::load(&self.write(host, &bundle)).unwrap())
    }

    /// A bundle that is valid for so many days before and after now.
    fn tls_for(&self, host: &str, before: u32, after: u32, clock: Clock) -> Arc<Tls> {
        let now = SystemTime::now();
        let valid = now - DAY * before..now + DAY * after;
        let bundle = self.ca.bundle_for(host, valid).unwrap();
        Arc::new(Tls::load_at(&self.write(host, &bundle), clock).unwrap())
    }

    /// Frames that do not compress, but for their beginning.
    fn file(&self, mib: usize) -> PathBuf {
        let mut state = 88172645463325252_u64;
        let mut bytes = Vec::with_capacity(mib << 20);
        while bytes.len() < mib << 20 {
            if bytes.len() % (1 << 20) == 0 {
                bytes.extend(SECRET);
                bytes.extend([7; 6]);
            }
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            bytes.extend(state.to_le_bytes());
        }
        std::fs::write(self.path("source"), &bytes).unwrap();
        self.path("source")
    }

    async fn receiver(&self, name: &str, tls: Option<Arc<Tls>>) -> Receiver {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let options = Options {
            into: self.path(name),
            keys: vec![self.signer.key()],
            replace: false,
            tls,
        };
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

    async fn send(
        &self,
        hosts: &[(&str, SocketAddr)],
        tls: Option<Arc<Tls>>,
        limit: Option<Limit>,
        told: impl FnMut(&[Host]),
    ) -> Vec<Host> {
        let memory = self.path("memory");
        let file = self.path("source");
        let source = source::open(
            &file,
            "disk.raw",
            self.signer.clone(),
            &memory,
            2,
            From::Nothing,
        );
        let source = source.unwrap().unwrap();
        let hosts = hosts.iter().map(|(name, at)| ((*name).to_owned(), *at));
        let options = send::Options {
            hosts: hosts.collect(),
            chains: 1,
            patience: Duration::from_secs(3),
            limit,
            tls,
        };
        let sent = send::send(source.transfer.clone(), options, told);
        tokio::time::timeout(Duration::from_secs(60), sent)
            .await
            .unwrap()
            .unwrap()
    }

    /// One receiver and one source with these identities; what both say.
    async fn refused(
        &self,
        receiver: Option<Arc<Tls>>,
        source: Option<Arc<Tls>>,
    ) -> (String, String) {
        self.file(2);
        let a = self.receiver("a", receiver).await;
        let report = self.send(&[("a", a.address)], source, None, |_| {}).await;
        assert_eq!(report[0].state, State::Refused, "{report:?}");
        assert!(!self.path("a").exists(), "nothing was made");
        let there = tokio::time::timeout(Duration::from_secs(5), a.refusal()).await;
        (report[0].notes.join("; "), there.unwrap())
    }

    fn assert_has(&self, host: &str) {
        let there = std::fs::read(self.path(host).join("disk.raw")).unwrap();
        assert!(there == std::fs::read(self.path("source")).unwrap());
    }
}

/// Stands before a receiver and looks for the secret in all that passes.
async fn listen_in(receiver: SocketAddr, seen: Arc<AtomicUsize>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (child, _) = listener.accept().await.unwrap();
            let parent = TcpStream::connect(receiver).await.unwrap();
            let (child_in, child_out) = child.into_split();
            let (parent_in, parent_out) = parent.into_split();
            for (mut from, mut to) in [(child_in, parent_out), (parent_in, child_out)] {
                let seen = seen.clone();
                tokio::spawn(async move {
                    let mut bytes = vec![0; 1 << 18];
                    let mut last = Vec::new();
                    while let Ok(count @ 1..) = from.read(&mut bytes).await {
                        last.extend_from_slice(&bytes[..count]);
                        let words = last.windows(SECRET.len());
                        let found = words.filter(|words| *words == SECRET).count();
                        seen.fetch_add(found, Ordering::SeqCst);
                        // What it may begin with at the end of these.
                        last.drain(..last.len().saturating_sub(SECRET.len() - 1));
                        if to.write_all(&bytes[..count]).await.is_err() {
                            break;
                        }
                    }
                    drop(to);
                });
            }
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn three_hosts_have_it_and_nobody_between_them_can_read_it() {
    for private in [false, true] {
        let place = Place::new();
        place.file(12);
        let tls = |host| private.then(|| place.tls(host));
        let (seen, mut hosts) = (Arc::new(AtomicUsize::new(0)), Vec::new());
        for name in ["a", "b", "c"] {
            let receiver = place.receiver(name, tls(name)).await;
            hosts.push((name, listen_in(receiver.address, seen.clone()).await));
        }
        // Slow enough that each has it from the one before.
        let limit = Some(Limit::new(10 << 20));
        let report = place.send(&hosts, tls("source"), limit, |_| {}).await;
        for host in &report {
            assert_eq!(host.state, State::Done, "{report:#?}");
            assert!(host.received >= 12 << 20, "{report:#?}");
            place.assert_has(&host.name);
        }
        if private {
            assert_eq!(seen.load(Ordering::SeqCst), 0);
        } else {
            // Else this test would find nothing whatever passed.
            assert!(seen.load(Ordering::SeqCst) > 0, "{report:#?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_in_the_middle_is_killed_and_the_others_have_it() {
    let place = Place::new();
    place.file(40);
    let mut receivers = Vec::new();
    for name in ["a", "b", "c"] {
        receivers.push(place.receiver(name, Some(place.tls(name))).await);
    }
    let hosts = [
        ("a", receivers[0].address),
        ("b", receivers[1].address),
        ("c", receivers[2].address),
    ];
    let limit = Some(Limit::new(20 << 20));
    let begin = Instant::now();
    let mut killed = None;
    let report = place
        .send(&hosts, Some(place.tls("source")), limit, |hosts| {
            // Whoever came in time to be somebody's parent.
            let child = hosts
                .iter()
                .find(|host| host.frames > 4 && host.parent.is_some());
            if let (Some(child), None) = (child, killed) {
                let parent = hosts
                    .iter()
                    .position(|host| child.parent == Some(host.name.clone()));
                receivers[parent.unwrap()].task.abort();
                killed = parent;
            }
        })
        .await;
    let killed = killed.unwrap();
    for (index, host) in report.iter().enumerate() {
        if index == killed {
            assert_eq!(host.state, State::Failed, "{report:#?}");
        } else {
            assert_eq!(host.state, State::Done, "{report:#?}");
            place.assert_has(&host.name);
        }
    }
    assert!(begin.elapsed() < Duration::from_secs(20), "{report:#?}");
}

/// Stands before a receiver. The source's connection, the first, passes; children hear nothing more after 8 MiB.
async fn silent(receiver: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        for count in 0_u32.. {
            let (mut child, _) = listener.accept().await.unwrap();
            let mut parent = TcpStream::connect(receiver).await.unwrap();
            tokio::spawn(async move {
                if count == 0 {
                    let _ = tokio::io::copy_bidirectional(&mut child, &mut parent).await;
                    return;
                }
                let (mut child_in, mut child_out) = child.into_split();
                let (parent_in, mut parent_out) = parent.into_split();
                let up = tokio::io::copy(&mut child_in, &mut parent_out);
                let down = async {
                    let _ = tokio::io::copy(&mut parent_in.take(8 << 20), &mut child_out).await;
                    std::future::pending::<()>().await;
                };
                let _ = tokio::join!(up, down);
            });
        }
    });
    address
}

/// A parent that falls silent in the middle is left after 400 ms, and what had come of it is not sent again.
#[tokio::test(flavor = "multi_thread")]
async fn a_silent_parent_is_left_in_time() {
    let place = Place::new();
    let begin = Instant::now();
    place.file(40);
    let mut hosts = Vec::new();
    for name in ["a", "b"] {
        let receiver = place.receiver(name, Some(place.tls(name))).await;
        hosts.push((name, silent(receiver.address).await));
    }
    let report = place
        .send(&hosts, Some(place.tls("source")), None, |_| {})
        .await;
    for host in &report {
        assert_eq!(host.state, State::Done, "{report:#?}");
        place.assert_has(&host.name);
        assert!(host.received < 42 << 20, "{report:#?}");
    }
    // Whoever of them came first.
    let mut notes = report.iter().flat_map(|host| &host.notes);
    let left = notes.any(|note| note.contains("it has said nothing for 400 ms"));
    // Or the source saw that one got less, and put it elsewhere before that.
    let in_time = begin.elapsed() < Duration::from_secs(if left { 20 } else { 5 });
    assert!(in_time, "{:?} {report:#?}", begin.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn another_ca_is_refused_by_both() {
    let (place, other) = (Place::new(), Place::new());
    let (here, there) = place
        .refused(Some(place.tls("a")), Some(other.tls("source")))
        .await;
    assert!(
        here.contains("the certificate of a is not by the CA"),
        "{here}"
    );
    assert!(here.contains("source.bundle"), "{here}");
    assert!(
        there.contains("127.0.0.1 does not take the certificate in"),
        "{there}"
    );
    assert!(
        there.contains("a.bundle") && there.contains("another CA"),
        "{there}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_ran_out_by_the_receivers_clock() {
    let place = Place::new();
    let ahead = || SystemTime::now() + DAY * 3650;
    let receiver = place.tls_for("a", 1, 9999, ahead);
    let source = place.tls_for("source", 1, 30, SystemTime::now);
    let (here, there) = place.refused(Some(receiver), Some(source)).await;
    // The receiver says both times; the source says its own.
    assert!(
        there.contains("the certificate of 127.0.0.1 was valid until 20"),
        "{there}"
    );
    assert!(there.contains("by the clock here it is 20"), "{there}");
    assert!(
        here.contains("a does not take the certificate in"),
        "{here}"
    );
    assert!(
        here.contains("source.bundle") && here.contains("compare the clocks"),
        "{here}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_is_not_yet_valid_by_the_sources_clock() {
    let place = Place::new();
    let behind = || SystemTime::now() - DAY * 3650;
    let receiver = place.tls_for("a", 1, 30, SystemTime::now);
    let source = place.tls_for("source", 9999, 30, behind);
    let (here, there) = place.refused(Some(receiver), Some(source)).await;
    assert!(
        here.contains("the certificate of a is valid only from 20"),
        "{here}"
    );
    assert!(here.contains("by the clock here it is 20"), "{here}");
    assert!(there.contains("compare the clocks"), "{there}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_with_another_hosts_bundle_is_refused() {
    let place = Place::new();
    let (here, there) = place
        .refused(Some(place.tls("b")), Some(place.tls("source")))
        .await;
    assert!(here.contains("is of another host"), "{here}");
    assert!(
        here.contains("\"b\"") && here.contains("`oscarv spread bundle a`"),
        "{here}"
    );
    assert!(
        there.contains("does not take the certificate in"),
        "{there}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_that_was_replaced_or_revoked_is_refused() {
    let place = Place::new();
    let old = place.tls("a");
    place.ca.bundle("a", 1).unwrap();
    let bundle = place.ca.bundle("source", 1).unwrap();
    let file = place.write("source", &bundle);
    let source = Tls::load(&file).unwrap();
    let source = source.only_newest(&place.path("ca")).unwrap();
    let (here, there) = place.refused(Some(old), Some(Arc::new(source))).await;
    assert!(
        here.contains("revoked, or a newer bundle was made"),
        "{here}"
    );
    assert!(there.contains("revoked"), "{there}");
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_and_private_do_not_mix() {
    let place = Place::new();
    let (here, there) = place.refused(Some(place.tls("a")), None).await;
    assert!(here.contains("only what is sent with --private"), "{here}");
    assert!(there.contains("without TLS"), "{there}");
    let (here, there) = place.refused(None, Some(place.tls("source"))).await;
    assert!(here.contains("a does not speak TLS"), "{here}");
    assert!(here.contains("--private"), "{here}");
    assert!(there.contains("comes with TLS"), "{there}");
}

#[tokio::test]
async fn bundles_that_are_not_right_are_not_loaded() {
    let place = Place::new();
    let bundle = place.ca.bundle("a", 1).unwrap();
    let file = place.write("a", &bundle);
    assert!(Tls::load(&file).is_ok());
    let why = |file: &PathBuf| Tls::load(file).err().unwrap().to_string();
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o644)).unwrap();
    assert!(why(&file).contains("chmod 600"), "{}", why(&file));
    assert!(why(&file).contains("0644") && why(&file).contains("a.bundle"));
    let secret = bundle.find("-----BEGIN PRIVATE KEY-----").unwrap();
    let file = place.write("a", &bundle[..secret]);
    assert!(why(&file).contains("it is no bundle"), "{}", why(&file));
    // The certificate of one CA with another's.
    let other = Place::new().ca.bundle("a", 1).unwrap();
    let end = other.rfind("-----BEGIN CERTIFICATE-----").unwrap();
    let cut = bundle.rfind("-----BEGIN CERTIFICATE-----").unwrap();
    let file = place.write("a", &(bundle[..cut].to_owned() + &other[end..]));
    assert!(why(&file).contains("it is no bundle"), "{}", why(&file));
    let now = SystemTime::now();
    let old = place.ca.bundle_for("a", now - DAY * 9..now - DAY * 2);
    let file = place.write("a", &old.unwrap());
    assert!(
        why(&file).contains("this host's certificate was valid until"),
        "{}",
        why(&file)
    );
    let early = place.ca.bundle_for("a", now + DAY..now + DAY * 2);
    let file = place.write("a", &early.unwrap());
    assert!(why(&file).contains("valid only from"), "{}", why(&file));
}

/// Who belongs to the cluster, but is not on the list, does not know what to ask for; who has no certificate of the CA
/// is not asked what he wants.
#[tokio::test(flavor = "multi_thread")]
async fn strangers_and_their_offers_are_turned_away() {
    let place = Place::new();
    place.file(2);
    let a = place.receiver("a", Some(place.tls("a"))).await;
    // TLS does not replace the signature.
    let mut stranger = Place::new();
    stranger.file(1);
    stranger.ca = Authority::load_or_make(&place.path("ca")).unwrap();
    let report = stranger
        .send(&[("a", a.address)], Some(stranger.tls("x")), None, |_| {})
        .await;
    assert_eq!(report[0].state, State::Refused, "{report:?}");
    assert!(
        report[0].notes[0].contains("none of the keys"),
        "{report:?}"
    );
    // Without a certificate, and with one of another CA.
    let other = Place::new().ca.bundle("source", 1).unwrap();
    for (bundle, why) in [(None, "has no certificate"), (Some(other), "not by the CA")] {
        let mut stream = rogue(a.address, bundle).await;
        stream.write_all(b"{\"want\":").await.unwrap();
        let mut answer = Vec::new();
        assert!(stream.read_to_end(&mut answer).await.is_err());
        assert_eq!(answer, b"");
        drop(stream);
        while !a.refusal().await.contains(why) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    // Bytes that are no TLS, in both guises.
    for hello in [
        &b"\x16\x03\x01\xff\xffrubbish"[..],
        b"\x16",
        b"GET / HTTP/1.1\r\n",
    ] {
        let mut stream = TcpStream::connect(a.address).await.unwrap();
        stream.write_all(hello).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        let ended = stream.read_to_end(&mut answer);
        let ended = tokio::time::timeout(Duration::from_secs(4), ended).await;
        assert!(ended.is_ok());
    }
    let tls = place.tls("source");
    let report = place
        .send(&[("a", a.address)], Some(tls), None, |_| {})
        .await;
    assert_eq!(report[0].state, State::Done, "{report:?}");
    place.assert_has("a");
}

/// Somebody who takes whatever certificate the other side has.
async fn rogue(
    to: SocketAddr,
    bundle: Option<String>,
) -> tokio_rustls::client::TlsStream<TcpStream> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Gullible));
    let config = match bundle {
        None => config.with_no_client_auth(),
        Some(bundle) => {
            let certificate = CertificateDer::from_pem_slice(bundle.as_bytes()).unwrap();
            let key = PrivateKeyDer::from_pem_slice(bundle.as_bytes()).unwrap();
            config
                .with_client_auth_cert(vec![certificate], key)
                .unwrap()
        }
    };
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let stream = TcpStream::connect(to).await.unwrap();
    connector.connect(to.ip().into(), stream).await.unwrap()
}

#[derive(Debug)]
struct Gullible;

impl ServerCertVerifier for Gullible {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        vec![rustls::SignatureScheme::ED25519]
    }
}
