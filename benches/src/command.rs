//! The command line, and the target and settings that come out of it.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, bail};
use clap::{Args, Parser, Subcommand};
use hoopoe_codec::Version;

use crate::net::{Target, Tls, TlsOptions, WebSocketAt, Wire};
use crate::run::{Lever, Settings};
use crate::shape::{Mqtt, Overrides, Shape};
use crate::tokens::Mint;

/// A load tester for MQTT brokers, made for chat. Speaks standard MQTT to any broker, checks every
/// delivery, and charges the broker for what it spends.
#[derive(Debug, Parser)]
#[command(version, arg_required_else_help = true)]
pub(crate) struct Cli {
    /// What to do
    #[command(subcommand)]
    pub action: Option<Action>,
    /// Compare two result files written with --json
    #[arg(long, num_args = 2, value_names = ["A.json", "B.json"])]
    pub compare: Option<Vec<PathBuf>>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Action {
    /// Plays scenarios against a running broker
    Run(RunArgs),
    /// Starts brokers side by side and plays scenarios against them in turn
    Versus(VersusArgs),
    /// Listens as a relay that does nothing but copy: the limit to hold a broker against
    Relay(RelayArgs),
    /// Compares two result files written with --json
    Compare {
        /// The earlier result, or the peer's
        a: PathBuf,
        /// The later result
        b: PathBuf,
    },
    /// Lists the scenarios
    List,
}

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// Names of scenarios (`hoopoe-bench list`) or scenario files ending in .toml
    #[arg(required = true)]
    pub scenarios: Vec<String>,
    /// Host name or address of the broker
    #[arg(long, default_value = "127.0.0.1")]
    pub host: String,
    /// Port of the broker; default: 1883, 8883 (TLS), 8083 (WebSocket), 8084 (both)
    #[arg(long, short)]
    pub port: Option<u16>,
    /// Name of the broker in results
    #[arg(long, default_value = "")]
    pub name: String,
    /// Process of the broker, with its descendants; repeat for several
    #[arg(long)]
    pub broker_pid: Vec<u32>,
    /// Command that kills the broker (crash)
    #[arg(long)]
    pub kill: Option<String>,
    /// Command that starts the broker again (crash); must return
    #[arg(long)]
    pub restart: Option<String>,
    #[command(flatten)]
    pub common: CommonArgs,
    #[command(flatten)]
    pub shape: Overrides,
    #[command(flatten)]
    pub output: OutputArgs,
}

/// How to speak to whatever broker it is.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Connections")]
pub(crate) struct CommonArgs {
    /// Local addresses to connect from, in turn, such as 127.0.0.2,127.0.0.3
    #[arg(long, value_delimiter = ',')]
    pub bind: Vec<IpAddr>,
    /// Encrypt with TLS
    #[arg(long)]
    pub tls: bool,
    /// Certificates to trust (PEM)
    #[arg(long, requires = "tls")]
    pub ca: Option<PathBuf>,
    /// Believe any certificate
    #[arg(long, requires = "tls")]
    pub insecure: bool,
    /// Name the broker's certificate must be for; default: the host
    #[arg(long, requires = "tls")]
    pub server_name: Option<String>,
    /// Certificate to show to the broker (PEM)
    #[arg(long, requires = "tls")]
    pub cert: Option<PathBuf>,
    /// Key of that certificate (PEM)
    #[arg(long, requires = "tls")]
    pub key: Option<PathBuf>,
    /// Return with the TLS session tickets of earlier connections
    #[arg(long, requires = "tls")]
    pub tls_resume: bool,
    /// Speak MQTT in WebSocket frames
    #[arg(long)]
    pub ws: bool,
    /// Path of the WebSocket
    #[arg(long, default_value = "/mqtt")]
    pub ws_path: String,
    /// Generator threads
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub threads: u16,
    /// Never sleep: look for events all the time, so that no latency counts what it takes to wake the
    /// generator. Wants a core of its own, and says nothing about the generator's cost
    #[arg(long)]
    pub spin: bool,
    /// Keep-alive in CONNECT; 0 switches it off
    #[arg(long, default_value_t = 0)]
    pub keep_alive_secs: u16,
    /// User name; {n} stands for the client's number, {id} for its client identifier
    #[arg(long)]
    pub username: Option<String>,
    /// Password; {n} stands for the client's number
    #[arg(long)]
    pub password: Option<String>,
    /// Before the run, ask for a token for each client by `POST URL {"user": …}`, and use it as its
    /// password; `versus` puts {http} in place. Needs --username with {n}
    #[arg(long, value_name = "URL", requires = "username")]
    pub tokens: Option<String>,
    /// Who asks for the tokens: `Authorization: Bearer`
    #[arg(long, requires = "tokens")]
    pub admin_token: Option<String>,
    /// First level of all topics and start of all client identifiers
    #[arg(long, default_value = "hb")]
    pub prefix: String,
    /// Leave persistent sessions and retained messages in the broker
    #[arg(long)]
    pub keep: bool,
}

