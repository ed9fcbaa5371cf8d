//! The section `[tls]` of the configuration file.

use serde::Deserialize;

use super::Pair;
use crate::config::{Count, Seconds};
use crate::options::Listen;

/// What may stand in the section. Unknown keys are refused by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Section {
    /// Address and port for clients that come by TLS.
    pub listen: Option<Listen>,
    /// The certificates; the first one is for clients that ask for no name, or for one that none has.
    #[serde(default)]
    pub certificate: Vec<Pair>,
    /// Seconds for a handshake.
    pub handshake_timeout: Option<Seconds>,
    /// Most handshakes at a time that are not complete.
    pub max_handshakes: Option<Count>,
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_section() {
        let text = "listen = '[::]:5281'\nhandshake_timeout = 3\n[[certificate]]\ncertificate = 'c'\nkey = 'k'\n\
                    [[certificate]]\ncertificate = 'd'\nkey = 'l'\n";
        let section: Section = toml::from_str(text).unwrap();
        assert_eq!(section.listen, Some("[::]:5281".parse().unwrap()));
        let pair = |certificate: &str, key: &str| Pair { certificate: certificate.into(), key: key.into() };
        assert_eq!(section.certificate, [pair("c", "k"), pair("d", "l")]);
    }

    #[test]
    fn mistakes_are_named_with_line_and_key() {
        for (text, parts) in [
            ("listen = '0.0.0.0'\n", ["line 1", "0.0.0.0"]),
            ("\nlisten_port = 1\n", ["line 2", "listen_port"]),
            ("[[certificate]]\ncertificate = 'c'\n", ["line 1", "key"]),
            ("[[certificate]]\ncertificate = 'c'\nkey = 'k'\nchain = 'x'\n", ["line 4", "chain"]),
            ("max_handshakes = 0\n", ["line 1", "max_handshakes"]),
            ("handshake_timeout = 86401\n", ["line 1", "86401"]),
        ] {
            let error = toml::from_str::<Section>(text).unwrap_err().to_string();
            for part in parts {
                assert!(error.contains(part), "{part}: {error}");
            }
        }
    }
}
