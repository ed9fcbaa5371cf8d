//! Authorities, certificates of servers in a private directory, and nodes whose links speak TLS.

use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned, SupportedProtocolVersion};

use super::{DEADLINE, Decoder, Node};

pub type Secured = StreamOwned<ServerConnection, TcpStream>;

/// An authority, whose certificate is in a file; removed when dropped.
pub struct Root {
    pub file: PathBuf,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A server's certificate and key.
pub struct Identity {
    pub pem: String,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Root {
    pub fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let file =
            std::env::temp_dir().join(format!("megaphone-ecm-root-{}-{number}.pem", std::process::id()));
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // Each has its own name: an authority is looked for by it.
        params.distinguished_name.push(DnType::CommonName, format!("root {number}"));
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        std::fs::write(&file, issuer.pem()).unwrap();
        Self { file, issuer }
    }

    /// A certificate for this name, from this authority.
    pub fn identity(&self, name: &str) -> Identity {
        self.identity_of(name, |_| {})
    }

    /// As [`Root::identity`], with a difference.
    pub fn identity_of(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Identity {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Identity::new(certificate, &key)
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.file);
    }
}

impl Identity {
    fn new(certificate: rcgen::Certificate, key: &KeyPair) -> Self {
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        Self { pem: certificate.pem(), chain: vec![certificate.der().clone()], key }
    }

    /// A certificate for this name that nobody else has signed.
    pub fn self_signed(name: &str, is_ca: bool) -> Self {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        if is_ca {
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        }
        let key = KeyPair::generate().unwrap();
        Self::new(params.self_signed(&key).unwrap(), &key)
    }

    pub fn config(&self, versions: &[&'static SupportedProtocolVersion]) -> Arc<ServerConfig> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(self.chain.clone(), self.key.clone_key())
            .unwrap();
        Arc::new(config)
    }

    /// Accepts a connection; the handshake has yet to be made.
    pub fn accept(&self, listener: &TcpListener) -> Secured {
        self.accept_of(listener, rustls::ALL_VERSIONS)
    }

    pub fn accept_of(
        &self,
        listener: &TcpListener,
        versions: &[&'static SupportedProtocolVersion],
    ) -> Secured {
        let (stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.set_write_timeout(Some(DEADLINE)).unwrap();
        stream.set_nodelay(true).unwrap();
        StreamOwned::new(ServerConnection::new(self.config(versions)).unwrap(), stream)
    }

    /// Accepts a link that must not come about: what the handshake ended with.
    pub fn refused(&self, listener: &TcpListener) -> std::io::Error {
        let mut stream = self.accept(listener);
        loop {
            // With TLS 1.3 this end is done before the other one has looked at the certificate.
            if let Err(error) = stream.conn.complete_io(&mut stream.sock) {
                return error;
            }
        }
    }

    /// Accepts a link and exchanges hellos.
    pub fn link(&self, listener: &TcpListener, window: u32) -> Node<Secured> {
        let mut node = Node::over(self.accept(listener), Decoder::new());
        node.greet(window);
        node
    }
}
