//! Every number that holds memory or time, named once, with its default and the reason for it.

/// Longest payload of one frame, in bytes. A whole rewritten request head ([`MAX_HEAD`] and [`REWRITE_BYTES`]) must
/// fit.
pub const MAX_PAYLOAD: usize = 65_536;

/// Data is cut into frames of at most this many bytes, so that one large body never blocks the others for long:
/// at 1 Gbit/s such a frame takes 0.13 ms.
pub const DATA_CHUNK: usize = 16_384;

/// Bytes of data that an end accepts for one connection before it grants more (hello field `window`).
/// A slow reader holds at most this much in memory in each direction.
pub const WINDOW: u32 = 131_072;

/// Smallest window that a peer may announce. A request head has to fit into half of a window, or is refused.
pub const MIN_WINDOW: u32 = 16_384;

/// Longest software name in a hello, in bytes.
pub const MAX_NAME: usize = 64;

/// Shortest secret of a link, in bytes: one that cannot be found by trying.
pub const MIN_SECRET: usize = 16;

/// Longest secret of a link, in bytes: any text that a person would write into a file.
pub const MAX_SECRET: usize = 1_024;

/// Longest payload of a frame before authentication is done, in bytes: what a stranger may make this end hold.
pub const MAX_AUTH_PAYLOAD: usize = 4_096;

/// Milliseconds for the other end's hello and authentication.
pub const AUTH_TIMEOUT: u32 = 5_000;

/// Milliseconds after which an end that does not know the secret is told so: guessing is slow.
pub const AUTH_DELAY: u32 = 1_000;

/// Most links that are not authenticated yet, in all and from one address: strangers cannot take all of [`MAX_LINKS`].
/// All managers of a machine may come back at once after a restart.
pub const MAX_PENDING_LINKS: usize = 128;

/// See [`MAX_PENDING_LINKS`].
pub const MAX_PENDING_LINKS_PER_ADDRESS: usize = 64;

/// Longest text of an error frame, in bytes; a longer one is cut.
pub const MAX_ERROR_TEXT: usize = 256;

/// Longest request head (request line and fields, as received), in bytes. nginx and Apache refuse at 8 kB a line.
pub const MAX_HEAD: usize = 16_384;

/// Most header fields in a request head. Browsers send some 20; behind proxies some 40.
pub const MAX_HEADERS: usize = 100;

/// Bytes by which the connection manager may lengthen a head: a space after each colon, and the fields of
/// [`REWRITE_FIELDS`].
pub const REWRITE_BYTES: usize = 256;

/// Fields that the connection manager may add to a head: Host, Connection, Upgrade, Content-Length.
pub const REWRITE_FIELDS: usize = 4;

/// Longest request body that travels together with its head; a longer one with a Content-Length is streamed.
pub const SMALL_BODY: u64 = 65_536;

/// Longest chunked request body: it is collected in the connection manager, because ejabberd needs its length first.
pub const MAX_CHUNKED_BODY: usize = 1_048_576;

// Connection manager

/// Longest request target, in bytes: what nginx and Apache take in one line. Longer: 414.
pub const MAX_TARGET: usize = 8_192;

/// Most empty lines before a request line. Some old clients send one after a body; more are an attack on patience.
pub const MAX_EMPTY_LINES: usize = 4;

/// Longest request body, in bytes: the largest file that mod_http_upload takes unless told otherwise. Longer: 413.
pub const MAX_BODY: u64 = 104_857_600;

/// Most requests of one client connection; the last one is answered with `Connection: close`. A chat that talks all day
/// makes some 10,000, so hardly a user notices, while no connection keeps a stream of requests for itself for ever, and
/// clients spread again over several connection managers after one was restarted.
pub const MAX_REQUESTS_PER_CLIENT: u16 = 10_000;

/// Most connections of one client address. A school of 2,000 behind one address has 4,000, two for each BOSH client; a
/// carrier gives each subscriber behind an address some 1,000 ports or more, so it has some 64 subscribers there. One
/// host alone takes a fifth of what 20,000 descriptors hold.
pub const MAX_CLIENTS_PER_ADDRESS: u32 = 4_096;

/// Most new connections of one client address in a second, on the average; after a pause it may make
/// [`MAX_CLIENTS_PER_ADDRESS`] at once, since after a restart all of a school come back at the same time. A school where
/// 2,000 log in within a minute makes 67 a second.
pub const MAX_NEW_CLIENTS_PER_ADDRESS: u32 = 100;

