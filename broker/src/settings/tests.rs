//! Loading, the manual, and what is found wrong.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde::de::{self, Visitor};
use serde::forward_to_deserialize_any;

use super::*;

const MANUAL: &str = include_str!("../../../config/hoopoe.toml");

/// The manual with its defaults in force, and on request its examples too.
fn uncommented(with_examples: bool) -> String {
    let line = |line: &str| match (line.strip_prefix("## "), line.strip_prefix("# ")) {
        (Some(example), _) if with_examples => Some(example.to_owned()),
        (None, Some(shown)) if is_setting(shown) => Some(shown.to_owned()),
        (None, None) => Some(line.to_owned()),
        _ => None,
    };
    MANUAL.lines().filter_map(line).collect::<Vec<_>>().join("\n")
}

/// `key = value`, `[section]` or `[[section]]`; not prose, nor the samples indented under it.
fn is_setting(line: &str) -> bool {
    let key = line.split(" = ").next().unwrap_or("");
    let is_key =
        key.bytes().all(|byte| byte.is_ascii_lowercase() || b"_0123456789".contains(&byte));
    (line.contains(" = ") && is_key) || (line.starts_with('[') && line.ends_with(']'))
}

/// The names a struct of settings is deserialised from.
fn keys_of<'de, T: Deserialize<'de>>() -> Vec<&'static str> {
    struct Fields<'a>(&'a mut Vec<&'static str>);
    impl<'de> de::Deserializer<'de> for Fields<'_> {
        type Error = de::value::Error;
        fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Self::Error> {
            Err(de::Error::custom("not a struct"))
        }
        fn deserialize_struct<V: Visitor<'de>>(
            self,
            _: &'static str,
            fields: &'static [&'static str],
            _: V,
        ) -> Result<V::Value, Self::Error> {
            self.0.extend(fields);
            Err(de::Error::custom("seen"))
        }
        forward_to_deserialize_any! {
            bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf option unit
            unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
        }
    }
    let mut names = Vec::new();
    assert!(T::deserialize(Fields(&mut names)).is_err());
    names
}

/// Every key there is, in full: `mqtt.max_qos`, `listener.tls.cert`.
fn all_keys() -> BTreeSet<String> {
    let sections: [(&str, Vec<&str>); 23] = [
        ("broker", keys_of::<BrokerSettings>()),
        ("http", keys_of::<HttpSettings>()),
        ("mqtt", keys_of::<MqttSettings>()),
        ("queue", keys_of::<QueueSettings>()),
        ("limits", keys_of::<LimitSettings>()),
        ("access", keys_of::<AccessSettings>()),
        ("log", keys_of::<LogSettings>()),
        ("im", keys_of::<ImSection>()),
        ("im.retention", keys_of::<RetentionSettings>()),
        ("im.retention_big", keys_of::<RetentionSettings>()),
        ("im.rooms", keys_of::<RoomsSection>()),
        ("im.overload", keys_of::<OverloadSection>()),
        ("im.hook", keys_of::<HookSettings>()),
        ("im.push", keys_of::<PushSettings>()),
        ("im.tenant", keys_of::<TenantSection>()),
        ("im.site", keys_of::<SiteSection>()),
        ("im.site.home", keys_of::<SiteHome>()),
        ("im.site.link", keys_of::<SiteLink>()),
        ("listener", keys_of::<Listener>()),
        ("listener.limits", keys_of::<ListenerLimits>()),
        ("listener.tls", keys_of::<TlsSettings>()),
        ("bridge", keys_of::<BridgeSettings>()),
        ("bridge.rule", keys_of::<BridgeRule>()),
    ];
    let known: BTreeSet<&str> = sections.iter().map(|(section, _)| *section).collect();
    assert!(keys_of::<Settings>().iter().all(|section| known.contains(section)));
    let key = |section: &str, name: &&str| format!("{section}.{name}");
    let keys = sections.iter().flat_map(|(section, names)| names.iter().map(|n| key(section, n)));
    keys.filter(|key| !known.contains(key.as_str())).collect()
}

