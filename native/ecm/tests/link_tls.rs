//! Links that speak TLS: whom they are made to, what goes over them, and their ends.

#![allow(clippy::unwrap_used)]

mod common;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::time::Duration;

use common::link_tls::{Identity, Root, Secured};
use common::program::{Running, fails, signal};
use common::*;
use megaphone_core::link::{Credentials, Handshake, Secret};
use megaphone_ecm::{Server, Trust};
use rustls::version::{TLS12, TLS13};

const NAME: &str = "node.example";

/// Where the listeners of these tests are.
const HOST: &str = "127.0.0.1";

/// A manager that makes its link with TLS, to a server that must be `NAME` and from this authority.
fn secured(file: &Path, change: impl FnOnce(&mut megaphone_ecm::Config)) -> Ecm {
    Ecm::with(|config| {
        let Server::Tcp(address) = config.servers.remove(0) else { panic!() };
        config.servers.push(Server::Tls(address));
        let name = NAME.to_owned().try_into().unwrap();
        config.link_trust = Some(Trust::load(file, Some(name)).unwrap());
        change(config);
    })
}

/// The program, with a link to this listener.
fn program(listener: &TcpListener, root: &Root, name: Option<&str>) -> Running {
    let server = format!("tls://127.0.0.1:{}", listener.local_addr().unwrap().port());
    let file = root.file.to_str().unwrap();
    let mut arguments = vec!["--listen", "127.0.0.1:0", "--server", &server, "--link-ca", file];
    if let Some(name) = name {
        arguments.extend(["--link-name", name]);
    }
    Running::start(&arguments)
}

/// With both versions of TLS requests and answers pass, small and large, and the server is asked for by its name.
#[test]
fn requests_pass_both_ways() {
    let root = Root::new();
    let identity = root.identity(NAME);
    for version in [&TLS12, &TLS13] {
        let ecm = secured(&root.file, |_| {});
        let mut node = Node::over(identity.accept_of(&ecm.node, &[version]), Decoder::new());
        node.greet(limits::WINDOW);
        assert_eq!(node.stream.conn.server_name(), Some(NAME));
        assert_eq!(node.stream.conn.protocol_version(), Some(version.version));
        let mut client = ecm.client();
        client.send(GET);
        let id = node.first(GET);
        node.answer(id, "small");
        client.expect(&response("small"));
        // Far more than one record, and than any buffer, each way.
        let body: String = ('a'..='z').cycle().take(3_000_001).collect();
        let request = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        let mut writer = client.stream.try_clone().unwrap();
        let sent = request.clone();
        let thread = std::thread::spawn(move || writer.write_all(sent.as_bytes()).unwrap());
        node.request(id, &request);
        thread.join().unwrap();
        let reader = std::thread::spawn(move || {
            client.expect(&response(&body));
            client
        });
        let body = &request[request.len() - 3_000_001..];
        send_by_credit(&mut node, id, response(body).as_bytes());
        node.ready(id);
        let mut client = reader.join().unwrap();
        client.send(GET);
        node.request(id, GET);
        node.answer(id, "again");
        client.expect(&response("again"));
    }
}

fn send_by_credit(node: &mut Node<Secured>, id: u64, mut bytes: &[u8]) {
    let mut credit = limits::WINDOW as usize;
    while !bytes.is_empty() {
        let size = bytes.len().min(limits::DATA_CHUNK);
        if credit < size {
            let Event::Window(of, increment) = node.next() else { panic!("no credit") };
            assert_eq!(of, id);
            credit += increment as usize;
            continue;
        }
        node.send(&Frame::Data { id, payload: &bytes[..size] });
        credit -= size;
        bytes = &bytes[size..];
    }
}

