//! Who made a transfer: signatures in minisign's format, so that `minisign -V` can check a manifest, too.
//!
//! <https://jedisct1.github.io/minisign/>. Keys are those of the crate minisign. Signatures, of which there are two for
//! each page, are made and checked by ring: that takes a tenth of the time.

use crate::manifest::Bad;
use crate::secret;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use minisign::{KeyPair, PublicKey, PublicKeyBox, SecretKey, SecretKeyBox};
use ring::signature::{ED25519, Ed25519KeyPair, UnparsedPublicKey};
use std::path::Path;

/// How secret keys begin, with and without passphrase: algorithm, key derivation and checksum in base64.
const SECRET: [&str; 2] = ["RWRTY0Iy", "RWQAAEIy"];

/// How the lines of a signature begin that say something.
const COMMENT: &str = "untrusted comment: ";
const TRUSTED: &str = "trusted comment: ";

/// What is signed is the BLAKE2b hash of the bytes.
const PREHASHED: [u8; 2] = *b"ED";

/// A source's key pair.
pub struct Signer {
    secret: SecretKey,
    pair: Ed25519KeyPair,
    key: Key,
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
        Self::of(secret, Key(public))
    }

    fn of(secret: SecretKey, key: Key) -> Result<Self, Bad> {
        // Where the key is in minisign's form of it: two algorithms and a checksum's, salt, two limits and the number come
        // before the seed, the public key after it.
        const SEED: std::ops::Range<usize> = 62..94;
        let bytes = secret.to_bytes();
        let seed = bytes.get(SEED).unwrap_or_default();
        let pair = Ed25519KeyPair::from_seed_and_public_key(seed, &key.point())
            .map_err(|e| Bad(format!("not a secret key: {e}")))?;
        Ok(Self { secret, pair, key })
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
        Self::of(sk, Key(pk))
    }

    pub fn key(&self) -> Key {
        self.key.clone()
    }

    /// A number that nobody else knows, and that is the same each time.
    pub(crate) fn seed(&self) -> u64 {
        let title = "oscarv spread 2026 seed of block hashes";
        let key = blake3::derive_key(title, &self.secret.to_bytes());
        u64::from_le_bytes(*key.first_chunk().unwrap_or(&[0; 8]))
    }

    /// Signs bytes; `what`, which has one line, is signed with them, as the trusted comment.
    pub fn sign(&self, bytes: &[u8], what: &str) -> String {
        let signature = self.pair.sign(blake2b_simd::blake2b(bytes).as_bytes());
        let both = [signature.as_ref(), what.as_bytes()].concat();
        let signature = [&PREHASHED[..], self.key.0.keynum(), signature.as_ref()].concat();
        format!(
            "{COMMENT}oscarv spread\n{}\n{TRUSTED}{what}\n{}\n",
            BASE64.encode(signature),
            BASE64.encode(self.pair.sign(&both))
        )
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
        let wrong = |why: &str| Bad(format!("{what}: the signature is wrong: {why}"));
        let Signature {
            number,
            signature,
            comment,
            both,
        } = Signature::read(signature).ok_or_else(|| wrong("it is not one of minisign"))?;
        if number != self.0.keynum() {
            let id = |number: &[u8]| number.iter().rev().map(|b| format!("{b:02X}")).collect();
            let (its, ours): (String, String) = (id(&number), id(self.0.keynum()));
            return Err(wrong(&format!("it is of key {its}, not of {ours}")));
        }
        let key = UnparsedPublicKey::new(&ED25519, self.point());
        key.verify(blake2b_simd::blake2b(bytes).as_bytes(), &signature)
            .map_err(|_| wrong("it is not that of these bytes"))?;
        key.verify(&[&signature, comment.as_bytes()].concat(), &both)
            .map_err(|_| wrong("its comment is not signed"))?;
        match comment == what {
            true => Ok(()),
            false => Err(Bad(format!("{what}: the signature is of something else"))),
        }
    }

    /// The point itself, without algorithm and number.
    fn point(&self) -> [u8; 32] {
        let bytes = self.0.to_bytes();
        *bytes.last_chunk().unwrap_or(&[0; 32])
    }
}