#[test]
fn the_manual_shows_the_defaults() {
    let shown: Settings = toml::from_str(&uncommented(false)).unwrap();
    assert_eq!(shown, Settings::default());
    let untouched: Settings = toml::from_str(MANUAL).unwrap();
    assert_eq!(untouched, Settings::default());
}

#[test]
fn the_manual_knows_every_key_and_says_something_about_it() {
    let text = uncommented(true);
    toml::from_str::<Settings>(&text).unwrap();
    let (mut section, mut described) = (String::new(), false);
    let mut found = BTreeSet::new();
    for line in MANUAL.lines() {
        let shown = line.trim_start_matches('#').trim_start();
        if shown.starts_with('[') && is_setting(shown) {
            section = shown.trim_matches(['[', ']']).to_owned();
        } else if is_setting(shown) && line.starts_with('#') && !line.starts_with("#  ") {
            let key = format!("{section}.{}", shown.split(" = ").next().unwrap());
            // The limits of a listener are described where they come from.
            assert!(described || section == "listener.limits", "{key} is not described");
            found.insert(key);
            described = false;
            continue;
        }
        described = line.starts_with('#');
    }
    assert_eq!(found, all_keys());
}

#[test]
fn the_link_of_the_readme_is_sound() {
    let readme = include_str!("../../../README.md");
    let text = readme.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let settings: Settings = toml::from_str(text).unwrap();
    assert_eq!(settings.validate(), []);
    assert_eq!(settings.bridge[0].rule.len(), 2);
    assert!(text.lines().count() <= 10);
}

#[test]
fn no_password_of_a_link_is_printed() {
    let mut settings = Settings::default();
    let secret: BridgeSettings = toml::from_str("password = 'hush'").unwrap();
    settings.bridge.push(secret);
    assert!(!settings.to_toml().unwrap().contains("hush"));
    assert!(!format!("{settings:?}").contains("hush"));
}

#[test]
fn the_defaults_are_sound_and_survive_being_written() {
    let settings = Settings::default();
    assert_eq!(settings.validate(), []);
    assert_eq!(settings.notes(), Vec::<String>::new());
    assert_eq!(toml::from_str::<Settings>(&settings.to_toml().unwrap()).unwrap(), settings);
}

/// Loads a text as a file called `t.toml`.
fn load(text: &str, environment: &[(&str, &str)], flags: &Flags) -> Result<Settings, String> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("t.toml");
    fs::write(&file, text).unwrap();
    Settings::load(Some(&file), environment.iter().copied(), flags).map_err(|error| {
        error.to_string().replace(&folder.path().join("").display().to_string(), "")
    })
}

