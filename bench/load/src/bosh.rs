//! The bodies of a BOSH session (XEP-0124, XEP-0206), without any connection.

use crate::xml::{self, Element, Error};

/// A session as its client sees it.
#[derive(Debug)]
pub struct Bosh {
    rid: u64,
    sid: Option<String>,
    requests: usize,
    wait: u32,
}

impl Bosh {
    /// `rid` is the first request's number; `wait` the seconds that a request may be held.
    #[must_use]
    pub fn new(rid: u64, wait: u32) -> Self {
        Self { rid, sid: None, requests: 1, wait }
    }

    /// Whether the server has made the session.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.sid.is_some()
    }

    /// How many requests may be under way at a time.
    #[must_use]
    pub fn requests(&self) -> usize {
        self.requests
    }

    /// The body that asks for a session.
    pub fn open(&mut self, domain: &str) -> String {
        let more = format!(
            " to='{domain}' wait='{}' hold='1' ver='1.6' xml:lang='en' content='text/xml; charset=utf-8' \
             xmpp:version='1.0' xmlns:xmpp='urn:xmpp:xbosh'",
            self.wait
        );
        self.body(&more, "")
    }

    /// The body that opens the stream anew, after the user was authenticated.
    pub fn restart(&mut self, domain: &str) -> String {
        let more = format!(" to='{domain}' xmpp:restart='true' xmlns:xmpp='urn:xmpp:xbosh'");
        self.body(&more, "")
    }

    /// A body with stanzas, or an empty one that waits for some.
    pub fn carry(&mut self, stanzas: &str) -> String {
        self.body("", stanzas)
    }

    fn body(&mut self, more: &str, stanzas: &str) -> String {
        let rid = self.rid;
        self.rid += 1;
        body(rid, self.sid.as_deref(), more, stanzas)
    }

    /// The number of the next request.
    #[must_use]
    pub fn rid(&self) -> u64 {
        self.rid
    }

    /// The session's name; empty before the server has made it.
    #[must_use]
    pub fn sid(&self) -> &str {
        self.sid.as_deref().unwrap_or_default()
    }

    /// What an answer brings.
    ///
    /// # Errors
    ///
    /// When it ends the session, or is no body.
    pub fn answer(&mut self, answer: &[u8]) -> Result<Vec<Element>, String> {
        let body = read(answer)?;
        if let Some(reason) = end(&body) {
            return Err(format!("the server ended the session: {reason}"));
        }
        if self.sid.is_none() {
            self.sid = Some(body.attribute("sid").ok_or("a session without sid")?.to_owned());
            let requests = body.attribute("requests").and_then(|count| count.parse().ok());
            self.requests = requests.unwrap_or(2).clamp(1, 2);
        }
        Ok(body.children)
    }
}

/// A body with these further attributes and stanzas.
#[must_use]
pub fn body(rid: u64, sid: Option<&str>, more: &str, stanzas: &str) -> String {
    let sid = sid.map_or_else(String::new, |sid| format!(" sid='{sid}'"));
    let start = format!("<body rid='{rid}'{sid} xmlns='http://jabber.org/protocol/httpbind'{more}");
    if stanzas.is_empty() { format!("{start}/>") } else { format!("{start}>{stanzas}</body>") }
}

/// The body of an answer.
///
/// # Errors
///
/// When it is none.
pub fn read(answer: &[u8]) -> Result<Element, String> {
    let body = match xml::element(answer) {
        Ok((body, length)) if length == answer.len() => body,
        Ok(_) => return Err("bytes after the body".to_owned()),
        Err(Error::Incomplete) => return Err("the body does not end".to_owned()),
        Err(Error::Malformed(what)) => return Err(format!("no XML: {what}")),
    };
    if body.name == "body" { Ok(body) } else { Err(format!("<{}> is no body", body.name)) }
}

/// Why the session ends, if it ends with this body.
#[must_use]
pub fn end(body: &Element) -> Option<&str> {
    let ends = body.attribute("type") == Some("terminate");
    ends.then(|| body.attribute("condition").unwrap_or("no reason"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session() -> Bosh {
        let mut bosh = Bosh::new(7, 60);
        let (first, _) = xml::element(bosh.open("localhost").as_bytes()).expect("XML");
        for (name, value) in
            [("rid", "7"), ("to", "localhost"), ("wait", "60"), ("hold", "1"), ("xmpp:version", "1.0")]
        {
            assert_eq!(first.attribute(name), Some(value));
        }
        assert_eq!(first.attribute("sid"), None);
        let answer = b"<body sid='s' requests='2' xmlns='http://jabber.org/protocol/httpbind'><stream:features/></body>";
        assert_eq!(bosh.answer(answer).expect("a body")[0].local_name(), "features");
        bosh
    }

    #[test]
    fn numbers_its_bodies() {
        let mut bosh = session();
        assert_eq!(bosh.requests(), 2);
        assert_eq!(bosh.carry(""), "<body rid='8' sid='s' xmlns='http://jabber.org/protocol/httpbind'/>");
        assert!(bosh.carry("<a/>").ends_with("xmlns='http://jabber.org/protocol/httpbind'><a/></body>"));
        let (restart, _) = xml::element(bosh.restart("localhost").as_bytes()).expect("XML");
        assert_eq!((restart.attribute("rid"), restart.attribute("xmpp:restart")), (Some("10"), Some("true")));
    }

    #[test]
    fn takes_stanzas_and_nothing() {
        let mut bosh = session();
        assert_eq!(bosh.answer(b"<body xmlns='x'/>"), Ok(Vec::new()));
        assert_eq!(bosh.answer(b"<body><a/><b/></body>").map(|stanzas| stanzas.len()), Ok(2));
    }

    #[test]
    fn tells_why_a_session_ended() {
        let mut bosh = session();
        let ended = bosh.answer(b"<body type='terminate' condition='item-not-found'/>");
        assert!(ended.expect_err("ended").contains("item-not-found"));
        for wrong in [&b"<html/>"[..], b"<body>", b"", b"<body/>x", b"no"] {
            assert!(bosh.answer(wrong).is_err());
        }
    }
}
