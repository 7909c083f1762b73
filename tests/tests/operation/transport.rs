//! TLS with client certificates and reload, and the PROXY protocol.

use std::net::TcpStream;
use std::process::Command;

use hoopoe_tests::broker::Options;
use hoopoe_tests::certificate::Certificates;
use hoopoe_tests::program::Program;
use hoopoe_tests::{
    Broker, Connect, Packet, RawClient, Received, Version, tls, unique_id, unique_topic,
};

fn secure(more: &str) -> (Broker, Certificates) {
    let options = Options::new().no_listeners();
    let certificates = Certificates::generate(options.folder());
    let text = format!(
        "[[listener]]\nurl = \"tls://127.0.0.1:0\"\n[listener.tls]\ncert = {:?}\nkey = {:?}\n{}",
        certificates.server,
        certificates.server_key,
        more.replace("AUTHORITY", &certificates.authority.display().to_string()),
    );
    (options.configuration(&text).start(), certificates)
}

fn accepted(client: &mut RawClient) -> bool {
    let answer = client.try_login(&Connect::v5(&unique_id("tls")));
    matches!(answer, Received::Packet(Packet::ConnAck(connack)) if connack.code == 0)
}

#[test]
fn tls_1_2_and_1_3_are_spoken() {
    let (broker, certificates) = secure("");
    const TLS12: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS12];
    const TLS13: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS13];
    for versions in [TLS12, TLS13] {
        let mut options = tls::Options::trusting(&certificates.authority);
        options.versions = versions;
        let link = tls::connect(broker.address("tls"), &options).expect("a TLS connection");
        assert!(accepted(&mut RawClient::over(Box::new(link), Version::V5)));
    }
}

#[test]
fn plain_bytes_on_a_tls_listener_are_no_client() {
    let (broker, _) = secure("");
    let mut client = RawClient::open(broker.address("tls"), Version::V5);
    client.send(&Connect::v5(&unique_id("plain")).encode());
    // At most a TLS alert, never a CONNACK.
    let answer = client.read_to_end();
    assert!(answer.first().is_none_or(|byte| *byte == 0x15), "{answer:02x?}");
}

#[test]
fn client_certificate_can_be_required() {
    let more = "client_ca = \"AUTHORITY\"\nrequire_client_cert = true\n";
    let (broker, certificates) = secure(more);
    let with = tls::Options::trusting(&certificates.authority)
        .with_client(&certificates.client, &certificates.client_key);
    let link = tls::connect(broker.address("tls"), &with).expect("a TLS connection");
    assert!(accepted(&mut RawClient::over(Box::new(link), Version::V5)));
    // Without one the handshake fails, in TLS 1.3 at the first read.
    let without = tls::Options::trusting(&certificates.authority);
    if let Ok(link) = tls::connect(broker.address("tls"), &without) {
        let mut client = RawClient::over(Box::new(link), Version::V5);
        client.send(&Connect::v5(&unique_id("bare")).encode());
        assert!(client.read_to_end().is_empty());
    }
}

#[test]
fn subject_of_a_certificate_can_be_the_user() {
    let options = Options::new().no_listeners();
    let certificates = Certificates::generate(options.folder());
    let rules = options.folder().join("rules");
    std::fs::write(&rules, "user certified\n  allow both mine/%u/#\n").expect("a file");
    let text = format!(
        "[access]\nrules_file = {rules:?}\n[[listener]]\nurl = \"tls://127.0.0.1:0\"\n\
         [listener.tls]\ncert = {:?}\nkey = {:?}\nclient_ca = {:?}\nrequire_client_cert = true\n\
         subject_as_user = true\n",
        certificates.server, certificates.server_key, certificates.authority,
    );
    let broker = options.configuration(&text).start();
    let with = tls::Options::trusting(&certificates.authority)
        .with_client(&certificates.client, &certificates.client_key);
    let link = tls::connect(broker.address("tls"), &with).expect("a TLS connection");
    let mut client = RawClient::over(Box::new(link), Version::V5);
    client.login(&Connect::v5(&unique_id("subject")));
    client.subscribe("mine/certified/#", 1);
    assert!(client.try_subscribe("mine/another/#", 1) >= 0x80);
}

