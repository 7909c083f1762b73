//! This broker's links to others: started with the node, each with a place of its own at the broker.
//!
//! Owns the handles by which operators see links and tell them what to do. What a link does is the
//! package `hoopoe-bridge`; it knows nothing of this one and gets its local end as a stream.

mod id;
mod seat;
mod tls;

pub use id::{KeptId, broker_id, id_file, is_broker_id, keep_id, kept_id};
pub use seat::{BridgeSeat, passed_by, stays_here};

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use arc_swap::ArcSwap;
use hoopoe_bridge::{
    AnyWire, Counts, LOCAL_PREFIX, LastError, LinkParts, LinkSettings, LocalEnd, Order, State,
    Status, forget,
};
use hoopoe_codec::QoS;
use hoopoe_store::Restored;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::connection::{Env, Limits, Listener, Seats};
use crate::fabric::Mail;
use crate::settings::{BridgeSettings, Door, Settings};
use crate::transport::{Carrier, GateLimits, ListenerGate, ListenerTransport, WorkerSeats};

/// Orders that may wait for a link.
const ORDERS: usize = 16;
/// What a link adds to a message: a prefix to its topic, and the brokers that it has passed.
const ADDED_BYTES: u32 = 128 * 1024;
/// How long the start waits for links to make their sessions: a disk that takes longer is no reason
/// not to serve.
const PREPARE_TIMEOUT: Duration = Duration::from_secs(30);

/// The links of this broker.
#[derive(Default)]
pub struct Bridges {
    links: Vec<BridgeHandle>,
}

/// One link as operators have it.
pub struct BridgeHandle {
    /// Its name.
    pub name: String,
    /// Where it leads.
    pub url: String,
    status: Arc<Status>,
    seat: Arc<BridgeSeat>,
    orders: mpsc::Sender<Order>,
}

/// How a link is doing.
#[derive(Clone, Debug)]
pub struct BridgeReport {
    /// What it is at.
    pub state: State,
    /// Messages that wait for it, those on their way included.
    pub queued: u64,
    /// Messages on their way out.
    pub in_flight: u64,
    /// How long something has been waiting, at most.
    pub lag_ms: u64,
    /// Connections made.
    pub connects: u64,
    /// Connections that failed or ended.
    pub failures: u64,
    /// Messages and bytes.
    pub counts: Counts,
    /// What went wrong last.
    pub last_error: Option<LastError>,
}

/// What an operator tells a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BridgeOrder {
    /// No connection until it is resumed.
    Pause,
    /// Connect, whatever the start type.
    Resume,
    /// Forget what waits.
    DropQueue,
}

impl BridgeHandle {
    /// How the link is doing.
    pub fn report(&self, now_ms: u64) -> BridgeReport {
        let (status, queued) = (&self.status, self.seat.queued());
        BridgeReport {
            state: status.state(),
            queued,
            in_flight: status.in_flight(),
            lag_ms: status.lag_ms(queued, now_ms),
            connects: status.connects(),
            failures: status.failures(),
            counts: status.counts(),
            last_error: status.last_error(),
        }
    }

    /// Tells the link what to do; true once it is done. False when the link has ended, or is told
    /// more than it can do.
    pub async fn order(&self, order: BridgeOrder) -> bool {
        let (done, hears) = oneshot::channel();
        let order = match order {
            BridgeOrder::Pause => Order::Pause(done),
            BridgeOrder::Resume => Order::Resume(done),
            BridgeOrder::DropQueue => Order::DropQueue(done),
        };
        self.orders.try_send(order).is_ok() && hears.await.is_ok()
    }
}

impl Bridges {
    /// The links, in the order of the settings.
    pub fn links(&self) -> &[BridgeHandle] {
        &self.links
    }

    /// The link of that name.
    pub fn link(&self, name: &str) -> Option<&BridgeHandle> {
        self.links.iter().find(|link| link.name == name)
    }

