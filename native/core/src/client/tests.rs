//! The state machine against a world made of vectors.

mod drain;
mod insecure;
mod mishaps;
mod websocket;

use std::net::{Ipv4Addr, SocketAddr};

use proptest::prelude::*;

use super::*;
use crate::link::{CloseReason, Decoder, ReadyMode};

/// A world that records: frames as they go out, bytes as the client takes them.
struct World {
    window: Option<u32>,
    /// Bytes that the client still takes.
    takes: usize,
    crowded: bool,
    draining: bool,
    /// WebSockets end here.
    ends_websocket: bool,
    refuses_origins: bool,
    /// The node wants to know of requests that wait.
    pipelines: bool,
    /// Kinds of virtual connections that were opened.
    opened: Vec<crate::link::Kind>,
    /// Whole requests that went to the node, and answers that began.
    counted: (usize, usize),
    wire: Vec<u8>,
    taken: Vec<u8>,
    ended: bool,
    refused: Vec<u16>,
}

impl World {
    fn new() -> Self {
        Self {
            window: Some(limits::WINDOW),
            takes: usize::MAX,
            crowded: false,
            draining: false,
            ends_websocket: false,
            refuses_origins: false,
            pipelines: false,
            opened: Vec::new(),
            counted: (0, 0),
            wire: Vec::new(),
            taken: Vec::new(),
            ended: false,
            refused: Vec::new(),
        }
    }

    /// The frames sent since the last call: their names, and the data in them all together.
    fn sent(&mut self) -> (Vec<String>, Vec<u8>) {
        // The decoder wants a hello before anything else.
        let mut decoder = Decoder::new();
        let mut greeting = Vec::new();
        let hello = crate::link::Hello {
            role: crate::link::Role::Ecm,
            features: 1,
            window: limits::WINDOW,
            name: "",
        };
        Frame::Hello(hello).encode(&mut greeting);
        decoder.push(&greeting);
        decoder.push(&std::mem::take(&mut self.wire));
        let (mut names, mut data) = (Vec::new(), Vec::new());
        decoder.next().unwrap();
        while let Some(frame) = decoder.next().unwrap() {
            match frame {
                Frame::Data { payload, .. } => data.extend_from_slice(payload),
                Frame::Close { reason, .. } => names.push(format!("close {reason:?}")),
                Frame::Window { increment, .. } => names.push(format!("window {increment}")),
                other => names.push(other.name().to_owned()),
            }
        }
        (names, data)
    }
}

impl Io for World {
    fn id(&self) -> u64 {
        7
    }
    fn window(&self) -> Option<u32> {
        self.window
    }
    fn addresses(&self) -> Option<(SocketAddr, SocketAddr)> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        Some((address, address))
    }
    fn frame(&mut self, frame: &Frame<'_>) {
        assert!(self.window.is_some(), "{} frame without a link", frame.name());
        if let Frame::Open { open, .. } = frame {
            self.opened.push(open.kind);
        }
        frame.encode(&mut self.wire);
    }
    fn ends_websocket(&self, path: &[u8]) -> bool {
        self.ends_websocket && path == b"/ws"
    }
    fn serves_xmpp(&self) -> bool {
        self.ends_websocket && self.window.is_some()
    }
    fn pipelines(&self) -> bool {
        self.pipelines
    }
    fn allows_origin(&self, _: &[u8]) -> bool {
        !self.refuses_origins
    }
    fn write(&mut self, bytes: &[u8]) -> usize {
        assert!(!self.ended);
        let count = bytes.len().min(self.takes);
        self.takes -= count;
        self.taken.extend_from_slice(&bytes[..count]);
        count
    }
    fn shutdown_write(&mut self) {
        assert!(!self.ended);
        self.ended = true;
    }
    fn crowded(&self) -> bool {
        self.crowded
    }
    fn refused(&mut self, _refusal: Refusal, status: u16) {
        self.refused.push(status);
    }
    fn draining(&self) -> bool {
        self.draining
    }
    fn requested(&mut self) {
        self.counted.0 += 1;
    }
    fn answered(&mut self) {
        self.counted.1 += 1;
    }
}

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// A client with one request in flight.
fn asked(world: &mut World) -> Client {
    let mut client = Client::new();
    client.input(GET, world);
    assert_eq!(world.sent(), (vec!["open".to_owned()], GET.to_vec()));
    client
}