/// Most new connections in a second, of all clients together; further ones wait in the kernel. Taking one on and seeing
/// it off costs some 30 us, so at most a seventh of a processor is spent on that, and the others' requests go on; a
/// million come back within 200 s.
pub const MAX_NEW_CLIENTS_PER_SECOND: u32 = 5_000;

/// Leading bits of an IPv6 address that count as one client: a network of 64 bits is what a single subscriber has at
/// least, and each of its hosts may use any address in it.
pub const IPV6_PREFIX: u8 = 64;

/// Client addresses that are counted at a time, 40 to 60 bytes each. Only those that have a connection, or had one some
/// seconds ago, are among them. At the limit further addresses are served without being counted: whoever has so many
/// addresses is not held up by a limit for each.
pub const MAX_ADDRESSES: usize = 1_048_576;

/// Refused connections that wait for their answer to be read. Beyond it they are closed without one, so that a flood
/// takes no more than these slots.
pub const MAX_TURNED_AWAY: usize = 1_024;

/// Seconds before a certificate for clients expires from which on the connection manager warns of it: 14 days. Those that
/// are renewed by themselves are renewed 30 days before, so then something is wrong, and there is time to see to it.
pub const CERTIFICATE_WARNING: u64 = 1_209_600;

/// Seconds between two looks at when certificates expire, each of which warns: a line a day.
pub const CERTIFICATE_LOOK: u64 = 86_400;

/// Longest line of version 1 of the PROXY protocol, with its end: what its specification says, section 2.1.
pub const PROXY_V1_LINE: usize = 107;

/// Most bytes after the first 16 of a header of version 2 of the PROXY protocol: addresses of two unix sockets are 216,
/// the rest is for what proxies add, which is skipped. The name in a client's certificate takes most.
pub const PROXY_V2_LENGTH: usize = 2_048;

/// Most networks in `trusted_proxies`: each is compared with each new connection's address.
pub const MAX_TRUSTED_PROXIES: usize = 64;

/// Milliseconds between two lines of the log about refusals for the same reason: a line for each would let a client
/// fill the disk. What was left out is counted in the next line.
pub const REFUSAL_LOG_PAUSE: u32 = 10_000;

// Connection table

/// Longest line (or folded field) that a reader in a packet mode is given, in bytes. A longer one is refused: looking
/// for its end, again and again, would cost more than a call may.
pub const MAX_LINE: usize = 65_536;

/// Bytes that may wait in a connection's input queue before a put is refused, for connections opened from Erlang.
/// Connections of a link are held to [`WINDOW`] by credit. A million bytes hold any request that a test would put.
pub const LOCAL_QUEUE: usize = 1_048_576;

/// Bytes that may wait in a connection's output queue before a sender has to wait. Four data frames: enough to keep
/// a link busy while the sender process is scheduled.
pub const OUTPUT_QUEUE: usize = 65_536;

/// Empty queues that each shard of the table keeps for the next connection that needs some. Requests come and are read
/// one after the other, so a few are enough; all shards together hold less than 200 kB.
pub const SPARE_QUEUES: usize = 8;

/// Most readers, and most blocked senders, that may wait on one connection. A browser-like client needs one; whoever
/// closes a connection wakes all of them in one call.
pub const MAX_WAITERS: usize = 256;

/// Largest length that a reader may ask for. The same as gen_tcp's own limit, 64 MiB.
pub const MAX_RECV: usize = 67_108_864;

/// Most live links in a node. Each connection manager process opens one or a few.
pub const MAX_LINKS: usize = 256;

/// Most open connections of one link. One connection manager process holds 20,000 descriptors here; the rest is
/// for generators and for machines with higher limits.
pub const MAX_LINK_CONNECTIONS: usize = 1_048_576;

/// Most connections opened from Erlang in a node.
pub const MAX_LOCAL_CONNECTIONS: usize = 1_048_576;

/// Frames handled by one call on a link's input; the rest waits for the next call. 64 kB of the smallest frames are
/// 4,681; at some 300 ns each a call stays below 0.2 ms.
pub const FRAMES_PER_CALL: usize = 512;

/// Bytes of output collected by one call on a link's output (soft: one frame more may follow).
pub const OUTPUT_BATCH: usize = 65_536;

/// Batches of messages, and processes to start, after which a call on a link's input leaves the rest to the next call: each
/// batch of a few stanzas takes some microseconds to be taken apart.
pub const ACTIONS_PER_CALL: usize = 128;

