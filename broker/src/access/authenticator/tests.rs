use std::path::Path;
use std::sync::mpsc;

use argon2::password_hash::PasswordHasher;
use argon2::{Algorithm, Params, Version};

use super::*;

const OPEN: Door = Door { anonymous: true, development: true };
const NETWORK: Door = Door { anonymous: true, development: false };
const SHUT: Door = Door { anonymous: false, development: false };

/// A hash as cheap as argon2 allows: these tests are about who gets in.
fn hash(password: &str) -> String {
    let params = Params::new(8, 1, 1, None).unwrap();
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    argon2.hash_password(password.as_bytes()).unwrap().to_string()
}

fn users(pairs: &[(&str, &str)]) -> Option<Users> {
    let lines: Vec<String> =
        pairs.iter().map(|(name, password)| format!("{name}:{}", hash(password))).collect();
    Some(Users::parse(&lines.join("\n"), Path::new("users")).unwrap())
}

fn authenticator(users: Option<Users>) -> Authenticator {
    Authenticator::with_pool(users, 10, false, HashPool::new(1, 10).unwrap()).unwrap()
}

fn says<'a>(user: &'a str, password: &'a str) -> Credentials<'a> {
    Credentials {
        user: Some(user),
        password: Some(password.as_bytes()),
        certificate_user: None,
        client_id: "",
    }
}

/// Who was let in and how, or why not.
type Answer = Result<(String, LoginMethod), ReasonCode>;

/// The answer, waited for, and whether a password was hashed for it.
fn answer(login: Login) -> (Answer, bool) {
    let (identity, hashed) = identity(login);
    (identity.map(|identity| (identity.user.to_string(), identity.method)), hashed)
}

fn identity(login: Login) -> (Result<Identity, ReasonCode>, bool) {
    match login {
        Login::Accepted(identity) => (Ok(identity), false),
        Login::Refused(code) => (Err(code), false),
        Login::Pending(job) => {
            let (sender, receiver) = mpsc::channel();
            let _ticket = job.submit(Box::new(move |done| sender.send(done).unwrap())).unwrap();
            (receiver.recv().unwrap(), true)
        }
    }
}

#[test]
fn without_users_the_door_decides() {
    let authenticator = authenticator(None);
    let nobody = Credentials::default();
    let empty = Credentials { user: Some(""), ..nobody };
    let only_password = Credentials { password: Some(b"x"), ..nobody };
    let alice = || Ok(("alice".to_owned(), LoginMethod::Development));
    let anonymous = || Ok((String::new(), LoginMethod::Anonymous));
    let cases = [
        (nobody, OPEN, anonymous()),
        (empty, OPEN, anonymous()),
        (only_password, NETWORK, anonymous()),
        (nobody, SHUT, Err(ReasonCode::NotAuthorized)),
        (says("alice", "any"), OPEN, alice()),
        (Credentials { user: Some("alice"), ..nobody }, OPEN, alice()),
        // Nobody can check the name there, so it is not believed.
        (says("alice", "any"), NETWORK, anonymous()),
        (says("alice", "any"), SHUT, Err(ReasonCode::BadUserNameOrPassword)),
    ];
    for (credentials, door, expected) in cases {
        let (result, hashed) = answer(authenticator.check(credentials, door));
        assert_eq!(result, expected, "{credentials:?} {door:?}");
        assert!(!hashed);
    }
}

#[test]
fn with_users_the_password_decides_and_a_good_one_is_hashed_once() {
    let authenticator = authenticator(users(&[("alice", "secret"), ("bob", "other")]));
    let refused = Err(ReasonCode::BadUserNameOrPassword);
    let alice = Ok(("alice".to_owned(), LoginMethod::Password));
    for door in [OPEN, NETWORK, SHUT] {
        let check = |credentials| answer(authenticator.check(credentials, door));
        assert_eq!(check(says("alice", "wrong")), (refused.clone(), true));
        // Somebody who does not exist costs as much, every time.
        assert_eq!(check(says("carol", "secret")), (refused.clone(), true));
        assert_eq!(check(says("carol", "secret")), (refused.clone(), true));
        let no_password = Credentials { user: Some("alice"), ..Credentials::default() };
        assert_eq!(check(no_password), (refused.clone(), false));
        assert_eq!(check(says("alice", "secret")).0, alice);
        assert_eq!(check(says("alice", "secret")), (alice.clone(), false));
        assert_eq!(check(says("bob", "secret")), (refused.clone(), true));
    }
}

