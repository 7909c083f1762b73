//! What may come from outside: versions fixed once in the workspace, one registry, and none of the
//! packages that would bring a second TLS, OpenSSL or a C build system. deny.toml says the same to
//! cargo-deny, where it is installed; these rules need neither it nor a network.

use toml::Value;

use crate::Rule;
use crate::tree::{File, Tree};

/// Packages that must not be in Cargo.lock, and why.
const BANNED: [(&str, &str); 8] = [
    ("aws-lc-sys", "a second crypto library with a big C build: set the crate to ring"),
    ("aws-lc-rs", "a second crypto library: set the crate to ring"),
    ("openssl", "TLS is rustls"),
    ("openssl-sys", "TLS is rustls"),
    ("native-tls", "TLS is rustls"),
    ("cmake", "needs cmake on the building machine"),
    ("protobuf-src", "needs a C++ build of protoc"),
    ("rustls-platform-verifier", "certificates come from settings, not from the desktop"),
];

/// Packages of which two versions must not be linked.
const ONCE: [&str; 6] = ["rustls", "ring", "tokio", "librocksdb-sys", "bytes", "axum"];

const REGISTRY: &str = concat!("registry+https://github.com/rust-lang/crates", ".io-index");

pub(crate) const RULES: &[Rule] = &[
    Rule {
        demand: "no package that brings a second TLS, OpenSSL or cmake",
        faults: banned_packages,
        breach: &[("Cargo.lock", "[[package]]\nname = \"openssl-sys\"\nversion = \"0.9.0\"\n")],
    },
    Rule {
        demand: "one version of what must be linked once",
        faults: doubled_packages,
        breach: &[(
            "Cargo.lock",
            "[[package]]\nname = \"rustls\"\nversion = \"0.23.1\"\n\
             [[package]]\nname = \"rustls\"\nversion = \"0.24.0\"\n",
        )],
    },
    Rule {
        demand: "bugs are planted by the simulation's own test: no default, no dependency has them",
        faults: planted_bugs,
        breach: &[(
            "broker/Cargo.toml",
            "[dependencies]\nhoopoe-core = { workspace = true, features = [\"planted\"] }\n",
        )],
    },
    Rule {
        demand: "outside packages come from the standard registry",
        faults: other_sources,
        breach: &[(
            "Cargo.lock",
            "[[package]]\nname = \"x\"\nversion = \"1.0.0\"\nsource = \"git+ssh://host/x\"\n",
        )],
    },
    Rule {
        demand: "a member takes versions and lints from the workspace and is not published",
        faults: wayward_members,
        breach: &[(
            "broker/im/Cargo.toml",
            "[package]\nname = \"x\"\npublish = false\n[lints]\nworkspace = true\n\
             [dependencies]\nserde = \"1\"\n",
        )],
    },
];

/// A `[[package]]` of Cargo.lock and the line of its name.
struct Locked {
    name: String,
    version: String,
    source: Option<String>,
    line: usize,
}

fn locked(tree: &Tree) -> Vec<(&File, Locked)> {
    let Some(file) = tree.files().find(|file| file.path == "Cargo.lock") else {
        return Vec::new();
    };
    let mut packages: Vec<(&File, Locked)> = Vec::new();
    for (index, line) in file.text.lines().enumerate() {
        let Some((key, value)) = line.split_once(" = ") else { continue };
        let value = value.trim_matches('"').to_owned();
        match (key, packages.last_mut()) {
            ("name", _) => packages.push((
                file,
                Locked { name: value, version: String::new(), source: None, line: index + 1 },
            )),
            ("version", Some((_, package))) => package.version = value,
            ("source", Some((_, package))) => package.source = Some(value),
            _ => {}
        }
    }
    packages
}

fn banned_packages(tree: &Tree) -> Vec<String> {
    let mut faults = Vec::new();
    for (file, package) in locked(tree) {
        if let Some((name, why)) = BANNED.iter().find(|(name, _)| *name == package.name) {
            faults.push(format!("{}:{}: {name}: {why}", file.path, package.line));
        }
    }
    faults
}

fn doubled_packages(tree: &Tree) -> Vec<String> {
    let packages = locked(tree);
    let mut faults = Vec::new();
    for name in ONCE {
        let versions: Vec<_> = packages.iter().filter(|(_, p)| p.name == name).collect();
        if let [_, .., (file, last)] = versions.as_slice() {
            let all: Vec<_> = versions.iter().map(|(_, p)| p.version.as_str()).collect();
            faults.push(format!("{}:{}: {name} {}", file.path, last.line, all.join(" and ")));
        }
    }
    faults
}

fn other_sources(tree: &Tree) -> Vec<String> {
    let mut faults = Vec::new();
    for (file, package) in locked(tree) {
        if let Some(source) = package.source.filter(|source| source != REGISTRY) {
            faults.push(format!("{}:{}: {} from {source}", file.path, package.line, package.name));
        }
    }
    faults
}

/// Where a manifest would bring planted bugs into a build that nobody asked them for.
fn planted_bugs(tree: &Tree) -> Vec<String> {
    let mut faults = Vec::new();
    let asks = |features: Option<&Value>| {
        let mut features = features.and_then(Value::as_array).into_iter().flatten();
        features.any(|name| name.as_str().is_some_and(|name| name.ends_with("planted")))
    };
    for (file, manifest) in tree.manifests() {
        let features = manifest.get("features").and_then(Value::as_table);
        for (name, list) in features.into_iter().flatten() {
            if name != "planted" && asks(Some(list)) {
                faults.push(format!("{}:1: feature {name} brings planted bugs", file.path));
            }
        }
        for section in ["dependencies", "dev-dependencies", "build-dependencies"] {
            let table = manifest.get(section).and_then(Value::as_table);
            for (name, value) in table.into_iter().flatten() {
                if asks(value.get("features")) {
                    faults.push(format!("{}:1: {name} with planted bugs", file.path));
                }
            }
        }
    }
    faults
}

fn wayward_members(tree: &Tree) -> Vec<String> {
    let mut faults = Vec::new();
    for (file, manifest) in tree.manifests() {
        let Some(package) = manifest.get("package") else { continue };
        if package.get("publish").and_then(Value::as_bool) != Some(false) {
            faults.push(format!("{}:1: publish = false is missing", file.path));
        }
        let lints = manifest.get("lints").and_then(|lints| lints.get("workspace"));
        if lints.and_then(Value::as_bool) != Some(true) {
            faults.push(format!("{}:1: [lints] workspace = true is missing", file.path));
        }
        for section in ["dependencies", "dev-dependencies", "build-dependencies"] {
            let Some(table) = manifest.get(section).and_then(Value::as_table) else { continue };
            for (name, value) in table {
                if value.get("workspace").and_then(Value::as_bool) != Some(true) {
                    faults.push(format!("{}:1: {name}: not workspace = true", file.path));
                }
            }
        }
    }
    faults
}