#[test]
fn certificate_is_renewed_on_sighup_without_a_connection_lost() {
    let (broker, first) = secure("");
    let address = broker.address("tls");
    let old = tls::Options::trusting(&first.authority);
    let link = tls::connect(address, &old).expect("a TLS connection");
    let mut before = RawClient::over(Box::new(link), Version::V5);
    before.login(&Connect::v5(&unique_id("before")));
    // Another authority signs a new certificate into the same files.
    let second = Certificates::generate(broker.folder());
    assert_eq!(first.server, second.server);
    broker.signal("HUP");
    let new = tls::Options::trusting(&second.authority);
    hoopoe_tests::eventually("the new certificate is shown", || {
        tls::connect(address, &new).is_ok()
    });
    before.ping();
    let link = tls::connect(address, &new).expect("a TLS connection");
    assert!(accepted(&mut RawClient::over(Box::new(link), Version::V5)));
}

#[test]
fn mosquitto_speaks_tls_with_the_broker() {
    let (broker, certificates) = secure("");
    let topic = unique_topic("tls");
    let mut command = Command::new("mosquitto_pub");
    command.args(["-h", "localhost", "-p", &broker.address("tls").port().to_string()]);
    command.arg("--cafile").arg(&certificates.authority);
    command.args(["-t", &topic, "-m", "hello", "-q", "1", "-r"]);
    Program::start(command).succeed();
    let options = tls::Options::trusting(&certificates.authority);
    let link = tls::connect(broker.address("tls"), &options).expect("a TLS connection");
    let mut client = RawClient::over(Box::new(link), Version::V311);
    client.login(&Connect::v311(&unique_id("tls")));
    client.subscribe(&topic, 1);
    client.expect_message(&topic, "hello");
}

fn behind_a_proxy(trusted: &str) -> Broker {
    let text = format!(
        "[access]\nanonymous = true\n[[listener]]\nurl = \"tcp://127.0.0.1:0\"\n\
         proxy_protocol = \"on\"\ntrusted_proxies = [\"{trusted}\"]\n"
    );
    Options::new().no_listeners().configuration(&text).start()
}

const V1: &[u8] = b"PROXY TCP4 203.0.113.9 198.51.100.1 40000 1883\r\n";

fn v2() -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    header.extend_from_slice(&[0x21, 0x11, 0, 12]);
    header.extend_from_slice(&[203, 0, 113, 9, 198, 51, 100, 1, 0x9C, 0x40, 0x07, 0x5B]);
    header
}

#[test]
fn proxy_header_is_read_before_mqtt() {
    for header in [V1.to_vec(), v2()] {
        let broker = behind_a_proxy("127.0.0.0/8");
        // In one piece with CONNECT, and byte by byte.
        let connect = Connect::v5(&unique_id("proxy")).encode();
        let mut whole = RawClient::open(broker.tcp(), Version::V5);
        whole.send(&[header.as_slice(), &connect].concat());
        assert!(matches!(whole.next_packet(), Packet::ConnAck(connack) if connack.code == 0));
        let mut split = RawClient::open(broker.tcp(), Version::V5);
        for byte in [header.as_slice(), &connect].concat() {
            split.send(&[byte]);
        }
        assert!(matches!(split.next_packet(), Packet::ConnAck(connack) if connack.code == 0));
    }
}

#[test]
fn connection_without_its_proxy_header_is_closed() {
    let broker = behind_a_proxy("127.0.0.1");
    let mut client = RawClient::open(broker.tcp(), Version::V5);
    client.send(&Connect::v5(&unique_id("bare")).encode());
    assert!(client.read_to_end().is_empty());
}

#[test]
fn proxy_header_from_a_stranger_is_refused() {
    let broker = behind_a_proxy("192.0.2.7");
    let mut client = RawClient::open(broker.tcp(), Version::V5);
    client.send(&[V1, &Connect::v5(&unique_id("stranger")).encode()].concat());
    assert!(client.read_to_end().is_empty());
    // The port answers, nothing more.
    drop(TcpStream::connect(broker.tcp()).expect("the listener is there"));
}