#[test]
fn a_certificate_decides_alone() {
    let authenticator = authenticator(users(&[("alice", "secret")]));
    let refused = Err(ReasonCode::BadUserNameOrPassword);
    let device = Ok(("device".to_owned(), LoginMethod::Certificate));
    let cases = [
        (None, "device", device.clone()),
        (Some(""), "device", device.clone()),
        (Some("device"), "device", device),
        (Some("alice"), "device", refused.clone()),
        (None, "", refused),
    ];
    for (user, certified, expected) in cases {
        let credentials = Credentials {
            user,
            password: Some(b"any"),
            certificate_user: Some(certified),
            client_id: "",
        };
        assert_eq!(answer(authenticator.check(credentials, SHUT)).0, expected, "{credentials:?}");
    }
}

#[test]
fn a_reload_forgets_logins_and_judges_those_under_way() {
    let authenticator = authenticator(users(&[("alice", "secret"), ("bob", "other")]));
    let check = |user, password| identity(authenticator.check(says(user, password), SHUT));
    let alice = check("alice", "secret").0.unwrap();
    let bob = check("bob", "other").0.unwrap();
    let cached = check("alice", "secret").0.unwrap();
    let Login::Pending(under_way) = authenticator.check(says("alice", "new"), SHUT) else {
        panic!("this password was never seen before");
    };
    let everybody = [&alice, &bob, &cached];
    assert!(everybody.iter().all(|who| authenticator.still_good(who, SHUT)));

    // The password that is being checked becomes the right one, but the check began before.
    authenticator.exchange_users(users(&[("alice", "new"), ("carol", "secret")]));
    let refused = ReasonCode::BadUserNameOrPassword;
    assert_eq!(identity(Login::Pending(under_way)).0.unwrap_err(), refused);
    assert_eq!(check("alice", "secret").0.unwrap_err(), refused);
    assert!(everybody.iter().all(|who| !authenticator.still_good(who, SHUT)));
    let (changed, hashed) = check("alice", "new");
    assert!(hashed && authenticator.still_good(&changed.unwrap(), SHUT));
}

/// As when only the rules were changed: the users file is the same, and nobody has to leave.
#[test]
fn the_same_users_stay_over_a_reload() {
    let line = format!("alice:{}", hash("secret"));
    let users = || Some(Users::parse(&line, Path::new("users")).unwrap());
    let authenticator = authenticator(users());
    let alice = identity(authenticator.check(says("alice", "secret"), SHUT)).0.unwrap();
    authenticator.exchange_users(users());
    assert!(authenticator.still_good(&alice, SHUT));
    assert!(answer(authenticator.check(says("alice", "secret"), SHUT)).1, "hashed again");
}

#[test]
fn who_came_without_a_password_stays_as_long_as_the_door_is_open() {
    let authenticator = authenticator(None);
    let developer = Identity::new("alice", LoginMethod::Development);
    let certified = Identity::new("alice", LoginMethod::Certificate);
    let nobody = Identity::anonymous();
    let good = |identity, door| authenticator.still_good(identity, door);
    assert!(good(&nobody, NETWORK) && !good(&nobody, SHUT));
    assert!(good(&developer, OPEN) && !good(&developer, NETWORK));
    assert!(good(&certified, SHUT));
    authenticator.exchange_users(users(&[]));
    assert!(!good(&developer, OPEN), "with users there is no development mode");
}

#[test]
fn a_full_queue_says_come_again() {
    let users = users(&[("alice", "secret")]);
    let pool = HashPool::new(0, 1).unwrap();
    let authenticator = Authenticator::with_pool(users, 10, false, pool).unwrap();
    let submit = || match authenticator.check(says("alice", "secret"), SHUT) {
        Login::Pending(job) => job.submit(Box::new(|_| ())),
        other => panic!("{other:?}"),
    };
    let _first = submit().unwrap();
    assert_eq!(submit().unwrap_err(), ReasonCode::ServerBusy);
    assert_eq!(authenticator.waiting(), 1);
}

