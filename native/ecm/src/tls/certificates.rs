//! Certificates and keys: read from their files, chosen by the name that a client asks for, and read again on demand.

use std::collections::HashMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, NoServerSessionStorage, ProducesTickets, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys, ServerConfig};
use serde::Deserialize;
use tracing::warn;
use webpki::EndEntityCert;

use super::validity::Validity;

/// The only protocol that is spoken inside of TLS. A client that offers others alone is refused (RFC 7301).
const ALPN: &[u8] = b"http/1.1";

/// The files of one certificate.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pair {
    /// PEM: the certificate of this server, then those of the authorities between it and the root.
    pub certificate: PathBuf,
    /// PEM: its private key.
    pub key: PathBuf,
}

/// All certificates, ready to be used for new connections.
pub struct Certificates {
    pairs: Vec<Pair>,
    provider: Arc<CryptoProvider>,
    /// The same for all readings: a client may resume its session after the certificate was renewed.
    tickets: Arc<dyn ProducesTickets>,
    config: Arc<ServerConfig>,
    /// In the order of the pairs; of those that could be read.
    validities: Vec<Option<Validity>>,
}

impl Certificates {
    /// Reads the files. The first certificate is for clients that ask for no name, or for one that no certificate has.
    ///
    /// # Errors
    /// A text for the operator that names the file: it is missing, cannot be read, holds no certificate or key, or the
    /// two do not belong together.
    pub fn load(pairs: Vec<Pair>) -> Result<Self, String> {
        let provider = Arc::new(super::compact::provider());
        let tickets = rustls::crypto::ring::Ticketer::new()
            .map_err(|error| format!("no random numbers for TLS tickets: {error}"))?;
        let (config, validities) = configure(&pairs, &provider, &tickets)?;
        Ok(Self { pairs, provider, tickets, config, validities })
    }

    /// Reads the files again. Connections that exist keep what they have.
    ///
    /// # Errors
    /// As [`Certificates::load`]; what was read before stays in use then, all of it.
    pub fn reload(&mut self) -> Result<(), String> {
        (self.config, self.validities) = configure(&self.pairs, &self.provider, &self.tickets)?;
        Ok(())
    }

    /// Warns of each certificate that clients refuse at this time, in seconds since 1970, or soon will.
    pub fn warn_of_expiry(&self, now: u64) {
        for (pair, validity) in self.pairs.iter().zip(&self.validities) {
            if let Some(trouble) = validity.and_then(|validity| validity.trouble(now)) {
                warn!("the certificate {} {trouble}", pair.certificate.display());
            }
        }
    }

    /// When the first of them expires, in seconds since 1970.
    pub(crate) fn expiry(&self) -> Option<u64> {
        self.validities.iter().flatten().map(|validity| validity.until).min()
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.pairs.len()
    }

    pub(super) fn config(&self) -> &Arc<ServerConfig> {
        &self.config
    }
}

fn configure(
    pairs: &[Pair],
    provider: &Arc<CryptoProvider>,
    tickets: &Arc<dyn ProducesTickets>,
) -> Result<(Arc<ServerConfig>, Vec<Option<Validity>>), String> {
    let (mut names, mut validities) = (Names::default(), Vec::new());
    for pair in pairs {
        let key = Arc::new(read(pair, provider)?);
        validities.push(Validity::of(&key.cert));
        names.add(pair, key)?;
    }
    if names.all.is_empty() {
        return Err("TLS needs a certificate and its key: [[tls.certificate]]".to_owned());
    }
    let mut config = ServerConfig::builder_with_provider(Arc::clone(provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(names));
    config.alpn_protocols = vec![ALPN.to_vec()];
    // Sessions are kept by the clients, in tickets.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.ticketer = Arc::clone(tickets);
    Ok((Arc::new(config), validities))
}

fn read(pair: &Pair, provider: &CryptoProvider) -> Result<CertifiedKey, String> {
    let file = pair.certificate.display();
    let text = contents("certificate", &pair.certificate)?;
    let chain = CertificateDer::pem_slice_iter(&text)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| format!("in the certificate {file}: {error}"))?;
    if chain.is_empty() {
        return Err(format!("in the certificate {file}: no PEM block `BEGIN CERTIFICATE`"));
    }
    let key_file = pair.key.display();
    let key = contents("key", &pair.key)?;
    let key = PrivateKeyDer::from_pem_slice(&key).map_err(|error| match error {
        pem::Error::NoItemsFound => format!("in the key {key_file}: no PEM block `BEGIN PRIVATE KEY`"),
        error => format!("in the key {key_file}: {error}"),
    })?;
    let key = CertifiedKey::from_der(chain, key, provider).map_err(|error| match error {
        Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
            format!("the key {key_file} does not belong to the certificate {file}")
        }
        Error::InvalidCertificate(error) => format!("in the certificate {file}: {error}"),
        error => format!("the key {key_file} of the certificate {file} cannot be used: {error}"),
    })?;
    warn_of_readers(&pair.key);
    Ok(key)
}

fn contents(what: &str, path: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|error| format!("cannot read the {what} {}: {error}", path.display()))
}

fn warn_of_readers(key: &Path) {
    if std::fs::metadata(key).is_ok_and(|file| file.permissions().mode() & 0o004 != 0) {
        warn!("the key {} may be read by every user of this machine: chmod o-r", key.display());
    }
}

/// Certificates by the names in them.
#[derive(Debug, Default)]
struct Names {
    /// In the order of the configuration.
    all: Vec<Arc<CertifiedKey>>,
    /// Names in lower case, `*.` in front where the first label may be any; those that have it, in the order of the
    /// configuration: there may be one for RSA and one for ECDSA.
    by_name: HashMap<String, Vec<Arc<CertifiedKey>>>,
}

impl Names {
    fn add(&mut self, pair: &Pair, key: Arc<CertifiedKey>) -> Result<(), String> {
        let file = pair.certificate.display();
        let Some(first) = key.cert.first() else { return Ok(()) };
        let parsed =
            EndEntityCert::try_from(first).map_err(|error| format!("in the certificate {file}: {error}"))?;
        let mut names: Vec<String> = parsed.valid_dns_names().map(str::to_ascii_lowercase).collect();
        names.sort_unstable();
        names.dedup();
        if names.is_empty() {
            warn!("the certificate {file} has no DNS name (subjectAltName): clients will not accept it");
        }
        for name in names {
            self.by_name.entry(name).or_default().push(Arc::clone(&key));
        }
        self.all.push(key);
        Ok(())
    }

    /// Those with the name; else those with a `*` for its first label; else all.
    fn of(&self, name: Option<&str>) -> &[Arc<CertifiedKey>] {
        name.and_then(|name| {
            let name = name.to_ascii_lowercase();
            let any = name.split_once('.').map(|(_, domain)| format!("*.{domain}"));
            self.by_name.get(&name).or_else(|| self.by_name.get(&any?))
        })
        .unwrap_or(&self.all)
    }
}

impl ResolvesServerCert for Names {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let fitting = self.of(hello.server_name());
        let usable = fitting.iter().find(|key| key.key.choose_scheme(hello.signature_schemes()).is_some());
        usable.or_else(|| fitting.first()).cloned()
    }
}
