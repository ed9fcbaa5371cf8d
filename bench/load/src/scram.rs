//! The client's side of SCRAM-SHA-1 (RFC 5802), without channel binding.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use sha1::{Digest, Sha1};

type Hash = [u8; 20];

/// More rounds than any server asks for: each login would take seconds.
const MAX_ITERATIONS: u32 = 100_000;

/// A login under way.
#[derive(Debug)]
pub struct Scram {
    first_bare: String,
    nonce: String,
    password: String,
    server_signature: Option<Hash>,
}

impl Scram {
    /// With a nonce that no other login has.
    #[must_use]
    pub fn new(user: &str, password: &str, nonce: &str) -> Self {
        let user = user.replace('=', "=3D").replace(',', "=2C");
        Self {
            first_bare: format!("n={user},r={nonce}"),
            nonce: nonce.to_owned(),
            password: password.to_owned(),
            server_signature: None,
        }
    }

    /// The first message, in base64 as all of them.
    #[must_use]
    pub fn first(&self) -> String {
        BASE64.encode(format!("n,,{}", self.first_bare))
    }

    /// The answer to the server's challenge.
    ///
    /// # Errors
    ///
    /// When the challenge is none.
    pub fn respond(&mut self, challenge: &str) -> Result<String, String> {
        let challenge = decode(challenge)?;
        let nonce = field(&challenge, 'r').ok_or("a challenge without a nonce")?;
        if !nonce.starts_with(&self.nonce) {
            return Err("the challenge has a nonce of another login".to_owned());
        }
        let salt = field(&challenge, 's')
            .and_then(|salt| BASE64.decode(salt).ok())
            .ok_or("a challenge without a salt")?;
        let iterations: u32 =
            field(&challenge, 'i').and_then(|count| count.parse().ok()).ok_or("no iterations")?;
        if iterations == 0 || iterations > MAX_ITERATIONS {
            return Err(format!("{iterations} iterations"));
        }
        let salted = salted_password(self.password.as_bytes(), &salt, iterations);
        let client_key = hmac(&salted, b"Client Key");
        let without_proof = format!("c=biws,r={nonce}");
        let message = format!("{},{challenge},{without_proof}", self.first_bare);
        let signature = hmac(&sha1(&client_key), message.as_bytes());
        self.server_signature = Some(hmac(&hmac(&salted, b"Server Key"), message.as_bytes()));
        Ok(BASE64.encode(format!("{without_proof},p={}", BASE64.encode(xor(client_key, signature)))))
    }

    /// Whether the server's last message proves that it knows the password too.
    ///
    /// # Errors
    ///
    /// When it does not.
    pub fn verify(&self, last: &str) -> Result<(), String> {
        let last = decode(last)?;
        let signature = field(&last, 'v').and_then(|text| BASE64.decode(text).ok());
        match (&self.server_signature, signature) {
            (Some(expected), Some(got)) if expected[..] == got[..] => Ok(()),
            _ => Err("the server's signature is wrong".to_owned()),
        }
    }
}

fn decode(text: &str) -> Result<String, String> {
    let bytes = BASE64.decode(text).map_err(|error| format!("no base64: {error}"))?;
    String::from_utf8(bytes).map_err(|error| error.to_string())
}

fn field(message: &str, name: char) -> Option<&str> {
    message.split(',').find_map(|part| part.strip_prefix(name)?.strip_prefix('='))
}

fn salted_password(password: &[u8], salt: &[u8], iterations: u32) -> Hash {
    let mut round = hmac(password, &[salt, &[0, 0, 0, 1]].concat());
    let mut result = round;
    for _ in 1..iterations {
        round = hmac(password, &round);
        result = xor(result, round);
    }
    result
}

fn xor(left: Hash, right: Hash) -> Hash {
    std::array::from_fn(|at| left[at] ^ right[at])
}

/// SHA-1 of the bytes.
#[must_use]
pub fn sha1(bytes: &[u8]) -> Hash {
    Sha1::digest(bytes).into()
}

fn hmac(key: &[u8], message: &[u8]) -> Hash {
    let mut block = [0u8; 64];
    if key.len() > block.len() {
        block[..20].copy_from_slice(&sha1(key));
    } else {
        block[..key.len()].copy_from_slice(key);
    }
    let padded = |pad: u8| block.map(|byte| byte ^ pad);
    let inner: Hash = Sha1::new().chain_update(padded(0x36)).chain_update(message).finalize().into();
    Sha1::new().chain_update(padded(0x5c)).chain_update(inner).finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The exchange of RFC 5802, section 5.
    #[test]
    fn speaks_as_the_rfc_does() {
        let mut scram = Scram::new("user", "pencil", "fyko+d2lbbFgONRv9qkxdawL");
        assert_eq!(scram.first(), BASE64.encode("n,,n=user,r=fyko+d2lbbFgONRv9qkxdawL"));
        let nonce = "fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j";
        let challenge = BASE64.encode(format!("r={nonce},s=QSXCR+Q6sek8bf92,i=4096"));
        let response = scram.respond(&challenge).expect("a challenge");
        assert_eq!(response, BASE64.encode(format!("c=biws,r={nonce},p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=")));
        assert_eq!(scram.verify(&BASE64.encode("v=rmF9pqV8S7suAoZWja4dJRkFsKQ=")), Ok(()));
        assert!(scram.verify(&BASE64.encode("v=AAAApqV8S7suAoZWja4dJRkFsKQ=")).is_err());
    }

    #[test]
    fn refuses_a_foreign_nonce() {
        let mut scram = Scram::new("user", "pencil", "mine");
        assert!(scram.respond(&BASE64.encode("r=yours,s=QSXCR+Q6sek8bf92,i=4096")).is_err());
    }
}
