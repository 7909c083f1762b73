//! A broker started by this program: fresh directory, free port, own cores, and an end that is certain.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process_group};

use crate::limits::pin;
use crate::run::Lever;

/// A broker that does not listen after this long has not started.
const START_PATIENCE: Duration = Duration::from_secs(60);
/// A broker that is asked to stop is killed after this long.
const STOP_PATIENCE: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(10);
/// Lines of a failed broker's output that are shown.
const SHOWN_LINES: usize = 15;

/// How to start a broker.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Recipe {
    /// Name in tables.
    pub name: String,
    /// Shell command with `{port}`, `{http}` and `{dir}`.
    pub command: String,
}

/// Debian's mosquitto with its limits on queues taken off, so that nothing is dropped.
const MOSQUITTO: &str = r"printf '%s\n' 'listener {port} 127.0.0.1' 'allow_anonymous true' \
'set_tcp_nodelay true' 'max_inflight_messages 0' 'max_queued_messages 0' \
'max_connections -1' 'log_type error' 'persistence true' 'persistence_location {dir}/' > {dir}/mosquitto.conf
PATH=$PATH:/usr/sbin exec mosquitto -c {dir}/mosquitto.conf";

/// Hoopoe as it is by default: everything acknowledged is on the disk.
const HOOPOE: &str = "exec '{program}' serve --listen tcp://127.0.0.1:{port} --data {dir}/data \
                      --http off --anonymous";

impl Recipe {
    /// Reads `name=command`, or the name of a broker that needs no command.
    pub(crate) fn parse(text: &str) -> Result<Recipe> {
        if let Some((name, command)) = text.split_once('=') {
            if name.is_empty() || command.trim().is_empty() {
                bail!("--with {text:?}: it must read name=command");
            }
            return Ok(Recipe { name: name.to_owned(), command: command.to_owned() });
        }
        let command = match text {
            "mosquitto" => MOSQUITTO.to_owned(),
            "relay" => {
                let program = std::env::current_exe().context("looking for this program")?;
                format!("exec '{}' relay --listen 127.0.0.1:{{port}}", program.display())
            }
            "hoopoe" => {
                // The broker built with this program, if there is one; else the installed one.
                let beside = std::env::current_exe()
                    .context("looking for this program")?
                    .with_file_name("hoopoe");
                let program = if beside.is_file() { beside } else { PathBuf::from("hoopoe") };
                HOOPOE.replace("{program}", &program.display().to_string())
            }
            _ => bail!(
                "--with {text:?}: give a command (name=command), or relay, mosquitto or hoopoe"
            ),
        };
        Ok(Recipe { name: text.to_owned(), command })
    }
}

/// A running broker; dropping it ends it and removes its directory.
pub(crate) struct Broker {
    /// Where it listens.
    pub address: SocketAddr,
    /// A port for its HTTP, if its command wants one.
    pub http: u16,
    /// Its folder.
    pub dir: PathBuf,
    recipe: Recipe,
    cores: Vec<usize>,
    generator_cores: Vec<usize>,
    child: Mutex<Child>,
}

static STARTED: AtomicU32 = AtomicU32::new(0);

impl Broker {
    /// Starts a broker afresh on `cores`; the caller's thread stays on `generator_cores`.
    pub(crate) fn start(
        recipe: &Recipe,
        cores: &[usize],
        generator_cores: &[usize],
    ) -> Result<Broker> {
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let port = free_port(number)?;
        let http = free_port(number.wrapping_add(HTTP_STEP))?;
        let dir = std::env::temp_dir().join(format!(
            "hoopoe-bench-{}-{number}-{}",
            std::process::id(),
            recipe.name
        ));
        fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let child = spawn(recipe, (port, http), &dir, cores, generator_cores)?;
        let broker = Broker {
            address,
            http,
            recipe: recipe.clone(),
            cores: cores.to_vec(),
            generator_cores: generator_cores.to_vec(),
            dir,
            child: Mutex::new(child),
        };
        broker.await_listening()?;
        Ok(broker)
    }

    /// The process whose tree is the broker.
    pub(crate) fn pid(&self) -> u32 {
        self.child().id()
    }

