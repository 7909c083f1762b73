//! A certificate authority for one test, with a server and a client certificate as PEM files.

use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

/// The files of a test's own certificate authority.
#[derive(Clone, Debug)]
pub struct Certificates {
    /// Certificate of the authority.
    pub authority: PathBuf,
    /// Certificate of the server, for `localhost`, `127.0.0.1` and each
    /// [`unique_address`](crate::unique_address).
    pub server: PathBuf,
    /// Key of the server.
    pub server_key: PathBuf,
    /// Certificate of a client whose common name is `certified`.
    pub client: PathBuf,
    /// Key of the client.
    pub client_key: PathBuf,
}

impl Certificates {
    /// Makes new certificates in `folder`.
    pub fn generate(folder: &Path) -> Certificates {
        let mut parameters = CertificateParams::new(Vec::new()).expect("no names to check");
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.distinguished_name.push(DnType::CommonName, "Hoopoe test authority");
        let key = KeyPair::generate().expect("a key can be generated");
        let authority = parameters.self_signed(&key).expect("the authority signs itself");
        let issuer = Issuer::new(parameters, key);
        let own = crate::own_ip().to_string();
        let (server, server_key) = signed(&issuer, &["localhost", "127.0.0.1", &own], "localhost");
        let (client, client_key) = signed(&issuer, &[], "certified");
        let write = |name: &str, text: &str| {
            let file = folder.join(name);
            std::fs::write(&file, text).expect("a PEM file can be written");
            file
        };
        Certificates {
            authority: write("authority.pem", &authority.pem()),
            server: write("server.pem", &server),
            server_key: write("server.key", &server_key),
            client: write("client.pem", &client),
            client_key: write("client.key", &client_key),
        }
    }
}

fn signed(issuer: &Issuer<'_, KeyPair>, names: &[&str], common_name: &str) -> (String, String) {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut parameters = CertificateParams::new(names).expect("the names are valid");
    parameters.distinguished_name.push(DnType::CommonName, common_name);
    let key = KeyPair::generate().expect("a key can be generated");
    let certificate = parameters.signed_by(&key, issuer).expect("the authority signs");
    (certificate.pem(), key.serialize_pem())
}
