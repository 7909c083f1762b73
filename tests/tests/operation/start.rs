//! Starts that work, starts that must not, and stops.

use std::net::TcpListener;

use hoopoe_tests::broker::Options;
use hoopoe_tests::wire::code;
use hoopoe_tests::{Broker, Connect, Publish, Version, program, unique_id, unique_topic};

/// Starts with these options, which must fail; returns what was said.
fn refuses(options: &Options) -> String {
    let (status, said) = options.run_to_end();
    assert!(!status.success(), "it started:\n{said}");
    said
}

#[test]
fn port_in_use_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = taken.local_addr().expect("it is bound");
    let options = Options::new().no_listeners().listener(&format!("tcp://{address}"));
    let said = refuses(&options);
    assert!(said.contains(&address.to_string()), "{said}");
}

#[test]
fn data_folder_of_a_running_broker_is_refused() {
    let options = Options::new();
    let second = options.clone();
    let broker = options.start();
    let said = refuses(&second);
    assert!(said.contains("data"), "{said}");
    broker.v5().ping();
}

#[test]
fn data_folder_that_is_a_file_is_refused() {
    let options = Options::new();
    std::fs::write(options.folder().join("data"), "not a folder").expect("a file can be written");
    let said = refuses(&options);
    assert!(said.contains("data"), "{said}");
}

#[test]
fn mistakes_in_the_settings_are_named() {
    for (text, wanted) in [
        ("[mqtt]\nmax_pakcet_bytes = 1\n", "max_pakcet_bytes"),
        ("[mqtt]\nmax_packet_bytes = \"much\"\n", "max_packet_bytes"),
        ("[mqtt]\nmax_qos = 3\n", "max_qos"),
        ("[broker\n", "hoopoe.toml:1"),
        ("[[listener]]\nurl = \"tls://127.0.0.1:0\"\n", "tls"),
    ] {
        let said = refuses(&Options::new().no_listeners().configuration(text));
        assert!(said.contains(wanted), "{wanted:?} in: {said}");
    }
    let said = refuses(&Options::new().environment("HOOPOE_MQTT__MAX_QOS", "seven"));
    assert!(said.contains("HOOPOE_MQTT__MAX_QOS"), "{said}");
}

#[test]
fn check_says_what_is_wrong_and_config_shows_what_holds() {
    let options = Options::new().configuration("[mqtt]\nmax_qos = 1\n");
    let file = options.folder().join("hoopoe.toml");
    let run = |verb: &str| {
        let mut command = program::hoopoe_command();
        command.args([verb, "--config"]).arg(&file);
        program::run_to_end(command)
    };
    assert!(run("check").0.success());
    let (status, shown) = run("config");
    assert!(status.success() && shown.contains("max_qos = 1"), "{shown}");
    std::fs::write(&file, "[mqtt]\nmax_qso = 1\n").expect("a file can be written");
    let (status, said) = run("check");
    assert_eq!(status.code(), Some(1));
    assert!(said.contains("max_qso") && said.contains('2'), "key and line: {said}");
}

#[test]
fn listener_open_to_the_network_needs_users_or_a_word() {
    let open = "tcp://0.0.0.0:0";
    let said = refuses(&Options::new().no_listeners().listener(open));
    assert!(said.contains("anonymous"), "{said}");
    let broker = Options::new().no_listeners().listener(open).argument("--anonymous").start();
    let port = broker.tcp().port();
    let address = format!("127.0.0.1:{port}").parse().expect("an address");
    hoopoe_tests::RawClient::connect(address, &Connect::v5(&unique_id("open"))).ping();
}

#[test]
fn bad_certificates_are_named() {
    let options = Options::new().no_listeners();
    let certificate = options.folder().join("server.pem");
    std::fs::write(&certificate, "no certificate").expect("a file can be written");
    let text = format!(
        "[[listener]]\nurl = \"tls://127.0.0.1:0\"\n[listener.tls]\ncert = {certificate:?}\n\
         key = {certificate:?}\n"
    );
    let said = refuses(&options.configuration(&text));
    assert!(said.contains("server.pem"), "{said}");
}

#[test]
fn stop_finishes_what_was_acknowledged_and_tells_the_clients() {
    let mut broker = Broker::start();
    let topic = unique_topic("drain");
    let connect = Connect::persistent(Version::V5, &unique_id("drain"));
    let mut subscriber = broker.connect(&connect);
    subscriber.subscribe(&topic, 1);
    subscriber.disconnect();
    let mut publisher = broker.v5();
    for number in 0..50u8 {
        publisher.publish(Publish::new(&topic, [number]).qos(1));
    }
    let mut idle = broker.v311();
    assert!(broker.stop().success());
    publisher.expect_disconnect(code::SERVER_SHUTTING_DOWN);
    assert_eq!(idle.expect_closed(), None);
    broker.start_again();
    let mut back = broker.connect(&connect);
    for number in 0..50u8 {
        back.expect_message(&topic, [number]);
    }
}

#[test]
fn version_and_help_are_for_people() {
    let run = |arguments: &[&str]| {
        let mut command = program::hoopoe_command();
        command.args(arguments);
        program::run_to_end(command)
    };
    let (status, said) = run(&["--version"]);
    assert!(status.success() && said.starts_with("hoopoe "), "{said}");
    let (status, said) = run(&["--help"]);
    assert!(status.success() && said.contains("serve") && said.contains("mosquitto_sub"), "{said}");
    let (status, said) = run(&["completions", "bash"]);
    assert!(status.success() && said.contains("hoopoe"), "completions");
    let (status, said) = run(&["serve", "--none-such"]);
    assert!(!status.success() && said.contains("--none-such"), "{said}");
}

/// Without these two the program works as well, and keeps what it has once had.
#[test]
fn memory_is_given_back_after_a_second() {
    let mut command = program::hoopoe_command();
    command.arg("--version").env("MALLOC_CONF", "confirm_conf:true");
    let (status, said) = program::run_to_end(command);
    assert!(status.success(), "{said}");
    for setting in ["background_thread:true", "dirty_decay_ms:1000"] {
        assert!(said.contains(&format!("Set conf value: {setting}")), "not set:\n{said}");
    }
}