/// Bytes of messages to be taken apart after which such a call leaves the rest to the next one: 0.5 ms, if they are nothing but
/// elements.
pub const DELIVERED_PER_CALL: usize = 16_384;

/// Connections visited on one call on a link's output, ready or not.
pub const VISITS_PER_CALL: usize = 512;

/// Connections and waits of a process that has ended that one call cleans up; a further call goes on.
pub const DEATHS_PER_CALL: usize = 256;

/// Places that one call goes by on a walk through all connections, or all BOSH sessions: what is found becomes terms, which
/// takes some 0.3 us for each.
pub const WALK_PER_CALL: usize = 256;

/// Slots visited by one call that sweeps the connections of a link that is gone.
pub const SWEEP_PER_CALL: usize = 256;

/// Bytes of frames about the link itself (pong, error, close answers) that may wait for the sender. A peer that makes
/// this end owe more than that without reading is cut off.
pub const MAX_CONTROL: usize = 262_144;

/// Different local addresses remembered for one link; connections to further ones report none.
pub const MAX_LOCAL_ADDRESSES: usize = 255;

/// Most bytes of extensions and trailer fields in one chunked body, all together: nobody reads them.
pub const MAX_CHUNK_OVERHEAD: usize = 8_192;

/// Most bytes of further requests held while one is being answered (pipelining). A head fits; more is left in the
/// kernel, so the client waits.
pub const PIPELINE: usize = MAX_HEAD;

/// Milliseconds for a request head, from its first byte to its last: far beyond any honest network, and what a
/// connection that trickles bytes may hold memory for.
pub const HEAD_TIMEOUT: u32 = 15_000;

/// Milliseconds without a byte of a request body. nginx has the same.
pub const BODY_TIMEOUT: u32 = 60_000;

/// Milliseconds in which a client takes no byte of what waits for it.
pub const SEND_TIMEOUT: u32 = 60_000;

/// Milliseconds between two requests. A BOSH client always has a poll in flight, which never times out here, so only
/// its second connection waits; the nodes' own limit (5 minutes) is longer, so this end is the one that closes.
pub const IDLE_TIMEOUT: u32 = 75_000;

/// Milliseconds without a byte of a WebSocket's client after which it is pinged. Proxies and mobile networks forget
/// connections that are silent for 45 to 60 seconds.
pub const WEBSOCKET_PING: u32 = 40_000;

/// Milliseconds in which a WebSocket's client may answer a ping: a phone that wakes up, and a network that is found again.
pub const WEBSOCKET_PONG: u32 = 30_000;

/// Milliseconds in which a client may read the last answer and close, before it is cut off.
pub const LINGER_TIMEOUT: u32 = 5_000;

/// Bytes of output waiting for the link at which the connection manager stops reading its clients: a slow node pushes
/// back to them, through TCP, instead of filling memory here.
pub const LINK_HIGH: usize = 1_048_576;

/// Bytes of output waiting for the link at which clients are read again.
pub const LINK_LOW: usize = 262_144;

/// Bytes of output waiting for the link at which the link is given up. Clients' data stops at [`LINK_HIGH`]; this is
/// for answers to a node that asks without reading, and leaves room for a close frame for each of a million clients.
pub const LINK_MOST: usize = 33_554_432;

/// Most bytes that all clients of one connection manager may hold in it together (unfinished requests, answers not
/// taken). At the limit new requests get 503 and clients that do not read their answers are closed. 20,000 clients
/// with the largest head each need 330 MB.
pub const MAX_HELD: usize = 536_870_912;

/// Milliseconds without input from the other end of a link after which a ping is sent.
pub const LINK_PING: u32 = 15_000;

/// Milliseconds without input, not even a pong, after which a link is taken for dead: three pings.
pub const LINK_SILENCE: u32 = 45_000;

/// Milliseconds without any link, since the last was lost, for which clients' requests wait for one, unread; then they get 503. A
/// connection whose first packets are lost is there after 1, 3 or 7 s. Clients that take a 503 for the end, or for one of a few
/// that they bear, do not notice such a loss.
pub const LINK_WAIT: u32 = 8_000;

/// Milliseconds for a link to be connected and to say hello.
pub const LINK_GREETING: u32 = 10_000;

/// Most links of one connection manager, to all its servers together.
pub const MAX_MANAGER_LINKS: usize = 64;

/// Milliseconds until a lost link is tried again for the first time; each failure doubles it.
pub const RETRY_LEAST: u32 = 100;

