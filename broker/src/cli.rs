//! The command line of `hoopoe`: its words, and the help a newcomer reads.
//!
//! Only definitions: what the commands do is in [`crate::commands`] and [`crate::node`].

mod ctl;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

pub use ctl::{
    BridgesOrder, ClientsOrder, CtlArgs, CtlOrder, RetainedOrder, SessionsOrder, SitesOrder,
    UsersOrder, Which,
};

use crate::settings::{Durability, Flags, HttpAddress, ListenerUrl, SettingsSource};

const EXAMPLES: &str = "\
Examples:
  hoopoe serve
      Runs a broker for this machine only, MQTT on port 1883, stored in ./data. To try it:
        mosquitto_sub -t 'hello/#' -v          (in another terminal)
        mosquitto_pub -t hello/world -m hi     (in a third one)
  hoopoe passwd users alice
      Asks for alice's password and writes its hash to the file `users`.
  hoopoe check --config hoopoe.toml && hoopoe serve --config hoopoe.toml
      Runs a broker on its settings file, after looking for mistakes in it.

The settings and their defaults are explained in config/hoopoe.toml.";

const SERVE_EXAMPLES: &str = "\
Examples:
  hoopoe serve
      For this machine only: MQTT on 1883, WebSocket on 8083 at /mqtt, HTTP on 8080.
  hoopoe serve --listen tcp://0.0.0.0:1883 --anonymous
      For everybody who reaches this machine, without passwords.
  hoopoe serve --data /var/lib/hoopoe --durability os --listen tcp://127.0.0.1:1884
      Another folder, another port, and no wait for the disk at each message.

SIGTERM or Ctrl-C stops the broker after it told its clients; twice stops it at once. SIGHUP reads
settings, certificates, users and rules again.";

const BRIDGE_EXAMPLES: &str = "\
Examples:
  hoopoe bridge --config links.toml --data /var/lib/links
      With two links in the file: what the rules of one bring in (direction = \"in\"), those of the
      other take out. What waits is stored in the folder, as durably as in a broker.";

const PASSWD_EXAMPLES: &str = "\
Examples:
  hoopoe passwd users alice                asks for the password, twice
  echo secret | hoopoe passwd users alice --stdin
  hoopoe passwd users alice --delete

A running broker takes the change up on SIGHUP.";

const BACKUP_EXAMPLES: &str = "\
Examples:
  hoopoe backup /backup/monday --config hoopoe.toml
      Copies what the broker has stored, and its id, while it runs or when it does not. Run it as
      the broker's user, from any folder. Settings, users, rules and certificates are files of your
      own and not in it.
  hoopoe restore /backup/monday --data /var/lib/hoopoe";

const CHAT_EXAMPLES: &str = "\
Examples:
  hoopoe chat --user alice
      On this machine's broker (hoopoe serve), which takes every name while it has no users. In
      another terminal: hoopoe chat --user bob. Then, as alice: /to u/bob and a line of text.
  hoopoe chat --user alice --server tls://chat.example.net:8883 --ca ca.pem --password-env SECRET
  printf '/to u/bob\\nlunch?\\n' | hoopoe chat --user alice

/help shows what can be typed. Any MQTT client can do what this chat does: broker/docs/im.md.";

/// The command line.
#[derive(Debug, Parser)]
#[command(
    name = "hoopoe",
    bin_name = "hoopoe",
    version,
    about = "An MQTT broker for instant messaging"
)]
#[command(after_help = EXAMPLES, arg_required_else_help = true, propagate_version = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What `hoopoe` can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the broker
    #[command(after_help = SERVE_EXAMPLES)]
    Serve(SettingsArgs),
    /// Run links between other brokers, and no broker
    #[command(after_help = BRIDGE_EXAMPLES)]
    Bridge(BridgeArgs),
    /// Say what is wrong with the settings and the files they name, then exit 1; or exit 0
    Check(SettingsArgs),
    /// Print every setting in effect, as TOML
    Config(SettingsArgs),
    /// Add or remove a user, or change a password
    #[command(after_help = PASSWD_EXAMPLES)]
    Passwd(PasswdArgs),
    /// Ask a running broker: users, clients, sessions, retained messages
    #[command(after_help = ctl::CTL_EXAMPLES)]
    Ctl(CtlArgs),
    /// Chat with other users of a broker, at the terminal
    #[command(after_help = CHAT_EXAMPLES)]
    Chat(ChatArgs),
    /// Copy the store to another folder, of a running broker too
    #[command(after_help = BACKUP_EXAMPLES)]
    Backup(BackupArgs),
    /// Put a backup into an empty data folder
    Restore {
        /// Folder that `hoopoe backup` wrote
        backup: PathBuf,
        /// Data folder, new or empty
        #[arg(long, value_name = "DIR")]
        data: PathBuf,
    },
    /// Keep what can be read of a damaged store, and say what cannot
    Repair {
        /// Data folder of a broker that does not run
        data: PathBuf,
        /// Number of shards, asked for when the store has lost it
        #[arg(long, value_name = "N")]
        shards: Option<u16>,
    },
    /// Print completions for a shell
    Completions {
        /// Which shell
        shell: Shell,
    },
}