#[test]
fn waiting_costs_no_memory() {
    let mut world = World::new();
    let mut client = Client::new();
    assert_eq!((client.heap(), client.timer()), (0, Timer::Idle));
    client.input(&GET[..5], &mut world);
    assert!(client.heap() > 0 && client.timer() == Timer::Head);
    client.input(&GET[5..], &mut world);
    assert_eq!((client.heap(), client.timer()), (0, Timer::None));
    client.data(b"answer", &mut world);
    client.ready(ReadyMode::Request, &mut world);
    assert_eq!((client.heap(), client.timer()), (0, Timer::Idle));
    client
        .input(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", &mut world);
    client.ready(ReadyMode::Tunnel, &mut world);
    client.input(b"bytes", &mut world);
    client.data(b"bytes", &mut world);
    assert_eq!((client.heap(), client.timer()), (0, Timer::None));
}

#[test]
fn credit_is_granted_for_what_the_client_took() {
    let mut world = World::new();
    let mut client = asked(&mut world);
    let half = limits::WINDOW as usize / 2;
    world.takes = half - 1;
    let chunk = vec![0; limits::DATA_CHUNK];
    for _ in 0..limits::WINDOW as usize / chunk.len() {
        client.data(&chunk, &mut world);
    }
    assert_eq!(client.pending(), half + 1);
    assert_eq!(client.timer(), Timer::Send);
    assert!(world.sent().0.is_empty());
    world.takes = 1;
    client.writable(&mut world);
    assert_eq!(world.sent().0, [format!("window {half}")]);
    // So much was granted and no more.
    for _ in 0..half / chunk.len() {
        client.data(&chunk, &mut world);
    }
    assert!(!client.is_closed());
    client.data(b"x", &mut world);
    assert!(client.is_closed());
    assert_eq!(world.sent().0, ["close Protocol"]);
    assert_eq!(client.heap(), 0);
}

#[test]
fn data_without_a_request_closes() {
    let mut world = World::new();
    let mut client = asked(&mut world);
    client.data(b"x", &mut world);
    client.ready(ReadyMode::Request, &mut world);
    client.data(b"y", &mut world);
    assert!(client.is_closed());
    assert_eq!(world.taken, b"x");
}

#[test]
fn endless_credit_is_a_breach() {
    let mut world = World::new();
    let mut client = asked(&mut world);
    client.grant_credit(u32::MAX - limits::WINDOW, &mut world);
    assert!(!client.is_closed());
    client.grant_credit(GET.len() as u32 + 1, &mut world);
    assert_eq!(world.sent().0, ["close Protocol"]);
}

#[test]
fn bodies_up_to_the_limit_travel_with_their_head() {
    for (length, waits) in
        [(limits::SMALL_BODY - 1, true), (limits::SMALL_BODY, true), (limits::SMALL_BODY + 1, false)]
    {
        let mut world = World::new();
        let mut client = Client::new();
        client.input(
            format!("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n").as_bytes(),
            &mut world,
        );
        assert_eq!(world.sent().0.is_empty(), waits, "{length}");
        assert_eq!(client.timer(), Timer::Body);
    }
}

#[test]
fn an_answer_before_the_end_of_the_request_ends_the_connection() {
    let mut world = World::new();
    let mut client = Client::new();
    client.input(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\nabc", &mut world);
    world.sent();
    client.data(b"HTTP/1.1 413 No\r\n\r\n", &mut world);
    client.ready(ReadyMode::Request, &mut world);
    assert_eq!(world.sent().0, ["close Normal"]);
    assert!(world.ended && !client.is_closed());
    assert_eq!(client.timer(), Timer::Linger);
    // What the client still sends is read and dropped.
    assert!(client.room() > 0);
    client.input(&[0; 1000], &mut world);
    assert_eq!(client.heap(), 0);
    client.eof(&mut world);
    assert!(client.is_closed());
}

#[test]
fn pipelining_is_bounded() {
    let mut world = World::new();
    let mut client = asked(&mut world);
    while client.room() > 0 {
        let room = client.room();
        client.input(&vec![b'x'; room], &mut world);
    }
    assert_eq!(client.held_input(), limits::PIPELINE);
    assert!(world.sent().1.is_empty());
}

#[test]
fn the_node_is_told_once_of_a_request_that_waits() {
    let names = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
    let mut world = World::new();
    let mut client = asked(&mut world);
    client.input(GET, &mut world);
    assert_eq!(world.sent(), (names(&[]), vec![]), "a node that does not want to know");
    let mut world = World::new();
    world.pipelines = true;
    let mut client = asked(&mut world);
    client.input(&GET[..1], &mut world);
    assert_eq!(world.sent(), (names(&["ready"]), vec![]));
    client.input(&[&GET[1..], GET].concat(), &mut world);
    assert_eq!(world.sent(), (names(&[]), vec![]));
    // The second goes, and the third waits behind it.
    client.data(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", &mut world);
    client.ready(ReadyMode::Request, &mut world);
    assert_eq!(world.sent(), (names(&["ready"]), GET.to_vec()));
    client.data(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", &mut world);
    client.ready(ReadyMode::Request, &mut world);
    assert_eq!(world.sent(), (names(&[]), GET.to_vec()));
    // An answer has begun: it comes without that.
    client.data(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", &mut world);
    client.input(GET, &mut world);
    assert_eq!(world.sent(), (names(&[]), vec![]));
}

#[test]
fn a_crowded_house_takes_nothing_on() {
    let mut world = World::new();
    world.crowded = true;
    let mut client = Client::new();
    client.input(&GET[..5], &mut world);
    assert_eq!(world.refused, [503]);
    assert_eq!(client.heap(), 0);
    // A reader that is slow has to go.
    let mut world = World::new();
    let mut client = asked(&mut world);
    (world.crowded, world.takes) = (true, 3);
    client.data(b"12345", &mut world);
    assert!(!client.is_closed());
    client.data(b"6", &mut world);
    assert_eq!(world.sent().0, ["close Limit"]);
}

#[test]
fn interim_answers_do_not_count_as_credit() {
    let mut world = World::new();
    let mut client = asked(&mut world);
    world.takes = 0;
    client.data(b"answer", &mut world);
    client.ready(ReadyMode::Request, &mut world);
    let put = b"PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n";
    client.input(put, &mut world);
    client.input(b"x", &mut world);
    world.takes = usize::MAX;
    client.writable(&mut world);
    assert!(world.taken.starts_with(b"answerHTTP/1.1 100 Continue\r\n\r\n"));
    let mut granted = 0;
    let chunk = vec![0; limits::DATA_CHUNK];
    for _ in 0..100 {
        client.data(&chunk, &mut world);
        for name in world.sent().0 {
            granted += name.strip_prefix("window ").map_or(0, |text| text.parse::<usize>().unwrap());
        }
    }
    assert!(granted <= 6 + 100 * chunk.len());
    assert!(!client.is_closed());
}

/// One thing that happens to a client.
#[derive(Clone, Debug)]
enum Step {
    Input(Vec<u8>),
    Data(usize),
    Credit(u32),
    Ready(ReadyMode),
    Closed,
    Unknown,
    LinkLost,
    LinkUp,
    Takes(usize),
    Eof,
    Timeout,
    Stop,
    Crowded(bool),
    Draining(bool),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let requests = prop::sample::select(vec![
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /",
        " HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n12345",
        "67890",
        "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 70000\r\nExpect: 100-continue\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc",
        "de\r\n0\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nraw",
        "bad\n",
    ]);
    let step = prop_oneof![
        6 => requests.prop_map(|text| Step::Input(text.as_bytes().to_vec())),
        1 => (0_usize..limits::DATA_CHUNK).prop_map(|length| Step::Input(vec![b'x'; length])),
        4 => (1_usize..40_000).prop_map(Step::Data),
        2 => (0_u32..100_000).prop_map(Step::Credit),
        4 => Just(Step::Ready(ReadyMode::Request)),
        2 => Just(Step::Ready(ReadyMode::Tunnel)),
        1 => Just(Step::Closed),
        1 => Just(Step::Unknown),
        1 => Just(Step::LinkLost),
        2 => Just(Step::LinkUp),
        3 => (0_usize..100_000).prop_map(Step::Takes),
        1 => Just(Step::Eof),
        1 => Just(Step::Timeout),
        1 => Just(Step::Stop),
        1 => any::<bool>().prop_map(Step::Crowded),
        1 => any::<bool>().prop_map(Step::Draining),
    ];
    prop::collection::vec(step, 1..40)
}

proptest! {
    /// Whatever happens in whatever order: no panic, no frame without link, credit is kept both ways, memory is
    /// bounded, and given back when nothing is under way.
    #[test]
    fn any_order_keeps_the_rules(steps in steps()) {
        let (mut world, mut client) = (World::new(), Client::new());
        world.takes = 0;
        let (mut credit, mut open) = (0_usize, false);
        for step in steps {
            if client.is_closed() {
                break;
            }
            match step {
                Step::Input(bytes) => {
                    let room = client.room().min(bytes.len());
                    client.input(&bytes[..room], &mut world);
                }
                Step::Data(length) => client.data(&vec![b'y'; length], &mut world),
                Step::Credit(increment) => {
                    if client.is_open() {
                        credit += increment as usize;
                    }
                    client.grant_credit(increment, &mut world);
                }
                Step::Ready(mode) => client.ready(mode, &mut world),
                Step::Closed => client.closed(CloseReason::Normal, &mut world),
                Step::Unknown => client.unknown(&mut world),
                Step::LinkLost => {
                    world.window = None;
                    client.link_lost(&mut world);
                }
                Step::LinkUp => world.window = Some(limits::WINDOW),
                Step::Takes(count) => {
                    world.takes = count;
                    client.writable(&mut world);
                }
                Step::Eof => client.eof(&mut world),
                Step::Timeout => client.timeout(&mut world),
                Step::Stop => client.stop(&mut world),
                Step::Crowded(crowded) => world.crowded = crowded,
                Step::Draining(draining) => world.draining = draining,
            }
            let (names, data) = world.sent();
            if names.iter().any(|name| name == "open") {
                prop_assert!(!open || !client.is_open() || names.len() > 1 || credit == 0);
                credit = limits::WINDOW as usize;
            }
            open = client.is_open();
            prop_assert!(data.len() <= credit, "{} bytes with credit for {credit}", data.len());
            credit -= data.len();
            prop_assert!(client.pending() <= limits::WINDOW as usize + 1_000);
            prop_assert!(client.heap() <= 3 * (limits::WINDOW as usize + limits::PIPELINE + limits::MAX_HEAD));
            if client.timer() == Timer::Idle {
                prop_assert_eq!(client.heap(), 0);
            }
            if client.is_closed() {
                prop_assert!(!client.is_open() && client.heap() == 0);
            }
        }
    }

    /// However the input is cut, the node gets the same.
    #[test]
    fn cuts_change_nothing(cut in 0_usize..260) {
        let text = b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello\r\nPOST /b HTTP/1.1\r\nHost: a\r\n\
            Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\nGET /c HTTP/1.1\r\nHost: a\r\n\r\n\
            GET /ws HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nraw bytes";
        let cut = cut.min(text.len());
        let (mut world, mut client) = (World::new(), Client::new());
        let mut got = Vec::new();
        for part in [&text[..cut], &text[cut..]] {
            client.input(part, &mut world);
            for _ in 0..4 {
                got.extend_from_slice(&world.sent().1);
                client.ready(if client.flags.upgrade { ReadyMode::Tunnel } else { ReadyMode::Request }, &mut world);
            }
        }
        got.extend_from_slice(&world.sent().1);
        let expected: &[u8] = b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello\
            POST /b HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcGET /c HTTP/1.1\r\nHost: a\r\n\r\n\
            GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nraw bytes";
        prop_assert_eq!(String::from_utf8_lossy(&got), String::from_utf8_lossy(expected));
    }
}
