#![allow(clippy::unwrap_used)]

use super::*;

#[test]
fn reads_a_file() {
    let file = File::parse("listen = '0.0.0.0:80'\nserver = 'unix:/s'\nidle_timeout = 5\nmax_clients = 7\n")
        .unwrap();
    let mut config = Config::new("a:1".parse().unwrap());
    config.apply(&file).unwrap();
    assert_eq!(config.servers, [Server::Unix("/s".into())]);
    assert_eq!(config.idle_timeout, Duration::from_secs(5));
    assert_eq!(config.max_clients, 7);
}

/// Each key about clients and proxies arrives where it belongs, at its least and its greatest.
#[test]
fn reads_what_clients_may_do() {
    let text = "proxy_protocol = true\ntrusted_proxies = ['10.0.0.0/8', '::1']\nmax_clients_per_address = 1\n\
                max_new_clients_per_address = 1000000\nmax_new_clients_per_second = 1\nipv6_prefix = 128\n\
                max_requests_per_client = 65535\nmax_body = 9223372036854775807\nmax_head = 512\nmax_headers = 100\n";
    let mut config = Config::new(Server::Tcp("a:1".to_owned()));
    config.apply(&File::parse(text).unwrap()).unwrap();
    let guard = config.guard;
    assert!(guard.proxy_protocol && guard.exempt_loopback);
    assert_eq!(
        guard.trusted_proxies.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["10.0.0.0/8", "::1/128"]
    );
    assert_eq!((guard.addresses.clients, guard.addresses.new_per_second), (1, 1_000_000));
    assert_eq!((guard.addresses.ipv6_prefix, guard.new_per_second), (128, 1));
    assert_eq!((guard.bounds.requests, guard.bounds.body), (65_535, i64::MAX as u64));
    assert_eq!((guard.bounds.head.bytes, guard.bounds.head.fields), (512, 100));
    let many = format!("trusted_proxies = [{}]", "'::1',".repeat(limits::MAX_TRUSTED_PROXIES + 1));
    assert!(File::parse(&many).unwrap_err().contains("65 networks"));
}

#[test]
fn mistakes_are_named_with_line_and_key() {
    for (text, parts) in [
        ("listen = '[::]:1'\nlisten_port = 3\n", ["line 2", "listen_port"]),
        ("\n\nlisten = 'a:1'\n", ["line 3", "listen"]),
        ("admin = 'here'\n", ["line 1", "here"]),
        ("admin = 65536\n", ["line 1", "65536"]),
        ("admin = true\n", ["line 1", "`true` is neither"]),
        ("reuse_port = 1\n", ["line 1", "reuse_port"]),
        ("log = 'loud'\n", ["line 1", "loud"]),
        ("log_format = 'xml'\n", ["line 1", "xml"]),
        ("drain_timeout = 0\n", ["line 1", "drain_timeout"]),
        ("\nidle_timeout = 0\n", ["line 2", "idle_timeout"]),
        ("idle_timeout = 86401\n", ["line 1", "86401"]),
        ("max_clients = -1\n", ["line 1", "max_clients"]),
        ("server = 'nowhere'\n", ["line 1", "nowhere"]),
        ("server = 3\n", ["line 1", "server"]),
        ("server = []\n", ["line 1", "server"]),
        ("server = ['a:1', 'nowhere']\n", ["line 1", "nowhere"]),
        ("server = ['a:1', 'b:1', 'a:1']\n", ["line 1", "a:1 is there twice"]),
        ("links = 0\n", ["line 1", "1 to 64"]),
        ("links = 65\n", ["line 1", "1 to 64"]),
        ("server = ['a:1', 'tls://a:1']\n", ["line 1", "tls://a:1 is there twice"]),
        ("server = 'tls://unix:/s'\n", ["line 1", "a unix-domain socket needs no TLS: unix:/s"]),
        ("\nlink_name = 'a b'\n", ["line 2", "`a b` is neither a DNS name"]),
        ("allow_plain_link = 1\n", ["line 1", "allow_plain_link"]),
        ("\nlink_secret = 'short'\n", ["line 2", "16 to 1024 bytes, not 5"]),
        ("\nmax_body = 0\n", ["line 2", "max_body"]),
        ("max_head = 511\n", ["line 1", "from 512 to 16384"]),
        ("max_headers = 101\n", ["line 1", "from 1 to 100"]),
        ("max_requests_per_client = 65536\n", ["line 1", "from 1 to 65535"]),
        ("max_clients_per_address = 0\n", ["line 1", "max_clients_per_address"]),
        ("ipv6_prefix = 129\n", ["line 1", "from 1 to 128"]),
        ("trusted_proxies = ['10.0.0.0/8', '10.1.0.0/8']\n", ["line 1", "the network is 10.0.0.0/8"]),
        ("proxy_protocol = true\n", ["proxy_protocol", "trusted_proxies"]),
        ("require_tls = 1\n", ["line 1", "require_tls"]),
        ("[tls]\nlisten = 'a'\n", ["line 2", "`a`"]),
        ("[tls]\n\ncertificates = []\n", ["line 3", "certificates"]),
    ] {
        let error = File::parse(text).unwrap_err();
        for part in parts {
            assert!(error.contains(part), "{part}: {error}");
        }
    }
}