/// The secret is proved inside of TLS, and asked for there as without it.
#[test]
fn the_secret_is_proved_inside() {
    let root = Root::new();
    let identity = root.identity(NAME);
    let secret = || Secret::new(b"what both of them know").unwrap();
    let ecm = secured(&root.file, |config| config.link_secret = Some(secret()));
    let own = Hello { role: Role::Ejabberd, features: Hello::CREDIT, window: limits::WINDOW, name: "test" };
    let mut handshake = Handshake::new(own, Some(Credentials { secret: secret(), nonce: [7; 32] }));
    let mut node = Node::over(identity.accept(&ecm.node), Decoder::authenticating());
    let mut out = Vec::new();
    handshake.greet(&mut out);
    node.send_bytes(&out);
    loop {
        let mut answer = Vec::new();
        let open = match node.take_frame() {
            Some(Frame::Hello(hello)) => handshake.hello(&hello).unwrap(),
            Some(Frame::Auth(payload)) => handshake.auth(payload, &mut answer).unwrap(),
            other => panic!("{other:?}"),
        };
        node.send_bytes(&answer);
        if open.is_some() {
            break;
        }
    }
    node.admit();
    node.nothing();
    let mut client = ecm.client();
    client.send(GET);
    let id = node.first(GET);
    node.answer(id, "known");
    client.expect(&response("known"));
    // A server with a good certificate that does not know the secret gets no client.
    drop(node);
    let mut node = Node::over(identity.accept(&ecm.node), Decoder::authenticating());
    node.send(&hello(limits::WINDOW));
    loop {
        match node.take_frame() {
            Some(Frame::Error { code, .. }) => break assert_eq!(code, ErrorCode::Auth),
            Some(Frame::Hello(_) | Frame::Auth(_)) => {}
            other => panic!("{other:?}"),
        }
    }
    client.send(GET);
    assert!(client.refused(503).contains("not connected"));
}

/// Each fault of a certificate is said in words, and once however often it is met; the server gets an alert, and clients 503.
#[test]
fn wrong_certificates_are_refused_in_words() {
    let (root, other) = (Root::new(), Root::new());
    let dated = |from: i32, to: i32| {
        root.identity_of(NAME, |params| {
            params.not_before = rcgen::date_time_ymd(from, 1, 1);
            params.not_after = rcgen::date_time_ymd(to, 1, 1);
        })
    };
    let (old, early) = (dated(2_000, 2_001), dated(3_000, 3_001));
    let listed = root.file.display();
    let table: [(Identity, Option<&str>, String); 7] = [
        (other.identity(NAME), Some(NAME), format!("its certificate is not from link_ca {listed}")),
        (
            Identity::self_signed(NAME, false),
            Some(NAME),
            format!("its certificate is not from link_ca {listed}"),
        ),
        (Identity::self_signed(NAME, true), Some(NAME), "its certificate is one of an authority".to_owned()),
        (
            root.identity("other.example"),
            Some(NAME),
            format!("its certificate is not for {NAME} but for other.example: `link_name`"),
        ),
        // Without a name it is the server's host that counts.
        (root.identity(NAME), None, "its certificate is not for 127.0.0.1 but for ".to_owned()),
        (old, Some(NAME), "its certificate has expired".to_owned()),
        (early, Some(NAME), "its certificate is not valid yet".to_owned()),
    ];
    for (identity, name, text) in table {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut ecm = program(&listener, &root, name);
        for _ in 0..3 {
            let alert = identity.refused(&listener).to_string();
            assert!(alert.contains("alert"), "{text}: {alert}");
        }
        let address = ecm.wait_for("listening on ");
        let said = ecm
            .wait_for(&format!("link to tls://127.0.0.1:{} down: ", listener.local_addr().unwrap().port()));
        assert!(said.starts_with(&text), "{said} instead of {text}");
        let mut client = Client::new(TcpStream::connect(address).unwrap());
        client.send(GET);
        assert!(client.refused(503).contains("not connected"));
        assert_eq!(ecm.rest().matches(" down: ").count(), 0);
    }
}

/// The server's host is the name that counts if no other is given, and a certificate may be trusted itself.
#[test]
fn the_host_is_the_name() {
    let root = Root::new();
    let identity = Identity::self_signed(HOST, false);
    std::fs::write(&root.file, &identity.pem).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut ecm = program(&listener, &root, None);
    let mut node = identity.link(&listener, limits::WINDOW);
    // An address is not told (RFC 6066, 3).
    assert_eq!(node.stream.conn.server_name(), None);
    node.nothing();
    ecm.wait_for(" up (test)");
}

