//! Rules by example. What fast_xml makes of many more texts is compared in `test/xml_SUITE.erl`.

use super::*;

/// Writes down what it is told.
#[derive(Default)]
struct Story(String, usize);

impl Sink for Story {
    fn start(&mut self, name: &[u8]) {
        self.1 += 1;
        self.0 += &format!("({}", String::from_utf8_lossy(name));
    }

    fn attribute(&mut self, name: &[u8], value: &[u8]) {
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        self.0 += &format!(" {}={:?}", text(name), text(value));
    }

    fn attributes_end(&mut self) {
        self.0.push('|');
    }

    fn text(&mut self, text: &[u8]) {
        assert!(!text.is_empty() && !self.0.ends_with('"'), "text is joined");
        self.0 += &format!("{:?}", String::from_utf8_lossy(text));
    }

    fn end(&mut self) {
        self.1 -= 1;
        self.0.push(')');
    }
}

fn within(text: &[u8], limits: &XmlLimits) -> Result<String, XmlError> {
    let mut story = Story::default();
    parse(text, limits, &mut story)?;
    assert_eq!(story.1, 0, "each element has ended");
    Ok(story.0)
}

fn read(text: &str) -> Result<String, XmlError> {
    within(text.as_bytes(), &XmlLimits::default())
}

#[test]
fn elements_are_told_in_order() {
    assert_eq!(read("<a/>").unwrap(), "(a|)");
    assert_eq!(read(" <a >x<b c = 'd'/>y</a > ").unwrap(), r#"(a|"x"(b c="d"|)"y")"#);
    assert_eq!(read("<p:é xmlns:p='q'></p:é>").unwrap(), r#"(p:é xmlns:p="q"|)"#);
}

/// Declarations come first, and one that takes the default namespace away not at all.
#[test]
fn declarations_are_told_before_attributes() {
    let story = read("<a b='1' xmlns='u' c='2' xmlns:p='v' p:b='3'><d xmlns=''/></a>").unwrap();
    assert_eq!(story, r#"(a xmlns="u" xmlns:p="v" b="1" c="2" p:b="3"|(d|))"#);
}

#[test]
fn text_is_joined_and_normalised() {
    assert_eq!(read("<a>b&amp;<![CDATA[<c>]]>\r\nd\r&#13;</a>").unwrap(), r#"(a|"b&<c>\nd\n\r")"#);
    assert_eq!(read("<a><![CDATA[]]></a>").unwrap(), "(a|)");
    assert_eq!(read("<a b='\t\r\n&#10;&quot;x'/>").unwrap(), "(a b=\"  \\n\\\"x\"|)");
}

#[test]
fn each_error_has_its_class() {
    let cases = [
        ("<a>", XmlError::Unfinished),
        ("<a/>x", XmlError::Outside),
        ("<a/><b/>", XmlError::Outside),
        ("<a", XmlError::Unfinished),
        ("<a b='1'c='2'/>", XmlError::Syntax),
        ("<a>]]></a>", XmlError::Syntax),
        ("<a>\u{1}</a>", XmlError::Character),
        ("<a>\u{fffe}</a>", XmlError::Character),
        ("<a></b>", XmlError::Mismatch),
        ("<a b='' b=''/>", XmlError::Duplicate),
        ("<a xmlns:p='u' xmlns:q='u' p:b='' q:b=''/>", XmlError::Duplicate),
        ("<p:a/>", XmlError::Prefix),
        ("<a xmlns:xml='u'/>", XmlError::Declaration),
        ("<a>&#0;</a>", XmlError::Reference),
        ("<a>&b;</a>", XmlError::Entity),
        ("<a><!-- b --></a>", XmlError::Comment),
        ("<a><?b?></a>", XmlError::Instruction),
        ("<?xml version='1.1'?><a/>", XmlError::Instruction),
        ("<!DOCTYPE a><a/>", XmlError::Doctype),
    ];
    for (text, error) in cases {
        assert_eq!(read(text), Err(error), "{text}");
        assert!(!error.to_string().is_empty());
        let restricted =
            matches!(error, XmlError::Entity | XmlError::Comment | XmlError::Instruction | XmlError::Doctype);
        assert_eq!(error.class() == Class::Restricted, restricted);
    }
    assert_eq!(within(b"<a>\xff</a>", &XmlLimits::default()), Err(XmlError::Character));
}

/// Each limit, one less and one more.
#[test]
fn limits_are_kept_to_the_element() {
    let limits = XmlLimits { depth: 3, elements: 5, attributes: 2 };
    let at = |text: String| within(text.as_bytes(), &limits).map(|_| ());
    let deep = |count: usize| at("<a>".repeat(count) + &"</a>".repeat(count));
    let many = |count: usize| at(format!("<a>{}</a>", "<b/>".repeat(count - 1)));
    let named =
        |count: usize| at(format!("<a{}/>", (0..count).map(|n| format!(" b{n}=''")).collect::<String>()));
    for (limit, error, make) in [
        (3, XmlError::Depth, &deep as &dyn Fn(usize) -> Result<(), XmlError>),
        (5, XmlError::Elements, &many),
        (2, XmlError::Attributes, &named),
    ] {
        assert_eq!((make(limit - 1), make(limit), make(limit + 1)), (Ok(()), Ok(()), Err(error)));
        assert_eq!(error.class(), Class::TooBig);
    }
    let declared = |count: usize| {
        let all: String = (0..count).map(|n| format!("<a xmlns:p{n}='u'>")).collect();
        let limits = XmlLimits { depth: 1_000, ..XmlLimits::default() };
        within((all + &"</a>".repeat(count)).as_bytes(), &limits).map(|_| ())
    };
    let most = limits::XML_NAMESPACES;
    assert_eq!((declared(most), declared(most + 1)), (Ok(()), Err(XmlError::Namespaces)));
}

/// A name's declarations end with its element.
#[test]
fn declarations_have_their_scope() {
    assert!(read("<a><b xmlns:p='u'><p:c/></b></a>").is_ok());
    assert_eq!(read("<a><b xmlns:p='u'/><p:c/></a>"), Err(XmlError::Prefix));
    assert_eq!(read("<a><b xmlns:p='u'></b><p:c/></a>"), Err(XmlError::Prefix));
    assert!(read("<a xmlns:p='u'><b xmlns:p='v' p:x=''/><p:c/></a>").is_ok());
}
