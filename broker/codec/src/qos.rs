//! Quality of service levels.

/// How hard a message is tried: the quality of service of a PUBLISH, a will or a subscription.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash, Default)]
#[repr(u8)]
pub enum QoS {
    /// QoS 0: sent once, never acknowledged.
    #[default]
    AtMostOnce = 0,
    /// QoS 1: acknowledged with PUBACK, may arrive twice.
    AtLeastOnce = 1,
    /// QoS 2: the four-packet exchange, arrives once.
    ExactlyOnce = 2,
}

impl QoS {
    /// The level for its two bits; `None` for 3, which the standard forbids everywhere.
    pub const fn from_bits(bits: u8) -> Option<QoS> {
        match bits {
            0 => Some(QoS::AtMostOnce),
            1 => Some(QoS::AtLeastOnce),
            2 => Some(QoS::ExactlyOnce),
            _ => None,
        }
    }
}

impl TryFrom<u8> for QoS {
    type Error = u8;

    /// Gives the byte back when it is no level.
    fn try_from(bits: u8) -> Result<QoS, u8> {
        QoS::from_bits(bits).ok_or(bits)
    }
}
