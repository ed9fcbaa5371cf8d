//! The metrics as text, in the format of Prometheus. Every name is in `docs/operations.md`, and a test compares.

use std::fmt::{Error, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use megaphone_core::client::Refusal;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet, prometheus_text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use super::process;
use crate::metrics::{BUCKETS, STAMP, Shared, State};

/// The `Content-Type` of what [`Exposition::text`] answers.
pub(super) const CONTENT_TYPE: &str = prometheus_text::CONTENT_TYPE;

/// Everything that is told to who asks for it.
#[derive(Debug)]
pub(super) struct Exposition(Registry);

impl Exposition {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Manager(shared)));
        registry.register_collector(Box::new(Process));
        Self(registry)
    }

    /// All metrics now; some 6 kB.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        if prometheus_text::encode(&mut text, &self.0).is_err() {
            // A String takes everything.
            let _ = writeln!(text, "# incomplete");
        }
        text
    }
}

fn counter(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> Result<(), Error> {
    let counter = ConstCounter::new(value);
    counter.encode(encoder.encode_descriptor(name, help, None, MetricType::Counter)?)
}

fn gauge(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> Result<(), Error> {
    let gauge = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
    gauge.encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)
}

/// A metric with one label, each of its values with a number.
fn family<'a, M: EncodeMetric>(
    encoder: &mut DescriptorEncoder<'_>,
    (name, help, kind): (&str, &str, MetricType),
    label: &str,
    values: impl Iterator<Item = (&'a str, u64)>,
    metric: impl Fn(u64) -> M,
) -> Result<(), Error> {
    let mut encoder = encoder.encode_descriptor(name, help, None, kind)?;
    for (value, number) in values {
        let labels = [(label, value)];
        metric(number).encode(encoder.encode_family(&labels)?)?;
    }
    Ok(())
}

/// What the event loop published.
#[derive(Debug)]
struct Manager(Arc<Shared>);

impl Collector for Manager {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let (shared, to) = (&*self.0, &mut encoder);
        let get = |number: &AtomicU64| number.load(Ordering::Relaxed);
        let flag = |flag: &std::sync::atomic::AtomicBool| u64::from(flag.load(Ordering::Relaxed));
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        let mut info = to.encode_descriptor("megaphone_build_info", "Always 1", None, MetricType::Gauge)?;
        ConstGauge::new(1_i64).encode(info.encode_family(&version)?)?;
        let states = State::NAMES.into_iter().zip(shared.clients.iter().map(get));
        let kind = ("megaphone_clients", "Client connections now, by state", MetricType::Gauge);
        family(to, kind, "state", states, |number| {
            ConstGauge::new(i64::try_from(number).unwrap_or(i64::MAX))
        })?;
        gauge(to, "megaphone_max_clients", "Most client connections", shared.max_clients)?;
        counter(to, "megaphone_clients_accepted", "Client connections accepted", get(&shared.accepted))?;
        counter(to, "megaphone_virtual_connections", "Virtual connections opened", get(&shared.opened))?;
        counter(to, "megaphone_websockets", "Connections that became WebSockets", get(&shared.websockets))?;
        counter(to, "megaphone_requests", "Whole requests given to ejabberd", get(&shared.requests))?;
        let help = "Whole messages of WebSockets given to ejabberd";
        counter(to, "megaphone_messages", help, get(&shared.messages))?;
        let reasons = Refusal::ALL.into_iter().map(Refusal::name).zip(shared.refused.iter().map(get));
        let kind = ("megaphone_refused", "Requests refused, by reason", MetricType::Counter);
        family(to, kind, "reason", reasons, ConstCounter::new)?;
        let bytes = [("in", get(&shared.bytes_in)), ("out", get(&shared.bytes_out))];
        let kind = ("megaphone_client_bytes", "Bytes from clients and to them", MetricType::Counter);
        family(to, kind, "direction", bytes.into_iter(), ConstCounter::new)?;
        gauge(to, "megaphone_links", "Links to ejabberd that there should be", get(&shared.links))?;
        gauge(to, "megaphone_links_up", "Links that are up", get(&shared.links_up))?;
        let draining = "Links that are up and take no further clients, as ejabberd asked";
        gauge(to, "megaphone_links_draining", draining, get(&shared.links_draining))?;
        counter(to, "megaphone_links_lost", "Times that a link was lost", get(&shared.links_lost))?;
        gauge(to, "megaphone_link_queue_bytes", "Bytes that wait for the links", get(&shared.link_queue))?;
        gauge(to, "megaphone_held_bytes", "Bytes that clients hold in memory", get(&shared.held))?;
        gauge(to, "megaphone_max_held_bytes", "Most bytes that clients may hold", shared.max_held)?;
        let expiry = get(&shared.certificate_expiry);
        if expiry > 0 {
            let help = "When the first certificate for clients expires, in seconds since 1970";
            gauge(to, "megaphone_certificate_expiry_timestamp_seconds", help, expiry)?;
        }
        let help = "Times that accepting paused for lack of descriptors or memory";
        counter(to, "megaphone_accept_pauses", help, get(&shared.accept_pauses))?;
        gauge(to, "megaphone_draining", "1 if no further clients are taken", flag(&shared.is_draining))?;
        latency(to, shared)
    }
}

fn latency(encoder: &mut DescriptorEncoder<'_>, shared: &Shared) -> Result<(), Error> {
    let help = "From a whole request to the first byte of its answer";
    let name = "megaphone_request_seconds";
    let mut encoder = encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
    // Read once, so that the count is that of the buckets.
    let bounds = BUCKETS.iter().map(|bound| seconds(u64::from(*bound))).chain([f64::INFINITY]);
    let buckets: Vec<(f64, u64)> =
        bounds.zip(shared.latency.iter().map(|count| count.load(Ordering::Relaxed))).collect();
    let count = buckets.iter().map(|(_, count)| count).sum();
    let sum = seconds(shared.latency_sum.load(Ordering::Relaxed));
    encoder.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
}

fn seconds(stamps: u64) -> f64 {
    // Exact up to 2^53 stamps, which are 28,000 years.
    stamps as f64 / (1.0 / STAMP.as_secs_f64()).round()
}

/// What the system says of this process.
#[derive(Debug)]
struct Process;

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let to = &mut encoder;
        let figures = [
            ("process_resident_memory_bytes", "Resident memory", process::resident()),
            ("process_open_fds", "Open descriptors", process::open_descriptors()),
            ("process_max_fds", "Most open descriptors", process::max_descriptors()),
        ];
        for (name, help, value) in figures {
            if let Some(value) = value {
                gauge(to, name, help, value)?;
            }
        }
        Ok(())
    }
}