#[test]
fn the_environment_overrides_the_file_and_flags_override_both() {
    let text = "
        [broker]
        workers = 1
        name = 'file'
        [mqtt]
        max_qos = 1
        [[listener]]
        url = 'tcp://127.0.0.1:7'
        max_connections = 9
        [[listener]]
        url = 'tcp://127.0.0.1:8'
    ";
    let environment = [
        ("HOOPOE_BROKER__WORKERS", "2"),
        ("HOOPOE_BROKER__SHARDS", "2"),
        ("HOOPOE_BROKER__NAME", "0815"),
        ("HOOPOE_ACCESS__ANONYMOUS", "true"),
        ("HOOPOE_ACCESS__USERS_FILE", "users"),
        ("HOOPOE_HTTP__ADDRESS", "off"),
        ("HOOPOE_CONFIG", "elsewhere.toml"),
        ("HOOPOE_PORT", "tcp://10.0.0.1:1883"),
        ("HOOPOE_PORT_1883_TCP_ADDR", "10.0.0.1"),
        ("HOOPOE_SERVICE_HOST", "10.0.0.1"),
        ("HOOPOE_SERVICE_PORT_MQTT", "1883"),
        ("HOOPOE_WEB_SERVICE_HOST", "10.0.0.1"),
        ("PATH", "/bin"),
    ];
    let flags = Flags {
        data_dir: Some("elsewhere".into()),
        listen: vec!["tcp://127.0.0.1:7".parse().unwrap(), "ws://127.0.0.1:9".parse().unwrap()],
        shards: Some(3),
        durability: Some(Durability::Os),
        ..Flags::default()
    };
    let settings = load(text, &environment, &flags).unwrap();
    assert_eq!(settings.broker.workers, 2);
    assert_eq!(settings.broker.shards, 3);
    assert_eq!(settings.broker.name, "0815");
    assert_eq!(settings.broker.data_dir, Path::new("elsewhere"));
    assert_eq!(settings.broker.durability, Durability::Os);
    assert_eq!(settings.mqtt.max_qos, 1);
    assert_eq!(settings.mqtt.max_subscriptions, 1000);
    assert_eq!(settings.http.address, HttpAddress::Off);
    assert_eq!(settings.access.anonymous, Some(true));
    assert_eq!(settings.access.users_file, Some(PathBuf::from("users")));
    let mut first = Listener::at("tcp://127.0.0.1:7".parse().unwrap());
    first.max_connections = 9;
    let second = Listener::at("ws://127.0.0.1:9/mqtt".parse().unwrap());
    assert_eq!(settings.listener, [first, second]);
}

#[test]
fn listeners_can_come_from_the_environment() {
    let listeners = "[{url=\"tcp://127.0.0.1:1\"}, {url=\"ws://127.0.0.1:2\", im=false}]";
    let settings = load("", &[("HOOPOE_LISTENER", listeners)], &Flags::default()).unwrap();
    assert_eq!(settings.listener.len(), 2);
    assert!(settings.listener[0].im && !settings.listener[1].im);
}

#[test]
fn what_is_wrong_in_the_file_is_named_with_line_and_key() {
    let cases = [
        ("[mqtt]\nmax_pakcet = 1", "t.toml:2:1: mqtt.max_pakcet: unknown field `max_pakcet`"),
        (
            "[mqtt]\nmax_qos = 'x'",
            "t.toml:2:11: mqtt.max_qos: invalid type: string \"x\", expected a whole number from 0",
        ),
        ("[mqtt]\nmax_qos = 300", "t.toml:2:11: mqtt.max_qos: invalid value: integer `300`"),
        ("[mqtt\n", "t.toml:1:6: "),
        ("[limit]\nx = 1", "t.toml:1:2: limit: unknown field `limit`"),
        ("\n[[listener]]\nim = true", "t.toml:2:1: listener[0]: missing field `url`"),
        (
            "[[listener]]\nurl = 'mqtt://x:1'",
            "t.toml:2:7: listener[0].url: `mqtt://x:1` is no transport",
        ),
        (
            "[[listener]]\nurl = 'tls://127.0.0.1:1'\ntls = { crt = 'a' }",
            "t.toml:3:9: listener[0].tls.crt: unknown field `crt`",
        ),
        ("[broker]\ndurability = 'disk'", "t.toml:2:14: broker.durability: unknown variant `disk`"),
        ("a = 1\na = 2", "t.toml:2:1: duplicate key"),
    ];
    for (text, expected) in cases {
        let error = load(text, &[], &Flags::default()).unwrap_err();
        assert!(error.starts_with(expected), "{text}\n  gave {error}\n  not  {expected}");
        assert!(!error.contains('\n'), "{error}");
    }
}

