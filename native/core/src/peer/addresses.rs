//! Connections of each client address: counted, and limited in number and pace.
//!
//! A connection holds the number of its address's entry, 4 bytes. An entry takes 28 bytes and its place in a hash table
//! of numbers 5 to 10. It vanishes when its address has no connection and its bucket is full: then it says nothing.

use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv6Addr};

use hashbrown::HashTable;

use super::bucket::{Bucket, Rate};
use super::network::masked;
use crate::limits;

/// How much one address may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressLimits {
    /// Connections at a time.
    pub clients: u32,
    /// New connections in a second, on the average. So many, or as many as it may have, may come at once.
    pub new_per_second: u32,
    /// Leading bits of an IPv6 address that count as one address.
    pub ipv6_prefix: u8,
    /// Addresses counted at a time.
    pub addresses: usize,
}

impl Default for AddressLimits {
    fn default() -> Self {
        Self {
            clients: limits::MAX_CLIENTS_PER_ADDRESS,
            new_per_second: limits::MAX_NEW_CLIENTS_PER_ADDRESS,
            ipv6_prefix: limits::IPV6_PREFIX,
            addresses: limits::MAX_ADDRESSES,
        }
    }
}

impl AddressLimits {
    fn rate(&self) -> Rate {
        Rate { per_second: self.new_per_second, burst: self.clients.max(self.new_per_second) }
    }
}

/// What an address may not do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TooMany {
    /// It has as many connections as it may.
    Clients,
    /// It makes connections faster than it may.
    New,
}

/// A counted connection: to be given back with [`Addresses::leave`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket(u32);

impl Ticket {
    /// Of a connection that is not counted.
    pub const NONE: Self = Self(u32::MAX);
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    /// IPv4 as an IPv6 address that carries it.
    key: [u8; 16],
    clients: u32,
    bucket: Bucket,
}

/// The addresses that have connections, or had some a short time ago.
#[derive(Debug)]
pub struct Addresses {
    limits: AddressLimits,
    entries: Vec<Entry>,
    free: Vec<u32>,
    numbers: HashTable<u32>,
    hasher: RandomState,
    swept: usize,
}

impl Addresses {
    /// An empty one.
    #[must_use]
    pub fn new(limits: AddressLimits) -> Self {
        Self {
            limits,
            entries: Vec::new(),
            free: Vec::new(),
            numbers: HashTable::new(),
            // Seeded by the system: clients choose the keys.
            hasher: RandomState::new(),
            swept: 0,
        }
    }