/// Most milliseconds between two attempts. Users wait for it after the node comes back.
pub const RETRY_MOST: u32 = 5_000;

/// Milliseconds that a stopping connection manager gives its clients to take what waits for them.
pub const STOP_TIMEOUT: u32 = 5_000;

/// Milliseconds that a draining connection manager gives the requests that are held. A BOSH poll is held for 60 seconds
/// by what clients usually ask for: each ends by itself, with some time for its client to take the answer.
pub const DRAIN_TIMEOUT: u32 = 75_000;

/// Milliseconds without a request after which a draining connection manager closes a connection. A client that asks all
/// the time is told to close in an answer instead, and loses nothing.
pub const DRAIN_IDLE: u32 = 2_000;

/// Milliseconds for which a draining connection manager still takes clients from a socket that shares its port, so that
/// handshakes under way end well. Clients who come within it ask again after 1 second (RFC 6298) and find another one.
pub const DRAIN_ACCEPT: u32 = 500;

/// Milliseconds that a new connection manager waits for its link before it takes clients, unless the link fails before:
/// they would get 503, while one that is about to leave still serves them.
pub const START_WAIT: u32 = 2_000;

/// Connections to the admin address at a time. A newer one takes the place of the oldest.
pub const ADMIN_CONNECTIONS: usize = 16;

/// Milliseconds for all of a request at the admin address and its answer.
pub const ADMIN_TIMEOUT: u32 = 5_000;

/// Longest request head at the admin address, in bytes. Those of Prometheus and of load balancers have some 300.
pub const ADMIN_HEAD: usize = 4_096;

/// Milliseconds until an admin address that another program still has is tried again.
pub const ADMIN_RETRY: u32 = 1_000;

/// Milliseconds for which no client is accepted after descriptors or memory ran out.
pub const ACCEPT_PAUSE: u32 = 100;

/// Descriptors of a connection manager that are not for clients: listener, link, poll, signals, logs, and spare ones
/// for name resolution.
pub const SPARE_DESCRIPTORS: u64 = 64;

/// Milliseconds for a TLS handshake, from the accept to its last message: two round trips and a phone that wakes up.
pub const HANDSHAKE_TIMEOUT: u32 = 10_000;

/// Most TLS connections whose handshake is not complete; a further one takes the place of the oldest, if that has had
/// [`HANDSHAKE_GRACE`], and waits in the kernel if not. They take some 20 MB. Never more than a quarter of the clients that may be there ([`HANDSHAKE_SHARE`]), so that others find a place.
pub const MAX_HANDSHAKES: usize = 4_096;

/// Milliseconds that a TLS handshake is not dropped for another one: two round trips. A flood of half-open handshakes
/// delays honest clients, whoever has begun can complete; and when all clients come at once none of them is dropped.
pub const HANDSHAKE_GRACE: u32 = 500;

/// The part of all clients, one in so many, that may be in a handshake.
pub const HANDSHAKE_SHARE: usize = 4;

/// TLS handshakes that are continued in one turn of the event loop: some 0.3 ms of processor time each with an ECDSA
/// key, 1 ms with one of RSA with 2,048 bits.
pub const HANDSHAKES_PER_TURN: usize = 8;

/// TLS handshakes that wait for this processor at which no TLS client is accepted: after a restart all come at once, and
/// their time limit should not begin before their turn is near.
pub const HANDSHAKE_BACKLOG: usize = 256;

/// Longest TLS record, in bytes: header, text, and the most that a cipher may add (RFC 5246, 6.2.3; RFC 8446, 5.2 has
/// less). A client can make the connection manager hold one that is not complete, and the text of one that is.
pub const TLS_RECORD: usize = 5 + 16_384 + 2_048;

/// Bytes of records that wait for a TLS client at which nothing more is read from it: it may ask for answers of the TLS
/// layer (key updates) without end. One record of data, and some of those.
pub const TLS_OUTPUT: usize = 2 * TLS_RECORD;

/// Reads after a refused TLS handshake whose bytes are dropped, so that the client gets the alert, and not a reset.
pub const REFUSED_READS: u8 = 8;

// Messages of XMPP connections

/// Longest message of a client that has logged in, in bytes, unless the listener's `max_stanza_size` says another number:
/// what public servers set.
pub const MAX_STANZA: u32 = 262_144;

/// Longest message of a client that has not logged in, in bytes, as ejabberd has it since 26.07: an answer of SCRAM takes
/// a few hundred.
pub const MAX_STANZA_BEFORE_LOGIN: u32 = 8_192;

