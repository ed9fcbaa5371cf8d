//! All links of a manager: several to one node, or to several nodes.
//!
//! A virtual connection stays on its link. A new one goes to the link that has the fewest, among those that are up and do not drain; ones
//! whose node does not keep up come last.

use std::sync::Arc;
use std::time::Instant;

use mio::Waker;

use crate::config::Config;
use crate::link::{Link, Trust};

/// A link's place among all.
pub(crate) type LinkIndex = u8;

/// The links, [`Config::links`] to each of [`Config::servers`], in turn.
#[derive(Debug)]
pub(crate) struct Links(Vec<Link>);

impl Links {
    pub(crate) fn new(config: &Config, waker: &Arc<Waker>, now: Instant) -> Self {
        let rounds = (0..config.links).flat_map(|_| &config.servers);
        Self(rounds.map(|server| Link::new(server, config, Arc::clone(waker), now)).collect())
    }

    /// Links that are made from now on look at certificates with this.
    pub(crate) fn set_trust(&mut self, trust: &Trust) {
        self.0.iter_mut().for_each(|link| link.set_trust(trust));
    }

    /// The manager ends.
    pub(crate) fn close(&mut self) {
        self.0.iter_mut().for_each(Link::close);
    }

    /// The places of all links.
    pub(crate) fn indexes(&self) -> impl Iterator<Item = LinkIndex> + use<> {
        // As many as limits::MAX_MANAGER_LINKS at most.
        0..self.0.len() as LinkIndex
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Link> {
        self.0.iter()
    }

    pub(crate) fn get(&mut self, index: LinkIndex) -> Option<&mut Link> {
        self.0.get_mut(usize::from(index))
    }

    /// Those that are up.
    pub(crate) fn up(&self) -> impl Iterator<Item = &Link> {
        self.iter().filter(|link| link.window().is_some())
    }

    /// Those that are up and whose node takes new virtual connections.
    pub(crate) fn open(&self) -> impl Iterator<Item = &Link> {
        self.iter().filter(|link| link.is_open())
    }

    /// Where a new virtual connection goes; `None`: no link takes one.
    pub(crate) fn best(&self) -> Option<LinkIndex> {
        let open = self.0.iter().enumerate().filter(|(_, link)| link.is_open());
        let best = open.min_by_key(|(_, link)| (link.congested, link.connections));
        best.and_then(|(index, _)| LinkIndex::try_from(index).ok())
    }
}