    /// Addresses in it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.numbers.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.numbers.is_empty()
    }

    /// A new connection of this address. `paced`: it takes a token of the address's bucket. At the limit of addresses an
    /// address that is not there yet gets [`Ticket::NONE`].
    ///
    /// # Errors
    /// [`TooMany`]: the connection is not counted.
    pub fn enter(&mut self, address: IpAddr, paced: bool, now: u32) -> Result<Ticket, TooMany> {
        let Some(number) = self.number(self.key(address), now) else { return Ok(Ticket::NONE) };
        let rate = self.limits.rate();
        let entry = &mut self.entries[number as usize];
        if entry.clients >= self.limits.clients {
            return Err(TooMany::Clients);
        }
        if paced && !entry.bucket.take(rate, now) {
            return Err(TooMany::New);
        }
        entry.clients += 1;
        Ok(Ticket(number))
    }

    /// A connection is over.
    pub fn leave(&mut self, ticket: Ticket, now: u32) {
        let Some(entry) = self.entries.get_mut(ticket.0 as usize) else { return };
        entry.clients = entry.clients.saturating_sub(1);
        self.forget(ticket.0, now);
    }

    /// Looks at so many entries, in turn, for those that say nothing any more.
    pub fn sweep(&mut self, count: usize, now: u32) {
        for _ in 0..count.min(self.entries.len()) {
            self.swept = if self.swept + 1 < self.entries.len() { self.swept + 1 } else { 0 };
            // There are fewer entries than 2^32.
            self.forget(self.swept as u32, now);
        }
        if self.is_empty() {
            (self.entries, self.free, self.numbers) = (Vec::new(), Vec::new(), HashTable::new());
        }
    }

    /// Places of entries, used or free: what [`Addresses::sweep`] goes through.
    #[must_use]
    pub fn places(&self) -> usize {
        self.entries.len()
    }

    fn key(&self, address: IpAddr) -> [u8; 16] {
        match address.to_canonical() {
            IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
            v6 => match masked(v6, self.limits.ipv6_prefix) {
                IpAddr::V6(v6) => v6.octets(),
                IpAddr::V4(_) => Ipv6Addr::UNSPECIFIED.octets(), // the family stays the same
            },
        }
    }

    /// The entry of a key, a new one if need be.
    fn number(&mut self, key: [u8; 16], now: u32) -> Option<u32> {
        let (entries, hasher) = (&mut self.entries, &self.hasher);
        let hash = hasher.hash_one(key);
        if let Some(number) = self.numbers.find(hash, |number| entries[*number as usize].key == key) {
            return Some(*number);
        }
        if self.numbers.len() >= self.limits.addresses {
            return None;
        }
        let entry = Entry { key, clients: 0, bucket: Bucket::full(self.limits.rate(), now) };
        let number = self.free.pop().unwrap_or_else(|| {
            if entries.len() == entries.capacity() {
                // Doubling would hold up to twice the memory.
                entries.reserve_exact(entries.len() / 8 + 64);
            }
            entries.push(entry);
            (entries.len() - 1) as u32 // at most as many as addresses
        });
        entries[number as usize] = entry;
        self.numbers.insert_unique(hash, number, |number| hasher.hash_one(entries[*number as usize].key));
        Some(number)
    }

    /// Frees an entry that says nothing any more.
    fn forget(&mut self, number: u32, now: u32) {
        let rate = self.limits.rate();
        let Some(entry) = self.entries.get_mut(number as usize) else { return };
        // The bucket of one with connections is kept up to date, so that its clock cannot wrap unseen.
        if !entry.bucket.is_full(rate, now) || entry.clients > 0 {
            return;
        }
        let hash = self.hasher.hash_one(entry.key);
        if let Ok(place) = self.numbers.find_entry(hash, |have| *have == number) {
            place.remove();
            self.free.push(number);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    const LIMITS: AddressLimits =
        AddressLimits { clients: 3, new_per_second: 2, ipv6_prefix: 64, addresses: 4 };

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// n-1 and n connections are taken, n+1 are not; one that leaves makes room.
    #[test]
    fn the_number_is_kept() {
        let mut addresses = Addresses::new(LIMITS);
        let one = address("192.0.2.1");
        let tickets: Vec<Ticket> = (0..3).map(|_| addresses.enter(one, false, 0).unwrap()).collect();
        assert_eq!(addresses.enter(one, false, 0), Err(TooMany::Clients));
        // The same address, as one of IPv6.
        assert_eq!(addresses.enter(address("::ffff:192.0.2.1"), false, 0), Err(TooMany::Clients));
        assert!(addresses.enter(address("192.0.2.2"), false, 0).is_ok());
        addresses.leave(tickets[1], 0);
        assert!(addresses.enter(one, false, 0).is_ok());
    }

    #[test]
    fn a_network_of_ipv6_counts_as_one() {
        let mut addresses = Addresses::new(LIMITS);
        for host in ["2001:db8::1", "2001:db8::2", "2001:db8::ffff:0:0:1"] {
            assert!(addresses.enter(address(host), false, 0).is_ok());
        }
        assert_eq!(addresses.enter(address("2001:db8::3"), false, 0), Err(TooMany::Clients));
        assert!(addresses.enter(address("2001:db8:0:1::1"), false, 0).is_ok());
    }

    #[test]
    fn the_pace_is_kept_and_entries_vanish() {
        let mut addresses = Addresses::new(LIMITS);
        let one = address("192.0.2.1");
        for _ in 0..3 {
            let ticket = addresses.enter(one, true, 0).unwrap();
            addresses.leave(ticket, 0);
        }
        assert_eq!(addresses.enter(one, true, 499), Err(TooMany::New));
        let ticket = addresses.enter(one, true, 500).unwrap();
        addresses.leave(ticket, 500);
        assert_eq!(addresses.len(), 1);
        addresses.sweep(10, 1_999);
        assert_eq!(addresses.len(), 1);
        addresses.sweep(10, 2_000);
        assert_eq!((addresses.len(), addresses.places()), (0, 0));
    }

    /// At the limit further addresses are not counted, and not refused.
    #[test]
    fn addresses_are_limited() {
        let mut addresses = Addresses::new(LIMITS);
        let tickets: Vec<Ticket> = (0..6)
            .map(|host| addresses.enter(IpAddr::V4([192, 0, 2, host].into()), false, 0).unwrap())
            .collect();
        assert_eq!(tickets.iter().filter(|ticket| **ticket == Ticket::NONE).count(), 2);
        assert_eq!(addresses.len(), 4);
        for ticket in tickets {
            addresses.leave(ticket, 0);
        }
        assert!(addresses.is_empty());
    }

    proptest! {
        /// Against a map that is as simple as can be: the same connections are taken, the same are refused.
        #[test]
        fn counts_as_a_plain_map_does(steps in proptest::collection::vec((0_u8..3, any::<bool>()), 1..200)) {
            let mut addresses = Addresses::new(LIMITS);
            let mut model: HashMap<u8, Vec<Ticket>> = HashMap::new();
            for (now, (host, comes)) in (0..).zip(steps) {
                let held = model.entry(host).or_default();
                if comes {
                    let entered = addresses.enter(IpAddr::V4([192, 0, 2, host].into()), false, now);
                    prop_assert_eq!(entered.is_ok(), held.len() < 3);
                    held.extend(entered.ok());
                } else if let Some(ticket) = held.pop() {
                    addresses.leave(ticket, now);
                }
                addresses.sweep(1, now);
                prop_assert_eq!(addresses.len(), model.values().filter(|held| !held.is_empty()).count());
            }
        }
    }
}
