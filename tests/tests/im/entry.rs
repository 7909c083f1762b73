//! A stored entry as a device receives it: the same fields from both forms of the envelope.

use hoopoe_tests::{Publish, RawClient};

/// The fields of the envelope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// `u/bob`, `g/team` or `c/news`.
    pub(crate) conv: String,
    pub(crate) seq: u64,
    pub(crate) id: String,
    pub(crate) ts: u64,
    pub(crate) from: String,
    /// Empty for a message.
    pub(crate) kind: String,
    pub(crate) reference: u64,
    pub(crate) payload: String,
}

/// Reads an entry; `None` for what is none.
pub(crate) fn entry(publish: &Publish) -> Option<Entry> {
    let rest = publish.topic.strip_prefix("im/me/in/")?;
    let mut levels = rest.split('/');
    let conv = format!("{}/{}", levels.next()?, levels.next()?);
    let payload = String::from_utf8_lossy(&publish.payload).into_owned();
    let header: Vec<&str> = levels.collect();
    if let [seq, from, ts, id, event @ ..] = &header[..] {
        let (kind, reference) = match event {
            [kind, reference] => (*kind, *reference),
            _ => ("", "0"),
        };
        return Some(Entry {
            conv,
            seq: seq.parse().ok()?,
            id: (*id).to_owned(),
            ts: ts.parse().ok()?,
            from: (*from).to_owned(),
            kind: kind.to_owned(),
            reference: reference.parse().ok()?,
            payload,
        });
    }
    let property = |name: &str| {
        let found = publish.properties.user_properties().into_iter().find(|(of, _)| *of == name);
        found.map(|(_, value)| value.to_owned())
    };
    Some(Entry {
        conv,
        seq: property("im-seq")?.parse().ok()?,
        id: property("im-id")?,
        ts: property("im-ts")?.parse().ok()?,
        from: property("im-from")?,
        kind: property("im-kind").unwrap_or_default(),
        reference: property("im-ref").map_or(Some(0), |seq| seq.parse().ok())?,
        payload,
    })
}

/// The next entry; what else comes before it is taken and dropped.
pub(crate) fn next_entry(device: &mut RawClient) -> Entry {
    loop {
        if let Some(entry) = entry(&device.take_publish()) {
            return entry;
        }
    }
}

/// The seqs of the next entries.
pub(crate) fn next_seqs(device: &mut RawClient, count: usize) -> Vec<u64> {
    (0..count).map(|_| next_entry(device).seq).collect()
}

/// Sends a message that must be accepted.
pub(crate) fn send(device: &mut RawClient, topic: &str, payload: &str) {
    device.publish(Publish::new(topic, payload).qos(1));
}