#[test]
fn what_is_wrong_in_the_environment_is_named_with_its_variable() {
    let cases = [
        ("HOOPOE_MQTT__MAX_QOS", "x", "HOOPOE_MQTT__MAX_QOS: mqtt.max_qos: "),
        (
            "HOOPOE_MQTT__MAX_PAKCET",
            "1",
            "HOOPOE_MQTT__MAX_PAKCET: mqtt.max_pakcet: unknown field `",
        ),
        ("HOOPOE_MQTTT__MAX_QOS", "1", "HOOPOE_MQTTT__MAX_QOS: mqttt: unknown field"),
        ("HOOPOE_DATA", "x", "HOOPOE_DATA: data: unknown field"),
        ("HOOPOE_MQTT_PORT", "1884", "HOOPOE_MQTT_PORT: mqtt_port: unknown field"),
        (
            "HOOPOE_HTTP__ADDRESS",
            "8080",
            "HOOPOE_HTTP__ADDRESS: http.address: `8080` names no port",
        ),
        ("HOOPOE_BROKER__DURABILITY", "x", "HOOPOE_BROKER__DURABILITY: broker.durability: unknown"),
    ];
    for (name, value, expected) in cases {
        let error = load("", &[(name, value)], &Flags::default()).unwrap_err();
        let expected = format!("environment variable {expected}");
        assert!(error.starts_with(&expected), "{name}\n  gave {error}\n  not  {expected}");
    }
}

#[test]
fn all_contradictions_are_told_at_once_each_with_its_place() {
    let text = "
[mqtt]
max_qos = 3
[[listener]]
url = 'tls://127.0.0.1:1'
";
    let flags = Flags { workers: Some(999), ..Flags::default() };
    let error = load(text, &[("HOOPOE_LIMITS__BURST_SECS", "0")], &flags).unwrap_err();
    let lines: Vec<&str> = error.lines().collect();
    let expected = [
        "flag --workers: broker.workers: 999 is out of range",
        "environment variable HOOPOE_LIMITS__BURST_SECS: limits.burst_secs: 0 is out of range",
        "t.toml:3:1: mqtt.max_qos: 3 is no QoS",
        "t.toml:4:1: listener[0].tls: tls://127.0.0.1:1 needs a certificate",
    ];
    assert_eq!(lines.len(), expected.len(), "{error}");
    for (line, expected) in lines.iter().zip(expected) {
        assert!(line.starts_with(expected), "{line}\n  is not {expected}");
    }
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let error = Settings::load(Some(Path::new("/no/such.toml")), [], &Flags::default());
    assert!(error.unwrap_err().to_string().starts_with("/no/such.toml: cannot read"));
}

