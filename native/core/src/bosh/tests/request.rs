//! What clients send is read: XEP-0124, 7.1, and XEP-0206, 3 and 5.

use super::*;
use crate::limits::BOSH_KEY;
use crate::xml::XmlError;

fn read(text: &str) -> Result<Request, RequestError> {
    Request::parse(text.as_bytes(), &XmlLimits::default())
}

/// A request with these attributes.
fn with(attributes: &str) -> Result<Request, RequestError> {
    read(&format!("<body rid='1' xmlns:xmpp='urn:xmpp:xbosh' {attributes}/>"))
}

fn refused(name: &'static str, value: &str) {
    let expected = Err(RequestError::Attribute(name));
    assert_eq!(with(&format!("{name}='{value}'")), expected, "{name} {value}");
}

#[test]
fn every_attribute_is_read() {
    let sid = String::from_utf8(SID.text().to_vec()).unwrap();
    let text = format!(
        "<body xmlns='{NAMESPACE}' xmlns:xmpp='urn:xmpp:xbosh' rid='1573741820' sid='{sid}' to='example.com' \
         wait='60' hold='1' ack='7' pause='9' key='k' newkey='n' xmpp:version='1.0' xml:lang='en' \
         type='terminate' xmpp:restart='true' ver='1.6' content='text/html' route='xmpp:a:1' from='b' \
         secure='true' other='x'><iq/></body>"
    );
    let expected = Request {
        rid: 1_573_741_820,
        sid: Some(Some(SID)),
        to: Some("example.com".into()),
        wait: Some(60),
        hold: Some(1),
        ack: Some(7),
        pause: Some(9),
        key: Some((*b"k").into()),
        newkey: Some((*b"n").into()),
        ver: Some(Version { major: 1, minor: 6 }),
        version: Some("1.0".into()),
        lang: Some("en".into()),
        terminate: true,
        restart: true,
        payload: true,
    };
    assert_eq!(read(&text), Ok(expected));
}

#[test]
fn what_is_not_there_is_not_there() {
    let expected = Request { rid: 5, ..Request::default() };
    assert_eq!(read("<body rid='5'/>"), Ok(expected));
}

#[test]
fn a_number_of_a_request_is_one_that_any_client_can_write_14_1() {
    for (text, rid) in [("0", 0), ("1", 1), ("007", 7), ("9007199254740991", (1 << 53) - 1)] {
        assert_eq!(read(&format!("<body rid='{text}'/>")).map(|request| request.rid), Ok(rid));
    }
    let wrong = [
        "9007199254740992",
        "18446744073709551615",
        "18446744073709551616",
        "99999999999999999999999",
        "",
        "-1",
        "+1",
        " 1",
        "1 ",
        "1.0",
        "0x1",
        "1e3",
        "a",
        "\u{661}",
    ];
    for text in wrong {
        assert_eq!(read(&format!("<body rid='{text}'/>")), Err(RequestError::Attribute("rid")), "{text}");
    }
    assert_eq!(read("<body/>"), Err(RequestError::NoRid));
    assert_eq!(read("<body><a rid='1'/></body>"), Err(RequestError::NoRid));
}

#[test]
fn numbers_that_are_too_large_are_lowered_and_what_is_none_is_refused() {
    let max = u64::MAX.to_string();
    for (text, wait) in
        [("0", 0), ("299", 299), ("300", 300), ("301", 300), ("65535", 300), ("65536", 300), (&max, 300)]
    {
        assert_eq!(with(&format!("wait='{text}'")).map(|request| request.wait), Ok(Some(wait)));
    }
    for (text, hold) in [("0", 0), ("1", 1), ("2", 1), ("255", 1), ("256", 1), (&max, 1)] {
        assert_eq!(with(&format!("hold='{text}'")).map(|request| request.hold), Ok(Some(hold)));
    }
    for (text, pause) in [("0", 0), ("4294967295", u32::MAX), ("4294967296", u32::MAX), (&max, u32::MAX)] {
        assert_eq!(with(&format!("pause='{text}'")).map(|request| request.pause), Ok(Some(pause)));
    }
    for (text, ack) in [("0", 0), (max.as_str(), u64::MAX)] {
        assert_eq!(with(&format!("ack='{text}'")).map(|request| request.ack), Ok(Some(ack)));
    }
    for name in ["wait", "hold", "pause", "ack"] {
        for value in ["", "-1", "1.5", " 1", "x", "18446744073709551616"] {
            refused(name, value);
        }
    }
}

#[test]
fn texts_are_as_long_as_names_of_servers_may_be() {
    let (fits, long) = ("x".repeat(1_023), "x".repeat(1_024));
    for name in ["to", "xmpp:version", "xml:lang"] {
        assert!(with(&format!("{name}='{fits}'")).is_ok());
        refused(name, &long);
        refused(name, &"\u{e4}".repeat(512));
    }
    assert_eq!(with("to='&lt;&#228;'").map(|request| request.to), Ok(Some("<\u{e4}".into())));
    assert_eq!(with("to=''").map(|request| request.to), Ok(Some(String::new())));
}

#[test]
fn keys_are_as_long_as_they_need_to_be() {
    for name in ["key", "newkey"] {
        assert!(with(&format!("{name}='{}'", "x".repeat(BOSH_KEY))).is_ok());
        refused(name, &"x".repeat(BOSH_KEY + 1));
    }
}

