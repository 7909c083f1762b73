//! `hoopoe check`: everything that would keep a broker from starting on its settings, at once.
//!
//! Not here: what only shows when it is tried (a port that is taken, a folder that is locked),
//! since a check must not disturb a broker that runs.

use std::io::Write;
use std::process::ExitCode;

use crate::access;
use crate::settings::{Settings, SettingsSource, TlsSettings};
use crate::transport::{Certificates, TlsError};

/// Prints what is wrong and exits 1, or one line and exits 0.
///
/// # Errors
/// When the output cannot be written.
pub fn check(source: &SettingsSource, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    let settings = match source.load() {
        Ok(settings) => settings,
        Err(error) => {
            writeln!(out, "{error}")?;
            return Ok(ExitCode::FAILURE);
        }
    };
    let problems = problems_of_files(&settings);
    for problem in &problems {
        writeln!(out, "{problem}")?;
    }
    if !problems.is_empty() {
        return Ok(ExitCode::FAILURE);
    }
    for note in settings.notes() {
        writeln!(out, "note: {note}")?;
    }
    match &source.file {
        Some(file) => writeln!(out, "{}: no mistakes found", file.display())?,
        None => writeln!(out, "no settings file: the defaults hold, no mistakes found")?,
    }
    Ok(ExitCode::SUCCESS)
}

/// What is wrong in the files that the settings name, with the key that names each.
fn problems_of_files(settings: &Settings) -> Vec<String> {
    let mut problems = Vec::new();
    if let Err(error) = access::read_users(&settings.access) {
        problems.push(format!("access.users_file: {error}"));
    }
    if let Err(error) = access::read_rules(&settings.access) {
        problems.push(format!("access.rules_file: {error}"));
    }
    for (index, listener) in settings.listener.iter().enumerate() {
        if let Some(tls) = &listener.tls {
            check_tls(&format!("listener[{index}].tls"), tls, &mut problems);
        }
    }
    problems
}

/// Loads the certificates as a start would, so that a key that belongs to another certificate is
/// found as well. One fault per listener: what hides behind it shows when it is mended.
fn check_tls(key: &str, tls: &TlsSettings, problems: &mut Vec<String>) {
    if let Err(error) = Certificates::load(tls.into()) {
        problems.push(format!("{key}.{}: {error}", file_at_fault(&error, tls)));
    }
}

/// The key that names the file.
fn file_at_fault(error: &TlsError, tls: &TlsSettings) -> &'static str {
    match error {
        TlsError::Unreadable { file, .. }
        | TlsError::NotPem { file, .. }
        | TlsError::NoCertificate { file }
            if *file == tls.cert =>
        {
            "cert"
        }
        TlsError::Unreadable { file, .. } | TlsError::NotPem { file, .. } if *file == tls.key => {
            "key"
        }
        TlsError::NoKey { .. } | TlsError::EncryptedKey { .. } | TlsError::Unusable { .. } => "key",
        _ => "client_ca",
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn run(source: &SettingsSource) -> (String, bool) {
        let mut out = Vec::new();
        let code = check(source, &mut out).unwrap();
        (String::from_utf8(out).unwrap(), code == ExitCode::SUCCESS)
    }

    #[test]
    fn sound_settings_are_one_line() {
        let (said, sound) = run(&SettingsSource::default());
        assert!(sound);
        assert_eq!(said.lines().count(), 1);
    }

    #[test]
    fn what_is_wrong_in_the_named_files_is_told_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        fs::write(path("cert"), certified.cert.pem()).unwrap();
        fs::write(path("key"), certified.signing_key.serialize_pem()).unwrap();
        fs::write(path("users"), "alice\n").unwrap();
        fs::write(path("rules"), "user *\nallow all #\n").unwrap();
        fs::write(path("empty"), "").unwrap();
        let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        fs::write(path("other"), other.signing_key.serialize_pem()).unwrap();
        let mut text = format!(
            "[access]\nusers_file = '{}'\nrules_file = '{}'\n",
            path("users"),
            path("rules")
        );
        for (port, (cert, key, client_ca)) in
            [("cert", "key", "cert"), ("empty", "key", "cert"), ("cert", "cert", "cert")]
                .into_iter()
                .chain([("cert", "key", "none"), ("cert", "other", "cert")])
                .enumerate()
        {
            text.push_str(&format!(
                "[[listener]]\nurl = 'tls://127.0.0.1:{}'\n\
                 tls = {{ cert = '{}', key = '{}', client_ca = '{}' }}\n",
                port + 1,
                path(cert),
                path(key),
                path(client_ca),
            ));
        }
        fs::write(path("hoopoe.toml"), text).unwrap();
        let file = Some(path("hoopoe.toml").into());
        let (said, sound) = run(&SettingsSource { file, ..SettingsSource::default() });
        assert!(!sound);
        let expected = [
            format!("access.users_file: {}:1: expected user:hash", path("users")),
            format!("access.rules_file: {}:2: expected `publish`", path("rules")),
            format!("listener[1].tls.cert: {}: no certificate", path("empty")),
            format!("listener[2].tls.key: {}: no private key", path("cert")),
            format!("listener[3].tls.client_ca: cannot read {}: ", path("none")),
            format!(
                "listener[4].tls.key: certificate {} and key {} do not work: ",
                path("cert"),
                path("other")
            ),
        ];
        assert_eq!(said.lines().count(), expected.len(), "{said}");
        for (line, expected) in said.lines().zip(expected) {
            assert!(line.starts_with(&expected), "{line}\n  is not {expected}");
        }
    }

    #[test]
    fn wrong_settings_are_told_with_their_place() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "[mqtt]\nmax_qos = 7\n").unwrap();
        let source =
            SettingsSource { file: Some(file.path().to_owned()), ..SettingsSource::default() };
        let (said, sound) = run(&source);
        assert!(!sound);
        assert!(said.starts_with(&format!("{}:2:1: mqtt.max_qos: ", file.path().display())));
    }
}
