//! rumqttc in this process, its 3.1.1 client and its 5.0 client.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use hoopoe_tests::{DEADLINE, Version};
use rumqttc::{TlsConfiguration, Transport};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use crate::peer::{Login, Message, Peer};
use crate::scenario::scenarios;

/// Requests that may wait for the event loop.
const REQUESTS: usize = 16;
const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// What the event loop of either client says.
enum Happened {
    Connected,
    Subscribed,
    Published,
    Message(Message),
    Ended(String),
}

/// The event loop of one client on a runtime of its own.
struct Running {
    runtime: Runtime,
    events: Receiver<Happened>,
    task: JoinHandle<()>,
    messages: Vec<Message>,
}

impl Running {
    fn start<F>(run: impl FnOnce(Sender<Happened>) -> F) -> Running
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime can be built");
        let (sender, events) = channel();
        let task = runtime.spawn(run(sender));
        Running { runtime, events, task, messages: Vec::new() }
    }

    fn next(&mut self) -> Happened {
        self.events.recv_timeout(DEADLINE).expect("rumqttc says something in time")
    }

    /// Waits for an answer, keeping messages for later.
    fn wait_for(&mut self, wanted: impl Fn(&Happened) -> bool) {
        loop {
            match self.next() {
                happened if wanted(&happened) => return,
                Happened::Message(message) => self.messages.push(message),
                Happened::Ended(why) => panic!("rumqttc ended: {why}"),
                _ => {}
            }
        }
    }

    fn next_message(&mut self) -> Message {
        while self.messages.is_empty() {
            match self.next() {
                Happened::Message(message) => self.messages.push(message),
                Happened::Ended(why) => panic!("rumqttc ended: {why}"),
                _ => {}
            }
        }
        self.messages.remove(0)
    }

    /// Waits until the connection has ended after a DISCONNECT.
    fn ended(mut self) {
        while !matches!(self.next(), Happened::Ended(_)) {}
    }

    /// Drops the connection where it stands.
    fn die(self) {
        self.task.abort();
        self.runtime.shutdown_timeout(DEADLINE);
    }
}

fn transport(login: &Login) -> Transport {
    let configuration = login.authority.as_ref().map(|authority| {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = rustls::RootCertStore::empty();
        let certificate = CertificateDer::from_pem_file(authority).expect("a certificate");
        roots.add(certificate).expect("a valid certificate");
        let configuration = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("ring has them")
            .with_root_certificates(roots)
            .with_no_client_auth();
        TlsConfiguration::Rustls(Arc::new(configuration))
    });
    match (login.scheme, configuration) {
        ("tls", Some(configuration)) => Transport::tls_with_config(configuration),
        ("wss", Some(configuration)) => Transport::wss_with_config(configuration),
        ("ws", _) => Transport::ws(),
        _ => Transport::tcp(),
    }
}

/// Host as rumqttc wants it: for WebSocket the whole address.
fn host(login: &Login) -> String {
    match login.scheme {
        "ws" | "wss" => format!("{}://{}/mqtt", login.scheme, login.address),
        _ => login.address.ip().to_string(),
    }
}

/// A topic is text in one client, bytes in the other.
fn text_of(bytes: impl AsRef<[u8]>) -> String {
    String::from_utf8_lossy(bytes.as_ref()).into_owned()
}

