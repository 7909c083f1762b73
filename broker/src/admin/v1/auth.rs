//! Who asks: `Authorization: Bearer` with a user's token or the admin token, which may act for a
//! user (`X-Hoopoe-User`, `X-Hoopoe-Tenant`).

use std::fmt;
use std::hint::black_box;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, ensure};
use axum::http::{HeaderMap, header};
use base64ct::{Base64, Encoding};
use hoopoe_codec::ReasonCode;
use hoopoe_im::User;
use hoopoe_im::id::is_id;
use hoopoe_im::refusal::Refusal;
use hoopoe_im::service::Caller;
use tokio::sync::oneshot;

use super::failure::Failure;
use super::{ANSWER_TIMEOUT, Api};
use crate::access::{Credentials, DEFAULT_TENANT, Login, is_token, sha256};
use crate::clock::now_ms;
use crate::settings::{ADMIN_TOKEN_BYTES_MIN, Door, HttpSettings};

/// The scheme for a user name and password.
const BASIC: &str = "basic";
/// The user an operator acts for.
const ACT_FOR: &str = "x-hoopoe-user";
/// That user's tenant.
const TENANT: &str = "x-hoopoe-tenant";

/// The token of operators, kept as its hash.
pub struct AdminToken {
    hash: [u8; 32],
}

impl fmt::Debug for AdminToken {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("AdminToken")
    }
}

impl AdminToken {
    /// This text is the token.
    pub fn new(text: &str) -> AdminToken {
        AdminToken { hash: sha256(text.as_bytes()) }
    }

    /// The token that the settings name, in themselves or in a file.
    ///
    /// # Errors
    /// When the file cannot be read, or holds none.
    pub fn read(http: &HttpSettings) -> anyhow::Result<Option<AdminToken>> {
        if let Some(token) = &http.admin_token {
            return Ok(Some(AdminToken::new(token.reveal())));
        }
        let Some(file) = &http.admin_token_file else { return Ok(None) };
        let shown = file.display();
        let text =
            std::fs::read_to_string(file).with_context(|| format!("{shown}: no admin token"))?;
        let token = text.lines().next().unwrap_or_default().trim();
        ensure!(
            token.len() >= ADMIN_TOKEN_BYTES_MIN,
            "{shown}: an admin token has at least {ADMIN_TOKEN_BYTES_MIN} characters"
        );
        Ok(Some(AdminToken::new(token)))
    }

    /// Whether it is this one. Both hashes are compared to the end, so that the time it takes
    /// tells nothing.
    pub fn is(&self, text: &str) -> bool {
        let other = sha256(text.as_bytes());
        let pairs = self.hash.iter().zip(&other);
        black_box(pairs.fold(0, |different, (a, b)| different | (a ^ b))) == 0
    }
}

/// A user who asks.
#[derive(Clone, Debug)]
pub struct TokenUser {
    /// The user.
    pub user: User,
    /// The device that the token is bound to.
    pub device: Option<Arc<str>>,
    /// A service account: may do what operators may, but administer.
    pub service: bool,
}

/// Who asks.
#[derive(Clone, Debug)]
pub enum Who {
    /// Nobody said.
    Nobody,
    /// An operator.
    Admin,
    /// A user.
    User(TokenUser),
}

/// Who the headers say it is.
///
/// # Errors
/// When they name somebody and nobody is it.
pub fn identify(api: &Api, headers: &HeaderMap) -> Result<Who, Failure> {
    let Some(value) = headers.get(header::AUTHORIZATION) else { return Ok(Who::Nobody) };
    let said = value.to_str().unwrap_or_default();
    let (scheme, text) = said.split_once(' ').unwrap_or_default();
    if scheme.eq_ignore_ascii_case(BASIC) {
        // Good for one call only, which looks at it itself: checking a password is slow.
        return Ok(Who::Nobody);
    }
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(Failure::unauthorized("expected Authorization: Bearer and a token"));
    }
    let text = text.trim();
    if is_token(text.as_bytes()) {
        let access = &api.env.access;
        let owner = access.tokens().owner(&sha256(text.as_bytes()), now_ms());
        let owner = owner.filter(|owner| !access.accounts().is_disabled(&owner.user));
        let owner = owner.ok_or_else(|| {
            Failure::unauthorized("the token has expired, was revoked or never was one")
        })?;
        let service = access.accounts().is_service(&owner.user);
        let (user, device) = (owner.user.clone(), owner.device.clone());
        return Ok(Who::User(TokenUser { user, device, service }));
    }
    match &api.admin_token {
        Some(token) if token.is(text) => Ok(Who::Admin),
        Some(_) => Err(Failure::unauthorized("this is no token of this broker")),
        None => Err(Failure::unauthorized(
            "this is no token of this broker, and it has no admin token: see http.admin_token",
        )),
    }
}

/// The user that the call is made by or for.
///
/// # Errors
/// When there is none.
pub fn caller(who: &Who, headers: &HeaderMap) -> Result<Caller, Failure> {
    match who {
        Who::User(asks) => {
            if header_text(headers, ACT_FOR)?.is_some_and(|user| *user != *asks.user.id) {
                let message = "only the admin token acts for others: X-Hoopoe-User is another";
                return Err(Refusal::not_allowed(message).into());
            }
            let device = asks.device.clone().unwrap_or_else(|| "".into());
            Ok(Caller { user: asks.user.clone(), device, privileged: asks.service })
        }
        Who::Admin => {
            let user = named_user(headers)?.ok_or_else(|| {
                Refusal::bad_request("X-Hoopoe-User: name the user that the call is made for")
            })?;
            Ok(Caller { user, device: "".into(), privileged: true })
        }
        Who::Nobody => Err(Failure::unauthorized("expected Authorization: Bearer and a token")),
    }
}