#[test]
fn a_name_that_no_session_has_is_told_from_none() {
    assert_eq!(with("").map(|request| request.sid), Ok(None));
    let text = String::from_utf8(SID.text().to_vec()).unwrap();
    for wrong in
        ["", "SomeSID", &text[1..], &format!("{text}0"), &text.to_ascii_uppercase().replace('0', "G")]
    {
        assert_eq!(with(&format!("sid='{wrong}'")).map(|request| request.sid), Ok(Some(None)));
    }
}

#[test]
fn a_stream_begins_anew_where_that_is_said_0206_5() {
    for (value, restart) in [("true", true), ("1", true), ("false", false), ("0", false)] {
        assert_eq!(with(&format!("xmpp:restart='{value}'")).map(|request| request.restart), Ok(restart));
    }
    for value in ["", "TRUE", "yes", "2"] {
        refused("xmpp:restart", value);
    }
    assert_eq!(with("restart='true'").map(|request| request.restart), Ok(false));
}

#[test]
fn only_one_type_means_something() {
    for (value, terminate) in [("terminate", true), ("error", false), ("", false), ("Terminate", false)] {
        assert_eq!(with(&format!("type='{value}'")).map(|request| request.terminate), Ok(terminate));
    }
}

#[test]
fn only_a_body_of_bosh_is_a_request() {
    for text in [
        "<iq rid='1'/>",
        "<Body rid='1'/>",
        "<x:body xmlns:x='http://jabber.org/protocol/httpbind' rid='1'/>",
    ] {
        assert_eq!(read(text), Err(RequestError::NotBody), "{text}");
    }
    for namespace in ["jabber:client", "http://jabber.org/protocol/httpbind/"] {
        let text = format!("<body rid='1' xmlns='{namespace}'/>");
        assert_eq!(read(&text), Err(RequestError::Attribute("xmlns")), "{namespace}");
    }
    assert!(read(&format!("<body rid='1' xmlns='{NAMESPACE}'/>")).is_ok());
}

#[test]
fn what_is_inside_says_nothing_about_the_request() {
    let text = "<body rid='1'><body rid='2' type='terminate' xmlns='x' wait='x'><a pause='x'/></body>\
                <b rid='3' hold='y'/></body>";
    assert_eq!(read(text), Ok(Request { rid: 1, payload: true, ..Request::default() }));
}

#[test]
fn text_is_no_element() {
    assert_eq!(read("<body rid='1'> text </body>").map(|request| request.payload), Ok(false));
    assert_eq!(read("<body rid='1'> <a/> </body>").map(|request| request.payload), Ok(true));
}

#[test]
fn a_request_is_empty_if_it_neither_brings_nor_asks_for_anything() {
    for (attributes, empty) in [
        ("", true),
        ("ack='1' key='x' newkey='y'", true),
        ("type='terminate'", false),
        ("pause='0'", false),
        ("xmpp:restart='1'", false),
    ] {
        assert_eq!(with(attributes).map(|request| request.is_empty()), Ok(empty), "{attributes}");
    }
    assert!(!read("<body rid='1'><a/></body>").unwrap().is_empty());
}

#[test]
fn what_is_no_xml_for_xmpp_is_refused_with_the_reason() {
    let cases = [
        ("", XmlError::Unfinished),
        ("<body rid='1'>", XmlError::Unfinished),
        ("<body rid='1'/><body rid='2'/>", XmlError::Outside),
        ("<body rid='1' rid='1'/>", XmlError::Duplicate),
        ("<body rid='1' sid='a' sid='a'/>", XmlError::Duplicate),
        ("<body rid='1' xmpp:restart='true'/>", XmlError::Prefix),
        ("<body rid='1'><stream:features/></body>", XmlError::Prefix),
        ("<body rid='1'></bodies>", XmlError::Mismatch),
        ("<body rid='1'><!-- x --></body>", XmlError::Comment),
        ("<body rid='1'><?x?></body>", XmlError::Instruction),
        ("<!DOCTYPE body><body rid='1'/>", XmlError::Doctype),
        ("<body rid='1' to='&x;'/>", XmlError::Entity),
        ("<body rid='1' to='&#0;'/>", XmlError::Reference),
        ("<body rid=1/>", XmlError::Syntax),
        ("<body rid='1'>\u{1}</body>", XmlError::Character),
    ];
    for (text, error) in cases {
        assert_eq!(read(text), Err(RequestError::Xml(error)), "{text}");
    }
    let bytes = b"<body rid='1' to='\xff'/>";
    let read = Request::parse(bytes, &XmlLimits::default());
    assert_eq!(read, Err(RequestError::Xml(XmlError::Character)));
}

#[test]
fn the_limits_are_those_of_what_is_inside() {
    let limits = XmlLimits { depth: 2, elements: 3, attributes: 2 };
    let read = |text: &str| Request::parse(text.as_bytes(), &limits);
    assert!(read("<body rid='1'><a><b/></a><c/></body>").is_ok());
    assert_eq!(read("<body rid='1'><a/><b/><c/><d/></body>"), Err(RequestError::Xml(XmlError::Elements)));
    assert_eq!(read("<body rid='1'><a><b><c/></b></a></body>"), Err(RequestError::Xml(XmlError::Depth)));
    assert_eq!(read("<body rid='1' a='' b=''/>"), Err(RequestError::Xml(XmlError::Attributes)));
}