    /// Starts the links of the settings, and waits until messages wait for them; ends the sessions
    /// of links that are no longer there.
    ///
    /// # Errors
    /// When a file that a link names cannot be used.
    pub async fn start(
        settings: &Settings,
        env: &Arc<Env>,
        seats: &Arc<WorkerSeats>,
        mut known: KnownSessions,
    ) -> anyhow::Result<(Bridges, Vec<JoinHandle<()>>)> {
        let (mut bridges, mut tasks, mut prepared) = (Bridges::default(), Vec::new(), Vec::new());
        for bridge in &settings.bridge {
            let link = link_settings(settings, bridge, &env.broker_id)
                .with_context(|| format!("bridge `{}`", bridge.name))?;
            let seat = Arc::new(BridgeSeat::new(bridge.queue()));
            let local = Place::new(settings, &bridge.name, env, seats, seat.clone());
            let (orders, hears) = mpsc::channel(ORDERS);
            let (tell, is_prepared) = oneshot::channel();
            let status = Arc::new(Status::default());
            bridges.links.push(BridgeHandle {
                name: bridge.name.clone(),
                url: link.url.to_string(),
                status: status.clone(),
                seat,
                orders,
            });
            let known_filters = known.0.remove(&link.local_client_id()).unwrap_or_default();
            tasks.push(tokio::spawn(hoopoe_bridge::run(LinkParts {
                settings: link,
                local: Arc::new(local),
                known_filters,
                status,
                orders: hears,
                prepared: tell,
            })));
            prepared.push(is_prepared);
        }
        for client_id in known.0.into_keys() {
            let name = client_id.strip_prefix(LOCAL_PREFIX).unwrap_or_default().to_owned();
            let seat = Arc::new(BridgeSeat::new(BridgeSettings::default().queue()));
            let local = Place::new(settings, &name, env, seats, seat);
            if let Err(error) = forget(&name, &local).await {
                tracing::warn!(link = name, %error, "the queue of a bridge that is no more stays");
            } else {
                tracing::info!(link = name, "the queue of a bridge that is no more was dropped");
            }
        }
        let all = async {
            for one in prepared {
                let _ = one.await;
            }
        };
        if tokio::time::timeout(PREPARE_TIMEOUT, all).await.is_err() {
            tracing::error!("bridges are not ready: messages may pass them by until they are");
        }
        Ok((bridges, tasks))
    }
}

/// Sessions of links that an earlier run has left, with their filters.
#[derive(Debug, Default)]
pub struct KnownSessions(HashMap<String, Vec<String>>);

impl KnownSessions {
    /// Those among what the shards found.
    pub fn among<'a>(restored: impl Iterator<Item = &'a Restored>) -> KnownSessions {
        let sessions = restored.flat_map(|restored| &restored.sessions);
        let links = sessions.filter(|session| session.key.client.starts_with(LOCAL_PREFIX));
        let known = links.map(|session| {
            let filters = session.subscriptions.iter().map(|one| one.filter.to_string());
            (session.key.client.to_string(), filters.collect())
        });
        KnownSessions(known.collect())
    }
}

/// A link's place at this broker.
struct Place {
    env: Arc<Env>,
    seats: Arc<WorkerSeats>,
    listener: Arc<Listener>,
    gate: Arc<ListenerGate>,
    seat: Arc<BridgeSeat>,
}

impl Place {
    fn new(
        settings: &Settings,
        name: &str,
        env: &Arc<Env>,
        seats: &Arc<WorkerSeats>,
        seat: Arc<BridgeSeat>,
    ) -> Place {
        let listener = Listener {
            url: format!("bridge:{name}"),
            transport: Arc::new(ListenerTransport::new(Carrier::Tcp)),
            door: ArcSwap::from_pointee(Door { anonymous: false, development: false }),
            limits: ArcSwap::from_pointee(limits(settings)),
            subject_as_user: false,
            im: false,
            connect_timeout_secs: 60,
            bridge: Some(seat.clone()),
        };
        let open = GateLimits { connections_max: usize::MAX, connect_rate: None };
        Place {
            env: env.clone(),
            seats: seats.clone(),
            listener: Arc::new(listener),
            gate: ListenerGate::new(&open, Instant::now()),
            seat,
        }
    }
}

