//! Listeners: from their settings to open sockets that hand connections to workers.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;
use arc_swap::ArcSwap;
use hoopoe_codec::QoS;

use super::Node;
use crate::connection::{Limits, Listener, Seats};
use crate::fabric::Mail;
use crate::settings::{self, HttpAddress, Scheme, Settings};
use crate::transport::{
    Acceptor, BindOptions, Carrier, Certificates, ConnectRate, GateLimits, ListenerGate,
    ListenerTransport, WebSocketSettings, bind,
};

/// Messages that may wait for room in the window of a session that is not stored.
const BACKLOG_MESSAGES: usize = 10_000;
/// Bytes of those.
const BACKLOG_BYTES: usize = 8 << 20;

/// A listener that is open.
pub(super) struct OpenListener {
    /// Its URL with the port that it really has.
    pub(super) url: String,
    pub(super) configured: settings::Listener,
    pub(super) listener: Arc<Listener>,
    pub(super) transport: Arc<ListenerTransport>,
    pub(super) gate: Arc<ListenerGate>,
    socket: TcpListener,
}

/// Opens a listener: one socket per address that its host has.
pub(super) fn open(
    settings: &Settings,
    configured: &settings::Listener,
) -> anyhow::Result<Vec<OpenListener>> {
    let url = &configured.url;
    let transport = Arc::new(transport(configured)?);
    let addresses = url.address.resolve().with_context(|| format!("listener {url}"))?;
    let limits = settings.client_limits(configured);
    let gate_limits = GateLimits {
        connections_max: match configured.max_connections {
            0 => usize::MAX,
            most => most as usize,
        },
        connect_rate: (limits.connects_per_address_per_sec > 0).then(|| ConnectRate {
            per_sec: limits.connects_per_address_per_sec,
            burst: limits.connects_per_address_per_sec * u32::from(limits.burst_secs.max(1)),
        }),
    };
    let mut open = Vec::new();
    for socket in bind(&addresses, &BindOptions::default())? {
        let address = socket.local_addr().context("a listener without an address")?;
        let path = &url.path;
        let url = format!("{}://{address}{path}", url.scheme.as_str());
        let listener = Listener {
            url: url.clone(),
            transport: transport.clone(),
            door: ArcSwap::from_pointee(settings.door(configured)),
            limits: ArcSwap::from_pointee(client_limits(settings, configured)),
            subject_as_user: configured.tls.as_ref().is_some_and(|tls| tls.subject_as_user),
            im: configured.im,
            connect_timeout_secs: u64::from(configured.connect_timeout_secs),
            bridge: None,
        };
        open.push(OpenListener {
            url,
            configured: configured.clone(),
            listener: Arc::new(listener),
            transport: transport.clone(),
            gate: ListenerGate::new(&gate_limits, Instant::now()),
            socket,
        });
    }
    Ok(open)
}

impl OpenListener {
    /// Accepts connections and deals them out to the workers.
    pub(super) fn accept(
        &self,
        node: &Node,
        settings: &Settings,
    ) -> impl Future<Output = ()> + use<> {
        let socket = self.socket.try_clone();
        let (transport, gate) = (self.transport.clone(), self.gate.clone());
        let (listener, seats, env) = (self.listener.clone(), node.seats.clone(), node.env.clone());
        let most = match settings.limits.max_connections {
            0 => u64::MAX,
            most => u64::from(most),
        };
        async move {
            let hand_out = |accepted: crate::transport::Accepted| {
                if env.telemetry.sum(|worker| worker.connections.get()) >= most {
                    // Dropped, and closed with that: the broker is full.
                    return;
                }
                let seat = seats.take();
                env.fabric.workers[seat.worker()].put(Mail::Accepted {
                    stream: accepted.stream.into(),
                    peer: accepted.peer,
                    listener: listener.clone(),
                    seats: Seats { permit: accepted.permit, seat },
                });
            };
            let ended = match socket {
                Ok(socket) => Acceptor::new(socket, transport, gate).run(hand_out).await,
                Err(error) => Err(error),
            };
            if let Err(error) = ended {
                tracing::error!(listener = listener.url, %error, "a listener has ended");
            }
        }
    }
}

