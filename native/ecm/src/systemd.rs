//! What systemd is told, where it asks to be told (`Type=notify`); elsewhere these do nothing.

use sd_notify::NotifyState;
use tracing::debug;

/// Clients are taken now.
pub(crate) fn ready() {
    tell(&[NotifyState::Ready, NotifyState::Status("serving")]);
}

/// No further clients are taken.
pub(crate) fn draining() {
    tell(&[NotifyState::Stopping, NotifyState::Status("draining")]);
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        debug!("the service manager cannot be told: {error}");
    }
}