impl LocalEnd for Place {
    fn open(&self) -> io::Result<AnyWire> {
        let (theirs, ours) = UnixStream::pair()?;
        theirs.set_nonblocking(true)?;
        ours.set_nonblocking(true)?;
        let permit = self.gate.enter().map_err(io::Error::other)?;
        let seat = self.seats.take();
        self.env.fabric.workers[seat.worker()].put(Mail::Accepted {
            stream: theirs.into(),
            peer: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            listener: self.listener.clone(),
            seats: Seats { permit, seat },
        });
        Ok(AnyWire::new(tokio::net::UnixStream::from_std(ours)?))
    }

    fn queued(&self) -> u64 {
        self.seat.queued()
    }
}

/// A link is no client: what bounds it are its own settings. The broker still says what it is.
fn limits(settings: &Settings) -> Limits {
    let plain = crate::node::plain_limits(settings);
    Limits {
        max_packet_bytes: plain.max_packet_bytes.saturating_add(ADDED_BYTES),
        max_qos: QoS::ExactlyOnce,
        wildcard_available: true,
        keep_alive_max_secs: 0,
        session_expiry_max_secs: u32::MAX,
        receive_maximum: u16::MAX,
        window_v5: u16::MAX,
        max_topic_levels: usize::MAX,
        max_topic_bytes: usize::from(u16::MAX),
        max_subscriptions: usize::MAX,
        max_client_id_bytes: usize::MAX,
        publish_rate: 0,
        publish_bytes_rate: 0,
        ..plain
    }
}

/// What would keep a link from starting, with the key that names the file.
pub fn file_faults(bridge: &BridgeSettings) -> Vec<(&'static str, anyhow::Error)> {
    let encrypted = bridge.url.as_ref().is_some_and(|url| url.scheme.is_tls());
    let mut faults = if encrypted { tls::faults(bridge) } else { Vec::new() };
    if let Err(error) = password(bridge) {
        faults.push(("password_file", error));
    }
    faults
}

fn password(bridge: &BridgeSettings) -> anyhow::Result<Option<Vec<u8>>> {
    Ok(match (&bridge.password, &bridge.password_file) {
        (Some(password), _) => Some(password.reveal().as_bytes().to_vec()),
        (None, Some(file)) => Some(first_line(file)?),
        (None, None) => None,
    })
}

fn link_settings(
    settings: &Settings,
    bridge: &BridgeSettings,
    broker_id: &str,
) -> anyhow::Result<LinkSettings> {
    let url = bridge.url.clone().context("no url")?;
    let tls = if url.scheme.is_tls() { Some(tls::client_config(bridge)?) } else { None };
    let client_id = bridge.client_id.clone();
    let client_id = client_id.unwrap_or_else(|| format!("{broker_id}-{}", bridge.name));
    let millis = |millis: u32| Duration::from_millis(u64::from(millis));
    Ok(LinkSettings {
        name: bridge.name.clone(),
        url,
        version: bridge.protocol.version(),
        client_id,
        username: bridge.username.clone(),
        password: password(bridge)?,
        tls,
        keep_alive_secs: bridge.keep_alive_secs,
        clean: bridge.clean,
        session_expiry_secs: bridge.session_expiry_secs,
        start: bridge.start,
        idle_timeout: Duration::from_secs(u64::from(bridge.idle_timeout_secs)),
        backoff_min: millis(bridge.backoff_min_ms),
        backoff_max: millis(bridge.backoff_max_ms),
        max_inflight: bridge.inflight(),
        receive_maximum: bridge.receive_maximum,
        rate_per_sec: bridge.rate_per_sec,
        retained: bridge.retained,
        bridge_bit: bridge.bridge_bit,
        hop_prefix: bridge.hop_prefix.clone(),
        // Where links are all there is, a message that came in over one is there to go out.
        max_hops: bridge.hops().max(u16::from(settings.listener.is_empty()) * 8),
        broker_id: broker_id.to_owned(),
        max_packet_bytes: settings.mqtt.max_packet_bytes,
        rules: bridge.rules(settings.im.site.id.as_deref()),
    })
}

fn first_line(file: &Path) -> anyhow::Result<Vec<u8>> {
    let text = std::fs::read_to_string(file)
        .with_context(|| format!("{}: the password cannot be read", file.display()))?;
    Ok(text.lines().next().unwrap_or_default().trim_end().as_bytes().to_vec())
}