/// The HTTP listener, if there is to be one.
pub(super) struct OpenHttp {
    pub(super) listener: Option<TcpListener>,
    pub(super) address: Option<SocketAddr>,
}

/// Opens the HTTP listener.
pub(super) fn open_http(settings: &Settings) -> anyhow::Result<OpenHttp> {
    let HttpAddress::At(address) = &settings.http.address else {
        return Ok(OpenHttp { listener: None, address: None });
    };
    let addresses = address.resolve().with_context(|| format!("http address {address}"))?;
    let listener = bind(&addresses, &BindOptions::default())?.into_iter().next();
    let address = listener.as_ref().and_then(|listener| listener.local_addr().ok());
    Ok(OpenHttp { listener, address })
}

fn transport(configured: &settings::Listener) -> anyhow::Result<ListenerTransport> {
    let url = &configured.url;
    let tls = || -> anyhow::Result<Arc<Certificates>> {
        let tls = configured.tls.as_ref();
        let tls = tls.with_context(|| format!("listener {url} has no certificate"))?;
        Certificates::load(tls.into()).with_context(|| format!("listener {url}"))
    };
    let websocket = || {
        Arc::new(WebSocketSettings {
            path: url.path.clone(),
            origins: configured.origins.clone(),
            local_pages_only: configured.is_local() && configured.origins.is_empty(),
        })
    };
    let carrier = match url.scheme {
        Scheme::Tcp => Carrier::Tcp,
        Scheme::Tls => Carrier::Tls(tls()?),
        Scheme::Ws => Carrier::WebSocket(websocket()),
        Scheme::Wss => Carrier::SecureWebSocket(tls()?, websocket()),
    };
    let mut transport = ListenerTransport::new(carrier);
    if configured.proxy_protocol == settings::ProxyProtocol::On {
        transport.proxies = Some(configured.trusted_proxies.iter().copied().collect());
    }
    Ok(transport)
}

/// The limits of clients that no listener says anything else about.
pub(crate) fn plain_limits(settings: &Settings) -> Limits {
    let nowhere = settings::ListenerUrl::loopback(Scheme::Tcp, 0);
    client_limits(settings, &settings::Listener::at(nowhere))
}

/// The limits of a listener's clients.
pub(super) fn client_limits(settings: &Settings, configured: &settings::Listener) -> Limits {
    let (mqtt, own) = (&settings.mqtt, settings.client_limits(configured));
    Limits {
        max_packet_bytes: own.max_packet_bytes,
        max_qos: QoS::try_from(mqtt.max_qos).unwrap_or(QoS::ExactlyOnce),
        retain_available: mqtt.retain_available,
        wildcard_available: mqtt.wildcard_available,
        shared_available: mqtt.shared_available,
        keep_alive_max_secs: mqtt.keep_alive_max_secs,
        session_expiry_max_secs: mqtt.session_expiry_max_secs,
        receive_maximum: mqtt.receive_maximum,
        window_v311: mqtt.inflight_v311,
        window_v5: mqtt.inflight_v5_max,
        topic_alias_maximum: mqtt.topic_alias_max,
        max_topic_levels: usize::from(own.max_topic_levels),
        max_topic_bytes: usize::from(own.max_topic_bytes),
        max_subscriptions: own.max_subscriptions as usize,
        max_client_id_bytes: usize::from(mqtt.max_client_id_bytes),
        write_buffer_bytes: settings.limits.write_buffer_bytes as usize,
        backlog_messages: BACKLOG_MESSAGES,
        backlog_bytes: BACKLOG_BYTES,
        publish_rate: u64::from(own.publishes_per_sec),
        publish_bytes_rate: u64::from(own.publish_bytes_per_sec),
        burst_secs: u64::from(own.burst_secs.max(1)),
    }
}
