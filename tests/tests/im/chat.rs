//! `hoopoe chat`: two people at two terminals, here two programs with pipes.

use std::io::Write;

use hoopoe_tests::broker::Options;
use hoopoe_tests::certificate::Certificates;
use hoopoe_tests::program::{self, Program};
use hoopoe_tests::{Broker, unique_address, unique_id};

/// One person's chat.
struct Chat(Program);

impl Chat {
    fn start(broker: &Broker, user: &str) -> Chat {
        let server = format!("tcp://{}", broker.tcp());
        Chat::start_with(user, &["--server", &server])
    }

    fn start_with(user: &str, arguments: &[&str]) -> Chat {
        let mut command = program::hoopoe_command();
        command.args(["chat", "--user", user]).args(arguments);
        let mut chat = Chat(Program::start(command));
        chat.sees(&format!("you are {user} on"));
        chat
    }

    /// Types a line and waits for what it brings.
    fn types(&mut self, line: &str, expected: &str) -> String {
        self.0.input().write_all(format!("{line}\n").as_bytes()).expect("the chat reads");
        self.sees(expected)
    }

    /// The next line with this text.
    fn sees(&mut self, text: &str) -> String {
        self.0.wait_for(text)
    }

    fn quits(mut self) {
        self.0.input().write_all(b"/quit\n").expect("the chat reads");
        self.0.succeed();
    }
}

#[test]
fn two_people_chat() {
    let broker = Broker::start();
    let mut alice = Chat::start(&broker, "alice");
    let mut bob = Chat::start(&broker, "bob");
    alice.types("hello", "where?");
    alice.types("/to u/bob", "talking in u/bob");
    alice.types("lunch?", "u/bob #1 is sent");
    bob.sees("u/alice #1 alice: lunch?");
    alice.sees("u/bob: bob has received all up to #1");
    bob.types("/to u/alice", "talking in");
    bob.types("/read", "u/alice: read up to #1");
    alice.sees("u/bob: bob has read all up to #1");
    bob.types("/typing", "they are told");
    alice.sees("u/bob: bob is typing");
    bob.types("yes: \u{1b}[2Jnow", "u/alice #2 is sent");
    alice.sees("u/bob #2 bob: yes: \u{FFFD}[2Jnow");
    alice.types("/react 2 ❤", "react of #2 is done");
    bob.sees("u/alice #3 alice reacted to #2: ❤");
    bob.types("/edit 2 no", "edit of #2 is done");
    alice.sees("u/bob #4 bob changed #2 to: no");
    bob.types("/recall 2", "recall of #2 is done");
    alice.sees("u/bob #5 bob took #2 back");
    alice.types("/recall 2", "refused, ");
    alice.types("/history 3", "u/bob #3");
    alice.sees("u/bob #4");
    alice.sees("u/bob #5");
    alice.sees("3 shown, the last is #5");
    alice.types("/call conv/pin {\"conv\": \"u/bob\", \"off\": 1}", "refused, bad_request");
    alice.types("/call nobody/knows", "refused, ");
    alice.types("/who bob", "bob is online");
    bob.types("/status away at lunch", "you are away");
    alice.sees("bob is away: at lunch");
    alice.types("/heads", "u/bob: 0 unread, #5 is the last");
    alice.quits();
    bob.quits();
}

#[test]
fn what_was_missed_is_told_and_a_lost_broker_is_found_again() {
    let mut broker = Options::new().at(unique_address()).start();
    let mut alice = Chat::start(&broker, "alice");
    alice.types("/to u/bob", "talking");
    for n in 1..=3 {
        alice.types(&format!("line {n}"), &format!("u/bob #{n} is sent"));
    }
    let mut bob = Chat::start(&broker, "bob");
    bob.sees("u/alice: 3 unread, the last is #3");
    for n in 1..=3 {
        bob.sees(&format!("u/alice #{n} alice: line {n}"));
    }
    bob.quits();
    broker.kill();
    alice.sees("connection lost");
    // Typed while nobody listens; sent, once, when somebody does.
    alice.0.input().write_all(b"line 4\n").expect("the chat reads");
    broker.start_again();
    alice.sees("you are alice on");
    alice.sees("u/bob #4 is sent");
    alice.quits();
    let mut bob = Chat::start(&broker, "bob");
    bob.sees("u/alice #4 alice: line 4");
    bob.quits();
}

#[test]
fn lines_from_a_pipe_are_carried_out_in_order_and_the_end_leaves() {
    let broker = Broker::start();
    let user = unique_id("user");
    let server = format!("tcp://{}", broker.tcp());
    let mut command = program::hoopoe_command();
    command.args(["chat", "--user", &user, "--server", &server]);
    let mut chat = Program::start(command);
    let lines = format!("/to u/{user}\n\nmilk\neggs\n/history\n/nonsense\n/help\n");
    chat.input().write_all(lines.as_bytes()).expect("the chat reads");
    let said = chat.succeed();
    let place = |text: &str| said.iter().position(|line| line.contains(text));
    let order: Vec<Option<usize>> = ["#1 is sent", "#2 is sent", ": milk", ": eggs", "2 shown"]
        .into_iter()
        .map(place)
        .collect();
    assert!(order.iter().all(Option::is_some) && order.is_sorted(), "{said:#?}");
    assert!(place("/nonsense is no order").is_some() && place("/burn seconds").is_some());
}

#[test]
fn a_password_comes_from_the_environment_and_tls_is_spoken() {
    let options = Options::new().no_listeners();
    let certificates = Certificates::generate(options.folder());
    let mut passwd = program::hoopoe_command();
    passwd.args(["passwd", "--stdin"]).arg(options.folder().join("users")).arg("alice");
    let mut passwd = Program::start(passwd);
    passwd.input().write_all(b"secret\n").expect("passwd reads");
    passwd.succeed();
    let text = format!(
        "[access]\nusers_file = {:?}\n[[listener]]\nurl = \"tls://127.0.0.1:0\"\n\
         tls = {{ cert = {:?}, key = {:?} }}\n",
        options.folder().join("users"),
        certificates.server,
        certificates.server_key
    );
    let broker = options.configuration(&text).start();
    let server = format!("tls://{}", broker.address("tls"));
    let authority = certificates.authority.display().to_string();
    let chat = |secret: &str| {
        let mut command = program::hoopoe_command();
        command.args(["chat", "--user", "alice", "--server", &server, "--ca", &authority]);
        command.args(["--password-env", "THE_SECRET"]).env("THE_SECRET", secret);
        let mut chat = Program::start(command);
        // Who is refused reads nothing.
        let _ = chat.input().write_all(b"/call time/now\n");
        chat.finish()
    };
    let (status, said) = chat("secret");
    assert!(status.success() && said.iter().any(|line| line.contains("\"now\":")), "{said:#?}");
    let (status, said) = chat("guess");
    assert_eq!(status.code(), Some(1));
    assert!(said.iter().any(|line| line.contains("the broker refuses")), "{said:#?}");
}
