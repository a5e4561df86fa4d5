//! How a certificate is looked at.

use crate::authority::{mark, when};
use crate::manifest::Hash;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::ring::{cipher_suite, default_provider};
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme,
};
use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// Whom we mean to connect to.
#[derive(Clone, Debug)]
pub(crate) enum Peer {
    /// A host that has this name, or this address.
    Named(ServerName<'static>),
    /// The host that the source has met with this certificate.
    Met(Hash),
}

#[derive(Debug, thiserror::Error)]
#[error("it is not the host that the source has met there")]
struct NotMet;

/// ring, with the cipher first that processors have instructions for.
pub(crate) fn provider() -> CryptoProvider {
    CryptoProvider {
        cipher_suites: vec![
            cipher_suite::TLS13_AES_128_GCM_SHA256,
            cipher_suite::TLS13_AES_256_GCM_SHA384,
            cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        ],
        ..default_provider()
    }
}

pub(crate) fn check(
    certificate: &CertificateDer<'_>,
    roots: &RootCertStore,
    at: UnixTime,
    provider: &CryptoProvider,
) -> Result<(), Error> {
    let parsed = ParsedCertificate::try_from(certificate)?;
    let algorithms = provider.signature_verification_algorithms.all;
    verify_server_cert_signed_by_trust_anchor(&parsed, roots, &[], at, algorithms)
}

/// From when and until when: asked in the year 1970, and long after.
pub(crate) fn validity(
    certificate: &CertificateDer<'_>,
    roots: &RootCertStore,
    provider: &CryptoProvider,
) -> (UnixTime, UnixTime) {
    let at = |seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
    let (mut from, mut until) = (at(0), at(1 << 37));
    use CertificateError::{ExpiredContext, NotValidYetContext};
    if let Err(Error::InvalidCertificate(NotValidYetContext { not_before, .. })) =
        check(certificate, roots, from, provider)
    {
        from = not_before;
    }
    if let Err(Error::InvalidCertificate(ExpiredContext { not_after, .. })) =
        check(certificate, roots, until, provider)
    {
        until = not_after;
    }
    (from, until)
}

/// What is wrong with a certificate's time, with both times.
pub(crate) fn time_of(error: &CertificateError) -> Option<String> {
    match error {
        CertificateError::ExpiredContext { time, not_after } => Some(format!(
            "was valid until {}, and by the clock here it is {}",
            when_unix(*not_after),
            when_unix(*time)
        )),
        CertificateError::NotValidYetContext { time, not_before } => Some(format!(
            "is valid only from {} on, and by the clock here it is {}",
            when_unix(*not_before),
            when_unix(*time)
        )),
        _ => None,
    }
}

pub(crate) fn when_unix(time: UnixTime) -> String {
    when(SystemTime::UNIX_EPOCH + Duration::from_secs(time.as_secs()))
}

/// Looks at a parent's or a receiver's certificate.
#[derive(Debug)]
pub(crate) struct Verifier {
    pub roots: Arc<RootCertStore>,
    pub provider: Arc<CryptoProvider>,
    pub peer: Peer,
    /// Only these certificates are taken; none: all of the CA.
    pub only: Option<Arc<HashSet<Hash>>>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        check(end_entity, &self.roots, now, &self.provider)?;
        let found = mark(end_entity);
        match &self.peer {
            Peer::Named(name) => {
                verify_server_name(&ParsedCertificate::try_from(end_entity)?, name)?
            }
            Peer::Met(met) if *met == found => {}
            Peer::Met(_) => {
                return Err(CertificateError::Other(OtherError(Arc::new(NotMet))).into());
            }
        }
        match self
            .only
            .as_ref()
            .is_some_and(|only| !only.contains(&found))
        {
            true => Err(CertificateError::Revoked.into()),
            false => Ok(ServerCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.2 is not spoken here".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let algorithms = &self.provider.signature_verification_algorithms;
        algorithms.supported_schemes()
    }
}