#[test]
fn every_contradiction_is_found() {
    let tls = "tls = { cert = 'c', key = 'k'";
    let cases: Vec<(String, &str)> = [
        ("[broker]\nname = ''", "broker.name"),
        ("[broker]\ndata_dir = ''", "broker.data_dir"),
        ("[broker]\nshards = 257", "broker.shards"),
        ("[access]\nhash_threads = 0", "access.hash_threads"),
        ("[access]\nhash_queue = 0", "access.hash_queue"),
        ("[access]\nanonymous = false", "access.anonymous"),
        ("[mqtt]\nmax_packet_bytes = 10", "mqtt.max_packet_bytes"),
        ("[mqtt]\nreceive_maximum = 0", "mqtt.receive_maximum"),
        ("[mqtt]\nmax_client_id_bytes = 22", "mqtt.max_client_id_bytes"),
        ("[mqtt]\nmax_retained = 0", "mqtt.max_retained"),
        ("[queue]\nmax_bytes = 1000", "queue.max_bytes"),
        ("[queue]\nmax_messages = 0", "queue.max_messages"),
        ("[limits]\nwrite_buffer_bytes = 1000", "limits.write_buffer_bytes"),
        ("listener = []", "listener"),
        ("[http]\naddress = '127.0.0.1:1883'", "listener[0].url"),
        ("[[listener]]\nurl = 'tcp://0.0.0.0:1883'", "listener[0].url"),
        ("[[listener]]\nurl = 'tcp://broker.example:1883'", "listener[0].url"),
        (
            "[[listener]]\nurl = 'tcp://127.0.0.1:1'\n[[listener]]\nurl = 'ws://127.0.0.1:1'",
            "listener[1].url",
        ),
        ("[[listener]]\nurl = 'wss://127.0.0.1:1'", "listener[0].tls"),
        (
            "[[listener]]\nurl = 'tcp://127.0.0.1:1'\nlimits.max_packet_bytes = 1",
            "listener[0].limits.max_packet_bytes",
        ),
        (
            "[[listener]]\nurl = 'tcp://127.0.0.1:1'\nlimits.max_topic_levels = 0",
            "listener[0].limits.max_topic_levels",
        ),
        (
            "[[listener]]\nurl = 'tcp://127.0.0.1:1'\nlimits.max_packet_bytes = 3000000",
            "limits.write_buffer_bytes",
        ),
        (
            "[[listener]]\nurl = 'tcp://127.0.0.1:1'\nconnect_timeout_secs = 0",
            "listener[0].connect_timeout_secs",
        ),
        ("[[listener]]\nurl = 'tcp://127.0.0.1:1'\norigins = ['*']", "listener[0].origins"),
        ("[[listener]]\nurl = 'ws://127.0.0.1:1'\norigins = ['chat']", "listener[0].origins[0]"),
        (
            "[[listener]]\nurl = 'tcp://127.0.0.1:1'\ntrusted_proxies = ['10.0.0.1']",
            "listener[0].proxy_protocol",
        ),
        (
            "[[listener]]\nurl = 'tcp://127.0.0.1:1'\nanonymous = true\nproxy_protocol = 'on'",
            "listener[0].trusted_proxies",
        ),
        (
            "[[listener]]\nurl = 'tcp://127.0.0.1:1'\nproxy_protocol = 'on'\n\
             trusted_proxies = ['127.0.0.1']",
            "listener[0].url",
        ),
    ]
    .map(|(text, key)| (text.to_owned(), key))
    .into_iter()
    .chain([
        (format!("[[listener]]\nurl = 'tcp://127.0.0.1:1'\n{tls} }}"), "listener[0].tls"),
        (
            format!(
                "[[listener]]\nurl = 'tls://127.0.0.1:1'\n{tls}, require_client_cert = true }}"
            ),
            "listener[0].tls.require_client_cert",
        ),
        (
            format!("[[listener]]\nurl = 'tls://127.0.0.1:1'\n{tls}, subject_as_user = true }}"),
            "listener[0].tls.subject_as_user",
        ),
    ])
    .collect();
    for (text, key) in cases {
        let settings: Settings = toml::from_str(&text).unwrap();
        let found: Vec<String> = settings.validate().into_iter().map(|found| found.key).collect();
        assert_eq!(found, [key], "{text}");
    }
}

#[test]
fn an_open_network_listener_can_be_permitted_in_each_of_its_ways() {
    let network = "[[listener]]\nurl = 'tcp://0.0.0.0:1883'\n";
    let error = load(network, &[], &Flags::default()).unwrap_err();
    assert!(error.contains("--anonymous") && error.contains("`anonymous = true`"), "{error}");
    let flag = Flags { anonymous: true, ..Flags::default() };
    assert!(load(network, &[], &flag).is_ok());
    let certificates = "[[listener]]\nurl = 'tls://0.0.0.0:8883'\n\
        tls = { cert = 'c', key = 'k', client_ca = 'a', subject_as_user = true }";
    for text in [
        &format!("{network}anonymous = true"),
        &format!("{network}[access]\nanonymous = true"),
        &format!("{network}[access]\nusers_file = 'users'"),
        certificates,
    ] {
        assert!(load(text, &[], &Flags::default()).is_ok(), "{text}");
    }
}

