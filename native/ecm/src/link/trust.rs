//! Which servers a link with TLS is made to: whose certificate comes from the authorities that were given, and has the
//! right name.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::{ClientConnection, Resumption};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{CertificateError, ClientConfig, Error, RootCertStore};

/// Most characters from a server's certificate that are told.
const SHOWN: usize = 200;

/// The authorities, and the name if it is not that of the server. Cheap to clone.
#[derive(Clone)]
pub struct Trust {
    file: PathBuf,
    name: Option<ServerName<'static>>,
    authorities: usize,
    config: Arc<ClientConfig>,
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trust").field("file", &self.file).field("name", &self.name).finish_non_exhaustive()
    }
}

impl Trust {
    /// Reads `file`, PEM with the certificates of authorities, or with those of the servers themselves. `name` is the one
    /// that certificates must have; `None`: the host of each server.
    ///
    /// # Errors
    /// A text for the operator that names the file: it cannot be read, or has no certificate, or one that cannot be used.
    pub fn load(file: &Path, name: Option<ServerName<'static>>) -> Result<Self, String> {
        let (config, authorities) = read(file)?;
        Ok(Self { file: file.to_owned(), name, authorities, config })
    }

    /// Reads the file again, for links that are made from now on.
    ///
    /// # Errors
    /// As [`Trust::load`]; what was read before stays then.
    pub(crate) fn reload(&mut self) -> Result<(), String> {
        (self.config, self.authorities) = read(&self.file)?;
        Ok(())
    }

    /// How many certificates are in the file.
    pub(crate) fn authorities(&self) -> usize {
        self.authorities
    }

    /// Where they are.
    pub(crate) fn file(&self) -> &Path {
        &self.file
    }

    /// The name that was given for all servers.
    pub(crate) fn given_name(&self) -> Option<String> {
        self.name.as_ref().map(|name| name.to_str().into_owned())
    }

    /// The name that the certificate of the server at `HOST:PORT` must have.
    ///
    /// # Errors
    /// A text for the operator: the host can be no such name.
    pub(crate) fn name_of(&self, address: &str) -> Result<ServerName<'static>, String> {
        if let Some(name) = &self.name {
            return Ok(name.clone());
        }
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        ServerName::try_from(bare.to_owned()).map_err(|_| {
            format!(
                "no certificate can have the name `{}`: say in `link_name` which one that of tls://{} has",
                host.escape_debug(),
                address.escape_debug()
            )
        })
    }

    /// The beginning of a connection to the server at `HOST:PORT`.
    pub(super) fn connect(&self, address: &str) -> Result<ClientConnection, String> {
        let name = self.name_of(address)?;
        ClientConnection::new(Arc::clone(&self.config), name).map_err(|error| format!("TLS: {error}"))
    }

    /// What is wrong with the server, and what to do about it.
    pub(super) fn explain(&self, error: &Error) -> String {
        let file = self.file.display();
        match error {
            Error::InvalidCertificate(error) => self.explain_certificate(error),
            Error::InvalidMessage(_) => {
                format!("it does not speak TLS as it should: has its listener `tls: true`? ({error})")
            }
            Error::NoCertificatesPresented => "it shows no certificate".to_owned(),
            Error::AlertReceived(alert) => format!("it refuses TLS: {alert:?}"),
            Error::PeerIncompatible(_) => {
                format!(
                    "it speaks no TLS that this end speaks, which is 1.2 and 1.3 with forward secrecy ({error})"
                )
            }
            error => format!("TLS, with link_ca {file}: {error}"),
        }
    }

    fn explain_certificate(&self, error: &CertificateError) -> String {
        let file = self.file.display();
        match error {
            CertificateError::UnknownIssuer => format!("its certificate is not from link_ca {file}"),
            CertificateError::BadSignature => {
                format!("its certificate is signed wrongly for the authority of that name in link_ca {file}")
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "its certificate has expired, or this machine's clock is wrong".to_owned()
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "its certificate is not valid yet, or this machine's clock is wrong".to_owned()
            }
            CertificateError::NotValidForNameContext { expected, presented } => {
                let names: Vec<&str> = presented.iter().map(|name| bare(name)).collect();
                let names = cut(&names.join(", "));
                let names = if names.is_empty() { "no name (subjectAltName)".to_owned() } else { names };
                let expected = expected.to_str();
                format!(
                    "its certificate is not for {expected} but for {names}: `link_name` says what it must be for"
                )
            }
            CertificateError::Other(error) if is_authority(error) => {
                "its certificate is one of an authority (CA:TRUE), which none for a server may be".to_owned()
            }
            CertificateError::UnsupportedSignatureAlgorithmContext { .. }
            | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
                "its certificate is signed by an algorithm that counts for nothing here, as SHA-1 does: take SHA-256"
                    .to_owned()
            }
            // There may be parts of the certificate in it.
            error => format!("its certificate cannot be used: {}", cut(&error.to_string())),
        }
    }
}

/// What the other end says, fit for a log.
fn cut(text: &str) -> String {
    text.escape_debug().take(SHOWN).collect()
}

/// rustls says `DnsName("a.example")`.
fn bare(name: &str) -> &str {
    name.strip_prefix("DnsName(\"").and_then(|name| name.strip_suffix("\")")).unwrap_or(name)
}

/// `openssl req -x509` makes such ones unless told otherwise.
fn is_authority(error: &rustls::OtherError) -> bool {
    error.0.downcast_ref::<webpki::Error>() == Some(&webpki::Error::CaUsedAsEndEntity)
}

fn read(path: &Path) -> Result<(Arc<ClientConfig>, usize), String> {
    let file = path.display();
    let text = std::fs::read(path).map_err(|error| format!("cannot read link_ca {file}: {error}"))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&text) {
        certificate
            .map_err(|error| error.to_string())
            .and_then(|certificate| roots.add(certificate).map_err(|error| error.to_string()))
            .map_err(|error| format!("in link_ca {file}: {error}"))?;
    }
    if roots.is_empty() {
        return Err(format!("in link_ca {file}: no PEM block `BEGIN CERTIFICATE`"));
    }
    let authorities = roots.len();
    // Not the compact one: a link carries much, and there are few.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    // Each time the certificate is looked at.
    config.resumption = Resumption::disabled();
    Ok((Arc::new(config), authorities))
}