/// A port alone is one of the loopback address, as a number or a text.
#[test]
fn admin_addresses_are_local_unless_told() {
    let admin = |text: &str| File::parse(text).unwrap().admin.unwrap().0.to_string();
    assert_eq!(admin("admin = 9280"), "127.0.0.1:9280");
    assert_eq!(admin("admin = '9280'"), "127.0.0.1:9280");
    assert_eq!(admin("admin = '[::]:9280'"), "[::]:9280");
}

#[test]
fn several_servers_and_links() {
    let mut config = Config::new("a:1".parse().unwrap());
    let file = |links: usize| {
        File::parse(&format!(
            "server = ['a:1', 'unix:/s']\nlinks = {links}\nlink_secret = '{}'",
            "x".repeat(16)
        ))
        .unwrap()
    };
    config.apply(&file(limits::MAX_MANAGER_LINKS / 2)).unwrap();
    assert_eq!(config.servers, [Server::Tcp("a:1".to_owned()), Server::Unix("/s".into())]);
    assert_eq!(config.links, 32);
    assert_eq!(config.link_secret, Some(Secret::new(&[b'x'; 16]).unwrap()));
    assert!(config.apply(&file(limits::MAX_MANAGER_LINKS / 2 + 1)).unwrap_err().contains("66 links"));
    assert!(!format!("{config:?}").contains("xxx"));
}

