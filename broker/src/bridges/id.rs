//! The name this broker has among linked ones, and the file that keeps it.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::settings::Settings;

/// The file in the data folder that keeps the id drawn for this broker.
const ID_FILE: &str = "broker-id";
/// What becomes that file once it is whole.
const NEW_FILE: &str = "broker-id.new";
/// An id is no longer.
const ID_BYTES_MAX: usize = 64;

/// What a data folder says of the id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeptId {
    /// This is it.
    Id(String),
    /// Nothing: none was ever drawn.
    Missing,
    /// The file is there and holds none.
    Damaged,
}

/// The file in a data folder.
pub fn id_file(data: &Path) -> PathBuf {
    data.join(ID_FILE)
}

/// Whether a text may be the id of a broker.
pub fn is_broker_id(id: &str) -> bool {
    let bytes = id.as_bytes();
    (1..=ID_BYTES_MAX).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_alphanumeric)
}

/// The id that a data folder keeps.
///
/// # Errors
/// When the file is there and cannot be read.
pub fn kept_id(data: &Path) -> anyhow::Result<KeptId> {
    let file = id_file(data);
    let bytes = match fs::read(&file) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(KeptId::Missing),
        Err(error) => {
            return Err(error)
                .with_context(|| format!("{}: the broker's id cannot be read", file.display()));
        }
    };
    let id = std::str::from_utf8(&bytes).unwrap_or_default().trim();
    Ok(if is_broker_id(id) { KeptId::Id(id.to_owned()) } else { KeptId::Damaged })
}

/// Keeps an id in a data folder: the whole of it or none.
///
/// # Errors
/// When it cannot be written.
pub fn keep_id(data: &Path, id: &str) -> anyhow::Result<()> {
    let write = || -> io::Result<()> {
        let new = data.join(NEW_FILE);
        let mut file = File::create(&new)?;
        writeln!(file, "{id}")?;
        file.sync_all()?;
        fs::rename(&new, id_file(data))?;
        File::open(data)?.sync_all()
    };
    let shown = id_file(data);
    write().with_context(|| format!("{}: the broker's id cannot be kept", shown.display()))
}

/// The id of this broker: the one of the settings, or the one drawn at its first start.
///
/// # Errors
/// When the file cannot be read or written, or there are no random numbers.
pub fn broker_id(settings: &Settings, keep: bool) -> anyhow::Result<String> {
    if let Some(id) = &settings.broker.id {
        return Ok(id.clone());
    }
    let data = &settings.broker.data_dir;
    let kept = if keep { kept_id(data)? } else { KeptId::Missing };
    if let KeptId::Id(id) = kept {
        return Ok(id);
    }
    let mut random = [0u8; 8];
    getrandom::fill(&mut random)
        .map_err(|error| anyhow::anyhow!("no random numbers from the system: {error}"))?;
    let id = format!("{:016x}", u64::from_be_bytes(random));
    if kept == KeptId::Damaged {
        tracing::warn!(
            file = %id_file(data).display(),
            id,
            "the file holds no broker id: a new one is drawn, and links without a client_id begin \
             new sessions at their remote brokers"
        );
    }
    if keep {
        keep_id(data, &id)?;
    }
    Ok(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(data: &Path) -> Settings {
        let mut settings = Settings::default();
        settings.broker.data_dir = data.to_owned();
        settings
    }

    #[test]
    fn an_id_is_drawn_once() {
        let data = tempfile::tempdir().unwrap();
        let settings = settings(data.path());
        assert_eq!(kept_id(data.path()).unwrap(), KeptId::Missing);
        let drawn = broker_id(&settings, true).unwrap();
        assert!(is_broker_id(&drawn));
        assert_eq!(broker_id(&settings, true).unwrap(), drawn);
        assert_ne!(broker_id(&settings, false).unwrap(), drawn, "without files, each start");
        assert_eq!(kept_id(data.path()).unwrap(), KeptId::Id(drawn));
        assert_eq!(fs::read_dir(data.path()).unwrap().count(), 1);
        let mut named = settings.clone();
        named.broker.id = Some("paris-1".to_owned());
        assert_eq!(broker_id(&named, true).unwrap(), "paris-1");
    }

    #[test]
    fn a_damaged_file_is_told_from_none_and_replaced() {
        let data = tempfile::tempdir().unwrap();
        for damaged in [&b""[..], b"\n", b"\xff\xfe\x00", b"0123 4567", &[b'a'; 65]] {
            fs::write(id_file(data.path()), damaged).unwrap();
            assert_eq!(kept_id(data.path()).unwrap(), KeptId::Damaged, "{damaged:?}");
            let drawn = broker_id(&settings(data.path()), true).unwrap();
            assert_eq!(kept_id(data.path()).unwrap(), KeptId::Id(drawn));
        }
    }

    #[test]
    fn a_file_that_cannot_be_read_is_an_error_that_names_it() {
        let data = tempfile::tempdir().unwrap();
        fs::create_dir(id_file(data.path())).unwrap();
        let error = broker_id(&settings(data.path()), true).unwrap_err();
        assert!(format!("{error:#}").contains("broker-id: the broker's id cannot be read"));
    }
}
