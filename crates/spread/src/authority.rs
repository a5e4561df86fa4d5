//! A small CA for the hosts of one cluster, and the bundles that it makes for them.
//!
//! All that there is of it is in one directory:
//!
//! ```text
//! ca.pem              its certificate and its key, for the owner only
//! hosts/HOST.pem      the newest certificate of each host, without the key
//! ```
//!
//! A bundle is one file for one host: its certificate, its key and the CA's certificate. The CA's key never leaves the
//! directory.

use crate::manifest::{Bad, Hash};
use crate::place::write_whole;
use crate::secret;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ED25519, PublicKeyData, SanType,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use std::collections::HashSet;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// How long the CA itself is valid.
const CA_DAYS: u64 = 20 * 365;

/// So much before it is made a certificate is valid: clocks of hosts differ.
const EARLIER: Duration = Duration::from_secs(86400);

/// The hash of a certificate (DER): by it a host is known again.
pub(crate) fn mark(certificate: &CertificateDer) -> Hash {
    *blake3::hash(certificate).as_bytes()
}

/// A bundle, and what is to be known of it here.
struct Made {
    host: String,
    certificate: String,
    bundle: String,
}

/// A CA.
pub struct Authority {
    directory: PathBuf,
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
}

impl Authority {
    /// Reads the CA in this directory, or makes one.
    ///
    /// Errors: others may read its key, or the directory cannot be written to.
    pub fn load_or_make(directory: &Path) -> Result<Self, Bad> {
        let file = directory.join("ca.pem");
        let wrong = |e: &dyn std::fmt::Display| Bad(format!("{}: {e}", file.display()));
        if !file.exists() {
            let key = KeyPair::generate_for(&PKCS_ED25519).map_err(|e| wrong(&e))?;
            let mut params = issuer(&key);
            let now = SystemTime::now();
            params.not_before = (now - EARLIER).into();
            params.not_after = (now + days(CA_DAYS)).into();
            let certificate = params.self_signed(&key).map_err(|e| wrong(&e))?;
            let text = certificate.pem() + &key.serialize_pem();
            secret::make_once(&file, &text).map_err(|e| wrong(&e))?;
        }
        let text = secret::read(&file).map_err(|e| wrong(&e))?;
        let key = text.find("-----BEGIN PRIVATE KEY-----");
        let (certificate, key) = text.split_at(key.ok_or_else(|| wrong(&"it has no key"))?);
        let key = KeyPair::from_pem(key).map_err(|e| wrong(&e))?;
        Ok(Self {
            directory: directory.to_owned(),
            issuer: Issuer::new(issuer(&key), key),
            certificate: certificate.to_owned(),
        })
    }

    /// A new bundle of a host, whose name or address this is, valid for so many days from now on. Older ones of the same
    /// host are no longer taken by sources that have the CA.
    ///
    /// Errors: the name is none.
    pub fn bundle(&self, host: &str, valid: u32) -> Result<String, Bad> {
        self.bundle_for(host, from_now(valid))
    }

    /// As [`Self::bundle`], in a file for its owner only, as a whole. Only when it is there, older ones count no more.
    pub fn bundle_into(&self, host: &str, valid: u32, file: &Path) -> Result<(), Bad> {
        let made = self.make(host, from_now(valid))?;
        Self::save(&made.bundle, file)?;
        self.is_newest(&made)
    }

    /// As [`Self::bundle`], valid from one time to another.
    pub fn bundle_for(&self, host: &str, valid: Range<SystemTime>) -> Result<String, Bad> {
        let made = self.make(host, valid)?;
        self.is_newest(&made)?;
        Ok(made.bundle)
    }

    fn make(&self, host: &str, valid: Range<SystemTime>) -> Result<Made, Bad> {
        let host = checked(host)?;
        let wrong = |e: &dyn std::fmt::Display| Bad(format!("a bundle of {host}: {e}"));
        let key = KeyPair::generate_for(&PKCS_ED25519).map_err(|e| wrong(&e))?;
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::CommonName, host.as_str());
        params.subject_alt_names = vec![match host.parse() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) => SanType::DnsName(host.as_str().try_into().map_err(|e| wrong(&e))?),
        }];
        params.not_before = valid.start.into();
        params.not_after = valid.end.into();
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        // Each host is both: it asks its parent, and its children ask it.
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let (from, until) = (when(valid.start), when(valid.end));
        let certificate = params
            .signed_by(&key, &self.issuer)
            .map_err(|e| wrong(&e))?
            .pem();
        let bundle = format!(
            "# oscarv spread: {host}, valid from {from} to {until}. It has a secret: for {host} only.\n\
             {certificate}{}{}",
            key.serialize_pem(),
            self.certificate
        );
        Ok(Made {
            host,
            certificate,
            bundle,
        })
    }

    /// Older ones of this host are no longer taken by sources that have the CA.
    fn is_newest(&self, made: &Made) -> Result<(), Bad> {
        let file = self.host(&made.host);
        std::fs::create_dir_all(self.directory.join("hosts"))
            .and_then(|()| write_whole(&file, made.certificate.as_bytes()))
            .map_err(|e| Bad(format!("{} could not be written: {e}", file.display())))
    }

    /// Puts a bundle into a file, for its owner only, as a whole.
    pub fn save(bundle: &str, file: &Path) -> Result<(), Bad> {
        write_whole(file, bundle.as_bytes())
            .map_err(|e| Bad(format!("{} could not be written: {e}", file.display())))
    }

    /// Forgets a host: its bundle is no longer taken by sources that have the CA. `false`: there was none.
    pub fn revoke(&self, host: &str) -> Result<bool, Bad> {
        let file = self.host(&checked(host)?);
        match std::fs::remove_file(&file) {
            Ok(()) => Ok(true),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(Bad(format!("{} could not be removed: {e}", file.display()))),
        }
    }

    fn host(&self, host: &str) -> PathBuf {
        self.directory.join("hosts").join(format!("{host}.pem"))
    }
}