#[test]
fn doubtful_settings_are_noted() {
    let note = |text: &str| toml::from_str::<Settings>(text).unwrap().notes().join("\n");
    assert!(note("[access]\nusers_file = 'u'").contains("whatever no rule allows is denied"));
    let network = "[[listener]]\nurl = 'tcp://0.0.0.0:1883'\n";
    assert!(note(&format!("{network}anonymous = true")).contains("without a login"));
    let with_users = format!("{network}[access]\nusers_file = 'u'\nrules_file = 'r'");
    assert!(note(&with_users).contains("passwords unencrypted"));
}

/// Every key with another value than its default.
const ALL_CHANGED: &str = "
        [broker]
        id = 'x'
        name = 'x'
        data_dir = 'x'
        durability = 'os'
        workers = 1
        shards = 1
        shutdown_grace_secs = 1
        restart_grace_secs = 1
        [http]
        address = 'off'
        admin_token = 'x'
        admin_token_file = 'x'
        origins = ['*']
        requests_per_sec = 1
        request_burst = 1
        [im]
        contact_policy = 'roster'
        device_policy = 'single'
        devices_per_user = 1
        payload_max_bytes = 1
        sends_per_sec = 1
        send_burst = 1
        signal_max_bytes = 1
        signals_per_sec = 1
        groups_per_user = 1
        channels_per_user = 1
        small_group_members = 1
        group_members_max = 1
        invite_consent = true
        recall_window_secs = 1
        reactions_per_message = 1
        mentions_per_message = 1
        pending_requests = 1
        roster_per_user = 1
        dedup_window_secs = 1
        dedup_window_entries = 1
        device_keep_secs = 1
        sweep_interval_secs = 1
        replay_per_conversation = 1
        presence_watches = 1
        big_group_per_sec = 1
        presence_grace_secs = 1
        [im.retention]
        age_secs = 1
        entries = 1
        bytes = 1
        [im.retention_big]
        age_secs = 1
        entries = 1
        bytes = 1
        [im.rooms]
        auto_create = false
        ring_messages = 1
        ring_bytes = 1
        chat_per_sec = 1
        hi_per_sec = 1
        joined_per_user = 1
        owned_per_user = 1
        max_rooms = 1
        [im.overload]
        commit_lag_ms = 1
        memory_max_bytes = 1
        shed_at_percent = [1, 2, 3, 4, 5, 6, 7, 8]
        [im.push]
        url = 'https://127.0.0.1:1/'
        ca_file = 'x'
        secret = 'x'
        after_secs = 1
        max_age_secs = 1
        batch_max = 1
        payload = true
        payload_max_bytes = 1
        connections = 1
        timeout_ms = 1
        retry_first_ms = 1
        retry_max_secs = 1
        attempts_max = 1
        [im.hook]
        url = 'https://127.0.0.1:1/'
        ca_file = 'x'
        token = 'x'
        timeout_ms = 1
        on_failure = 'closed'
        connections = 1
        [mqtt]
        max_packet_bytes = 1000
        max_qos = 1
        keep_alive_max_secs = 1
        session_expiry_max_secs = 1
        receive_maximum = 1
        inflight_v311 = 1
        inflight_v5_max = 1
        topic_alias_max = 1
        max_topic_levels = 1
        max_topic_bytes = 1
        max_client_id_bytes = 100
        max_subscriptions = 1
        retain_available = false
        max_retained = 1
        wildcard_available = false
        shared_available = false
        sys_interval_secs = 1
        [queue]
        max_messages = 1
        max_bytes = 1
        policy = 'refuse'
        [limits]
        max_connections = 1
        connects_per_address_per_sec = 1
        publishes_per_client_per_sec = 1
        publish_bytes_per_client_per_sec = 1
        burst_secs = 1
        write_buffer_bytes = 1
        [access]
        users_file = 'u'
        rules_file = 'r'
        anonymous = true
        login_cache = 1
        tenants = true
        hash_threads = 1
        hash_queue = 1
        [log]
        format = 'json'
        level = 'debug'
        [[listener]]
        url = 'wss://127.0.0.1:1'
        im = false
        anonymous = true
        proxy_protocol = 'on'
        trusted_proxies = ['10.0.0.1']
        max_connections = 1
        connect_timeout_secs = 1
        origins = ['*']
        [listener.limits]
        max_packet_bytes = 1
        max_subscriptions = 1
        max_topic_levels = 1
        max_topic_bytes = 1
        connects_per_address_per_sec = 1
        publishes_per_client_per_sec = 1
        publish_bytes_per_client_per_sec = 1
        [listener.tls]
        cert = 'c'
        key = 'k'
        client_ca = 'a'
        require_client_cert = true
        subject_as_user = true
        [im.site]
        id = 'x'
        default_home = 'x'
        when_down = 'refuse'
        answer_timeout_ms = 1
        held_max = 1
        home = [{ site = 'y' }]
        link = [{ site = 'y' }]
        [[im.tenant]]
        name = 'x'
        [[bridge]]
        name = 'x'
        ";

