//! Networks in CIDR notation.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

/// A network: all addresses that share the first bits of one. IPv4 and IPv6 never contain each other, save that an IPv6
/// address that carries an IPv4 one is that one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

/// Why a text is no [`Network`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NetworkError {
    /// What stands before the `/` is no address.
    Address,
    /// What stands after the `/` is no number of bits that such an address has.
    Prefix,
    /// Bits beyond the prefix are set: the network that has this address is the given one.
    HostBits(Network),
}

impl fmt::Display for NetworkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address => f.write_str("no address or network, as in 10.0.0.0/8, 192.0.2.7 or fd00::/8"),
            Self::Prefix => {
                f.write_str("the number of bits after `/` is 0 to 32 for IPv4 and 0 to 128 for IPv6")
            }
            Self::HostBits(network) => write!(f, "bits beyond the prefix are set; the network is {network}"),
        }
    }
}

impl std::error::Error for NetworkError {}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl FromStr for Network {
    type Err = NetworkError;

    /// `ADDRESS/BITS`, or an address alone, which is a network of one.
    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let (address, prefix) = text.split_once('/').map_or((text, None), |(a, p)| (a, Some(p)));
        let address: IpAddr = address.parse().map_err(|_| NetworkError::Address)?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            None => most,
            // `+8` is a number for the standard library.
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                digits.parse().ok().filter(|bits| *bits <= most).ok_or(NetworkError::Prefix)?
            }
            Some(_) => return Err(NetworkError::Prefix),
        };
        let network = Self { address: masked(address, prefix), prefix };
        if network.address == address { Ok(network) } else { Err(NetworkError::HostBits(network)) }
    }
}

impl Network {
    /// Whether the address is in it.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.address.is_ipv4() && masked(address, self.prefix) == self.address
    }
}

/// Whether one of the networks has the address. Cost: linear in them.
#[must_use]
pub fn contains(networks: &[Network], address: IpAddr) -> bool {
    networks.iter().any(|network| network.contains(address))
}

/// An address without the bits beyond its first `prefix` ones.
#[must_use]
pub fn masked(address: IpAddr, prefix: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0);
            IpAddr::V4((u32::from(v4) & mask).into())
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(prefix.min(128))).unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from(u128::from(v6) & mask))
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_networks_and_says_what_is_wrong() {
        for text in ["10.0.0.0/8", "0.0.0.0/0", "192.0.2.7/32", "::/0", "::1/128", "fd00::/8"] {
            assert_eq!(text.parse::<Network>().unwrap().to_string(), text);
        }
        assert_eq!("192.0.2.7".parse::<Network>().unwrap().to_string(), "192.0.2.7/32");
        for text in ["", "/8", "10.0.0/8", "a/8", "10.0.0.0 /8", "::g/8"] {
            assert_eq!(text.parse::<Network>(), Err(NetworkError::Address), "{text}");
        }
        for text in
            ["10.0.0.0/33", "::/129", "10.0.0.0/", "10.0.0.0/+8", "10.0.0.0/-1", "10.0.0.0/8/8", "::/999"]
        {
            assert_eq!(text.parse::<Network>(), Err(NetworkError::Prefix), "{text}");
        }
        let error = "10.1.0.0/8".parse::<Network>().unwrap_err();
        assert!(error.to_string().contains("10.0.0.0/8"), "{error}");
    }

    #[test]
    fn families_are_apart_but_for_mapped_addresses() {
        let v4: Network = "0.0.0.0/0".parse().unwrap();
        let v6: Network = "::/0".parse().unwrap();
        assert!(v4.contains("::ffff:192.0.2.1".parse().unwrap()));
        assert!(!v6.contains("::ffff:192.0.2.1".parse().unwrap()));
        assert!(!v4.contains("2001:db8::1".parse().unwrap()));
    }

    proptest! {
        /// Compared bit by bit.
        #[test]
        fn contains_what_shares_its_first_bits(one: u32, other: u32, prefix in 0_u8..=32) {
            let network = Network { address: masked(IpAddr::V4(one.into()), prefix), prefix };
            let same = (0..prefix).all(|bit| one >> (31 - bit) & 1 == other >> (31 - bit) & 1);
            prop_assert_eq!(network.contains(IpAddr::V4(other.into())), same);
        }

        /// The same for IPv6.
        #[test]
        fn contains_what_shares_its_first_bits_of_128(one: u128, flip in 0_u8..128, prefix in 0_u8..=128) {
            let network = Network { address: masked(IpAddr::V6(one.into()), prefix), prefix };
            let other = one ^ 1 << (127 - flip);
            prop_assert_eq!(network.contains(IpAddr::V6(other.into())), flip >= prefix);
        }
    }
}
