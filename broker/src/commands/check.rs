//! `hoopoe check`: everything that would keep a broker from starting on its settings, at once.
//!
//! Not here: what only shows when it is tried (a port that is taken, a folder that is locked),
//! since a check must not disturb a broker that runs.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::access;
use crate::settings::{Settings, SettingsSource, TlsSettings};

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

fn check_tls(key: &str, tls: &TlsSettings, problems: &mut Vec<String>) {
    let mut certificates = |name: &str, file: &Path| {
        let read =
            CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        let fault = match read {
            Ok(found) if found.is_empty() => "there is no certificate in it".to_owned(),
            Ok(_) => return,
            Err(error) => error.to_string(),
        };
        problems.push(format!("{key}.{name}: {}: {fault}", file.display()));
    };
    certificates("cert", &tls.cert);
    if let Some(client_ca) = &tls.client_ca {
        certificates("client_ca", client_ca);
    }
    if let Err(error) = PrivateKeyDer::from_pem_file(&tls.key) {
        problems.push(format!("{key}.key: {}: {error}", tls.key.display()));
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
        let text = format!(
            "[access]\nusers_file = '{}'\nrules_file = '{}'\n\
             [[listener]]\nurl = 'tls://127.0.0.1:1'\ntls = {{ cert = '{}', key = '{}' }}\n\
             [[listener]]\nurl = 'tls://127.0.0.1:2'\n\
             tls = {{ cert = '{}', key = '{}', client_ca = '{}' }}\n",
            path("users"),
            path("rules"),
            path("cert"),
            path("key"),
            path("empty"),
            path("cert"),
            path("none"),
        );
        fs::write(path("hoopoe.toml"), text).unwrap();
        let file = Some(path("hoopoe.toml").into());
        let (said, sound) = run(&SettingsSource { file, ..SettingsSource::default() });
        assert!(!sound);
        let expected = [
            format!("access.users_file: {}:1: expected user:hash", path("users")),
            format!("access.rules_file: {}:2: expected `publish`", path("rules")),
            format!("listener[1].tls.cert: {}: there is no certificate", path("empty")),
            format!("listener[1].tls.client_ca: {}: ", path("none")),
            format!("listener[1].tls.key: {}: ", path("cert")),
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
