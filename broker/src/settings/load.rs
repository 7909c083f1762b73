//! From file, environment and flags to [`Settings`].
//!
//! The file is read by `toml`, whose errors know their line; the environment is laid over it by
//! figment, whose errors know their variable; flags are typed already. The whole is then checked.

use std::fs;
use std::path::{Path, PathBuf};

use figment::error::Kind;
use figment::providers::Serialized;
use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};

use super::places::{Places, line_and_column, parent};
use super::{Durability, HttpAddress, HttpSettings, Listener, ListenerUrl};
use super::{LocatedProblem, Settings, SettingsError};

/// What the variables of the environment begin with.
const PREFIX: &str = "HOOPOE_";
/// Variables that are no settings: the file the settings are in, and the folder that builds cache
/// in, which the Makefile exports to what it starts.
const NOT_SETTINGS: [&str; 2] = ["HOOPOE_CONFIG", "HOOPOE_CACHE"];

/// Keys that hold a text, also when it looks like a number, and that are not set by default.
const TEXTS: [&str; 5] =
    ["broker.id", "http.admin_token", "http.admin_token_file", "im.hook.url", "im.hook.token"];

/// What the command line says; `None` and empty where it says nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Flags {
    /// `--data`
    pub data_dir: Option<PathBuf>,
    /// `--listen`, in place of all listeners of the file. One that stands in the file keeps what
    /// the file says about it.
    pub listen: Vec<ListenerUrl>,
    /// `--http`
    pub http: Option<HttpAddress>,
    /// `--durability`
    pub durability: Option<Durability>,
    /// `--workers`
    pub workers: Option<u16>,
    /// `--shards`
    pub shards: Option<u16>,
    /// `--anonymous`
    pub anonymous: bool,
}

/// Where settings come from. Kept by a running broker to read them again on SIGHUP.
#[derive(Clone, Debug, Default)]
pub struct SettingsSource {
    /// The file, if there is one.
    pub file: Option<PathBuf>,
    /// The environment: names and values. Only those that begin with `HOOPOE_` matter.
    pub environment: Vec<(String, String)>,
    /// The command line.
    pub flags: Flags,
    /// Of a node that runs links and nothing else (`hoopoe bridge`): clients are not listened for.
    pub links_only: bool,
}

impl SettingsSource {
    /// The file and the flags, and the environment of this process. Variables that are not
    /// Unicode are left out: none of the broker's is.
    pub fn of_process(file: Option<PathBuf>, flags: Flags) -> SettingsSource {
        let environment = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        SettingsSource { file, environment, flags, links_only: false }
    }

    /// Reads the settings.
    ///
    /// # Errors
    /// When the file cannot be read or parsed, a variable of the environment is none of the
    /// broker's, or the result contradicts itself; each with its place.
    pub fn load(&self) -> Result<Settings, SettingsError> {
        let environment = self.environment.iter().map(|(name, value)| (&**name, &**value));
        let mut settings = Settings::load(self.file.as_deref(), environment, &self.flags)?;
        if self.links_only {
            settings.listener.clear();
            // Beside a broker its usual port is taken.
            let usual = settings.http.address == HttpSettings::default().address;
            if usual && self.flags.http.is_none() {
                settings.http.address = HttpAddress::Off;
            }
        }
        Ok(settings)
    }
}

impl Settings {
    /// The settings of file, environment and flags, checked. See [`SettingsSource::load`].
    ///
    /// # Errors
    /// As there.
    pub fn load<'a>(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (&'a str, &'a str)>,
        flags: &Flags,
    ) -> Result<Settings, SettingsError> {
        let read = file.map(SettingsFile::read).transpose()?;
        let settings = match &read {
            Some(read) => read.parse()?,
            None => Settings::default(),
        };
        let variables: Vec<Variable> =
            environment.into_iter().filter_map(|(name, value)| Variable::of(name, value)).collect();
        let mut settings = lay_over(settings, &variables)?;
        flags.apply(&mut settings);

        let place = |key: &str| {
            flags
                .place(key)
                .or_else(|| variables.iter().find_map(|variable| variable.place(key)))
                .or_else(|| read.as_ref().and_then(|read| read.place(key)))
                .unwrap_or_else(|| "default".to_owned())
        };
        let located =
            |problem: super::Problem| LocatedProblem { place: place(&problem.key), problem };
        let problems: Vec<LocatedProblem> = settings.validate().into_iter().map(located).collect();
        if problems.is_empty() { Ok(settings) } else { Err(SettingsError::Invalid(problems)) }
    }
}

/// The text of a settings file.
struct SettingsFile<'a> {
    path: &'a Path,
    text: String,
    places: Places,
}

impl<'a> SettingsFile<'a> {
    fn read(path: &'a Path) -> Result<SettingsFile<'a>, SettingsError> {
        let text = fs::read_to_string(path)
            .map_err(|cause| SettingsError::Read { file: path.to_owned(), cause })?;
        let places = Places::of(&text);
        Ok(SettingsFile { path, text, places })
    }

    fn parse(&self) -> Result<Settings, SettingsError> {
        toml::from_str(&self.text).map_err(|error| {
            let offset = error.span().map_or(0, |span| span.start);
            let (line, column) = line_and_column(&self.text, offset);
            SettingsError::Parse {
                file: self.path.to_owned(),
                line,
                column,
                key: self.places.key_at(offset).unwrap_or_default().to_owned(),
                message: for_people(&error.message().replace('\n', " ")),
            }
        })
    }

    fn place(&self, key: &str) -> Option<String> {
        let (line, column) = line_and_column(&self.text, self.places.find(key)?);
        Some(format!("{}:{line}:{column}", self.path.display()))
    }
}

/// One variable of the environment that sets one key.
struct Variable {
    name: String,
    key: String,
    text: String,
}

impl Variable {
    /// The variable, unless it is none of the broker's.
    fn of(name: &str, text: &str) -> Option<Variable> {
        let rest = name.strip_prefix(PREFIX)?;
        if NOT_SETTINGS.contains(&name) || is_service_link(rest, text) {
            return None;
        }
        let key = rest.to_ascii_lowercase().replace("__", ".");
        Some(Variable { name: name.to_owned(), key, text: text.to_owned() })
    }