#[test]
fn nobody_waiting_is_not_answered() {
    let authenticator = authenticator(users(&[("alice", "secret")]));
    let (started, has_started) = mpsc::channel();
    let (go, may_go) = mpsc::channel::<()>();
    let blocker = Box::new(move || {
        started.send(()).unwrap();
        may_go.recv().unwrap();
    });
    assert!(authenticator.pool.submit(blocker).is_ok());
    has_started.recv().unwrap();

    let (sender, receiver) = mpsc::channel();
    let Login::Pending(job) = authenticator.check(says("alice", "secret"), SHUT) else {
        panic!("alice was never seen before");
    };
    let ticket = job.submit(Box::new(move |done| sender.send(done).unwrap())).unwrap();
    drop(ticket);
    go.send(()).unwrap();
    assert!(receiver.recv().is_err(), "the job ended without an answer");
    assert!(answer(authenticator.check(says("alice", "secret"), SHUT)).1, "and nothing was cached");
}

#[test]
fn no_password_shows_in_debug_output() {
    let authenticator = authenticator(users(&[("alice", "secret")]));
    let credentials = says("alice", "secret");
    let login = authenticator.check(credentials, SHUT);
    let shown = format!("{credentials:?} {login:?} {authenticator:?}");
    assert!(!shown.contains("secret") && !shown.contains("argon2") && !shown.contains("115, 101"));
}

fn account(authenticator: &Authenticator, tenant: &str, user: &str, password: &str) {
    let user = User { tenant: tenant.into(), id: user.into() };
    let account = Account { password: Some(hash(password).into()), ..Account::default() };
    authenticator.accounts().put(user, Some(Arc::new(account)));
}

#[test]
fn accounts_of_other_tenants_log_in_by_their_full_names() {
    let with = |tenants| {
        let authenticator =
            Authenticator::with_pool(None, 10, tenants, HashPool::new(1, 10).unwrap()).unwrap();
        account(&authenticator, "acme", "alice", "of acme");
        account(&authenticator, "default", "alice", "of nobody");
        authenticator
    };
    let authenticator = with(true);
    let check = |user, password| {
        let (result, _) = identity(authenticator.check(says(user, password), NETWORK));
        result.map(|identity| {
            assert!(authenticator.still_good(&identity, NETWORK), "{user}");
            (identity.tenant.to_string(), identity.user.to_string())
        })
    };
    let refused = Err(ReasonCode::BadUserNameOrPassword);
    let alice_of = |tenant: &str| Ok((tenant.to_owned(), "alice".to_owned()));
    for _ in 0..2 {
        // The second time out of the cache.
        assert_eq!(check("acme/alice", "of acme"), alice_of("acme"));
        assert_eq!(check("alice", "of nobody"), alice_of("default"));
        assert_eq!(check("default/alice", "of nobody"), alice_of("default"));
        assert_eq!(check("acme/alice", "of nobody"), refused);
        assert_eq!(check("alice", "of acme"), refused);
        assert_eq!(check("evil/alice", "of acme"), refused);
    }
    // Where logins name no tenants, there is one.
    let one = with(false);
    assert_eq!(identity(one.check(says("acme/alice", "of acme"), NETWORK)).0.err(), refused.err());
}

#[test]
fn a_token_tells_the_tenant_and_the_login_may_name_it() {
    let authenticator =
        Authenticator::with_pool(None, 10, true, HashPool::new(1, 10).unwrap()).unwrap();
    let minted = crate::access::mint().unwrap();
    let owner = hoopoe_im::user::token::TokenOwner {
        user: User { tenant: "acme".into(), id: "alice".into() },
        id: minted.id.clone(),
        device: None,
        created_ms: 7,
        expires_ms: u64::MAX,
    };
    authenticator.tokens().put(minted.hash, owner);
    for (user, expected) in [
        ("alice", Ok(7)),
        ("acme/alice", Ok(7)),
        ("evil/alice", Err(ReasonCode::BadUserNameOrPassword)),
        ("acme/bob", Err(ReasonCode::BadUserNameOrPassword)),
    ] {
        let (result, _) = identity(authenticator.check(says(user, &minted.text), NETWORK));
        let told = result.map(|identity| {
            assert_eq!(&*identity.tenant, "acme");
            identity.token_since_ms
        });
        assert_eq!(told, expected, "{user}");
    }
}