/// The two clients have the same methods with other types: one text makes both adapters.
macro_rules! adapter {
    ($name:ident, $($path:ident)::+, |$options:ident, $login:ident| $session:block) => {
        struct $name {
            client: $($path)::+::AsyncClient,
            running: Running,
        }

        impl $name {
            fn happened(event: $($path)::+::Event) -> Option<Happened> {
                use $($path)::+::mqttbytes::QoS;
                use $($path)::+::{Event, Incoming};
                match event {
                    Event::Incoming(Incoming::ConnAck(_)) => Some(Happened::Connected),
                    Event::Incoming(Incoming::SubAck(_)) => Some(Happened::Subscribed),
                    Event::Incoming(Incoming::PubAck(_) | Incoming::PubComp(_)) => {
                        Some(Happened::Published)
                    }
                    // The identifier is 0 for QoS 0 only, which nothing acknowledges.
                    Event::Outgoing(rumqttc::Outgoing::Publish(0)) => Some(Happened::Published),
                    Event::Incoming(Incoming::Publish(publish)) => {
                        Some(Happened::Message(Message {
                            topic: text_of(publish.topic),
                            text: text_of(publish.payload),
                            qos: match publish.qos {
                                QoS::AtMostOnce => 0,
                                QoS::AtLeastOnce => 1,
                                QoS::ExactlyOnce => 2,
                            },
                            retain: publish.retain,
                        }))
                    }
                    _ => None,
                }
            }

            fn qos(qos: u8) -> $($path)::+::mqttbytes::QoS {
                $($path)::+::mqttbytes::qos(qos).expect("0, 1 or 2")
            }
        }

        impl Peer for $name {
            fn connect($login: &Login) -> $name {
                use $($path)::+::{AsyncClient, MqttOptions};
                let (id, port) = (&$login.client_id, $login.address.port());
                let mut $options = MqttOptions::new(id, host($login), port);
                $options.set_keep_alive(KEEP_ALIVE).set_transport(transport($login));
                $session
                let (client, mut events) = AsyncClient::new($options, REQUESTS);
                let mut running = Running::start(|sender| async move {
                    loop {
                        let happened = match events.poll().await {
                            Ok(event) => $name::happened(event),
                            Err(error) => Some(Happened::Ended(error.to_string())),
                        };
                        let ended = matches!(happened, Some(Happened::Ended(_)));
                        if happened.is_some_and(|it| sender.send(it).is_err()) || ended {
                            return;
                        }
                    }
                });
                running.wait_for(|happened| matches!(happened, Happened::Connected));
                $name { client, running }
            }

            fn subscribe(&mut self, topic: &str, qos: u8) {
                self.client.try_subscribe(topic, $name::qos(qos)).expect("room for a request");
                self.running.wait_for(|happened| matches!(happened, Happened::Subscribed));
            }

            fn publish(&mut self, topic: &str, qos: u8, retain: bool, text: &str) {
                let text = text.to_owned();
                self.client
                    .try_publish(topic, $name::qos(qos), retain, text)
                    .expect("room for a request");
                self.running.wait_for(|happened| matches!(happened, Happened::Published));
            }

            fn next_message(&mut self) -> Message {
                self.running.next_message()
            }

            fn leave(self) {
                self.client.try_disconnect().expect("room for a request");
                self.running.ended();
            }

            fn die(self) {
                self.running.die();
            }
        }
    };
}

adapter!(RumqttcV4, rumqttc, |options, login| {
    options.set_clean_session(login.clean);
    if let Some((topic, text)) = &login.will {
        let qos = rumqttc::QoS::AtLeastOnce;
        options.set_last_will(rumqttc::LastWill::new(topic, text.as_bytes(), qos, false));
    }
});

adapter!(RumqttcV5, rumqttc::v5, |options, login| {
    options.set_clean_start(login.clean);
    if !login.clean {
        options.set_session_expiry_interval(Some(3600));
    }
    if let Some((topic, text)) = &login.will {
        let qos = rumqttc::v5::mqttbytes::QoS::AtLeastOnce;
        let will =
            rumqttc::v5::mqttbytes::v5::LastWill::new(topic, text.as_bytes(), qos, false, None);
        options.set_last_will(will);
    }
});

mod v4 {
    use super::{RumqttcV4, Version, scenarios};
    scenarios!(RumqttcV4, [Version::V311], ["tcp", "tls", "ws", "wss"]);
}

mod v5 {
    use super::{RumqttcV5, Version, scenarios};
    scenarios!(RumqttcV5, [Version::V5], ["tcp", "tls", "ws", "wss"]);
}
