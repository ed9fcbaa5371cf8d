//! Who the clients are and what each may do: what is not in a slot, because few connections have it.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use megaphone_core::client::{Bounds, Origin, Refusal};
use megaphone_core::http::Head;
use megaphone_core::limits;
use megaphone_core::peer::addresses::{AddressLimits, Addresses, Ticket, TooMany};
use megaphone_core::peer::bucket::{Bucket, Rate};
use megaphone_core::peer::forwarded::{Forwarded, forwarded};
use megaphone_core::peer::network::{self, Network};
use megaphone_core::peer::proxy::{Decoder, ProxyError, Source};

/// What an operator chooses about clients and proxies; the defaults are those of [`megaphone_core::limits`].
#[derive(Clone, Debug)]
pub struct Settings {
    /// Every connection begins with a header of the PROXY protocol, and comes from one of the trusted proxies.
    pub proxy_protocol: bool,
    /// Whose PROXY headers and `X-Forwarded-For` count.
    pub trusted_proxies: Vec<Network>,
    /// Addresses of the machine itself are not held to the limits for an address: a proxy there that says nothing of its
    /// clients would be one client. Off only in tests.
    pub exempt_loopback: bool,
    /// What one address may do.
    pub addresses: AddressLimits,
    /// Most new connections in a second, of all together.
    pub new_per_second: u32,
    /// What one connection may do.
    pub bounds: Bounds,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            proxy_protocol: false,
            trusted_proxies: Vec::new(),
            exempt_loopback: true,
            addresses: AddressLimits::default(),
            new_per_second: limits::MAX_NEW_CLIENTS_PER_SECOND,
            bounds: Bounds::default(),
        }
    }
}

/// Whom a connection speaks for, if that is not its peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Speaker {
    /// Said by a PROXY header: the client, and whether it speaks TLS with the proxy.
    proxied: Option<SocketAddr>,
    proxied_tls: bool,
    /// The same, said by the fields of the last request.
    forwarded: Option<IpAddr>,
    forwarded_tls: bool,
}

/// What the event loop knows of addresses. Slots are known by their index.
#[derive(Debug)]
pub(crate) struct Guard {
    pub(crate) settings: Settings,
    addresses: Addresses,
    tickets: Tickets,
    speakers: HashMap<u32, Speaker>,
    /// PROXY headers that are not complete.
    headers: HashMap<u32, Decoder>,
    pace: Bucket,
    /// Slots that only wait for their refusal to be read.
    pub(crate) turned_away: usize,
}

impl Guard {
    pub(crate) fn new(settings: Settings) -> Self {
        Self {
            addresses: Addresses::new(settings.addresses),
            tickets: Tickets::default(),
            speakers: HashMap::new(),
            headers: HashMap::new(),
            pace: Bucket::full(pace(&settings), 0),
            turned_away: 0,
            settings,
        }
    }

    pub(crate) fn trusts(&self, address: IpAddr) -> bool {
        network::contains(&self.settings.trusted_proxies, address)
    }

    /// Milliseconds until the next client may be accepted.
    pub(crate) fn wait(&mut self, now: u32) -> u32 {
        self.pace.wait(pace(&self.settings), now)
    }

    /// A client was accepted.
    pub(crate) fn accepted(&mut self, now: u32) {
        self.pace.take(pace(&self.settings), now);
    }

    /// Counts the connection in a slot as one of this address. `paced`: as a new one.
    pub(crate) fn enter(&mut self, index: u32, ip: IpAddr, paced: bool, now: u32) -> Result<(), Refusal> {
        self.release(index, now);
        let ip = ip.to_canonical();
        if self.trusts(ip) || (self.settings.exempt_loopback && ip.is_loopback()) {
            return Ok(());
        }
        let ticket = self.addresses.enter(ip, paced, now).map_err(|many| match many {
            TooMany::Clients => Refusal::AddressClients,
            TooMany::New => Refusal::AddressRate,
        })?;
        self.tickets.set(index, ticket);
        Ok(())
    }

