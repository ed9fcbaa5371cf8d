//! TLS 1.3 record protection that holds only key and IV of each direction, and expands the key for each record.
//!
//! rustls' own holds expanded keys, which take some 560 bytes in each direction for as long as the connection lives: most
//! of what an idle client would cost. Expanding takes less than a microsecond a record. Everything else (key schedule,
//! handshake, sequence numbers, limits) stays with rustls, and the ciphers with ring.

use std::sync::LazyLock;

use ring::aead::{self, Aad, LessSafeKey, UnboundKey};
use rustls::crypto::cipher::{
    AeadKey, InboundOpaqueMessage, InboundPlainMessage, Iv, MessageDecrypter, MessageEncrypter, Nonce,
    OutboundOpaqueMessage, OutboundPlainMessage, PrefixedPayload, Tls13AeadAlgorithm,
    UnsupportedOperationError, make_tls13_aad,
};
use rustls::crypto::{CipherSuiteCommon, CryptoProvider, ring as standard};
use rustls::{
    CipherSuite, ConnectionTrafficSecrets, ContentType, Error, ProtocolVersion, SupportedCipherSuite,
    Tls13CipherSuite,
};

/// All three ciphers have tags of this length.
const TAG: usize = 16;

static AES_128: Compact = Compact(&aead::AES_128_GCM);
static AES_256: Compact = Compact(&aead::AES_256_GCM);
static CHACHA20: Compact = Compact(&aead::CHACHA20_POLY1305);

static SUITES: LazyLock<Vec<Tls13CipherSuite>> = LazyLock::new(|| {
    standard::ALL_CIPHER_SUITES
        .iter()
        .filter_map(|suite| suite.tls13())
        .filter_map(|suite| {
            let aead_alg = match suite.common.suite {
                CipherSuite::TLS13_AES_128_GCM_SHA256 => &AES_128,
                CipherSuite::TLS13_AES_256_GCM_SHA384 => &AES_256,
                CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => &CHACHA20,
                _ => return None,
            };
            let common = CipherSuiteCommon { ..suite.common };
            Some(Tls13CipherSuite { common, hkdf_provider: suite.hkdf_provider, aead_alg, quic: None })
        })
        .collect()
});

/// ring, with compact keys for TLS 1.3.
pub(super) fn provider() -> CryptoProvider {
    let mut provider = standard::default_provider();
    for suite in &mut provider.cipher_suites {
        let name = suite.suite();
        if let Some(compact) = SUITES.iter().find(|compact| compact.common.suite == name) {
            *suite = SupportedCipherSuite::Tls13(compact);
        }
    }
    provider
}

struct Compact(&'static aead::Algorithm);

impl Tls13AeadAlgorithm for Compact {
    fn encrypter(&self, key: AeadKey, iv: Iv) -> Box<dyn MessageEncrypter> {
        Box::new(Direction { cipher: self.0, key, iv })
    }

    fn decrypter(&self, key: AeadKey, iv: Iv) -> Box<dyn MessageDecrypter> {
        Box::new(Direction { cipher: self.0, key, iv })
    }

    fn key_len(&self) -> usize {
        self.0.key_len()
    }

    fn extract_keys(&self, _: AeadKey, _: Iv) -> Result<ConnectionTrafficSecrets, UnsupportedOperationError> {
        // For TLS in the kernel, which is not used here.
        Err(UnsupportedOperationError)
    }
}

/// What is kept for one direction. `AeadKey` is wiped when it is dropped.
struct Direction {
    cipher: &'static aead::Algorithm,
    key: AeadKey,
    iv: Iv,
}

// Two of them for each connection.
const _: () = assert!(size_of::<Direction>() <= 64);

impl Direction {
    fn expand(&self) -> Option<LessSafeKey> {
        UnboundKey::new(self.cipher, self.key.as_ref()).ok().map(LessSafeKey::new)
    }

    /// The nonce of a record (RFC 8446, 5.3). rustls counts the records, and never one twice.
    fn nonce(&self, sequence: u64) -> aead::Nonce {
        aead::Nonce::assume_unique_for_key(Nonce::new(&self.iv, sequence).0)
    }
}

impl MessageEncrypter for Direction {
    fn encrypt(
        &mut self,
        message: OutboundPlainMessage<'_>,
        sequence: u64,
    ) -> Result<OutboundOpaqueMessage, Error> {
        let key = self.expand().ok_or(Error::EncryptError)?;
        let length = self.encrypted_payload_len(message.payload.len());
        let mut payload = PrefixedPayload::with_capacity(length);
        payload.extend_from_chunks(&message.payload);
        // The real type is inside, without padding (RFC 8446, 5.2).
        payload.extend_from_slice(&message.typ.to_array());
        let tag = key
            .seal_in_place_separate_tag(
                self.nonce(sequence),
                Aad::from(make_tls13_aad(length)),
                payload.as_mut(),
            )
            .map_err(|_| Error::EncryptError)?;
        payload.extend_from_slice(tag.as_ref());
        // On the outside every record of TLS 1.3 is application data of TLS 1.2.
        Ok(OutboundOpaqueMessage::new(ContentType::ApplicationData, ProtocolVersion::TLSv1_2, payload))
    }

    fn encrypted_payload_len(&self, length: usize) -> usize {
        length + 1 + TAG
    }
}

impl MessageDecrypter for Direction {
    fn decrypt<'a>(
        &mut self,
        mut message: InboundOpaqueMessage<'a>,
        sequence: u64,
    ) -> Result<InboundPlainMessage<'a>, Error> {
        let key = self.expand().ok_or(Error::DecryptError)?;
        let payload = &mut message.payload;
        let aad = Aad::from(make_tls13_aad(payload.len()));
        let length =
            key.open_in_place(self.nonce(sequence), aad, payload).map_err(|_| Error::DecryptError)?.len();
        payload.truncate(length);
        message.into_tls13_unpadded_message()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every suite of TLS 1.3 is a compact one, in the order of rustls; those of TLS 1.2 are there as well.
    #[test]
    fn all_suites_are_offered() {
        let names = |provider: &CryptoProvider| -> Vec<CipherSuite> {
            provider.cipher_suites.iter().map(SupportedCipherSuite::suite).collect()
        };
        assert_eq!(names(&provider()), names(&standard::default_provider()));
        assert_eq!(SUITES.len(), 3);
        for suite in provider().cipher_suites.iter().filter_map(SupportedCipherSuite::tls13) {
            assert!(SUITES.iter().any(|compact| std::ptr::eq(compact, suite)));
        }
    }
}