    fn child(&self) -> std::sync::MutexGuard<'_, Child> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn await_listening(&self) -> Result<()> {
        let began = Instant::now();
        loop {
            if TcpStream::connect(self.address).is_ok() {
                return Ok(());
            }
            if let Some(status) = self.child().try_wait()? {
                bail!("{} ended at once with {status}\n{}", self.recipe.name, self.last_words());
            }
            if began.elapsed() > START_PATIENCE {
                bail!(
                    "{} does not listen on {}\n{}",
                    self.recipe.name,
                    self.address,
                    self.last_words()
                );
            }
            std::thread::sleep(POLL);
        }
    }

    fn last_words(&self) -> String {
        let text = fs::read(self.dir.join(OUTPUT)).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n")
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.pid()).ok().and_then(Pid::from_raw);
        // It may have ended already, which is what is wanted.
        let _ = pid.map(|group| kill_process_group(group, signal));
    }

    fn stop(&self) -> Result<()> {
        self.signal(Signal::TERM);
        let began = Instant::now();
        while self.child().try_wait()?.is_none() {
            if began.elapsed() > STOP_PATIENCE {
                self.signal(Signal::KILL);
            }
            std::thread::sleep(POLL);
        }
        // What the command started and left behind in its process group.
        self.signal(Signal::KILL);
        Ok(())
    }
}

/// A port below those that the system gives to outgoing connections: the generator's own, of the
/// round before, must not be found on it.
fn free_port(number: u32) -> Result<u16> {
    for step in 0..PORTS.end - PORTS.start {
        let spread = std::process::id()
            .wrapping_mul(101)
            .wrapping_add(number.wrapping_mul(13))
            .wrapping_add(step.into());
        let port = PORTS.start + (spread % u32::from(PORTS.end - PORTS.start)) as u16;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no port from {} to {} is free", PORTS.start, PORTS.end)
}

/// Where brokers are made to listen.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// How far the search for the second port begins from that for the first.
const HTTP_STEP: u32 = 500;

/// Output of the broker, in its directory.
const OUTPUT: &str = "output.log";

fn spawn(
    recipe: &Recipe,
    (port, http): (u16, u16),
    dir: &Path,
    cores: &[usize],
    generator_cores: &[usize],
) -> Result<Child> {
    let command = recipe
        .command
        .replace("{port}", &port.to_string())
        .replace("{http}", &http.to_string())
        .replace("{dir}", &dir.display().to_string());
    let output = File::options().create(true).append(true).open(dir.join(OUTPUT))?;
    // A child inherits the cores of the thread that starts it, and so do all its threads.
    pin(None, cores)?;
    let child = Command::new("sh")
        .args(["-c", &command])
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output)
        .process_group(0)
        .spawn()
        .with_context(|| format!("starting {}", recipe.name));
    pin(None, generator_cores)?;
    child
}

impl Drop for Broker {
    fn drop(&mut self) {
        // Nothing more can be done here about a process that cannot be ended.
        let _ = self.stop();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

impl Lever for Broker {
    fn kill(&self) -> Result<()> {
        self.signal(Signal::KILL);
        self.child().wait()?;
        Ok(())
    }

    fn restart(&self) -> Result<Vec<u32>> {
        let ports = (self.address.port(), self.http);
        let child = spawn(&self.recipe, ports, &self.dir, &self.cores, &self.generator_cores)?;
        *self.child() = child;
        self.await_listening()?;
        Ok(vec![self.pid()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recipes_are_read() {
        let recipe = Recipe::parse("x=run --port={port}").unwrap();
        assert_eq!((recipe.name.as_str(), recipe.command.as_str()), ("x", "run --port={port}"));
        assert!(Recipe::parse("relay").unwrap().command.contains("relay --listen"));
        assert!(Recipe::parse("hoopoe").unwrap().command.contains("hoopoe' serve"));
        for wrong in ["x=", "=y", "unknown"] {
            assert!(Recipe::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_broker_that_ends_at_once_is_reported_with_its_last_words() {
        let recipe = Recipe { name: "dud".to_owned(), command: "echo no luck; exit 7".to_owned() };
        let cores = crate::limits::cores().unwrap();
        let error = Broker::start(&recipe, &cores, &cores).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("no luck") && error.contains('7'), "{error}");
    }
}
