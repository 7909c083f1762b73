//! A stored entry as a device receives it: the same fields from both forms of the envelope.

use crate::Publish;

/// What kind of entry it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[allow(missing_docs, reason = "the names are the profile's")]
pub enum Kind {
    Message,
    Recall,
    Edit,
    React,
    Burn,
    Member,
    Void,
}

impl Kind {
    /// From the word of the envelope.
    pub fn of_word(word: &str) -> Option<Kind> {
        Some(match word {
            "" => Kind::Message,
            "recall" => Kind::Recall,
            "edit" => Kind::Edit,
            "react" => Kind::React,
            "burn" => Kind::Burn,
            "member" => Kind::Member,
            "void" => Kind::Void,
            _ => return None,
        })
    }
}

/// The fields of the envelope, and the body.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Place in the conversation.
    pub seq: u64,
    /// Id.
    pub id: String,
    /// Time, in ms since the epoch.
    pub ts: u64,
    /// Name of the sender.
    pub from: String,
    /// Kind.
    pub kind: Kind,
    /// The entry it is about, 0 for none.
    pub reference: u64,
    /// Countable messages up to here; 3.1.1 does not say.
    pub count: Option<u64>,
    /// Client message id, where it is told.
    pub cid: Option<String>,
    /// Body.
    pub payload: Vec<u8>,
}

impl Entry {
    /// Reads what comes behind `im/me/in/u/bob` or `im/me/res/r1/m` of a topic, and properties.
    pub fn read(header: &str, publish: &Publish) -> Option<Entry> {
        let payload = publish.payload.clone();
        let levels: Vec<&str> = header.split('/').filter(|level| !level.is_empty()).collect();
        if let [seq, from, ts, id, event @ ..] = &levels[..] {
            let (word, reference) = match event {
                [] => ("", "0"),
                [word, reference] => (*word, *reference),
                _ => return None,
            };
            return Some(Entry {
                seq: seq.parse().ok()?,
                id: (*id).to_owned(),
                ts: ts.parse().ok()?,
                from: (*from).to_owned(),
                kind: Kind::of_word(word)?,
                reference: reference.parse().ok()?,
                count: None,
                cid: None,
                payload,
            });
        }
        let pairs = publish.properties.user_properties();
        let value = |name: &str| {
            pairs.iter().find(|(of, _)| *of == name).map(|(_, value)| (*value).to_owned())
        };
        Some(Entry {
            seq: value("im-seq")?.parse().ok()?,
            id: value("im-id")?,
            ts: value("im-ts")?.parse().ok()?,
            from: value("im-from")?,
            kind: Kind::of_word(&value("im-kind").unwrap_or_default())?,
            reference: value("im-ref").map_or(Some(0), |seq| seq.parse().ok())?,
            count: Some(value("im-cnt")?.parse().ok()?),
            cid: value("im-cid"),
            payload,
        })
    }
}
