//! Private connections: TLS 1.3, both sides with a certificate of the same CA.
//!
//! Who is let in is decided by the source alone. It connects to each host by its name, and tells a host of each of its
//! parents by the hash of the certificate that it saw there. So a host with a certificate that the source has not met
//! under a name on its list gets nothing, and cannot stand in for another one.

use crate::authority::{self, mark, when};
use crate::manifest::{Bad, Hash};
use crate::secret;
use crate::verify::{Peer, Verifier, check, provider, time_of, validity, when_unix};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::time_provider::TimeProvider;
use rustls::{
    AlertDescription, CertificateError, ClientConfig, Error, InvalidMessage, OtherError,
    RootCertStore, ServerConfig,
};
use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

/// What time it is.
pub type Clock = fn() -> SystemTime;

/// So long a peer that was turned away may take to read why.
const FAREWELL: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug)]
struct Now(Clock);

impl TimeProvider for Now {
    fn current_time(&self) -> Option<UnixTime> {
        let since = (self.0)().duration_since(SystemTime::UNIX_EPOCH).ok()?;
        Some(UnixTime::since_unix_epoch(since))
    }
}

/// This host's identity, and whom it believes.
pub struct Tls {
    file: PathBuf,
    now: Now,
    provider: Arc<CryptoProvider>,
    roots: Arc<RootCertStore>,
    identity: Arc<SingleCertAndKey>,
    acceptor: TlsAcceptor,
    mark: Hash,
    /// From when and until when our certificate is valid.
    valid: (UnixTime, UnixTime),
    /// Only these certificates are taken; none: all of the CA.
    only: Option<Arc<HashSet<Hash>>>,
}

/// The other side is not who it should be, or does not take us: it would be the same the next time.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Untrusted(pub String);

impl Tls {
    /// Reads the bundle of this host.
    ///
    /// Errors: others may read the file; it is not a bundle, or one that is not valid now.
    pub fn load(file: &Path) -> Result<Self, Bad> {
        Self::load_at(file, SystemTime::now)
    }