/// A server that speaks without TLS, and one that says nothing, are told apart and given up in time.
#[test]
fn servers_without_tls_are_told_apart() {
    let root = Root::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut ecm = program(&listener, &root, None);
    let (mut plain, _) = listener.accept().unwrap();
    let mut bytes = Vec::new();
    hello(limits::WINDOW).encode(&mut bytes);
    plain.write_all(&bytes).unwrap();
    ecm.wait_for("down: it does not speak TLS as it should: has its listener `tls: true`?");
    let (closing, _) = listener.accept().unwrap();
    drop(closing);
    ecm.wait_for("down: ");
    // Nothing of the link's own protocol has been sent before TLS was there.
    let mut got = Vec::new();
    let _ = plain.read_to_end(&mut got);
    assert!(got.starts_with(&[22, 3]) && !got.windows(4).any(|part| part == b"MGPH"));
    drop(ecm);

    let ecm = secured(&root.file, |config| config.link_greeting = Duration::from_millis(300));
    let mut mute = ecm.accept_raw();
    mute.stream.read_to_end(&mut got).unwrap();
    ecm.accept_raw();
}

/// What was sent before a link's end counts, whether TLS was closed or cut off; the log tells which.
#[test]
fn ends_are_told_apart() {
    let root = Root::new();
    let identity = root.identity(HOST);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut ecm = program(&listener, &root, None);
    let address = ecm.wait_for("listening on ");
    for (closes, text) in [
        (true, "down: it closed the connection"),
        (false, "down: it ended the connection without closing TLS"),
        (true, "down: it closed the connection"),
    ] {
        let mut node = identity.link(&listener, limits::WINDOW);
        ecm.wait_for(" up (test)");
        let mut client = Client::new(TcpStream::connect(&address).unwrap());
        client.send(GET);
        let id = node.first(GET);
        let (mut out, text_of_answer) = (Vec::new(), response("last words"));
        Frame::Data { id, payload: text_of_answer.as_bytes() }.encode(&mut out);
        Frame::Ready { id, mode: ReadyMode::Request }.encode(&mut out);
        node.stream.conn.writer().write_all(&out).unwrap();
        if closes {
            node.stream.conn.send_close_notify();
        }
        // All of it at once, and the end with it.
        let mut records = Vec::new();
        while node.stream.conn.wants_write() {
            node.stream.conn.write_tls(&mut records).unwrap();
        }
        node.stream.sock.write_all(&records).unwrap();
        node.stream.sock.shutdown(Shutdown::Write).unwrap();
        client.expect(&text_of_answer);
        ecm.wait_for(text);
    }
}

/// A manager that stops closes TLS, after everything that waits was written.
#[test]
fn stopping_closes_tls() {
    let root = Root::new();
    let identity = root.identity(NAME);
    let mut ecm = secured(&root.file, |_| {});
    let mut node = identity.link(&ecm.node, limits::WINDOW);
    let mut client = ecm.client();
    client.send(GET);
    let id = node.first(GET);
    ecm.stop();
    assert_eq!(node.next(), Event::Close(id, CloseReason::Shutdown));
    // An end without close_notify would be an error of the reader.
    assert_eq!(node.next(), Event::Ended);
    client.refused(503);
    ecm.join();
}

/// Records that are damaged end the link, and clients go on over the next one.
#[test]
fn damage_ends_the_link() {
    let root = Root::new();
    let identity = root.identity(NAME);
    let ecm = secured(&root.file, |_| {});
    let mut node = identity.link(&ecm.node, limits::WINDOW);
    node.stream.sock.write_all(&[23, 3, 3, 0, 20]).unwrap();
    node.stream.sock.write_all(&[0; 20]).unwrap();
    let told = node.stream.read(&mut [0; 64]).unwrap_err();
    assert_eq!(told.kind(), ErrorKind::InvalidData, "an alert: {told}");
    let mut node = identity.link(&ecm.node, limits::WINDOW);
    let mut client = ecm.client();
    client.send(GET);
    let id = node.first(GET);
    node.answer(id, "well again");
    client.expect(&response("well again"));
}