/// What becomes of the results.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Output")]
pub(crate) struct OutputArgs {
    /// Write the results as JSON
    #[arg(long)]
    pub json: Option<PathBuf>,
    /// Write the results as one self-contained page with plots
    #[arg(long)]
    pub html: Option<PathBuf>,
    /// No progress, only the table
    #[arg(long, short)]
    pub quiet: bool,
}

#[derive(Debug, Args)]
pub(crate) struct VersusArgs {
    /// Names of scenarios or scenario files
    #[arg(required = true)]
    pub scenarios: Vec<String>,
    /// A broker: name=command for the shell, where {port} stands for a free port, {http} for another
    /// and {dir} for a fresh directory; or one of the names `relay`, `mosquitto` and `hoopoe`
    #[arg(long = "with", required = true, value_name = "NAME=COMMAND")]
    pub with: Vec<String>,
    /// Rounds; each plays every broker once, in turn
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=100))]
    pub rounds: u16,
    /// Cores of the brokers; default: the first of those this process may use
    #[arg(long, value_delimiter = ',')]
    pub broker_cores: Vec<usize>,
    /// Cores of the generator; default: the others
    #[arg(long, value_delimiter = ',')]
    pub generator_cores: Vec<usize>,
    #[command(flatten)]
    pub common: CommonArgs,
    #[command(flatten)]
    pub shape: Overrides,
    #[command(flatten)]
    pub output: OutputArgs,
}

#[derive(Debug, Args)]
pub(crate) struct RelayArgs {
    /// Where to listen
    #[arg(long, default_value = "127.0.0.1:1883")]
    pub listen: SocketAddr,
}

impl CommonArgs {
    /// The target at this address.
    pub(crate) fn target(&self, host: &str, port: Option<u16>, mqtt: Mqtt) -> Result<Target> {
        let port = port.unwrap_or(match (self.tls, self.ws) {
            (false, false) => 1883,
            (true, false) => 8883,
            (false, true) => 8083,
            (true, true) => 8084,
        });
        let address = (host, port)
            .to_socket_addrs()
            .with_context(|| format!("looking up {host}"))?
            .next()
            .ok_or_else(|| anyhow!("{host} has no address"))?;
        let version = match mqtt {
            Mqtt::V311 => Version::V311,
            Mqtt::V5 => Version::V5,
        };
        Ok(Target {
            address,
            binds: self.bind.clone(),
            version,
            wire: self.wire(host)?,
            keep_alive_secs: self.keep_alive_secs,
        })
    }

    fn wire(&self, host: &str) -> Result<Wire> {
        let tls = TlsOptions {
            ca: self.ca.clone(),
            insecure: self.insecure,
            server_name: self.server_name.clone().unwrap_or_else(|| host.to_owned()),
            cert: self.cert.clone(),
            key: self.key.clone(),
            resume: self.tls_resume,
        };
        let websocket = WebSocketAt { host: host.to_owned(), path: self.ws_path.clone() };
        Ok(Wire {
            tls: self.tls.then(|| Tls::new(&tls)).transpose()?,
            websocket: self.ws.then_some(websocket),
        })
    }

    /// A token for each client of the shape, where tokens are asked for; `http` is where a broker that
    /// this program has started serves HTTP.
    pub(crate) fn tokens_for(&self, shape: &Shape, http: Option<u16>) -> Result<Vec<String>> {
        let Some(url) = &self.tokens else { return Ok(Vec::new()) };
        let username = self.username.as_deref().unwrap_or_default();
        if !username.contains("{n}") || self.threads > 1 || shape.kind.is_im() {
            bail!(
                "--tokens: the users are named by --username with {{n}}, on one thread, and in no \
                 scenario of the IM profile, which names them itself"
            );
        }
        let url = match http {
            Some(port) => url.replace("{http}", &port.to_string()),
            None => url.clone(),
        };
        let users = (0..shape.connections()).map(|n| username.replace("{n}", &n.to_string()));
        Mint::new(&url, self.admin_token.clone())?.tokens(&users.collect::<Vec<_>>())
    }

    /// The settings of a run against one broker.
    pub(crate) fn settings(
        &self,
        broker: &str,
        broker_pids: &[u32],
        lever: Option<Arc<dyn Lever>>,
    ) -> Settings {
        Settings {
            tokens: Vec::new(),
            threads: self.threads.into(),
            spin: self.spin,
            broker: broker.to_owned(),
            round: 0,
            broker_pids: broker_pids.to_vec(),
            username: self.username.clone(),
            password: self.password.clone(),
            prefix: self.prefix.clone(),
            keep: self.keep,
            lever,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }
}