/// The newest certificate of each host; none: there is no CA in this directory.
pub(crate) fn newest(directory: &Path) -> Result<Option<HashSet<Hash>>, Bad> {
    if !directory.join("ca.pem").exists() {
        return Ok(None);
    }
    let hosts = directory.join("hosts");
    let wrong = |e: &dyn std::fmt::Display| Bad(format!("{}: {e}", hosts.display()));
    let mut marks = HashSet::new();
    for entry in std::fs::read_dir(&hosts).map_err(|e| wrong(&e))? {
        let file = entry.map_err(|e| wrong(&e))?.path();
        if file.extension().is_some_and(|end| end == "pem") {
            let certificate = CertificateDer::from_pem_file(&file).map_err(|e| wrong(&e))?;
            marks.insert(mark(&certificate));
        }
    }
    Ok(Some(marks))
}

/// A host's name as certificates have it, and as a file may be called.
fn checked(host: &str) -> Result<String, Bad> {
    match ServerName::try_from(host) {
        Ok(_) => Ok(host.to_ascii_lowercase()),
        Err(_) => Err(Bad(format!(
            "{host:?} is neither a host's name nor an address"
        ))),
    }
}

/// What the CA's certificate says; made anew from its key each time.
fn issuer(key: &KeyPair) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    // Two CAs have two names: then a certificate of the wrong one is one of an unknown issuer.
    let which = blake3::hash(key.der_bytes()).to_hex();
    let name = format!("oscarv spread CA {}", &which[..16]);
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params
}

fn from_now(valid: u32) -> Range<SystemTime> {
    let now = SystemTime::now();
    now - EARLIER..now + days(u64::from(valid))
}

fn days(count: u64) -> Duration {
    Duration::from_secs(count * 86400)
}

/// A time for people: UTC, to the second.
pub(crate) fn when(time: SystemTime) -> String {
    let time = time::OffsetDateTime::from(time);
    let (date, month) = (time.date(), u8::from(time.month()));
    let (hour, minute, second) = time.to_hms();
    format!(
        "{}-{month:02}-{:02} {hour:02}:{minute:02}:{second:02} UTC",
        date.year(),
        date.day()
    )
}

/// The same for nanoseconds since 1970, whatever somebody wrote there.
pub(crate) fn when_nanos(nanos: u64) -> String {
    when(SystemTime::UNIX_EPOCH + Duration::from_nanos(nanos))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_ca_is_made_once_and_private() {
        let dir = tempfile::tempdir().unwrap();
        let ca = dir.path().join("ca");
        let first = Authority::load_or_make(&ca).unwrap().certificate;
        assert_eq!(Authority::load_or_make(&ca).unwrap().certificate, first);
        let file = ca.join("ca.pem");
        let mode = std::fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o640)).unwrap();
        let why = Authority::load_or_make(&ca).err().unwrap().to_string();
        assert!(why.contains("0640") && why.contains("ca.pem"), "{why}");
    }

    #[test]
    fn the_newest_certificate_of_a_host_counts_until_it_is_revoked() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(newest(dir.path()).unwrap(), None);
        let ca = Authority::load_or_make(dir.path()).unwrap();
        let first = ca.bundle("node1", 1).unwrap();
        let second = ca.bundle("NODE1", 1).unwrap();
        let of = |bundle: &str| mark(&CertificateDer::from_pem_slice(bundle.as_bytes()).unwrap());
        let marks = newest(dir.path()).unwrap().unwrap();
        assert!(marks.contains(&of(&second)) && !marks.contains(&of(&first)));
        assert!(ca.revoke("node1").unwrap() && !ca.revoke("node1").unwrap());
        assert!(newest(dir.path()).unwrap().unwrap().is_empty());
        for no_host in ["", "../x", "a b", "*"] {
            assert!(ca.bundle(no_host, 1).is_err(), "{no_host}");
        }
        ca.bundle("10.0.0.9", 1).unwrap();
        ca.bundle("fd00::1", 1).unwrap();
    }

    #[test]
    fn times_are_for_people() {
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_426_250);
        assert_eq!(when(time), "2026-11-23 09:30:50 UTC");
        assert_eq!(when_nanos(0), "1970-01-01 00:00:00 UTC");
        assert_eq!(when_nanos(u64::MAX), "2554-07-21 23:34:33 UTC");
    }
}