    /// As [`Self::load`], by another clock.
    pub fn load_at(file: &Path, clock: Clock) -> Result<Self, Bad> {
        let wrong = |e: &dyn std::fmt::Display| Bad(format!("{}: {e}", file.display()));
        let none = "it is no bundle; `oscarv spread bundle` makes one";
        let text = secret::read(file).map_err(|e| wrong(&e))?;
        let certificates: Vec<_> = CertificateDer::pem_slice_iter(text.as_bytes())
            .collect::<Result<_, _>>()
            .map_err(|_| wrong(&none))?;
        let [certificate, ca] = certificates.try_into().map_err(|_| wrong(&none))?;
        let key = PrivateKeyDer::from_pem_slice(text.as_bytes()).map_err(|_| wrong(&none))?;
        let mut roots = RootCertStore::empty();
        roots.add(ca).map_err(|e| wrong(&e))?;
        let roots = Arc::new(roots);
        let now = Now(clock);
        let provider = Arc::new(provider());
        let current = now
            .current_time()
            .unwrap_or(UnixTime::since_unix_epoch(Duration::ZERO));
        let valid = validity(&certificate, &roots, &provider);
        let check = |at| check(&certificate, &roots, at, &provider);
        check(current).map_err(|e| match &e {
            Error::InvalidCertificate(e) if time_of(e).is_some() => wrong(&format!(
                "this host's certificate {}. If the clock is right, make a new bundle with `oscarv spread bundle`",
                time_of(e).unwrap_or_default()
            )),
            _ => wrong(&format!("{none} ({e})")),
        })?;
        let mark = mark(&certificate);
        let signer = provider
            .key_provider
            .load_private_key(key)
            .map_err(|e| wrong(&e))?;
        let identity = CertifiedKey::new(vec![certificate], signer);
        identity.keys_match().map_err(|e| wrong(&e))?;
        let identity = Arc::new(SingleCertAndKey::from(identity));
        let children = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone())
            .build()
            .map_err(|e| wrong(&e))?;
        let mut server = ServerConfig::builder_with_details(provider.clone(), Arc::new(now))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|e| wrong(&e))?
            .with_client_cert_verifier(children)
            .with_cert_resolver(identity.clone());
        // Each connection proves itself anew: what was taken back must not come in by a ticket.
        server.send_tls13_tickets = 0;
        server.session_storage = Arc::new(NoServerSessionStorage {});
        Ok(Self {
            file: file.to_owned(),
            now,
            provider,
            roots,
            identity,
            acceptor: TlsAcceptor::from(Arc::new(server)),
            mark,
            valid,
            only: None,
        })
    }

    /// Takes only hosts whose bundle is the newest that the CA in this directory has made for them. Without a CA there,
    /// all are taken that have one of it.
    pub fn only_newest(mut self, directory: &Path) -> Result<Self, Bad> {
        self.only = authority::newest(directory)?.map(Arc::new);
        Ok(self)
    }

    /// The hash of this host's certificate.
    pub(crate) fn mark(&self) -> Hash {
        self.mark
    }

    /// Makes a connection private; says what certificate the other side has.
    pub(crate) async fn connect(
        &self,
        tcp: TcpStream,
        peer: Peer,
    ) -> io::Result<(TlsStream<TcpStream>, Hash)> {
        let name = match &peer {
            Peer::Named(name) => name.clone(),
            Peer::Met(_) => ServerName::from(tcp.peer_addr()?.ip()),
        };
        let verifier = Verifier {
            roots: self.roots.clone(),
            provider: self.provider.clone(),
            peer,
            only: self.only.clone(),
        };
        let mut config =
            ClientConfig::builder_with_details(self.provider.clone(), Arc::new(self.now))
                .with_protocol_versions(&[&rustls::version::TLS13])
                .map_err(io::Error::other)?
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(verifier))
                .with_client_cert_resolver(self.identity.clone());
        config.resumption = rustls::client::Resumption::disabled();
        config.enable_sni = false;
        let connector = TlsConnector::from(Arc::new(config));
        let stream = TlsStream::from(connector.connect(name, tcp).await?);
        let mark = mark_of(&stream)?;
        Ok((stream, mark))
    }

    /// The same, from the side that was called.
    pub(crate) async fn accept(&self, tcp: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let accepted = self.acceptor.accept(tcp).into_fallible().await;
        let stream = match accepted {
            Ok(stream) => TlsStream::from(stream),
            Err((e, tcp)) => {
                // The alert says why. Closing at once would take it back: what came was not all read.
                farewell(tcp).await;
                return Err(e);
            }
        };
        let mark = mark_of(&stream)?;
        match self.only.as_ref().is_some_and(|only| !only.contains(&mark)) {
            true => Err(io::Error::other(Error::from(CertificateError::Revoked))),
            false => Ok(stream),
        }
    }

    /// Says in words what went wrong with TLS, and what mends it. Other errors stay as they are.
    pub(crate) fn explain(&self, error: io::Error, who: &str) -> io::Error {
        let inner = error.get_ref().and_then(|e| e.downcast_ref::<Error>());
        let Some(inner) = inner else { return error };
        let file = self.file.display();
        let why = match inner {
            Error::InvalidCertificate(why) => match why {
                CertificateError::UnknownIssuer | CertificateError::BadSignature => format!(
                    "the certificate of {who} is not by the CA that is in {file}: make the bundles of all hosts in one place, with `oscarv spread bundle`"
                ),
                CertificateError::NotValidForNameContext { presented, .. } => format!(
                    "the certificate of {who} is of another host ({}): list it by that name, or give it its own bundle from `oscarv spread bundle {who}`",
                    presented.join(", ")
                ),
                CertificateError::Revoked => format!(
                    "the certificate of {who} was revoked, or a newer bundle was made for it: copy the newest there"
                ),
                CertificateError::Other(OtherError(why)) => {
                    format!("the certificate of {who}: {why}")
                }
                other => match time_of(other) {
                    Some(times) => format!(
                        "the certificate of {who} {times}. If the clock here is right, make it a new bundle with `oscarv spread bundle {who}`"
                    ),
                    None => format!("the certificate of {who}: {other}"),
                },
            },
            Error::AlertReceived(AlertDescription::CertificateExpired) => format!(
                "{who} does not take the certificate in {file}, by its clock. It is valid from {} to {}, and here it is {}: compare the clocks, or make a new bundle",
                when_unix(self.valid.0),
                when_unix(self.valid.1),
                when((self.now.0)())
            ),
            Error::AlertReceived(AlertDescription::UnknownCA | AlertDescription::DecryptError) => {
                format!(
                    "{who} does not take the certificate in {file}: its own bundle is by another CA. Make the bundles of all hosts in one place, with `oscarv spread bundle`"
                )
            }
            Error::AlertReceived(AlertDescription::CertificateRevoked) => format!(
                "{who} does not take the certificate in {file}: it was revoked, or a newer bundle was made for this host"
            ),
            Error::AlertReceived(alert) => {
                format!("{who} does not take the certificate in {file} ({alert:?})")
            }
            Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
                format!("{who} does not speak TLS: receivers of private content need --private")
            }
            Error::NoCertificatesPresented => format!("{who} has no certificate"),
            other => format!("TLS with {who}: {other}"),
        };
        io::Error::other(Untrusted(why))
    }
}

/// Lets the other side read what it was told, and closes.
pub(crate) async fn farewell(mut tcp: TcpStream) {
    let _ = tcp.shutdown().await;
    let mut rest = [0; 1024];
    let _ = timeout(FAREWELL, async {
        while tcp.read(&mut rest).await.is_ok_and(|count| count > 0) {}
    })
    .await;
}

/// Would it be the same the next time?
pub(crate) fn is_final(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|e| e.is::<Untrusted>())
}

fn mark_of(stream: &TlsStream<TcpStream>) -> io::Result<Hash> {
    let (_, session) = stream.get_ref();
    let certificate = session.peer_certificates().and_then(|all| all.first());
    let certificate =
        certificate.ok_or_else(|| io::Error::other(Error::NoCertificatesPresented))?;
    Ok(mark(certificate))
}
