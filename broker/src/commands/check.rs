//! `hoopoe check`: everything that would keep a broker from starting on its settings, at once.
//!
//! Not here: what only shows when it is tried (a port that is taken, a folder that is locked),
//! since a check must not disturb a broker that runs.

use std::fs;
use std::io::{ErrorKind, Write};
use std::process::ExitCode;

use crate::settings::{Durability, Settings, SettingsSource, TlsSettings};
use crate::transport::{Certificates, TlsError};
use crate::{access, admin, bridges, im};

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
    if let Err(error) = admin::AdminToken::read(&settings.http) {
        problems.push(format!("http.admin_token_file: {error:#}"));
    }
    for (index, bridge) in settings.bridge.iter().enumerate() {
        let faults = bridges::file_faults(bridge).into_iter();
        problems.extend(faults.map(|(key, error)| format!("bridge[{index}].{key}: {error:#}")));
    }
    let (hook, push) = (&settings.im.hook, &settings.im.push);
    for (key, url, file) in [("hook", &hook.url, &hook.ca_file), ("push", &push.url, &push.ca_file)]
    {
        if let Some(url) = url
            && let Err(error) = im::check_service(url, file.as_deref())
        {
            problems.push(format!("im.{key}.ca_file: {error:#}"));
        }
    }
    problems.extend(check_folder(settings));
    problems
}

/// A data folder that can be none. Whether it can be written shows when it is tried.
fn check_folder(settings: &Settings) -> Option<String> {
    let folder = &settings.broker.data_dir;
    let is_none = match fs::metadata(folder) {
        Ok(found) => !found.is_dir(),
        Err(error) => error.kind() == ErrorKind::NotADirectory,
    };
    let is_used = settings.broker.durability != Durability::Memory;
    (is_none && is_used).then(|| format!("broker.data_dir: {} is no folder", folder.display()))
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
    fn what_a_start_would_refuse_of_other_files_is_told_as_well() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        fs::write(path("cert"), certified.cert.pem()).unwrap();
        fs::write(path("key"), certified.signing_key.serialize_pem()).unwrap();
        let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        fs::write(path("other"), other.signing_key.serialize_pem()).unwrap();
        fs::write(path("password"), "secret\n").unwrap();
        fs::write(path("short"), "fifteen letters\n").unwrap();
        fs::write(path("binary"), [0xff; 40]).unwrap();
        fs::write(path("token"), "sixteen letters!\n").unwrap();
        let link = |name: &str, password: &str, ca: &str, cert: &str, key: &str| {
            format!(
                "[[bridge]]\nname = '{name}'\nurl = 'mqtts://localhost:8883'\nusername = 'u'\n\
                 password_file = '{}'\nca_file = '{}'\ncert_file = '{}'\nkey_file = '{}'\n\
                 rule = [{{ pattern = '#', direction = 'out' }}]\n",
                path(password),
                path(ca),
                path(cert),
                path(key)
            )
        };
        let told = |text: &str| {
            fs::write(path("hoopoe.toml"), text).unwrap();
            let file = Some(path("hoopoe.toml").into());
            run(&SettingsSource { file, ..SettingsSource::default() })
        };
        let http = |name: &str| format!("[http]\nadmin_token_file = '{}'\n", path(name));
        let service = |name: &str, url: &str, ca: &str| {
            format!("[im.{name}]\nurl = '{url}'\nca_file = '{}'\n", path(ca))
        };
        let https = "https://localhost/x";
        let refused = [
            http("none"),
            service("hook", https, "none"),
            service("push", https, "key"),
            link("a", "none", "none", "key", "key"),
            link("b", "password", "cert", "cert", "none"),
            link("c", "binary", "key", "cert", "other"),
            format!("[broker]\ndata_dir = '{}'\n", path("cert")),
        ];
        let (said, sound) = told(&refused.concat());
        assert!(!sound);
        let expected = [
            format!("http.admin_token_file: {}: no admin token: No such file", path("none")),
            format!("bridge[0].ca_file: {}: no certificates: ", path("none")),
            format!("bridge[0].cert_file: {}: no certificates", path("key")),
            format!("bridge[0].password_file: {}: the password cannot be read", path("none")),
            format!("bridge[1].key_file: {}: no private key: ", path("none")),
            format!("bridge[2].ca_file: {}: no certificates", path("key")),
            format!("bridge[2].key_file: {}: the key is not its: ", path("cert")),
            format!("bridge[2].password_file: {}: the password cannot be read", path("binary")),
            format!("im.hook.ca_file: who may sign for {https}: cannot read {}: ", path("none")),
            format!("im.push.ca_file: who may sign for {https}: {}: no cert", path("key")),
            format!("broker.data_dir: {} is no folder", path("cert")),
        ];
        for (line, expected) in said.lines().zip(&expected) {
            assert!(line.starts_with(expected), "{line}\n  is not {expected}");
        }
        assert_eq!(said.lines().count(), expected.len(), "{said}");

        for name in ["short", "binary"] {
            let (said, sound) = told(&http(name));
            let place = format!("http.admin_token_file: {}: ", path(name));
            assert!(!sound && said.starts_with(&place), "{said}");
        }
        let below = format!("[broker]\ndata_dir = '{}/data'\n", path("cert"));
        assert!(!told(&below).1, "a folder below a file");
        let memory = format!("{below}durability = 'memory'\n");
        let sound = [
            memory,
            http("token"),
            service("hook", https, "cert"),
            service("push", "http://localhost/x", "cert"),
            link("a", "password", "cert", "cert", "key"),
        ];
        let (said, sound) = told(&sound.concat());
        assert!(sound, "{said}");
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
