//! The content hook (ruling 38): a service of the operator's is asked about each message, and each
//! new content of one, before it is stored.
//!
//! Owns a few threads, each with one connection to the service. A message goes to the thread of
//! its conversation, so that a conversation stays in order; what is allowed goes on to its shard,
//! what is refused is answered from here. Neither workers nor shards wait: a full queue is a
//! refusal. While the service does not answer, messages pass or are refused as the settings say,
//! and it is asked again after a pause.

pub(super) mod exchange;

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use anyhow::Context;
use base64ct::{Base64, Encoding};
use hoopoe_codec::PublishProperties;
use hoopoe_im::command::{Command, Operation};
use hoopoe_im::id::ConvKey;
use hoopoe_im::refusal::{Refusal, Word};
use hoopoe_im::{Answer, Asker};
use serde_json::{Value, json};

use super::{ImMail, Reply};
use crate::connection::Env;
use crate::fabric::Mail;
use crate::settings::{HookSettings, OnFailure};
use exchange::{Service, Verdict};

/// Messages that may wait for one connection to the service.
const WAITING_MAX: usize = 1_024;
/// How long nobody is asked after the service did not answer.
const PAUSE: Duration = Duration::from_secs(1);

/// The way to the threads.
#[derive(Debug)]
pub struct Hook {
    lanes: Vec<SyncSender<Command>>,
}

impl Hook {
    /// Starts the threads; `None` when nobody is to be asked. They end with the node.
    ///
    /// # Errors
    /// When the operating system gives no thread, or `ca_file` cannot be read.
    pub fn start(env: &Arc<Env>, settings: &HookSettings) -> anyhow::Result<Option<Hook>> {
        let Some(url) = &settings.url else { return Ok(None) };
        let timeout = Duration::from_millis(u64::from(settings.timeout_ms));
        let token = settings.token.as_ref().map(|token| token.reveal().to_owned());
        let authorities = settings.ca_file.as_deref();
        let mut lanes = Vec::new();
        for number in 0..settings.connections {
            let (sender, receiver) = sync_channel(WAITING_MAX);
            let lane = Lane {
                env: Arc::downgrade(env),
                service: Service::new(url, authorities, token.clone(), timeout)?,
                passes: settings.on_failure == OnFailure::Open,
                paused_until: None,
            };
            std::thread::Builder::new()
                .name(format!("hook-{number}"))
                .spawn(move || lane.run(&receiver))
                .context("no thread for the content hook")?;
            lanes.push(sender);
        }
        Ok(Some(Hook { lanes }))
    }

    /// Asks about a message or an edit. Given back when too many wait.
    pub fn ask(&self, command: Command) -> Result<(), Box<Command>> {
        let slot = command.slot().map_or(0, |slot| usize::from(slot.get()));
        let lane = &self.lanes[slot % self.lanes.len()];
        lane.try_send(command).map_err(|full| match full {
            std::sync::mpsc::TrySendError::Full(command)
            | std::sync::mpsc::TrySendError::Disconnected(command) => Box::new(command),
        })
    }
}

/// Whether the service is asked about a command: the content of users.
pub fn is_asked_about(command: &Command) -> bool {
    match command {
        Command::Send(send) => !send.privileged,
        Command::Operate(operate) => operate.operation == Operation::Edit,
        _ => false,
    }
}

/// What whoever waits is told when too many wait.
pub fn overrun() -> Refusal {
    Refusal::new(Word::Unavailable, "too many messages wait to be judged; try again")
}

/// One thread.
struct Lane {
    env: Weak<Env>,
    service: Service,
    passes: bool,
    paused_until: Option<Instant>,
}

impl Lane {
    /// Until the node is gone.
    fn run(mut self, waiting: &Receiver<Command>) {
        while let Ok(command) = waiting.recv() {
            let verdict = self.judge(&command);
            let Some(env) = self.env.upgrade() else { return };
            match verdict {
                Ok(()) => {
                    if let Some(slot) = command.slot() {
                        env.fabric.shards[env.fabric.shard_of(slot)].put(command.into());
                    }
                }
                Err(refusal) => refuse(&env, &command, refusal),
            }
        }
    }

    fn judge(&mut self, command: &Command) -> Result<(), Refusal> {
        let now = Instant::now();
        if self.paused_until.is_some_and(|until| now < until) {
            return self.without_answer();
        }
        match self.service.ask(&question(command).to_string()) {
            Ok(Verdict::Allowed) => {
                self.paused_until = None;
                Ok(())
            }
            Ok(Verdict::Refused(message)) => {
                self.paused_until = None;
                Err(Refusal::not_allowed(message))
            }
            Err(error) => {
                if self.paused_until.is_none() {
                    tracing::warn!(%error, "the content hook does not answer");
                }
                self.paused_until = Some(Instant::now() + PAUSE);
                self.without_answer()
            }
        }
    }

    fn without_answer(&self) -> Result<(), Refusal> {
        if self.passes {
            return Ok(());
        }
        Err(Refusal::new(Word::Unavailable, "messages cannot be judged at the moment; try again"))
    }
}

fn refuse(env: &Env, command: &Command, refusal: Refusal) {
    let asker = match command {
        Command::Send(send) => send.asker,
        Command::Operate(operate) => operate.asker,
        _ => Asker::Nobody,
    };
    let answer = Answer::Refused(refusal);
    match asker {
        Asker::Nobody => {}
        Asker::Connection(reply) => {
            let mail = Mail::Im(ImMail::Answer { reply, answer });
            env.fabric.workers[reply.location.worker()].put(mail);
        }
        Asker::Http(number) => env.im.answer_http(number, Reply::Answer(answer)),
    }
}

/// What the service is asked.
fn question(command: &Command) -> Value {
    let of = |conv: &ConvKey, from: &hoopoe_im::User, device: &str, payload: &[u8]| {
        json!({
            "tenant": from.tenant, "from": from.id, "device": device,
            "conv": conv.wire(&from.id),
            "payload": std::str::from_utf8(payload).ok(),
            "payload_base64": Base64::encode_string(payload),
        })
    };
    match command {
        Command::Send(send) => {
            let mut question = of(&send.conv, &send.from, &send.device, &send.payload);
            let properties = PublishProperties::from_forwardable(&send.properties);
            question["kind"] = "message".into();
            question["cid"] = json!(send.cid);
            question["content_type"] = json!(properties.content_type);
            question
        }
        Command::Operate(operate) => {
            let mut question = of(&operate.conv, &operate.from, &operate.device, &operate.payload);
            let properties = PublishProperties::from_forwardable(&operate.properties);
            question["kind"] = "edit".into();
            question["ref"] = operate.seq.into();
            question["cid"] = json!(operate.cid);
            question["content_type"] = json!(properties.content_type);
            question
        }
        _ => Value::Null,
    }
}