/// The user that the headers name.
///
/// # Errors
/// When a header is no id.
pub fn named_user(headers: &HeaderMap) -> Result<Option<User>, Failure> {
    let tenant = tenant(headers)?;
    let user = header_text(headers, ACT_FOR)?;
    Ok(user.map(|user| User { tenant, id: user.into() }))
}

/// The tenant that the headers name, or the one there always is.
///
/// # Errors
/// When the header is no id.
pub fn tenant(headers: &HeaderMap) -> Result<Arc<str>, Failure> {
    Ok(header_text(headers, TENANT)?.unwrap_or(DEFAULT_TENANT).into())
}

fn header_text<'h>(headers: &'h HeaderMap, name: &str) -> Result<Option<&'h str>, Failure> {
    let Some(value) = headers.get(name) else { return Ok(None) };
    match value.to_str() {
        Ok(text) if is_id(text) => Ok(Some(text)),
        _ => Err(Refusal::bad_request(format!("{name}: no valid id")).into()),
    }
}

/// The user whose name and password the headers hold (`Authorization: Basic`).
///
/// # Errors
/// When they do not, or the password is wrong.
pub async fn by_password(api: &Api, headers: &HeaderMap) -> Result<User, Failure> {
    let wrong = || Failure::unauthorized("user name or password is wrong");
    let said = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let (scheme, text) = said.and_then(|said| said.split_once(' ')).unwrap_or_default();
    let pair = Base64::decode_vec(text.trim()).ok().and_then(|pair| String::from_utf8(pair).ok());
    let pair = pair.filter(|_| scheme.eq_ignore_ascii_case(BASIC)).ok_or_else(wrong)?;
    let (user, password) = pair.split_once(':').ok_or_else(wrong)?;
    let credentials = Credentials {
        user: Some(user),
        password: Some(password.as_bytes()),
        ..Credentials::default()
    };
    // Nobody is believed here without a password.
    let door = Door { anonymous: false, development: false };
    let login = match api.env.access.authenticator().check(credentials, door) {
        Login::Accepted(identity) => Ok(identity),
        Login::Refused(code) => Err(code),
        Login::Pending(job) => {
            let (done, is_done) = oneshot::channel();
            let submitted = job.submit(Box::new(move |login| {
                // Who asked may have gone.
                let _ = done.send(login);
            }));
            match submitted {
                Ok(ticket) => {
                    let login = tokio::time::timeout(ANSWER_TIMEOUT, is_done).await;
                    drop(ticket);
                    login.ok().and_then(Result::ok).unwrap_or(Err(ReasonCode::ServerBusy))
                }
                Err(code) => Err(code),
            }
        }
    };
    match login {
        Ok(identity) if is_id(&identity.user) => {
            Ok(User { tenant: identity.tenant, id: identity.user })
        }
        Ok(_) => Err(Refusal::not_allowed("the user's name is no id of the IM profile").into()),
        Err(ReasonCode::ServerBusy) => {
            Err(Failure::unavailable("too many passwords are being checked; try again"))
        }
        Err(_) => Err(wrong()),
    }
}

/// In development mode, whoever asks from this machine may have a token for the user they name
/// (ruling 19).
pub fn in_development(api: &Api, peer: SocketAddr) -> bool {
    api.development
        && peer.ip().to_canonical().is_loopback()
        && api.env.access.accounts().is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_admin_token_is_it() {
        let token = AdminToken::new("a long secret text");
        assert!(token.is("a long secret text"));
        for other in ["", "a long secret tex", "a long secret text ", "A long secret text"] {
            assert!(!token.is(other), "{other:?}");
        }
    }

    #[test]
    fn an_operator_acts_for_whom_the_headers_name_and_a_user_for_nobody_else() {
        let headers = |pairs: &[(&'static str, &str)]| {
            let pairs = pairs.iter().map(|(name, value)| {
                (header::HeaderName::from_static(name), value.parse().unwrap())
            });
            pairs.collect::<HeaderMap>()
        };
        let acting = caller(&Who::Admin, &headers(&[(ACT_FOR, "bob"), (TENANT, "t")])).unwrap();
        assert_eq!((&*acting.user.tenant, &*acting.user.id), ("t", "bob"));
        assert!(acting.privileged);
        let acting = caller(&Who::Admin, &headers(&[(ACT_FOR, "bob")])).unwrap();
        assert_eq!(&*acting.user.tenant, DEFAULT_TENANT);
        for wrong in [&[][..], &[(ACT_FOR, "b/b")], &[(ACT_FOR, "b"), (TENANT, "")]] {
            let failure = caller(&Who::Admin, &headers(wrong)).unwrap_err();
            assert_eq!(failure.status(), 400);
        }
        let user = User { tenant: "t".into(), id: "alice".into() };
        let alice = Who::User(TokenUser { user, device: None, service: false });
        assert_eq!(&*caller(&alice, &headers(&[])).unwrap().user.id, "alice");
        assert!(caller(&alice, &headers(&[(ACT_FOR, "alice")])).is_ok());
        let other = caller(&alice, &headers(&[(ACT_FOR, "bob")])).unwrap_err();
        assert_eq!(other.status(), 403);
        assert_eq!(caller(&Who::Nobody, &headers(&[])).unwrap_err().status(), 401);
    }
}
