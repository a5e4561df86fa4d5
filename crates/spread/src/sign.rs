//! Who made a transfer: signatures in minisign's format, so that `minisign -V` can check a manifest, too.
//!
//! <https://jedisct1.github.io/minisign/>

use crate::manifest::Bad;
use crate::secret;
use minisign::{KeyPair, PublicKey, PublicKeyBox, SecretKey, SecretKeyBox, SignatureBox};
use std::io::Cursor;
use std::path::Path;

/// How secret keys begin, with and without passphrase: algorithm, key derivation and checksum in base64.
const SECRET: [&str; 2] = ["RWRTY0Iy", "RWQAAEIy"];

/// A source's key pair.
pub struct Signer {
    secret: SecretKey,
    public: PublicKey,
}

impl Signer {
    /// Reads the secret key from a file, or makes one there, readable by its owner only. It has no passphrase, as those
    /// of `minisign -G -W`.
    pub fn load_or_make(file: &Path) -> Result<Self, Bad> {
        match secret::read(file) {
            Ok(text) => Self::read(&text).map_err(|e| Bad(format!("{}: {e}", file.display()))),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Self::make(file),
            Err(e) => Err(Bad(format!("{} could not be read: {e}", file.display()))),
        }
    }

    fn read(text: &str) -> Result<Self, Bad> {
        let secret = SecretKeyBox::from_string(text)
            .and_then(SecretKeyBox::into_unencrypted_secret_key)
            .map_err(|e| Bad(format!("not a secret key without passphrase: {e}")))?;
        let public = PublicKey::from_secret_key(&secret).map_err(|e| Bad(e.to_string()))?;
        Ok(Self { secret, public })
    }

    fn make(file: &Path) -> Result<Self, Bad> {
        let wrong = |e: std::io::Error| Bad(format!("{} could not be made: {e}", file.display()));
        let signer = Self::new()?;
        let text = signer.secret.to_box(Some("oscarv spread"));
        let text = text.map_err(|e| Bad(e.to_string()))?.into_string();
        match secret::make_once(file, &text).map_err(wrong)? {
            true => Ok(signer),
            false => Self::load_or_make(file),
        }
    }

    /// A pair that is nowhere else.
    pub fn new() -> Result<Self, Bad> {
        let KeyPair { pk, sk } =
            KeyPair::generate_unencrypted_keypair().map_err(|e| Bad(e.to_string()))?;
        Ok(Self {
            secret: sk,
            public: pk,
        })
    }

    pub fn key(&self) -> Key {
        Key(self.public.clone())
    }

    /// A number that nobody else knows, and that is the same each time.
    pub(crate) fn seed(&self) -> u64 {
        let title = "oscarv spread 2026 seed of block hashes";
        let key = blake3::derive_key(title, &self.secret.to_bytes());
        u64::from_le_bytes(*key.first_chunk().unwrap_or(&[0; 8]))
    }

    /// Signs bytes; `what` is signed with them, as the trusted comment.
    pub fn sign(&self, bytes: &[u8], what: &str) -> Result<String, Bad> {
        let signed = minisign::sign(
            Some(&self.public),
            &self.secret,
            Cursor::new(bytes),
            Some(what),
            None,
        );
        Ok(signed.map_err(|e| Bad(e.to_string()))?.into_string())
    }
}

/// A public key: whose transfers are taken.
#[derive(Clone, Debug)]
pub struct Key(PublicKey);

impl Key {
    /// From the text of a public key, or of a key file.
    ///
    /// Errors: it is none. The text is not repeated: it may be a secret.
    pub fn read(text: &str) -> Result<Self, Bad> {
        let text = text.trim();
        if text
            .lines()
            .any(|line| SECRET.iter().any(|start| line.starts_with(start)))
        {
            return Err(Bad(
                "this is a secret key: it stays where it is, and receivers need the public one, \
                 which oscarv spread key prints"
                    .to_owned(),
            ));
        }
        let key = match text.contains('\n') {
            true => PublicKeyBox::from_string(text).and_then(PublicKeyBox::into_public_key),
            false => PublicKey::from_base64(text),
        };
        key.map(Self)
            .map_err(|_| Bad("this is not a public key of minisign".to_owned()))
    }

    /// The content of a key file.
    pub fn file(&self) -> Result<String, Bad> {
        let text = self.0.to_box().map_err(|e| Bad(e.to_string()))?;
        Ok(text.into_string())
    }

    /// Is this the signature of these bytes, and of this comment?
    pub fn check(&self, bytes: &[u8], signature: &str, what: &str) -> Result<(), Bad> {
        let wrong = |e: minisign::PError| Bad(format!("{what}: the signature is wrong: {e}"));
        let signature = SignatureBox::from_string(signature).map_err(wrong)?;
        minisign::verify(&self.0, &signature, Cursor::new(bytes), true, false, false)
            .map_err(wrong)?;
        match signature.trusted_comment().map_err(wrong)? == what {
            true => Ok(()),
            false => Err(Bad(format!("{what}: the signature is of something else"))),
        }
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.to_base64())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn signatures_hold_for_bytes_key_and_comment() {
        let signer = Signer::new().unwrap();
        let key = Key::read(&signer.key().to_string()).unwrap();
        let signature = signer.sign(b"abc", "page 1").unwrap();
        key.check(b"abc", &signature, "page 1").unwrap();
        assert!(key.check(b"abd", &signature, "page 1").is_err());
        assert!(key.check(b"abc", &signature, "page 2").is_err());
        let other = Signer::new().unwrap().key();
        assert!(other.check(b"abc", &signature, "page 1").is_err());
        assert!(key.check(b"abc", "nonsense", "page 1").is_err());
    }

    #[test]
    fn a_key_is_made_once_and_private() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("spread/key");
        let first = Signer::load_or_make(&file).unwrap().key().to_string();
        assert_eq!(
            Signer::load_or_make(&file).unwrap().key().to_string(),
            first
        );
        let mode = std::fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(Key::read("nonsense").is_err());
    }
}
