//! CONNECT as a test writes it: a builder with the fields of both versions, and its bytes.

use crate::wire::properties::{Properties, Property};
use crate::wire::{Version, frame, packet_type, push_field};

/// A CONNECT packet.
#[derive(Clone, Debug)]
pub struct Connect {
    /// Protocol version.
    pub version: Version,
    /// Clean Session (3.1.1) or Clean Start (5.0).
    pub clean: bool,
    /// Keep Alive in seconds, 0 = none.
    pub keep_alive_secs: u16,
    /// Client identifier.
    pub client_id: String,
    /// Will.
    pub will: Option<Will>,
    /// User name.
    pub user_name: Option<String>,
    /// Password.
    pub password: Option<Vec<u8>>,
    /// Properties, 5.0 only.
    pub properties: Properties,
}

/// The will in a CONNECT packet.
#[derive(Clone, Debug)]
pub struct Will {
    /// Topic name.
    pub topic: String,
    /// Application message.
    pub payload: Vec<u8>,
    /// 0, 1 or 2.
    pub qos: u8,
    /// Will Retain.
    pub retain: bool,
    /// Properties, 5.0 only.
    pub properties: Properties,
}

impl Will {
    /// A QoS 0 will that is not retained.
    pub fn new(topic: &str, payload: impl AsRef<[u8]>) -> Will {
        Will {
            topic: topic.to_owned(),
            payload: payload.as_ref().to_vec(),
            qos: 0,
            retain: false,
            properties: Properties::default(),
        }
    }

    /// With quality of service `qos`.
    pub fn qos(mut self, qos: u8) -> Will {
        self.qos = qos;
        self
    }

    /// With Will Retain set.
    pub fn retain(mut self) -> Will {
        self.retain = true;
        self
    }

    /// With a Will Delay Interval.
    pub fn delay_secs(self, secs: u32) -> Will {
        self.with(Property::WillDelayInterval(secs))
    }

    /// With one more property.
    pub fn with(mut self, property: Property) -> Will {
        self.properties.0.push(property);
        self
    }
}

impl Connect {
    /// A clean session without keep alive.
    pub fn new(version: Version, client_id: &str) -> Connect {
        Connect {
            version,
            clean: true,
            keep_alive_secs: 0,
            client_id: client_id.to_owned(),
            will: None,
            user_name: None,
            password: None,
            properties: Properties::default(),
        }
    }

    /// A 3.1.1 client with a clean session.
    pub fn v311(client_id: &str) -> Connect {
        Connect::new(Version::V311, client_id)
    }

    /// A 5.0 client with a clean start and a session that ends with the connection.
    pub fn v5(client_id: &str) -> Connect {
        Connect::new(Version::V5, client_id)
    }

    /// A client that resumes its session and keeps it: Clean Session 0 in 3.1.1, Clean Start 0
    /// and a Session Expiry Interval of an hour in 5.0.
    pub fn persistent(version: Version, client_id: &str) -> Connect {
        let connect = Connect::new(version, client_id).resume();
        match version {
            Version::V311 => connect,
            Version::V5 => connect.session_expiry_secs(3600),
        }
    }

    /// With Clean Session or Clean Start 0.
    pub fn resume(mut self) -> Connect {
        self.clean = false;
        self
    }

    /// With Clean Session or Clean Start 1.
    pub fn clean(mut self) -> Connect {
        self.clean = true;
        self
    }

    /// With a Session Expiry Interval.
    pub fn session_expiry_secs(self, secs: u32) -> Connect {
        self.with(Property::SessionExpiryInterval(secs))
    }

    /// With a Keep Alive.
    pub fn keep_alive_secs(mut self, secs: u16) -> Connect {
        self.keep_alive_secs = secs;
        self
    }

    /// With a will.
    pub fn will(mut self, will: Will) -> Connect {
        self.will = Some(will);
        self
    }

    /// With user name and password.
    pub fn login(mut self, user_name: &str, password: &str) -> Connect {
        self.user_name = Some(user_name.to_owned());
        self.password = Some(password.as_bytes().to_vec());
        self
    }

    /// With one more property.
    pub fn with(mut self, property: Property) -> Connect {
        self.properties.0.push(property);
        self
    }

    /// The connect flags these fields ask for.
    pub fn flags(&self) -> u8 {
        let mut flags = u8::from(self.clean) << 1;
        if let Some(will) = &self.will {
            flags |= 0x04 | will.qos << 3 | u8::from(will.retain) << 5;
        }
        flags | u8::from(self.password.is_some()) << 6 | u8::from(self.user_name.is_some()) << 7
    }

    /// The bytes on the wire.
    pub fn encode(&self) -> Vec<u8> {
        self.encode_with_flags(self.flags())
    }

    /// The bytes with other connect flags than the fields ask for.
    pub fn encode_with_flags(&self, flags: u8) -> Vec<u8> {
        let mut body = self.variable_header(flags);
        self.push_payload(&mut body);
        frame(packet_type::CONNECT << 4, &body)
    }

    /// Protocol name, level, flags, keep alive and properties.
    pub fn variable_header(&self, flags: u8) -> Vec<u8> {
        let mut body = Vec::new();
        push_field(&mut body, b"MQTT");
        body.push(match self.version {
            Version::V311 => 4,
            Version::V5 => 5,
        });
        body.push(flags);
        body.extend_from_slice(&self.keep_alive_secs.to_be_bytes());
        if self.version == Version::V5 {
            self.properties.encode(&mut body);
        }
        body
    }

    fn push_payload(&self, body: &mut Vec<u8>) {
        push_field(body, self.client_id.as_bytes());
        if let Some(will) = &self.will {
            if self.version == Version::V5 {
                will.properties.encode(body);
            }
            push_field(body, will.topic.as_bytes());
            push_field(body, &will.payload);
        }
        if let Some(user_name) = &self.user_name {
            push_field(body, user_name.as_bytes());
        }
        if let Some(password) = &self.password {
            push_field(body, password);
        }
    }
}
