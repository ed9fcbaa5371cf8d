//! Certificates that expire: the real program says so before clients are refused.

#![allow(clippy::unwrap_used)]

mod common;

use common::program::*;
use common::tls::Authority;
use megaphone_core::limits::CERTIFICATE_WARNING;
use megaphone_ecm::tls::unix_time;
use rustix::process::Signal;

const DAY: u64 = 86_400;

/// At the start and at each reload the log warns of a certificate that clients refuse or soon will.
#[test]
fn a_start_and_a_reload_warn() {
    let mut authority = Authority::new();
    let now = unix_time();
    let pair = authority.pair_for("a", &["a.example"], 0..=now + 3 * DAY + 3_600);
    let (certificate, key) = (pair.certificate.to_str().unwrap(), pair.key.to_str().unwrap());
    let mut running = Running::start(&[
        "--tls-listen",
        "127.0.0.1:0",
        "--tls-certificate",
        certificate,
        "--tls-key",
        key,
        "--server",
        "127.0.0.1:1",
    ]);
    let warning = running.wait_for("WARN the certificate ");
    assert_eq!(warning, format!("{certificate} expires in 3 days: renew it and send SIGHUP"));
    let mut reload = |time, told: &str| {
        authority.pair_for("a", &["a.example"], time);
        signal(&running.0, Signal::HUP);
        running.wait_for("certificates were read again: ");
        let warning = running.wait_for("WARN the certificate ");
        assert!(warning.contains(told), "{warning}");
    };
    reload(0..=now - 5 * DAY, "expired 5 days ago");
    reload(now + 2 * DAY..=now + 100 * DAY, "is not valid yet");
    reload(0..=now + CERTIFICATE_WARNING - 10, "expires in 13 days");
}

/// Nothing is said of a certificate that holds for long enough.
#[test]
fn nothing_is_said_without_need() {
    let mut authority = Authority::new();
    let pair = authority.pair_for("a", &["a.example"], 0..=unix_time() + CERTIFICATE_WARNING + 60);
    let (certificate, key) = (pair.certificate.to_str().unwrap(), pair.key.to_str().unwrap());
    let tls = ["--tls-listen", "127.0.0.1:0", "--tls-certificate", certificate, "--tls-key", key];
    let mut running = Running::start(&tls);
    running.wait_for("listening with TLS on ");
    signal(&running.0, Signal::HUP);
    running.wait_for("certificates were read again: ");
    signal(&running.0, Signal::TERM);
    assert!(running.0.wait().unwrap().success());
    assert!(!running.rest().contains("the certificate "));
}

/// `check` says it as well, of each certificate, and still tells what would be in force.
#[test]
fn a_check_warns() {
    let mut authority = Authority::new();
    let now = unix_time();
    let times = [0..=now - 1, now + DAY..=now + 99 * DAY, 0..=now + DAY, 0..=now + 99 * DAY];
    let pairs: Vec<_> = times
        .into_iter()
        .zip(["a", "b", "c", "d"])
        .map(|(time, name)| authority.pair_for(name, &["a.example"], time))
        .collect();
    let sections: String = pairs
        .iter()
        .map(|pair| {
            let (certificate, key) = (pair.certificate.display(), pair.key.display());
            format!("[[tls.certificate]]\ncertificate = '{certificate}'\nkey = '{key}'\n")
        })
        .collect();
    let file = authority.dir.join("ecm.toml");
    std::fs::write(&file, format!("[tls]\nlisten = '127.0.0.1:0'\n{sections}")).unwrap();
    let output = program(&["check", file.to_str().unwrap()]).output().unwrap();
    assert!(output.status.success());
    let text = String::from_utf8(output.stderr).unwrap();
    for (pair, said) in pairs.iter().zip(["expired", "is not valid yet", "expires in", ""]) {
        let start = format!("the certificate {} ", pair.certificate.display());
        let told = text.lines().find_map(|line| line.split_once(&start)).map_or("", |(_, rest)| rest);
        assert!(
            told.starts_with(said) && told.is_empty() == said.is_empty(),
            "{told:?} for {said:?}: {text}"
        );
    }
    assert!(String::from_utf8(output.stdout).unwrap().contains("handshake_timeout"));
}
