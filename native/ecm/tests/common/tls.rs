//! Certificates in a private directory, and clients that speak TLS.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use megaphone_ecm::Config;
use megaphone_ecm::tls::{Certificates, Pair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedCipherSuite,
    SupportedProtocolVersion,
};

use super::{DEADLINE, Ecm, Node};

/// Files of certificates, removed when dropped; whatever was made here, its clients trust.
pub struct Authority {
    pub dir: PathBuf,
    pub roots: RootCertStore,
}

impl Authority {
    pub fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("megaphone-ecm-tls-{}-{number}", std::process::id()));
        std::fs::create_dir(&dir).unwrap();
        Self { dir, roots: RootCertStore::empty() }
    }

    /// Makes the files `FILE.pem` and `FILE.key`, or makes them anew, for these names.
    pub fn pair(&mut self, file: &str, names: &[&str]) -> Pair {
        self.pair_for(file, names, 0..=u64::from(u32::MAX))
    }

    /// The same for this time, in seconds since 1970, both ends included.
    pub fn pair_for(&mut self, file: &str, names: &[&str], time: std::ops::RangeInclusive<u64>) -> Pair {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let at = |seconds| rcgen::date_time_ymd(1970, 1, 1) + std::time::Duration::from_secs(seconds);
        let mut params = rcgen::CertificateParams::new(names).unwrap();
        (params.not_before, params.not_after) = (at(*time.start()), at(*time.end()));
        let key = rcgen::KeyPair::generate().unwrap();
        let cert = params.self_signed(&key).unwrap();
        let pair = Pair {
            certificate: self.dir.join(format!("{file}.pem")),
            key: self.dir.join(format!("{file}.key")),
        };
        std::fs::write(&pair.certificate, cert.pem()).unwrap();
        std::fs::write(&pair.key, key.serialize_pem()).unwrap();
        std::fs::set_permissions(&pair.key, std::fs::Permissions::from_mode(0o644)).unwrap();
        self.roots.add(cert.der().clone()).unwrap();
        pair
    }

    /// The certificate that is in the file now.
    pub fn certificate(pair: &Pair) -> CertificateDer<'static> {
        CertificateDer::from_pem_file(&pair.certificate).unwrap()
    }

    pub fn load(&mut self, file: &str, names: &[&str]) -> Certificates {
        Certificates::load(vec![self.pair(file, names)]).unwrap()
    }

    pub fn client_config(&self, versions: &[&'static SupportedProtocolVersion]) -> ClientConfig {
        self.client_config_of(versions, rustls::crypto::ring::ALL_CIPHER_SUITES)
    }

    pub fn client_config_of(
        &self,
        versions: &[&'static SupportedProtocolVersion],
        suites: &[SupportedCipherSuite],
    ) -> ClientConfig {
        let mut provider = rustls::crypto::ring::default_provider();
        provider.cipher_suites = suites.to_vec();
        ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(self.roots.clone())
            .with_no_client_auth()
    }

    /// A client of TLS 1.3 that asks for this name.
    pub fn client(&self, address: SocketAddr, name: &str) -> TlsClient {
        TlsClient::new(connect(address), Arc::new(self.client_config(&[&rustls::version::TLS13])), name)
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

pub fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.set_write_timeout(Some(DEADLINE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// A client that speaks TLS.
pub struct TlsClient<S: Read + Write = TcpStream> {
    pub tls: StreamOwned<ClientConnection, S>,
}

impl<S: Read + Write> TlsClient<S> {
    pub fn new(stream: S, config: Arc<ClientConfig>, name: &str) -> Self {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        Self { tls: StreamOwned::new(ClientConnection::new(config, name).unwrap(), stream) }
    }

    /// Completes the handshake.
    pub fn greet(&mut self) -> std::io::Result<()> {
        while self.tls.conn.is_handshaking() {
            self.tls.conn.complete_io(&mut self.tls.sock)?;
        }
        self.tls.flush()
    }

    pub fn certificate(&self) -> CertificateDer<'static> {
        self.tls.conn.peer_certificates().unwrap()[0].clone()
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.tls.write_all(bytes.as_ref()).unwrap();
        self.tls.flush().unwrap();
    }

    /// These very bytes must come.
    pub fn expect(&mut self, expected: &str) {
        let mut got = vec![0; expected.len()];
        if let Err(error) = self.tls.read_exact(&mut got) {
            panic!("{error} instead of {expected:?}");
        }
        assert_eq!(String::from_utf8_lossy(&got), expected);
    }

    /// Everything up to the end, which close_notify has to announce.
    pub fn rest(&mut self) -> Vec<u8> {
        let mut got = Vec::new();
        self.tls.read_to_end(&mut got).unwrap();
        got
    }

    /// Whether the connection is over, in whatever way.
    pub fn is_over(&mut self) -> bool {
        match self.tls.read(&mut [0; 1]) {
            Ok(count) => count == 0,
            Err(error) => !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
        }
    }
}

/// A manager with a certificate for `a.example`, its link, and the authority.
pub fn start(change: impl FnOnce(&mut Config)) -> (Authority, Ecm, Node, SocketAddr) {
    let mut authority = Authority::new();
    let certificates = authority.load("a", &["a.example"]);
    let ecm = Ecm::launch(change, Some(certificates));
    let node = ecm.accept();
    let address = ecm.secure.unwrap();
    (authority, ecm, node, address)
}