    /// The connection in a slot is over.
    pub(crate) fn leave(&mut self, index: u32, now: u32) {
        self.release(index, now);
        self.speakers.remove(&index);
        self.headers.remove(&index);
    }

    fn release(&mut self, index: u32, now: u32) {
        let ticket = self.tickets.take(index);
        self.addresses.leave(ticket, now);
    }

    /// Takes bytes of a PROXY header: how many, and for whom the proxy connects when it is complete.
    pub(crate) fn header(&mut self, index: u32, bytes: &[u8]) -> Result<(usize, Option<Source>), ProxyError> {
        // A header comes in one piece nearly always: nothing is remembered then.
        let mut decoder = self.headers.remove(&index).unwrap_or_default();
        let (used, source) = decoder.decode(bytes)?;
        if source.is_none() {
            self.headers.insert(index, decoder);
        }
        Ok((used, source))
    }

    /// A PROXY header said whom the connection in a slot speaks for.
    pub(crate) fn introduce(&mut self, index: u32, client: SocketAddr, is_tls: bool) {
        let speaker = Speaker { proxied: Some(client), proxied_tls: is_tls, ..Speaker::default() };
        self.speakers.insert(index, speaker);
    }

    /// Sees whom the request of a trusted peer comes from.
    pub(crate) fn origin(&mut self, index: u32, bytes: &[u8], head: &Head, now: u32) -> Origin {
        let Forwarded { client, is_tls } = forwarded(bytes, head, &self.settings.trusted_proxies);
        let before = self.speakers.get(&index).copied().unwrap_or_default();
        let after = Speaker { forwarded: client, forwarded_tls: is_tls, ..before };
        if after == before {
            return Origin::Same;
        }
        if before.forwarded != client {
            // Not paced: a proxy's few connections change from client to client all the time.
            let entered = match client {
                Some(client) => self.enter(index, client, false, now),
                None => {
                    self.release(index, now);
                    Ok(())
                }
            };
            if let Err(refusal) = entered {
                self.speakers.insert(index, after);
                return Origin::Refused(refusal);
            }
        }
        if after == Speaker::default() {
            self.speakers.remove(&index);
        } else {
            self.speakers.insert(index, after);
        }
        Origin::Changed
    }

    /// Whom the connection in a slot speaks for, if not for its peer. A forwarded address has port 0.
    pub(crate) fn client(&self, index: u32) -> Option<SocketAddr> {
        let speaker = self.speakers.get(&index)?;
        speaker.forwarded.map(|ip| SocketAddr::new(ip, 0)).or(speaker.proxied)
    }

    /// Whether a trusted proxy said that the client came by TLS.
    pub(crate) fn is_tls(&self, index: u32) -> bool {
        self.speakers.get(&index).is_some_and(|speaker| speaker.proxied_tls || speaker.forwarded_tls)
    }

    /// Looks at a part of the addresses, in turn: one in `parts`.
    pub(crate) fn sweep(&mut self, parts: usize, now: u32) {
        let count = self.addresses.places().div_ceil(parts);
        self.addresses.sweep(count, now);
    }
}

fn pace(settings: &Settings) -> Rate {
    Rate { per_second: settings.new_per_second, burst: settings.new_per_second }
}

/// Tickets by slot, in chunks that only exist where a slot has had one.
#[derive(Debug, Default)]
struct Tickets(Vec<Option<Box<[Ticket; 1_024]>>>);

impl Tickets {
    fn set(&mut self, index: u32, ticket: Ticket) {
        let (chunk, place) = (index as usize / 1_024, index as usize % 1_024);
        if self.0.len() <= chunk {
            self.0.resize_with(chunk + 1, || None);
        }
        self.0[chunk].get_or_insert_with(|| Box::new([Ticket::NONE; 1_024]))[place] = ticket;
    }

    fn take(&mut self, index: u32) -> Ticket {
        let chunk = self.0.get_mut(index as usize / 1_024).and_then(Option::as_mut);
        chunk
            .map_or(Ticket::NONE, |chunk| std::mem::replace(&mut chunk[index as usize % 1_024], Ticket::NONE))
    }
}