/// Where the settings come from, the same for every command that needs them.
#[derive(Args, Debug)]
pub struct SettingsArgs {
    /// Settings file; without one, the defaults hold
    #[arg(long, value_name = "FILE", env = "HOOPOE_CONFIG")]
    pub config: Option<PathBuf>,
    /// Folder to store in [default: ./data]
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Where MQTT clients connect, in place of all listeners of the file; may be repeated:
    /// tcp://, tls://, ws:// or wss:// and host:port, for WebSocket also a /path
    #[arg(long, value_name = "URL")]
    pub listen: Vec<ListenerUrl>,
    /// Where health and metrics are served, host:port or off [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDR")]
    pub http: Option<HttpAddress>,
    /// What is on the disk before a message is acknowledged [default: sync]
    #[arg(long, value_enum)]
    pub durability: Option<Durability>,
    /// Threads that own connections; 0 is one per core [default: 0]
    #[arg(long, value_name = "N")]
    pub workers: Option<u16>,
    /// Threads that write durable state, fixed for a data folder [default: 4]
    #[arg(long, value_name = "N")]
    pub shards: Option<u16>,
    /// Let clients in without a login, on every listener the file says nothing else about
    #[arg(long)]
    pub anonymous: bool,
}

impl SettingsArgs {
    /// The settings behind these arguments and the environment of this process.
    pub fn into_source(self) -> SettingsSource {
        let flags = Flags {
            data_dir: self.data,
            listen: self.listen,
            http: self.http,
            durability: self.durability,
            workers: self.workers,
            shards: self.shards,
            anonymous: self.anonymous,
        };
        SettingsSource::of_process(self.config, flags)
    }
}

/// A node of links alone.
#[derive(Args, Debug)]
pub struct BridgeArgs {
    /// Settings file with two or more `[[bridge]]` tables
    #[arg(long, value_name = "FILE", env = "HOOPOE_CONFIG")]
    pub config: PathBuf,
    /// Folder to store in [default: ./data]
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Where health, metrics and the API are served, host:port or off [default: off]
    #[arg(long, value_name = "ADDR")]
    pub http: Option<HttpAddress>,
    /// What is on the disk before a message is acknowledged [default: sync]
    #[arg(long, value_enum)]
    pub durability: Option<Durability>,
}

impl BridgeArgs {
    /// The settings behind these arguments and the environment of this process.
    pub fn into_source(self) -> SettingsSource {
        let BridgeArgs { config, data, http, durability } = self;
        let flags = Flags { data_dir: data, http, durability, ..Flags::default() };
        SettingsSource { links_only: true, ..SettingsSource::of_process(Some(config), flags) }
    }
}

/// What is copied where.
#[derive(Args, Debug)]
pub struct BackupArgs {
    /// Folder to copy to, new or empty
    pub to: PathBuf,
    /// Settings file of the broker; without one, the defaults hold
    #[arg(long, value_name = "FILE", env = "HOOPOE_CONFIG")]
    pub config: Option<PathBuf>,
    /// Data folder [default: ./data]
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
}

