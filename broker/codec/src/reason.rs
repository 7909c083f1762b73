//! The reason codes of MQTT 5 (table 2-6), the packets each may stand in, and the CONNACK return
//! codes of MQTT 3.1.1.

use std::fmt;

use crate::frame::PacketType;

/// Writes the enumeration, the way back from a byte and the name from one list.
macro_rules! reason_codes {
    ($($(#[$doc:meta])* $name:ident = $code:literal,)*) => {
        /// Why something was done or refused, on the wire one byte. From 0x80 on it is an error.
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
        #[repr(u8)]
        pub enum ReasonCode {
            $($(#[$doc])* $name = $code,)*
        }

        impl ReasonCode {
            /// Every code of the standard, in ascending order.
            pub const ALL: &[ReasonCode] = &[$(ReasonCode::$name,)*];

            /// The name of the code, as it is spelled here.
            pub const fn name(self) -> &'static str {
                match self {
                    $(ReasonCode::$name => stringify!($name),)*
                }
            }
        }

        impl TryFrom<u8> for ReasonCode {
            type Error = u8;

            /// Gives the byte back when the standard knows no such code.
            fn try_from(byte: u8) -> Result<ReasonCode, u8> {
                match byte {
                    $($code => Ok(ReasonCode::$name),)*
                    unknown => Err(unknown),
                }
            }
        }
    };
}

reason_codes! {
    /// Success; also Normal disconnection and Granted QoS 0.
    Success = 0x00,
    /// The subscription is accepted at QoS 1.
    GrantedQoS1 = 0x01,
    /// The subscription is accepted at QoS 2.
    GrantedQoS2 = 0x02,
    /// The client leaves and wants its will published.
    DisconnectWithWill = 0x04,
    /// Accepted, but nobody is subscribed.
    NoMatchingSubscribers = 0x10,
    /// There was no such subscription to end.
    NoSubscriptionExisted = 0x11,
    /// Another step of the authentication follows.
    ContinueAuthentication = 0x18,
    /// The client starts a re-authentication.
    ReAuthenticate = 0x19,
    /// Refused, for a reason not told or not listed.
    UnspecifiedError = 0x80,
    /// The packet cannot be parsed.
    MalformedPacket = 0x81,
    /// An unexpected packet, or one the protocol does not allow.
    ProtocolError = 0x82,
    /// Valid, but not accepted by this server.
    ImplementationSpecificError = 0x83,
    /// The protocol version is not supported.
    UnsupportedProtocolVersion = 0x84,
    /// Well formed, but not allowed as client identifier.
    ClientIdentifierNotValid = 0x85,
    /// User name or password are not accepted.
    BadUserNameOrPassword = 0x86,
    /// Not allowed to do this.
    NotAuthorized = 0x87,
    /// The server is not available.
    ServerUnavailable = 0x88,
    /// The server is busy; try again later.
    ServerBusy = 0x89,
    /// This client is banned.
    Banned = 0x8A,
    /// The server is shutting down.
    ServerShuttingDown = 0x8B,
    /// The authentication method is not supported or not the one in use.
    BadAuthenticationMethod = 0x8C,
    /// Nothing was heard for one and a half keep alive periods.
    KeepAliveTimeout = 0x8D,
    /// Another connection uses the client identifier.
    SessionTakenOver = 0x8E,
    /// Well formed, but not accepted as topic filter.
    TopicFilterInvalid = 0x8F,
    /// Well formed, but not accepted as topic name.
    TopicNameInvalid = 0x90,
    /// The packet identifier is already in use.
    PacketIdentifierInUse = 0x91,
    /// The packet identifier is not known.
    PacketIdentifierNotFound = 0x92,
    /// More publications in flight than the receive maximum.
    ReceiveMaximumExceeded = 0x93,
    /// The topic alias is 0 or above the topic alias maximum.
    TopicAliasInvalid = 0x94,
    /// The packet is larger than the maximum packet size.
    PacketTooLarge = 0x95,
    /// The data rate is too high.
    MessageRateTooHigh = 0x96,
    /// A limit of the implementation or the administration is exceeded.
    QuotaExceeded = 0x97,
    /// Closed by an administrator.
    AdministrativeAction = 0x98,
    /// The payload does not match its payload format indicator.
    PayloadFormatInvalid = 0x99,
    /// The server does not keep retained messages.
    RetainNotSupported = 0x9A,
    /// The QoS is above the maximum QoS.
    QoSNotSupported = 0x9B,
    /// Use another server for now.
    UseAnotherServer = 0x9C,
    /// Use another server from now on.
    ServerMoved = 0x9D,
    /// The server has no shared subscriptions.
    SharedSubscriptionsNotSupported = 0x9E,
    /// Connections are made too fast.
    ConnectionRateExceeded = 0x9F,
    /// The connection has lasted as long as it may.
    MaximumConnectTime = 0xA0,
    /// The server has no subscription identifiers.
    SubscriptionIdentifiersNotSupported = 0xA1,
    /// The server has no wildcard subscriptions.
    WildcardSubscriptionsNotSupported = 0xA2,
}

impl ReasonCode {
    /// The SUBACK's name for [`ReasonCode::Success`].
    pub const GRANTED_QOS_0: ReasonCode = ReasonCode::Success;
    /// The DISCONNECT's name for [`ReasonCode::Success`].
    pub const NORMAL_DISCONNECTION: ReasonCode = ReasonCode::Success;

    /// Whether the code reports a failure.
    pub const fn is_error(self) -> bool {
        self as u8 >= 0x80
    }

    /// Whether the code may stand in this packet of MQTT 5 (the column "Packets" of table 2-6).
    pub const fn legal_in(self, packet: PacketType) -> bool {
        self.packets() & bit(packet) != 0
    }

    /// The packets of table 2-6 as one bit per packet type.
    const fn packets(self) -> u16 {
        use ReasonCode as R;
        match self {
            R::Success => CONNACK | PUBLISHED | RELEASED | SUBACK | UNSUBACK | DISCONNECT | AUTH,
            R::GrantedQoS1 | R::GrantedQoS2 => SUBACK,
            R::DisconnectWithWill
            | R::ServerShuttingDown
            | R::KeepAliveTimeout
            | R::SessionTakenOver
            | R::ReceiveMaximumExceeded
            | R::TopicAliasInvalid
            | R::MessageRateTooHigh
            | R::AdministrativeAction
            | R::MaximumConnectTime => DISCONNECT,
            R::NoMatchingSubscribers => PUBLISHED,
            R::NoSubscriptionExisted => UNSUBACK,
            R::ContinueAuthentication | R::ReAuthenticate => AUTH,
            R::UnspecifiedError | R::ImplementationSpecificError | R::NotAuthorized => {
                CONNACK | PUBLISHED | SUBACK | UNSUBACK | DISCONNECT
            }
            R::MalformedPacket
            | R::ProtocolError
            | R::ServerBusy
            | R::BadAuthenticationMethod
            | R::PacketTooLarge
            | R::RetainNotSupported
            | R::QoSNotSupported
            | R::UseAnotherServer
            | R::ServerMoved
            | R::ConnectionRateExceeded => CONNACK | DISCONNECT,
            R::UnsupportedProtocolVersion
            | R::ClientIdentifierNotValid
            | R::BadUserNameOrPassword
            | R::ServerUnavailable
            | R::Banned => CONNACK,
            R::TopicFilterInvalid => SUBACK | UNSUBACK | DISCONNECT,
            R::TopicNameInvalid | R::PayloadFormatInvalid => CONNACK | PUBLISHED | DISCONNECT,
            R::PacketIdentifierInUse => PUBLISHED | SUBACK | UNSUBACK,
            R::PacketIdentifierNotFound => RELEASED,
            R::QuotaExceeded => CONNACK | PUBLISHED | SUBACK | DISCONNECT,
            R::SharedSubscriptionsNotSupported
            | R::SubscriptionIdentifiersNotSupported
            | R::WildcardSubscriptionsNotSupported => SUBACK | DISCONNECT,
        }
    }

    /// The CONNACK return code that says the same to an MQTT 3.1.1 client (its table 3.1).
    pub(crate) const fn return_code(self) -> u8 {
        match self {
            ReasonCode::Success => 0,
            ReasonCode::UnsupportedProtocolVersion => 1,
            ReasonCode::ClientIdentifierNotValid => 2,
            ReasonCode::BadUserNameOrPassword => 4,
            ReasonCode::NotAuthorized | ReasonCode::Banned => 5,
            _ => 3,
        }
    }

    /// The reason code for a CONNACK return code of MQTT 3.1.1; `None` for a reserved one.
    pub(crate) const fn from_return_code(byte: u8) -> Option<ReasonCode> {
        Some(match byte {
            0 => ReasonCode::Success,
            1 => ReasonCode::UnsupportedProtocolVersion,
            2 => ReasonCode::ClientIdentifierNotValid,
            3 => ReasonCode::ServerUnavailable,
            4 => ReasonCode::BadUserNameOrPassword,
            5 => ReasonCode::NotAuthorized,
            _ => return None,
        })
    }
}

const fn bit(packet: PacketType) -> u16 {
    1 << packet as u8
}

const CONNACK: u16 = bit(PacketType::ConnAck);
const PUBLISHED: u16 = bit(PacketType::PubAck) | bit(PacketType::PubRec);
const RELEASED: u16 = bit(PacketType::PubRel) | bit(PacketType::PubComp);
const SUBACK: u16 = bit(PacketType::SubAck);
const UNSUBACK: u16 = bit(PacketType::UnsubAck);
const DISCONNECT: u16 = bit(PacketType::Disconnect);
const AUTH: u16 = bit(PacketType::Auth);

impl fmt::Display for ReasonCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} 0x{:02X}", self.name(), *self as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_comes_back_from_its_byte_and_no_other_byte_does() {
        let known: Vec<u8> = ReasonCode::ALL.iter().map(|code| *code as u8).collect();
        assert!(known.is_sorted());
        for byte in 0..=u8::MAX {
            match ReasonCode::try_from(byte) {
                Ok(code) => assert_eq!(code as u8, byte),
                Err(same) => assert!(same == byte && !known.contains(&byte)),
            }
        }
        assert_eq!(known.len(), 43);
    }

    #[test]
    fn codes_stand_where_table_2_6_puts_them() {
        use PacketType::*;
        let count = |packet| ReasonCode::ALL.iter().filter(|code| code.legal_in(packet)).count();
        let table = [
            (Connect, 0),
            (ConnAck, 22),
            (Publish, 0),
            (PubAck, 9),
            (PubRec, 9),
            (PubRel, 2),
            (PubComp, 2),
            (SubAck, 12),
            (UnsubAck, 7),
            (PingReq, 0),
            (Disconnect, 30),
            (Auth, 3),
        ];
        for (packet, expected) in table {
            assert_eq!(count(packet), expected, "{packet:?}");
        }
        assert!(ReasonCode::PacketIdentifierNotFound.legal_in(PubRel));
        assert!(!ReasonCode::PacketIdentifierNotFound.legal_in(PubAck));
    }

    #[test]
    fn return_codes_of_3_1_1_survive_the_way_there_and_back() {
        for byte in 0..=5 {
            let code = ReasonCode::from_return_code(byte).expect("defined");
            assert_eq!(code.return_code(), byte);
        }
        assert_eq!(ReasonCode::from_return_code(6), None);
        assert_eq!(ReasonCode::Banned.return_code(), 5);
        assert_eq!(ReasonCode::ServerBusy.return_code(), 3);
    }

    #[test]
    fn a_code_prints_with_name_and_number() {
        assert_eq!(ReasonCode::MalformedPacket.to_string(), "MalformedPacket 0x81");
        assert!(ReasonCode::UnspecifiedError.is_error());
        assert!(!ReasonCode::ReAuthenticate.is_error());
    }
}