    fn place(&self, key: &str) -> Option<String> {
        let mut around = Some(key);
        while let Some(key) = around {
            if key == self.key {
                return Some(format!("environment variable {}", self.name));
            }
            around = parent(key);
        }
        None
    }
}

/// Whether Kubernetes made up the variable. In a cluster with a service called `hoopoe` every
/// container gets `HOOPOE_PORT=tcp://…`, `HOOPOE_PORT_1883_TCP_ADDR`, `HOOPOE_SERVICE_HOST` and
/// more of that kind.
fn is_service_link(rest: &str, text: &str) -> bool {
    let numbered = |(_, after): (usize, &str)| {
        after.as_bytes().get("PORT_".len()).is_some_and(u8::is_ascii_digit)
    };
    rest.ends_with("SERVICE_HOST")
        || rest.contains("SERVICE_PORT")
        || (rest.ends_with("PORT") && text.contains("://"))
        || rest.match_indices("PORT_").map(|(at, _)| (at, &rest[at..])).any(numbered)
}

/// Lays the environment over the settings.
fn lay_over(settings: Settings, variables: &[Variable]) -> Result<Settings, SettingsError> {
    let base = Figment::from(Serialized::defaults(&settings));
    let mut figment = base.clone();
    for variable in variables {
        let text = &variable.text;
        // What is a text so far stays one, also when the new one looks like a number.
        let stays_text = TEXTS.contains(&variable.key.as_str())
            || matches!(base.find_value(&variable.key), Ok(Value::String(..)));
        let value = match text.parse::<Value>() {
            Ok(value) if !stays_text => value,
            _ => Value::from(text.clone()),
        };
        let value = figment::util::nest(&variable.key, value);
        figment = figment.merge(Layer { name: variable.name.clone(), value });
    }
    figment.extract().map_err(|error| {
        let key = error.path.join(".");
        let named = error.metadata.as_ref().map(|metadata| metadata.name.to_string());
        SettingsError::Environment {
            variable: named.unwrap_or_else(|| PREFIX.to_owned() + "…"),
            key,
            message: for_people(&message_of(&error.kind)),
        }
    })
}

/// The types of Rust in the words of a settings file.
fn for_people(message: &str) -> String {
    let words = [
        ("u8", "a whole number from 0 to 255"),
        ("u16", "a whole number from 0 to 65535"),
        ("u32", "a whole number from 0 to 4294967295"),
        ("u64", "a whole number"),
    ];
    let typed = words.iter().find_map(|(name, words)| {
        let before = message.strip_suffix(name)?.strip_suffix("expected ")?;
        Some(format!("{before}expected {words}"))
    });
    typed.unwrap_or_else(|| message.to_owned())
}

/// As the errors of the file say it.
fn message_of(kind: &Kind) -> String {
    match kind {
        Kind::UnknownField(name, expected) => {
            let expected: Vec<String> = expected.iter().map(|key| format!("`{key}`")).collect();
            format!("unknown field `{name}`, expected one of {}", expected.join(", "))
        }
        Kind::UnknownVariant(name, expected) => {
            let expected: Vec<String> = expected.iter().map(|word| format!("`{word}`")).collect();
            format!("unknown variant `{name}`, expected one of {}", expected.join(", "))
        }
        kind => kind.to_string(),
    }
}

/// One variable as figment wants it: a table that holds one value, and whose it is.
struct Layer {
    name: String,
    value: Value,
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.name.clone())
    }

    fn data(&self) -> figment::Result<Map<Profile, Dict>> {
        let dict = self.value.clone().into_dict().unwrap_or_default();
        Ok(Profile::Default.collect(dict))
    }
}

impl Flags {
    fn apply(&self, settings: &mut Settings) {
        if let Some(data_dir) = &self.data_dir {
            settings.broker.data_dir.clone_from(data_dir);
        }
        if let Some(http) = &self.http {
            settings.http.address = http.clone();
        }
        settings.broker.durability = self.durability.unwrap_or(settings.broker.durability);
        settings.broker.workers = self.workers.unwrap_or(settings.broker.workers);
        settings.broker.shards = self.shards.unwrap_or(settings.broker.shards);
        if self.anonymous {
            settings.access.anonymous = Some(true);
        }
        if !self.listen.is_empty() {
            let described = std::mem::take(&mut settings.listener);
            let listener = |url: &ListenerUrl| {
                let described = described.iter().find(|listener| listener.url == *url);
                described.cloned().unwrap_or_else(|| Listener::at(url.clone()))
            };
            settings.listener = self.listen.iter().map(listener).collect();
        }
    }

    /// The flag that set the key, if one did.
    fn place(&self, key: &str) -> Option<String> {
        let flag = match key {
            "broker.data_dir" if self.data_dir.is_some() => "--data",
            "http.address" if self.http.is_some() => "--http",
            "broker.durability" if self.durability.is_some() => "--durability",
            "broker.workers" if self.workers.is_some() => "--workers",
            "broker.shards" if self.shards.is_some() => "--shards",
            "access.anonymous" if self.anonymous => "--anonymous",
            key if key.starts_with("listener") && !self.listen.is_empty() => "--listen",
            _ => return None,
        };
        Some(format!("flag {flag}"))
    }
}