impl BackupArgs {
    /// The settings that name the data folder.
    pub fn source(&self) -> SettingsSource {
        let flags = Flags { data_dir: self.data.clone(), ..Flags::default() };
        SettingsSource::of_process(self.config.clone(), flags)
    }
}

/// Which user of which file.
#[derive(Args, Debug)]
pub struct PasswdArgs {
    /// Users file; made if it is not there
    pub file: PathBuf,
    /// User name
    pub user: String,
    /// Remove the user
    #[arg(long, conflicts_with = "stdin")]
    pub delete: bool,
    /// Read the password from the first line of the standard input instead of asking for it
    #[arg(long)]
    pub stdin: bool,
}

/// Who chats, and where.
#[derive(Args, Debug)]
pub struct ChatArgs {
    /// Who you are
    #[arg(long, value_name = "USER")]
    pub user: String,
    /// Which of your devices this is; two at a time need two names
    #[arg(long, value_name = "ID", default_value = "pc-chat")]
    pub device: String,
    /// The broker, tcp:// or tls:// and host:port
    #[arg(long, value_name = "URL", default_value = "tcp://127.0.0.1:1883")]
    pub server: ListenerUrl,
    /// Certificates of the authorities to trust, for tls://
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// The environment variable that holds the password or token
    #[arg(long, value_name = "VAR", conflicts_with = "ask_password")]
    pub password_env: Option<String>,
    /// Ask for the password at the terminal
    #[arg(long)]
    pub ask_password: bool,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::settings::{Changes, Settings};

    #[test]
    fn the_definitions_hold_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_flag_of_serve_arrives() {
        let line = "hoopoe serve --config c.toml --data d --listen tcp://127.0.0.1:1 \
            --listen ws://[::1]:2/x --http off --durability memory --workers 3 --shards 2 \
            --anonymous";
        let Command::Serve(args) = Cli::try_parse_from(line.split_whitespace()).unwrap().command
        else {
            panic!("serve");
        };
        let source = args.into_source();
        assert_eq!(source.file, Some("c.toml".into()));
        let expected = Flags {
            data_dir: Some("d".into()),
            listen: vec!["tcp://127.0.0.1:1".parse().unwrap(), "ws://[::1]:2/x".parse().unwrap()],
            http: Some(HttpAddress::Off),
            durability: Some(Durability::Memory),
            workers: Some(3),
            shards: Some(2),
            anonymous: true,
        };
        assert_eq!(source.flags, expected);
    }

    #[test]
    fn a_reload_of_links_alone_reads_what_the_start_did() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let line = format!("hoopoe bridge --config {}", file.path().display());
        let links = |more: &str| {
            let line = format!("{line} {more}");
            match Cli::try_parse_from(line.split_whitespace()).unwrap().command {
                Command::Bridge(args) => {
                    let environment = Vec::new();
                    SettingsSource { environment, ..args.into_source() }.load().unwrap()
                }
                _ => panic!("bridge"),
            }
        };
        let started = links("");
        assert!(started.listener.is_empty(), "clients are not listened for");
        assert_eq!(started.http.address, HttpAddress::Off);
        assert_eq!(Settings::diff_reload(&started, &links("")), Changes::default());
        assert_ne!(links("--http 127.0.0.1:8080").http.address, HttpAddress::Off);
    }

    #[test]
    fn wrong_flags_are_explained() {
        for (line, expected) in [
            ("hoopoe serve --listen 127.0.0.1:1", "names no transport"),
            ("hoopoe serve --http 8080", "names no port"),
            ("hoopoe serve --durability disk", "sync, os, memory"),
            ("hoopoe passwd f u --delete --stdin", "cannot be used with"),
            ("hoopoe", "Examples:"),
        ] {
            let error = Cli::try_parse_from(line.split_whitespace()).unwrap_err().to_string();
            assert!(error.contains(expected), "{line}: {error}");
        }
    }
}
