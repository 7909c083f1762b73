//! Where each key stands in a TOML text, so that an error can name file, line and key.

use std::ops::Range;

use toml::de::{DeTable, DeValue};

/// The keys of one text and the bytes each covers.
#[derive(Debug, Default)]
pub(super) struct Places {
    keys: Vec<Place>,
}

#[derive(Debug)]
struct Place {
    key: String,
    name: Range<usize>,
    value: Range<usize>,
}

impl Places {
    /// The places of a text. One that is no TOML has none.
    pub(super) fn of(text: &str) -> Places {
        let mut places = Places::default();
        if let Ok(table) = DeTable::parse(text) {
            places.add_table("", table.get_ref());
        }
        places
    }

    fn add_table(&mut self, parent: &str, table: &DeTable<'_>) {
        for (name, value) in table.iter() {
            let key = match parent {
                "" => name.get_ref().to_string(),
                parent => format!("{parent}.{}", name.get_ref()),
            };
            self.add_value(key, name.span(), value.span(), value.get_ref());
        }
    }

    fn add_value(
        &mut self,
        key: String,
        name: Range<usize>,
        span: Range<usize>,
        value: &DeValue<'_>,
    ) {
        match value {
            DeValue::Table(table) => self.add_table(&key, table),
            DeValue::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    let key = format!("{key}[{index}]");
                    self.add_value(key, item.span(), item.span(), item.get_ref());
                }
            }
            _ => {}
        }
        self.keys.push(Place { key, name, value: span });
    }

    /// Where the key stands, or else the nearest table around it.
    pub(super) fn find(&self, key: &str) -> Option<usize> {
        let mut key = key;
        loop {
            if let Some(place) = self.keys.iter().find(|place| place.key == key) {
                return Some(place.name.start);
            }
            key = parent(key)?;
        }
    }

    /// The innermost key whose name or value covers the byte.
    pub(super) fn key_at(&self, offset: usize) -> Option<&str> {
        let covers = |range: &Range<usize>| range.contains(&offset);
        let covering = self.keys.iter().filter(|place| covers(&place.name) || covers(&place.value));
        covering.max_by_key(|place| place.key.len()).map(|place| place.key.as_str())
    }
}

/// The key of the table or list around a key.
pub(super) fn parent(key: &str) -> Option<&str> {
    key.rfind(['.', '[']).map(|end| &key[..end])
}

/// Line and column of a byte, both from 1, the column in characters.
pub(super) fn line_and_column(text: &str, offset: usize) -> (usize, usize) {
    let mut offset = offset.min(text.len());
    while !text.is_char_boundary(offset) {
        offset -= 1;
    }
    let before = &text[..offset];
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
[mqtt]
max_qos = 1

[[listener]]
url = \"tcp://127.0.0.1:1\"
tls = { cert = \"ä\", key = 7 }

[[listener]]
trusted_proxies = [\"10.0.0.1\", \"x\"]
";

    #[test]
    fn keys_are_found_and_missing_ones_by_their_table() {
        let places = Places::of(TEXT);
        let cases = [
            ("mqtt.max_qos", Some((2, 1))),
            ("listener[0].url", Some((5, 1))),
            ("listener[0].tls.key", Some((6, 21))),
            ("listener[0].origins[3]", Some((4, 1))),
            ("listener[1].trusted_proxies[1]", Some((9, 32))),
            ("queue.policy", None),
        ];
        for (key, expected) in cases {
            let found = places.find(key).map(|offset| line_and_column(TEXT, offset));
            assert_eq!(found, expected, "{key}");
        }
    }

    #[test]
    fn a_byte_belongs_to_its_innermost_key() {
        let places = Places::of(TEXT);
        for (part, key) in [
            ("max_qos", "mqtt.max_qos"),
            ("7 }", "listener[0].tls.key"),
            ("\"x\"", "listener[1].trusted_proxies[1]"),
        ] {
            let offset = TEXT.find(part).unwrap();
            assert_eq!(places.key_at(offset), Some(key));
        }
    }
}
