//! Who a client is, and how often it may come: addresses, networks, what proxies say, limits for each address.
//!
//! | module | what it is |
//! | --- | --- |
//! | [`network`] | networks in CIDR notation, lists of them |
//! | [`proxy`] | incremental parser of the PROXY protocol, versions 1 and 2 |
//! | [`forwarded`] | the address in `X-Forwarded-For` that can be trusted |
//! | [`bucket`] | a token bucket |
//! | [`addresses`] | connections of each client address, counted and limited |

pub mod addresses;
pub mod bucket;
pub mod forwarded;
pub mod network;
pub mod proxy;