/// The handshake, and frames in records, may come a byte at a time.
#[test]
fn records_may_come_in_bytes() {
    let root = Root::new();
    let identity = root.identity(NAME);
    let ecm = secured(&root.file, |_| {});
    let Secured { mut conn, mut sock } = identity.accept(&ecm.node);
    let trickle = |conn: &mut rustls::ServerConnection, sock: &mut TcpStream| {
        let mut records = Vec::new();
        while conn.wants_write() {
            conn.write_tls(&mut records).unwrap();
        }
        records.iter().for_each(|byte| sock.write_all(&[*byte]).unwrap());
    };
    while conn.is_handshaking() {
        trickle(&mut conn, &mut sock);
        if conn.is_handshaking() {
            conn.read_tls(&mut sock).unwrap();
            conn.process_new_packets().unwrap();
        }
    }
    let mut out = Vec::new();
    hello(limits::WINDOW).encode(&mut out);
    Frame::Ping([5; 8]).encode(&mut out);
    for piece in out.chunks(7) {
        conn.writer().write_all(piece).unwrap();
    }
    trickle(&mut conn, &mut sock);
    let mut node = Node::over(Secured { conn, sock }, Decoder::new());
    assert!(matches!(node.next(), Event::Hello(_)));
    assert_eq!(node.next(), Event::Pong([5; 8]));
}

/// SIGHUP reads the authorities again: links that exist stay, the next ones are looked at with the new ones. A file that
/// cannot be used changes nothing.
#[test]
fn authorities_are_read_again() {
    let (root, other) = (Root::new(), Root::new());
    let (first, second) = (root.identity(HOST), other.identity(HOST));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut ecm = program(&listener, &root, None);
    let mut node = first.link(&listener, limits::WINDOW);
    ecm.wait_for(" up (test)");
    let hang_up = |ecm: &Running| signal(&ecm.0, rustix::process::Signal::HUP);
    std::fs::write(&root.file, "").unwrap();
    hang_up(&ecm);
    assert!(ecm.wait_for("link_ca was not read again, the old one stays: ").contains("BEGIN CERTIFICATE"));
    drop(node);
    node = first.link(&listener, limits::WINDOW);
    std::fs::copy(&other.file, &root.file).unwrap();
    hang_up(&ecm);
    ecm.wait_for("link_ca was read again, for new links: 1 certificates");
    node.nothing();
    drop(node);
    ecm.wait_for("down: ");
    assert!(first.refused(&listener).to_string().contains("alert"));
    ecm.wait_for("its certificate is not from link_ca ");
    second.link(&listener, limits::WINDOW);
    ecm.wait_for(" up (test)");
}

/// A link without TLS is not made to an address of another machine, whatever its name looks like.
#[test]
fn plain_links_do_not_leave_the_machine() {
    // The system takes that for 192.0.2.1, which is nobody's.
    let mut ecm = Running::start(&["--listen", "127.0.0.1:0", "--server", "192.0.513:9"]);
    let said = ecm.wait_for("link to 192.0.513:9 down: ");
    assert!(
        said.contains("a link to 192.0.2.1 leaves this machine") && said.contains("tls://192.0.513:9"),
        "{said}"
    );
    let text = fails(&["--listen", "127.0.0.1:0", "--server", "192.0.2.1:9"]);
    assert!(text.contains("allow_plain_link = true"), "{text}");
}

/// A server that wants TLS and got none is recognised by its alert.
#[test]
fn servers_with_tls_are_told_apart() {
    let identity = Root::new().identity(HOST);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = listener.local_addr().unwrap().to_string();
    let mut ecm = Running::start(&["--listen", "127.0.0.1:0", "--server", &server]);
    assert_eq!(identity.refused(&listener).kind(), ErrorKind::InvalidData);
    assert_eq!(ecm.wait_for(" down: "), "its listener has `tls: true`: write `server` as tls://HOST:PORT");
}

/// Reasons that take turns, as those of a server's addresses do, are told once each.
#[test]
fn reasons_in_turn_are_told_once() {
    let root = Root::new();
    let other = Root::new().identity(HOST);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut ecm = program(&listener, &root, None);
    for _ in 0..3 {
        other.refused(&listener);
        // What is no TLS at all.
        let (mut plain, _) = listener.accept().unwrap();
        plain.write_all(&[0; 16]).unwrap();
        let _ = plain.read_to_end(&mut Vec::new());
    }
    // The last one has been told by now, if it is told.
    drop(listener.accept().unwrap());
    let log = ecm.rest();
    assert_eq!(log.matches("its certificate is not from link_ca").count(), 1, "{log}");
    assert_eq!(log.matches("it does not speak TLS").count(), 1, "{log}");
}