#[test]
fn a_secret_has_a_file_of_its_own() {
    let path = std::env::temp_dir().join(format!("megaphone-ecm-secret-{}", std::process::id()));
    let text = format!("link_secret_file = '{}'", path.display());
    let mut config = Config::new("a:1".parse().unwrap());
    let missing = config.apply(&File::parse(&text).unwrap()).unwrap_err();
    assert!(missing.contains("megaphone-ecm-secret"), "{missing}");
    std::fs::write(&path, "sixteen bytes or more\n").unwrap();
    config.apply(&File::parse(&text).unwrap()).unwrap();
    assert_eq!(config.link_secret, Some(Secret::new(b"sixteen bytes or more").unwrap()));
    let both = format!("link_secret = '{}'\n{text}", "x".repeat(16));
    assert!(config.apply(&File::parse(&both).unwrap()).unwrap_err().contains("not both"));
    std::fs::write(&path, "fifteen bytes__\n\n").unwrap();
    let short = config.apply(&File::parse(&text).unwrap()).unwrap_err();
    assert!(short.contains("not 15") && !short.contains("fifteen"), "{short}");
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn servers_have_three_forms() {
    assert_eq!("a:1".parse(), Ok(Server::Tcp("a:1".to_owned())));
    assert_eq!("[::1]:6280".parse(), Ok(Server::Tcp("[::1]:6280".to_owned())));
    assert_eq!("tls://a:1".parse(), Ok(Server::Tls("a:1".to_owned())));
    for text in ["a:1", "[::1]:6280", "tls://[::1]:6280", "unix:/s"] {
        assert_eq!(text.parse::<Server>().unwrap().to_string(), text);
    }
    let unix = "tls://unix:/s".parse::<Server>().unwrap_err();
    assert!(unix.contains("a unix-domain socket needs no TLS"), "{unix}");
    for wrong in [
        "",
        "a",
        ":1",
        "a:0",
        "a:65536",
        "unix:",
        "tls://",
        "tls://a",
        "tls://:1",
        "tls:a:1",
        "TLS://a:1",
        "http://a:1",
    ] {
        assert!(wrong.parse::<Server>().is_err(), "{wrong}");
    }
}

/// A link that leaves the machine needs TLS, or leave to do without; one within it needs neither.
#[test]
fn plain_links_stay_on_the_machine() {
    let apply = |text: &str| {
        let mut config = Config::new("a:1".parse().unwrap());
        config.apply(&File::parse(text).unwrap())
    };
    for local in
        ["127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "[::ffff:127.0.0.1]:1", "0.0.0.0:1", "unix:/s", "name:1"]
    {
        apply(&format!("server = '{local}'")).unwrap();
    }
    for other in ["192.0.2.1:1", "[2001:db8::1]:1", "[::ffff:192.0.2.1]:1"] {
        let why = apply(&format!("server = ['127.0.0.1:1', '{other}']")).unwrap_err();
        assert!(why.contains(&format!("tls://{other}")) && why.contains("allow_plain_link = true"), "{why}");
        apply(&format!("server = '{other}'\nallow_plain_link = true")).unwrap();
    }
}

/// What TLS of links needs is there, or is asked for by its key's name.
#[test]
fn servers_with_tls_need_an_authority() {
    let made = rcgen::generate_simple_self_signed(vec!["a".to_owned()]).unwrap();
    let path = std::env::temp_dir().join(format!("megaphone-ecm-link-ca-{}", std::process::id()));
    let text =
        |server: &str, more: &str| format!("server = {server}\nlink_ca = '{}'\n{more}", path.display());
    let apply = |text: &str| {
        let mut config = Config::new("a:1".parse().unwrap());
        config.apply(&File::parse(text).unwrap()).map(|()| config)
    };
    let refused = |text: &str, part: &str| {
        let why = apply(text).unwrap_err();
        assert!(why.contains(part), "{why}");
    };
    refused("server = 'tls://a:1'", "server tls://a:1 needs `link_ca`");
    refused("server = 'tls://a:1'\nlink_name = 'b'", "needs `link_ca`");
    refused("link_name = 'b'", "write tls://HOST:PORT");
    refused(&text("'a:1'", ""), "write tls://HOST:PORT");
    refused(&text("'tls://a:1'", ""), &format!("cannot read link_ca {}", path.display()));
    std::fs::write(&path, "no certificate").unwrap();
    refused(&text("'tls://a:1'", ""), "no PEM block `BEGIN CERTIFICATE`");
    std::fs::write(&path, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
    refused(&text("'tls://a:1'", ""), &format!("in link_ca {}", path.display()));
    std::fs::write(&path, made.cert.pem() + &made.cert.pem()).unwrap();
    let trust = apply(&text("['tls://a:1', 'unix:/s']", "")).unwrap().link_trust.unwrap();
    assert_eq!(trust.authorities(), 2);
    for (address, name) in
        [("a:1", "a"), ("a.example:1", "a.example"), ("[::1]:1", "::1"), ("192.0.2.1:1", "192.0.2.1")]
    {
        assert_eq!(trust.name_of(address).unwrap().to_str(), name);
    }
    refused(&text("'tls://a b:1'", ""), "no certificate can have the name `a b`");
    let trust = apply(&text("'tls://a b:1'", "link_name = 'c.example'")).unwrap().link_trust.unwrap();
    assert_eq!(trust.name_of("a b:1").unwrap().to_str(), "c.example");
    std::fs::remove_file(&path).unwrap();
}
