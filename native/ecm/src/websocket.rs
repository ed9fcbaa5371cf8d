//! Which WebSockets end here, and how.

use std::time::Duration;

use megaphone_core::limits;

/// What an operator chooses about WebSockets; the defaults are those of [`megaphone_core::limits`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebSockets {
    /// Paths of requests. Those for other paths, and all when ejabberd does not serve it so, are carried through.
    pub paths: Vec<String>,
    /// Origins of pages that may connect, as browsers write them; `None`: any.
    pub origins: Option<Vec<String>>,
    /// Silence of the client after which it is pinged.
    pub ping: Duration,
    /// For the client's answer to a ping.
    pub pong: Duration,
}

impl Default for WebSockets {
    fn default() -> Self {
        Self {
            paths: ["/ws", "/websocket", "/xmpp-websocket"].map(str::to_owned).to_vec(),
            origins: None,
            ping: Duration::from_millis(u64::from(limits::WEBSOCKET_PING)),
            pong: Duration::from_millis(u64::from(limits::WEBSOCKET_PONG)),
        }
    }
}

impl WebSockets {
    /// Whether a WebSocket for this path ends here.
    pub(crate) fn has_path(&self, path: &[u8]) -> bool {
        self.paths.iter().any(|known| known.as_bytes() == path)
    }

    /// Whether a page of this origin may connect. Schemes and hosts have no case (RFC 6454, 4), and browsers write them in
    /// small letters.
    pub(crate) fn allows(&self, origin: &[u8]) -> bool {
        let origins = self.origins.as_ref();
        origins
            .is_none_or(|origins| origins.iter().any(|known| known.as_bytes().eq_ignore_ascii_case(origin)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_origins_are_compared_whole() {
        let mut settings = WebSockets::default();
        assert!(settings.has_path(b"/ws") && settings.has_path(b"/xmpp-websocket"));
        assert!(!settings.has_path(b"/ws/") && !settings.has_path(b"/wsx") && !settings.has_path(b""));
        assert!(settings.allows(b"https://any.example"));
        settings.origins = Some(vec!["https://chat.example".to_owned()]);
        assert!(settings.allows(b"https://Chat.example"));
        for other in
            ["https://chat.example.evil", "http://chat.example", "https://chat.example:444", "null", ""]
        {
            assert!(!settings.allows(other.as_bytes()), "{other}");
        }
    }
}
