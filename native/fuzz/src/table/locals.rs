//! Operations on connections without a link.

use megaphone_core::table::Refused;

use super::conn::Conn;
use super::{MOST, PACKETS, Scene, client};
use crate::Script;

impl Scene {
    pub(super) fn open(&mut self, script: &mut Script<'_>) {
        if self.conns.len() >= MOST {
            return;
        }
        let (owner, packet) = (self.pid(script), PACKETS[script.below(6) / 2]);
        let open = self.table.stats().local;
        match self.table.open(client(), packet, owner, 0, &mut self.world) {
            Ok(handle) => {
                assert!(open < self.limits.local_connections);
                let mut conn = Conn::new(self.next_asker(), Some(owner));
                (conn.handle, conn.packet) = (Some(handle), packet);
                self.conns.push(conn);
            }
            Err(refused) => {
                assert_eq!((refused, open), (Refused::Connections, self.limits.local_connections));
            }
        }
    }

    pub(super) fn next_asker(&self) -> u32 {
        1_000_000 + self.conns.len() as u32
    }

    pub(super) fn put(&mut self, script: &mut Script<'_>) {
        let Some((at, handle)) = self.any(script) else { return };
        let conn = &mut self.conns[at];
        let count = script.size(&[300, 4_096, 16_384, 65_536]);
        let data: Vec<u8> = (0..count).map(|n| (conn.sent + n) as u8).collect();
        let fits = conn.unread() + count <= self.limits.local_queue;
        let is_local = conn.remote.is_none();
        if is_local && !conn.input_closed && fits {
            conn.stream.extend_from_slice(&data);
            conn.sent += count;
        }
        match self.table.put_data(&handle, &data, 0, &mut self.world) {
            Ok(()) => assert!(is_local && !conn.input_closed && (fits || count == 0)),
            Err(Refused::Closed) => assert!(!is_local || conn.input_closed),
            Err(refused) => assert!(refused == Refused::QueueBytes && !fits),
        }
    }

    pub(super) fn output(&mut self, script: &mut Script<'_>) {
        let Some((at, handle)) = self.any(script) else { return };
        let result = self.table.output(&handle, &mut self.world);
        let conn = &mut self.conns[at];
        match result {
            Ok(Some(data)) => {
                let expected: Vec<u8> = (conn.taken..conn.accepted).map(|n| n as u8).collect();
                assert_eq!(data, expected);
                conn.taken = conn.accepted;
            }
            Ok(None) => {
                assert_eq!(conn.untaken(), 0);
                conn.sleeps = true;
            }
            Err(_) => assert!(conn.remote.is_some() || conn.released || (conn.over && conn.untaken() == 0)),
        }
    }

    pub(super) fn set_packet(&mut self, script: &mut Script<'_>) {
        let Some((at, handle)) = self.any(script) else { return };
        let packet = PACKETS[script.below(PACKETS.len())];
        if self.conns[at].remote.is_some() || self.is_gone(at) {
            return;
        }
        self.conns[at].packet = packet;
        assert!(self.table.set_packet(&handle, packet, &mut self.world).is_ok());
    }
}
