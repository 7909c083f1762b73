//! The words of `hoopoe ctl`: what operators ask a running broker over HTTP.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// Examples below the help.
pub const CTL_EXAMPLES: &str = "\
Examples:
  export HOOPOE_HTTP__ADMIN_TOKEN=…      the token that the broker has in http.admin_token
  hoopoe ctl users create alice          asks for a password
  hoopoe ctl users create shop --role service --no-password
  hoopoe ctl token shop --ttl 86400      a token for the user, shown this once
  hoopoe ctl users disable alice         ends alice's connections at once
  hoopoe ctl clients list --user alice
  hoopoe ctl retained list --filter 'news/#' --json
  hoopoe ctl bridges list
  hoopoe ctl audit
  hoopoe ctl call group/info '{\"group\":\"team\"}' --as alice";

/// Which broker, as whom, what.
#[derive(Args, Debug)]
pub struct CtlArgs {
    /// Where the broker's HTTP listener is
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080", global = true)]
    pub url: String,
    /// Admin token of the broker
    #[arg(long, env = "HOOPOE_HTTP__ADMIN_TOKEN", hide_env_values = true, global = true)]
    pub token: Option<String>,
    /// File whose first line is that token
    #[arg(long, value_name = "FILE", conflicts_with = "token", global = true)]
    pub token_file: Option<PathBuf>,
    /// Tenant [default: the one there always is]
    #[arg(long, global = true)]
    pub tenant: Option<String>,
    /// Print JSON in place of a table
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do
    #[command(subcommand)]
    pub order: CtlOrder,
}

/// What can be asked.
#[derive(Debug, Subcommand)]
pub enum CtlOrder {
    /// Accounts in the broker's store
    #[command(subcommand)]
    Users(UsersOrder),
    /// Make a token for a user, valid as password and over HTTP
    Token {
        /// The user
        user: String,
        /// Seconds until it expires [default: 30 days]
        #[arg(long, value_name = "SECS")]
        ttl: Option<u64>,
        /// Only for this client id
        #[arg(long, value_name = "CLIENT")]
        device: Option<String>,
    },
    /// Connected clients
    #[command(subcommand)]
    Clients(ClientsOrder),
    /// Stored sessions
    #[command(subcommand)]
    Sessions(SessionsOrder),
    /// Subscriptions
    Subscriptions(Which),
    /// How much waits for stored sessions
    Queues(Which),
    /// Retained messages
    #[command(subcommand)]
    Retained(RetainedOrder),
    /// Links to other brokers
    #[command(subcommand)]
    Bridges(BridgesOrder),
    /// Lines to other sites
    #[command(subcommand)]
    Sites(SitesOrder),
    /// What operators did, newest first
    Audit {
        /// Records at most
        #[arg(long, default_value_t = 50)]
        limit: usize,
    },
    /// Any operation of the API, with its JSON body
    Call {
        /// Its path behind /v1/, such as sync/heads
        path: String,
        /// The request
        #[arg(default_value = "{}")]
        body: String,
        /// The user that the call is made for
        #[arg(long = "as", value_name = "USER")]
        user: Option<String>,
    },
}

/// What is done to accounts.
#[derive(Debug, Subcommand)]
pub enum UsersOrder {
    /// Make an account
    Create {
        /// The user
        user: String,
        /// A role; may be repeated. `service` may send for others
        #[arg(long = "role", value_name = "ROLE")]
        roles: Vec<String>,
        /// Tokens only
        #[arg(long, conflicts_with = "stdin")]
        no_password: bool,
        /// Read the password from the first line of the standard input instead of asking for it
        #[arg(long)]
        stdin: bool,
    },
    /// Give an account another password
    Reset {
        /// The user
        user: String,
        /// Tokens only
        #[arg(long, conflicts_with = "stdin")]
        no_password: bool,
        /// Read the password from the first line of the standard input instead of asking for it
        #[arg(long)]
        stdin: bool,
    },
    /// Lock a user out, at once
    Disable {
        /// The user
        user: String,
    },
    /// Let a user in again
    Enable {
        /// The user
        user: String,
    },
    /// Remove an account and its tokens
    Delete {
        /// The user
        user: String,
        /// Profile, lists, devices and roster too
        #[arg(long)]
        erase: bool,
    },
    /// Print everything kept of a user, as JSON
    Export {
        /// The user
        user: String,
    },
    /// List accounts
    List {
        /// What the user contains
        text: Option<String>,
        /// Accounts at most
        #[arg(long, default_value_t = 1000)]
        limit: usize,
    },
}

/// Which clients or sessions.
#[derive(Args, Debug)]
pub struct Which {
    /// Of this user
    #[arg(long)]
    pub user: Option<String>,
    /// With this client id
    #[arg(long)]
    pub client: Option<String>,
    /// Whose client id contains this
    #[arg(long)]
    pub text: Option<String>,
    /// Items at most
    #[arg(long, default_value_t = 1000)]
    pub limit: usize,
}

/// What is done to clients.
#[derive(Debug, Subcommand)]
pub enum ClientsOrder {
    /// List connected clients
    List(Which),
    /// End connections
    Kick {
        /// Of this user
        #[arg(long)]
        user: Option<String>,
        /// With this client id
        #[arg(long, required_unless_present = "user")]
        client: Option<String>,
    },
}

/// What is done to stored sessions.
#[derive(Debug, Subcommand)]
pub enum SessionsOrder {
    /// List stored sessions
    List(Which),
    /// End a session: connection, subscriptions, queue
    Delete {
        /// Its client id
        client: String,
        /// Its user; none for an anonymous client's
        #[arg(long, default_value = "")]
        user: String,
    },
}

/// What is done to links.
#[derive(Debug, Subcommand)]
pub enum BridgesOrder {
    /// Show how links are doing
    List,
    /// End a link's connection, until it is resumed; what is to go out waits
    Pause {
        /// Its name
        name: String,
    },
    /// Let a link connect, whatever its start type
    Resume {
        /// Its name
        name: String,
    },
    /// Forget what waits to go out over a link
    DropQueue {
        /// Its name
        name: String,
    },
}

/// What is done to lines to other sites.
#[derive(Debug, Subcommand)]
pub enum SitesOrder {
    /// Show how lines are doing
    List,
    /// Let nothing pass, until the line is resumed; what is owed waits
    Pause {
        /// The other site
        site: String,
    },
    /// Let a line go on with what is owed
    Resume {
        /// The other site
        site: String,
    },
}

/// What is done to retained messages.
#[derive(Debug, Subcommand)]
pub enum RetainedOrder {
    /// List retained messages
    List {
        /// Topics that match this filter
        #[arg(long, default_value = "#")]
        filter: String,
        /// Messages at most
        #[arg(long, default_value_t = 1000)]
        limit: usize,
    },
    /// Remove a retained message
    Delete {
        /// Its topic
        topic: String,
    },
}
