//! Points of llhttp's `method`.

use megaphone_core::http::Body::{Length, None};
use megaphone_core::http::HeadError as E;

use crate::vector::Then::{Open, Waits};
use crate::vector::{Taken, Vector, check, refused, vector};

const VECTORS: &[Vector] = &[
    vector("REPORT", b"REPORT /a HTTP/1.1\r\nHost: h\r\n\r\n", &[Taken("REPORT /a", None, "")], Open),
    refused(
        "CONNECT, and what would be the tunnel",
        b"CONNECT host.example:443 HTTP/1.1\r\nHost: host.example:443\r\n\r\nfirst bytes",
        E::Connect,
    )
    .differs("llhttp leaves the tunnel to its user; this is no forward proxy"),
    refused(
        "CONNECT in HTTP/1.0, the host in capital letters",
        b"CONNECT HOST.EXAMPLE:443 HTTP/1.0\r\nProxy-Authorization: basic eA==\r\n\r\n",
        E::Connect,
    )
    .differs("llhttp takes it; this is no forward proxy"),
    refused(
        "CONNECT with a body",
        b"CONNECT host.example:443 HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nbody",
        E::Connect,
    )
    .differs("llhttp takes it and skips the body; this is no forward proxy"),
    refused(
        "a search for devices, whose target is an asterisk",
        b"M-SEARCH * HTTP/1.1\r\nHost: 239.255.255.250:1900\r\nMan: \"ssdp:discover\"\r\n\r\n",
        E::Target,
    )
    .differs("llhttp takes it; RFC 9112, 3.2.4 has this target for OPTIONS only"),
    vector(
        "a method with a dash",
        b"M-SEARCH / HTTP/1.1\r\nHost: h\r\n\r\n",
        &[Taken("M-SEARCH /", None, "")],
        Open,
    ),
    vector(
        "PATCH",
        b"PATCH /f HTTP/1.1\r\nHost: h\r\nIf-Match: \"e\"\r\nContent-Length: 5\r\n\r\npatch",
        &[Taken("PATCH /f", Length(5), "patch")],
        Open,
    ),
    vector("PURGE", b"PURGE /f HTTP/1.1\r\nHost: h\r\n\r\n", &[Taken("PURGE /f", None, "")], Open),
    vector("SEARCH", b"SEARCH / HTTP/1.1\r\nHost: h\r\n\r\n", &[Taken("SEARCH /", None, "")], Open),
    vector(
        "LINK with a field that comes twice",
        b"LINK /i HTTP/1.1\r\nHost: h\r\nLink: <http://h/a>; rel=\"x\"\r\nLink: <http://h/b>; rel=\"x\"\r\n\r\n",
        &[Taken("LINK /i", None, "")],
        Open,
    ),
    vector(
        "UNLINK",
        b"UNLINK /i HTTP/1.1\r\nHost: h\r\nLink: <http://h/a>\r\n\r\n",
        &[Taken("UNLINK /i", None, "")],
        Open,
    ),
    vector("SOURCE", b"SOURCE /r HTTP/1.1\r\nHost: h\r\n\r\n", &[Taken("SOURCE /r", None, "")], Open),
    refused("SOURCE of another protocol", b"SOURCE /r ICE/1.0\r\nHost: h\r\n\r\n", E::RequestLine)
        .differs("llhttp speaks that protocol, too"),
    refused("OPTIONS of another protocol", b"OPTIONS /r RTSP/1.0\r\nHost: h\r\n\r\n", E::RequestLine)
        .differs("llhttp speaks that protocol, too"),
    refused("ANNOUNCE of another protocol", b"ANNOUNCE /r RTSP/1.0\r\nHost: h\r\n\r\n", E::RequestLine)
        .differs("llhttp speaks that protocol, too"),
    refused(
        "the preface of HTTP/2 said in HTTP/1.1",
        b"PRI * HTTP/1.1\r\nHost: h\r\n\r\nSM\r\n\r\n",
        E::Target,
    )
    .differs("llhttp stops there for its user to go on with HTTP/2; here it is a target for OPTIONS only"),
    refused("the preface of HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", E::Version),
    vector(
        "QUERY with a body",
        b"QUERY /c HTTP/1.1\r\nHost: h\r\nContent-Type: text/x\r\nContent-Length: 8\r\n\r\nselect x",
        &[Taken("QUERY /c", Length(8), "select x")],
        Open,
    ),
    vector("OPTIONS of the server", b"OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n", &[Taken("OPTIONS *", None, "")], Open),
    vector(
        "a method in small letters is another method",
        b"get / HTTP/1.1\r\nHost: h\r\n\r\n",
        &[Taken("get /", None, "")],
        Open,
    )
    .differs("llhttp has a list of methods; here any token is one"),
    vector(
        "a POST without a length has none",
        b"POST /a HTTP/1.1\r\nHost: h\r\n\r\nGET /b HTTP/1.1\r\nHost: h\r\n\r\n",
        &[Taken("POST /a", None, ""), Taken("GET /b", None, "")],
        Open,
    ),
    vector("a method alone", b"GET", &[], Waits),
    refused("no method", b" / HTTP/1.1\r\nHost: h\r\n\r\n", E::RequestLine),
];

/// Any token is a method, except CONNECT; the protocol behind the target must be HTTP.
#[test]
fn methods() {
    check(VECTORS);
}