/// Most elements in a message of a client that has logged in: as many as [`MAX_STANZA`] bytes hold.
pub const XML_ELEMENTS: usize = 65_536;

/// Most elements in a message of a client that has not logged in, as ejabberd has it since 26.07.
pub const XML_ELEMENTS_BEFORE_LOGIN: usize = 32;

/// Most elements within each other in a message. Forms and forwarded messages have some 10.
pub const XML_DEPTH: usize = 128;

/// Most attributes of an element, namespace declarations among them. Extensions have up to some 10.
pub const XML_ATTRIBUTES: usize = 128;

/// Most namespace declarations with prefixes in scope at a place in a message: names are looked up among them one by one.
pub const XML_NAMESPACES: usize = 128;

/// Longest message that is taken apart on a normal scheduler, in bytes: some 60 us at worst, with an element for each four
/// bytes. A longer one is left to a dirty scheduler.
pub const SMALL_MESSAGE: usize = 8_192;

/// Most messages that a client's process is given at once ...
pub const MAX_BATCH: usize = 32;

/// ... and bytes of them, unless the first one is longer. A client that sends more waits for the process.
pub const MAX_BATCH_BYTES: usize = 12_288;

/// Longest time that a BOSH request is kept waiting, in seconds, whatever its client asks for: as mod_bosh has it.
pub const BOSH_WAIT: u16 = 300;
/// Most BOSH requests of a session that are kept waiting (`hold`): as mod_bosh has it. One is enough for a client that
/// sends with another.
pub const BOSH_HOLD: u8 = 1;
/// Seconds between two empty requests of a BOSH session that does not keep requests waiting (`polling`): as mod_bosh has it.
pub const BOSH_POLLING: u16 = 2;
/// Longest key of a BOSH request, in bytes. Keys are SHA-1 sums, 40 digits.
pub const BOSH_KEY: usize = 64;
/// Bytes of elements in one BOSH answer, unless the first of them is longer: what fits beside others into a connection's
/// output ([`OUTPUT_QUEUE`]).
pub const BOSH_ANSWER: usize = 65_536;
/// Bytes of elements that wait for a BOSH client's next request. At more the client session's sends fail, and it ends:
/// as when a TCP client reads nothing for too long.
pub const BOSH_OUTBOX: usize = 4 << 20;
/// Milliseconds after which a BOSH answer that the client says it has not got is reported to it.
pub const BOSH_REPORT: u64 = 1_000;
/// BOSH sessions of one client address (of one /64 network in IPv6) that have not logged in: as many as an office behind one
/// address makes when all come back at once. Each takes a process of some 15 kB, and ends after `max_inactivity`.
pub const BOSH_PENDING_PER_ADDRESS: u32 = 1_000;
/// The same, of all addresses together: 300 MB.
pub const BOSH_PENDING: u32 = 20_000;
/// BOSH sessions that one call looks at because a time is over.
pub const BOSH_TIMERS_PER_CALL: usize = 128;
/// Milliseconds of one step of the timers of BOSH sessions: they are late by no more.
pub const BOSH_TICK: u64 = 100;
/// How often the time is doubled at most for which one who is called back soon has to be quiet before he counts as idle: from a second
/// to a minute. At most 7, which is what an entry has room for.
pub const IDLE_DOUBLINGS: usize = 6;
/// A pause is short, and giving back memory was not worth it, when it took less than so many times the time after which one counts
/// as idle. With a second: who is called twice a minute keeps his memory.
pub const IDLE_WORTH: u32 = 32;
/// The limits of one connection table that hold memory; the defaults are the constants above.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TableLimits {
    /// See [`LOCAL_QUEUE`].
    pub local_queue: usize,
    /// See [`OUTPUT_QUEUE`].
    pub output_queue: usize,
    /// See [`MAX_WAITERS`].
    pub waiters: usize,
    /// See [`MAX_LINKS`].
    pub links: usize,
    /// See [`MAX_LINK_CONNECTIONS`].
    pub link_connections: usize,
    /// See [`MAX_LOCAL_CONNECTIONS`].
    pub local_connections: usize,
}

impl Default for TableLimits {
    fn default() -> Self {
        Self {
            local_queue: LOCAL_QUEUE,
            output_queue: OUTPUT_QUEUE,
            waiters: MAX_WAITERS,
            links: MAX_LINKS,
            link_connections: MAX_LINK_CONNECTIONS,
            local_connections: MAX_LOCAL_CONNECTIONS,
        }
    }
}
