//! Sessions that have not logged in, counted by client address: they are easily made, and each takes a process.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};

use crate::limits::{BOSH_PENDING, BOSH_PENDING_PER_ADDRESS};
use crate::sync::Mutex;

/// See the module. It holds only addresses that have such sessions.
#[derive(Debug)]
pub(super) struct Pending(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    by_address: HashMap<IpAddr, u32>,
    all: u32,
}

impl Pending {
    pub(super) fn new() -> Self {
        Self(Mutex::new(Counts::default()))
    }

    /// Counts one more. False: there are too many.
    pub(super) fn add(&self, address: IpAddr) -> bool {
        let mut counts = self.0.lock();
        if counts.all >= BOSH_PENDING {
            return false;
        }
        let count = counts.by_address.entry(key(address)).or_insert(0);
        if *count >= BOSH_PENDING_PER_ADDRESS {
            return false;
        }
        *count += 1;
        counts.all += 1;
        true
    }

    /// One that was counted has logged in, or ended.
    pub(super) fn remove(&self, address: IpAddr) {
        let mut counts = self.0.lock();
        counts.all -= 1;
        let key = key(address);
        if let Some(count) = counts.by_address.get_mut(&key) {
            *count -= 1;
            if *count == 0 {
                counts.by_address.remove(&key);
            }
        }
        if counts.by_address.is_empty() {
            counts.by_address = HashMap::new();
        }
    }
}

/// Who has one IPv6 address has 2^64 of them.
fn key(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from(u128::from(v6) & (!0 << 64))),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(pending: &Pending, addresses: impl Iterator<Item = IpAddr>) -> usize {
        addresses.take_while(|address| pending.add(*address)).count()
    }

    #[test]
    fn an_address_has_so_many_and_another_one_as_many() {
        let pending = Pending::new();
        let [one, other] = [1_u32, 2].map(|ip| IpAddr::V4(ip.into()));
        let most = BOSH_PENDING_PER_ADDRESS as usize;
        assert_eq!(fill(&pending, std::iter::repeat(one)), most);
        assert!(pending.add(other));
        pending.remove(one);
        assert!(pending.add(one));
        assert!(!pending.add(one));
        // The same address in another form.
        let IpAddr::V4(v4) = one else { return };
        assert!(!pending.add(IpAddr::V6(v4.to_ipv6_mapped())));
    }

    #[test]
    fn addresses_of_one_network_of_version_6_count_as_one() {
        let pending = Pending::new();
        let address = |n: u128| IpAddr::V6(Ipv6Addr::from(0x2001_0db8 << 96 | n));
        assert_eq!(fill(&pending, (0..1_000_000).map(address)), BOSH_PENDING_PER_ADDRESS as usize);
        assert!(pending.add(address(1 << 64)));
    }

    #[test]
    fn all_together_have_so_many_and_nothing_is_kept_of_those_who_have_none() {
        let pending = Pending::new();
        let addresses = || (0..).map(|ip: u32| IpAddr::V4(ip.into()));
        assert_eq!(fill(&pending, addresses()), BOSH_PENDING as usize);
        for address in addresses().take(BOSH_PENDING as usize) {
            pending.remove(address);
        }
        let counts = pending.0.lock();
        assert_eq!((counts.all, counts.by_address.capacity()), (0, 0));
    }
}
