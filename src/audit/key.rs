//! The keys that seal the audit: Ed25519, as text.
//!
//! Owns reading, making and naming them. Never stores one, and never shows a signing key except where it is made.

use std::fmt;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

use super::tree;

/// Text is not a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not a signing key.
    #[error("it is not an Ed25519 key: base64 of PKCS#8, as `latchkey audit keygen` prints it")]
    Signing,
    /// Not a public key.
    #[error(
        "it is not a public key of the audit: base64 of 32 bytes, as `latchkey audit keygen` prints it"
    )]
    Public,
    /// The system gave no randomness.
    #[error("no key could be made: the system gave no randomness")]
    Random,
}

/// A key that seals.
pub struct SigningKey {
    pair: Ed25519KeyPair,
    id: String,
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl SigningKey {
    /// Reads base64 of PKCS#8, with or without the public key in it.
    ///
    /// # Errors
    /// [`KeyError::Signing`], without any part of the text.
    pub fn parse(text: &SecretString) -> Result<Self, KeyError> {
        let der = STANDARD
            .decode(text.expose_secret().trim())
            .map(Zeroizing::new)
            .map_err(|_| KeyError::Signing)?;
        let pair =
            Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der).map_err(|_| KeyError::Signing)?;
        let id = name(pair.public_key().as_ref());
        Ok(Self { pair, id })
    }

    /// Makes a key; answers it as the text that [`Self::parse`] reads.
    ///
    /// # Errors
    /// [`KeyError::Random`].
    pub fn generate() -> Result<(Self, SecretString), KeyError> {
        let pair = Ed25519KeyPair::generate().map_err(|_| KeyError::Random)?;
        let der = pair.to_pkcs8v1().map_err(|_| KeyError::Random)?;
        let text = SecretString::from(STANDARD.encode(der.as_ref()));
        let id = name(pair.public_key().as_ref());
        Ok((Self { pair, id }, text))
    }

    /// The key that verifies what this one seals.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        PublicKey {
            bytes: self.pair.public_key().as_ref().to_vec(),
            id: self.id.clone(),
        }
    }

    /// Its name in headers.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Signs.
    #[must_use]
    pub fn sign(&self, bytes: &[u8]) -> Vec<u8> {
        self.pair.sign(bytes).as_ref().to_vec()
    }
}

/// A key that verifies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey {
    bytes: Vec<u8>,
    id: String,
}

impl PublicKey {
    /// Reads base64 of 32 bytes.
    ///
    /// # Errors
    /// [`KeyError::Public`].
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let bytes = STANDARD.decode(text.trim()).map_err(|_| KeyError::Public)?;
        if bytes.len() != 32 {
            return Err(KeyError::Public);
        }
        let id = name(&bytes);
        Ok(Self { bytes, id })
    }

    /// Its name in headers: the beginning of the SHA-256 of its bytes.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Whether a signature over these bytes is of its signing key.
    #[must_use]
    pub fn verifies(&self, bytes: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, &self.bytes)
            .verify(bytes, signature)
            .is_ok()
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(&self.bytes))
    }
}

fn name(public: &[u8]) -> String {
    hex::encode(&tree::of(public).0[..8])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_survives_being_text_and_seals_the_same() {
        let (key, text) = SigningKey::generate().expect("randomness");
        let read = SigningKey::parse(&text).expect("our own text");
        assert_eq!(read.id(), key.id());
        let public = PublicKey::parse(&key.public().to_string()).expect("our own text");
        assert_eq!(public, key.public());
        assert!(public.verifies(b"header", &read.sign(b"header")));
        assert!(!public.verifies(b"headeR", &read.sign(b"header")));
        let (other, _) = SigningKey::generate().expect("randomness");
        assert!(!public.verifies(b"header", &other.sign(b"header")));
    }

    #[test]
    fn what_is_no_key_is_refused_and_not_repeated() {
        for text in ["", "HUSH", "SFVTSA==", "not base64 HUSH"] {
            let error = SigningKey::parse(&SecretString::from(text)).expect_err(text);
            assert!(!error.to_string().contains("HUSH"));
            assert_eq!(PublicKey::parse(text), Err(KeyError::Public));
        }
    }
}
