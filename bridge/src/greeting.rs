//! The beginning of a connection on either side: CONNECT, CONNACK, and what is subscribed to.

use std::io;
use std::num::{NonZeroU16, NonZeroU32};

use hoopoe_codec::{
    ConnAck, Connect, ConnectProperties, MAX_PACKET_LEN, Packet, PacketId, PropertyBlock, QoS,
    ReasonCode, Receiver, RetainHandling, Subscribe, SubscribeOptions, Unsubscribe, Version,
    decode,
};
use thiserror::Error;

use crate::INCOMING;
use crate::conn::{Inbox, Outbox};
use crate::link::{End, LinkFault, Takes};
use crate::settings::{LinkSettings, local_client_id};
use crate::via::BROKER_ID;

/// The identifiers of SUBSCRIBE and UNSUBSCRIBE. Publications get theirs from below.
const SUBSCRIBE_ID: u16 = u16::MAX;
const UNSUBSCRIBE_ID: u16 = u16::MAX - 1;

/// Why there is no connection, or no longer.
#[derive(Debug, Error)]
pub enum Lost {
    /// The stream.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// It was not there in time.
    #[error("no answer from the {0:?} broker in time")]
    Late(End),
    /// CONNACK with an error.
    #[error("the {0:?} broker refuses the link: {1}")]
    Refused(End, ReasonCode),
    /// What a broker said later.
    #[error(transparent)]
    Fault(#[from] LinkFault),
}

/// What CONNACK said.
#[derive(Debug)]
pub struct Greeting {
    /// The broker still knew the link.
    pub session_present: bool,
    /// What it takes.
    pub takes: Takes,
    /// The keep-alive that it asks for.
    pub keep_alive_secs: Option<u16>,
    /// Its id, if it says so.
    pub broker_id: Option<String>,
}

/// What is asked of the local broker for its session.
#[derive(Clone, Copy, Debug, Default)]
pub struct LocalSession {
    /// Messages on their way out, at most.
    pub window: u16,
    /// The remote broker has forgotten its unfinished publications.
    pub incoming_lost: bool,
    /// The session that is there goes, with its queue.
    pub anew: bool,
    /// The session ends with its connection.
    pub ends: bool,
}

/// Connects at the local broker.
pub async fn greet_local(
    name: &str,
    asked: LocalSession,
    (inbox, outbox): (&mut Inbox, &mut Outbox),
) -> Result<Greeting, Lost> {
    let LocalSession { window, incoming_lost, anew, ends } = asked;
    let client_id = local_client_id(name);
    let user = format!("bridge:{name}");
    let mut properties = PropertyBlock::new();
    if incoming_lost {
        properties.push(INCOMING, "new");
    }
    let connect = Connect {
        version: Version::V5,
        bridge: false,
        clean_start: anew,
        keep_alive_secs: 0,
        client_id: &client_id,
        will: None,
        username: Some(&user),
        password: None,
        properties: ConnectProperties {
            session_expiry_secs: Some(if ends { 0 } else { u32::MAX }),
            receive_maximum: NonZeroU16::new(window),
            user_properties: properties.user_properties(),
            ..ConnectProperties::default()
        },
    };
    connect.encode(Version::V5, &mut outbox.bytes);
    greeting(End::Local, Version::V5, inbox, outbox).await
}

/// Connects at the remote broker.
pub async fn greet_remote(
    settings: &LinkSettings,
    (inbox, outbox): (&mut Inbox, &mut Outbox),
) -> Result<Greeting, Lost> {
    let version = settings.version;
    let own = PropertyBlock::new().with(BROKER_ID, &settings.broker_id);
    let connect = Connect {
        version,
        bridge: settings.bridge_bit,
        clean_start: settings.clean,
        keep_alive_secs: settings.keep_alive_secs,
        client_id: &settings.client_id,
        will: None,
        username: settings.username.as_deref(),
        password: settings.password.as_deref(),
        properties: ConnectProperties {
            session_expiry_secs: (!settings.clean).then_some(settings.session_expiry_secs),
            receive_maximum: NonZeroU16::new(settings.receive_maximum),
            maximum_packet_size: NonZeroU32::new(settings.max_packet_bytes),
            // A Hoopoe answers with its own.
            user_properties: own.user_properties(),
            ..ConnectProperties::default()
        },
    };
    connect.encode(version, &mut outbox.bytes);
    greeting(End::Remote, version, inbox, outbox).await
}

async fn greeting(
    end: End,
    version: Version,
    inbox: &mut Inbox,
    outbox: &mut Outbox,
) -> Result<Greeting, Lost> {
    outbox.push().await?;
    let illegal = |fault| LinkFault::Illegal(end, fault);
    loop {
        if let Some(frame) = inbox.next_frame().map_err(illegal)? {
            let packet = decode(version, Receiver::Client, frame).map_err(illegal)?;
            return match packet {
                Packet::ConnAck(connack) if !connack.code.is_error() => {
                    Ok(granted(version, &connack))
                }
                Packet::ConnAck(connack) => Err(Lost::Refused(end, connack.code)),
                _ => Err(Lost::Refused(end, ReasonCode::ProtocolError)),
            };
        }
        inbox.fill().await?;
    }
}

fn granted(version: Version, connack: &ConnAck<'_>) -> Greeting {
    let properties = &connack.properties;
    Greeting {
        session_present: connack.session_present,
        takes: Takes {
            version,
            max_qos: properties.maximum_qos.unwrap_or(QoS::ExactlyOnce),
            max_packet: properties
                .maximum_packet_size
                .map_or(MAX_PACKET_LEN, |most| most.get() as usize),
            receive_maximum: properties.receive_maximum.map_or(u16::MAX, NonZeroU16::get),
            retain: properties.retain_available.unwrap_or(true),
        },
        keep_alive_secs: properties.server_keep_alive_secs,
        broker_id: properties.user_properties.get(BROKER_ID).map(str::to_owned),
    }
}

/// SUBSCRIBE to all of these. Nothing of a link's own comes back, RETAIN stays as it was, and what is
/// retained comes as `retain_handling` says. False when there is nothing to ask for.
pub fn subscribe(
    version: Version,
    filters: &[(String, QoS)],
    retain_handling: RetainHandling,
    out: &mut Vec<u8>,
) -> bool {
    if filters.is_empty() {
        return false;
    }
    let options =
        |qos| SubscribeOptions { qos, no_local: true, retain_as_published: true, retain_handling };
    let options = |qos| match version {
        Version::V5 => options(qos),
        Version::V311 => SubscribeOptions::with_qos(qos),
    };
    let subscribe = Subscribe {
        id: identifier(SUBSCRIBE_ID),
        subscription_id: None,
        user_properties: Default::default(),
        filters: filters.iter().map(|(filter, qos)| (&**filter, options(*qos))).collect(),
    };
    Packet::Subscribe(subscribe).encode(version, out);
    true
}

/// UNSUBSCRIBE from these. False when there are none.
pub fn unsubscribe(version: Version, filters: &[impl AsRef<str>], out: &mut Vec<u8>) -> bool {
    if filters.is_empty() {
        return false;
    }
    let unsubscribe = Unsubscribe {
        id: identifier(UNSUBSCRIBE_ID),
        user_properties: Default::default(),
        filters: filters.iter().map(AsRef::as_ref).collect(),
    };
    Packet::Unsubscribe(unsubscribe).encode(version, out);
    true
}

fn identifier(number: u16) -> PacketId {
    // Not 0, and so an identifier.
    PacketId::new(number).unwrap_or(PacketId::MIN)
}