/// What a signature says.
struct Signature<'a> {
    /// Of the key.
    number: [u8; 8],
    signature: [u8; 64],
    comment: &'a str,
    /// Of the signature and of the comment.
    both: [u8; 64],
}

impl<'a> Signature<'a> {
    fn read(text: &'a str) -> Option<Self> {
        let mut lines = text.lines();
        let mut line = || lines.next();
        line()?.strip_prefix(COMMENT)?;
        let first = BASE64.decode(line()?.trim()).ok()?;
        let comment = line()?.strip_prefix(TRUSTED)?.trim();
        let both = BASE64.decode(line()?.trim()).ok()?;
        let rest = first.strip_prefix(&PREHASHED)?;
        let (number, signature) = rest.split_first_chunk()?;
        Some(Self {
            number: *number,
            signature: signature.try_into().ok()?,
            comment,
            both: both.try_into().ok()?,
        })
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
    use minisign::SignatureBox;
    use std::io::Cursor;

    #[test]
    fn signatures_hold_for_bytes_key_and_comment() {
        let signer = Signer::new().unwrap();
        let key = Key::read(&signer.key().to_string()).unwrap();
        let signature = signer.sign(b"abc", "page 1");
        key.check(b"abc", &signature, "page 1").unwrap();
        assert!(key.check(b"abd", &signature, "page 1").is_err());
        assert!(key.check(b"abc", &signature, "page 2").is_err());
        let other = Signer::new().unwrap().key();
        assert!(other.check(b"abc", &signature, "page 1").is_err());
        assert!(key.check(b"abc", "nonsense", "page 1").is_err());
    }

    /// The crate minisign is the other implementation.
    #[test]
    fn others_make_and_check_the_same_signatures() {
        let signer = Signer::new().unwrap();
        let Key(public) = signer.key();
        for bytes in [&b""[..], b"abc", &[7; 100_000]] {
            let ours = SignatureBox::from_string(&signer.sign(bytes, "page 1")).unwrap();
            minisign::verify(&public, &ours, Cursor::new(bytes), true, false, false).unwrap();
            assert_eq!(ours.trusted_comment().unwrap(), "page 1");
            let theirs = minisign::sign(
                None,
                &signer.secret,
                Cursor::new(bytes),
                Some("page 1"),
                None,
            );
            let theirs = theirs.unwrap().into_string();
            signer.key().check(bytes, &theirs, "page 1").unwrap();
        }
    }

    #[test]
    fn no_line_of_a_signature_can_be_changed() {
        let signer = Signer::new().unwrap();
        let good = signer.sign(b"abc", "page 1");
        let why = |text: &str, what: &str| {
            let checked = signer.key().check(b"abc", text, what);
            checked.unwrap_err().to_string()
        };
        let lines: Vec<&str> = good.lines().collect();
        // Somebody else's comment, well said.
        let other = good.replace("page 1", "page 2");
        assert!(why(&other, "page 2").contains("its comment is not signed"));
        for line in [1, 3] {
            for at in 0..lines[line].len() {
                let mut bad: Vec<String> = lines.iter().map(|line| line.to_string()).collect();
                let other = if bad[line].as_bytes()[at] == b'A' {
                    "B"
                } else {
                    "A"
                };
                bad[line].replace_range(at..=at, other);
                why(&bad.join("\n"), "page 1");
            }
        }
        for end in 0..good.len() - 1 {
            why(&good[..end], "page 1");
        }
        // Of the bytes themselves, as minisign made them before 2021.
        assert!(why(&good.replacen("\nRU", "\nRW", 1), "page 1").contains("not one of minisign"));
        let other = Signer::new().unwrap().sign(b"abc", "page 1");
        assert!(why(&other, "page 1").contains("it is of key"));
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