/// Settings that differ from the defaults in every key, and have the same listener.
fn all_changed() -> (Settings, Settings) {
    let listener = vec![Listener::at("wss://127.0.0.1:1".parse().unwrap())];
    let old = Settings { listener, ..Settings::default() };
    let new = toml::from_str(ALL_CHANGED);
    (old, new.unwrap())
}

#[test]
fn every_key_is_taken_up_on_reload_or_named_as_needing_a_restart() {
    let (old, new) = all_changed();
    let changes = Settings::diff_reload(&old, &new);
    let whose = " of wss://127.0.0.1:1/mqtt";
    let names = changes.reloadable.iter().chain(&changes.needs_restart);
    let mut named: BTreeSet<String> = names.map(|name| name.replace(whose, "")).collect();
    assert!(!named.contains("listener.url"));
    named.insert("listener.url".to_owned());
    // Lists are named as a whole.
    let mut expected = all_keys();
    for list in ["bridge", "im.site.home", "im.site.link", "im.tenant"] {
        expected.retain(|key| !key.starts_with(&format!("{list}.")));
        expected.insert(list.to_owned());
    }
    assert_eq!(named, expected);

    // What goes on is what changed, but for what needs a restart.
    let next = old.reloaded(&new);
    let left = Settings::diff_reload(&next, &new);
    assert_eq!(left.reloadable, Vec::<String>::new());
    assert_eq!(left.needs_restart, changes.needs_restart);
}

/// The manual marks with "reload" what is taken up.
#[test]
fn the_manual_says_what_is_reloaded() {
    let (old, new) = all_changed();
    let reloadable = Settings::diff_reload(&old, &new).reloadable;
    let (mut section, mut marked) = (String::new(), false);
    for line in MANUAL.lines() {
        let shown = line.trim_start_matches('#').trim_start();
        if shown.starts_with('[') && is_setting(shown) {
            section = shown.trim_matches(['[', ']']).to_owned();
        } else if is_setting(shown) && !line.starts_with("#  ") {
            let key = format!("{section}.{}", shown.split(" = ").next().unwrap());
            let expected = reloadable.iter().any(|name| name.split(' ').next() == Some(&key));
            assert_eq!(marked, expected, "{key}");
            // The limits of a listener are listed without a line of their own each.
            marked &= section == "listener.limits";
        } else if line.starts_with('#') {
            marked = line.ends_with(" reload");
        } else {
            marked = false;
        }
    }
}

#[test]
fn listeners_that_come_and_go_need_a_restart() {
    let old = Settings::default();
    let mut new = old.clone();
    new.listener[1] = Listener::at("tcp://127.0.0.1:7".parse().unwrap());
    let changes = Settings::diff_reload(&old, &new);
    assert_eq!(changes.reloadable, Vec::<String>::new());
    assert_eq!(
        changes.needs_restart,
        ["listener ws://127.0.0.1:8083/mqtt removed", "listener tcp://127.0.0.1:7 added"]
    );
    assert_eq!(old.reloaded(&new), old);
}
