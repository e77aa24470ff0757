//! Rate limits at the edge: which limit a request counts for, and what its answer says of it.
//!
//! The rules are the domain's ([`mundap_domain::rate`]); `docs/api.md` has the table of limits.

use std::cell::RefCell;
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;
use std::sync::Once;

use actix_web::http::Method;
use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};
use actix_web::{HttpMessage as _, HttpRequest};
use chrono::TimeDelta;
use mundap_domain::Error;
use mundap_domain::rate::{Allowance, Policy, Subject};

use crate::app::Board;
use crate::input::Caller;

/// draft-ietf-httpapi-ratelimit-headers-10: two lists of structured fields (RFC 9651).
const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// What a request has counted for so far. Cloning shares it.
#[derive(Clone, Debug, Default)]
pub struct Budget(Rc<RefCell<Vec<Allowance>>>);

impl Budget {
    /// The budget of this request.
    #[must_use]
    pub fn of(req: &HttpRequest) -> Self {
        req.extensions().get::<Self>().cloned().unwrap_or_default()
    }

    /// Counts one use.
    ///
    /// # Errors
    /// [`Error::RateLimited`], and where the limit is shared what the database says.
    pub async fn spend(&self, board: &Board, policy: Policy, subject: &Subject) -> Result<(), Error> {
        let outcome = board.services.rates.admit(policy, subject).await;
        match &outcome {
            Ok(Some(allowance)) | Err(Error::RateLimited(allowance)) => self.0.borrow_mut().push(*allowance),
            Ok(None) | Err(_) => {}
        }
        outcome.map(|_| ())
    }

    /// Says what is left.
    pub fn show(&self, headers: &mut HeaderMap) {
        let allowances = self.0.borrow();
        let list = |item: fn(&Allowance) -> String| {
            HeaderValue::try_from(allowances.iter().map(item).collect::<Vec<_>>().join(", ")).ok()
        };
        if allowances.is_empty() {
            return;
        }
        if let (Some(policies), Some(left)) = (list(policy), list(left)) {
            headers.insert(RATE_LIMIT_POLICY, policies);
            headers.insert(RATE_LIMIT, left);
        }
    }
}

/// `"writes";q=60;w=60`
fn policy(allowance: &Allowance) -> String {
    let Allowance { policy, quota, .. } = allowance;
    format!("\"{}\";q={};w={}", policy.name(), quota.permits(), quota.window().num_seconds())
}

/// `"writes";r=59;t=1`: so many are left, and in `t` seconds there is one more.
fn left(allowance: &Allowance) -> String {
    format!("\"{}\";r={};t={}", allowance.policy.name(), allowance.left, seconds(allowance.more_in))
}

/// Whole seconds, and never too early.
fn seconds(time: TimeDelta) -> i64 {
    let whole = time.num_seconds();
    if time > TimeDelta::seconds(whole) { whole + 1 } else { whole }
}

/// `Retry-After`, in seconds.
#[must_use]
pub fn retry_after(allowance: &Allowance) -> i64 {
    seconds(allowance.more_in).max(1)
}

/// The client's address, as limits count it.
#[must_use]
pub fn address(board: &Board, req: &HttpRequest) -> Subject {
    let peer = req.peer_addr().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.ip());
    if peer.is_loopback() && board.proxies.is_empty() && req.headers().contains_key("x-forwarded-for") {
        // Nobody but a proxy on this machine says so: all its clients are counted as one.
        static ONCE: Once = Once::new();
        ONCE.call_once(|| {
            tracing::warn!(
                "a proxy on this machine forwards requests, and MUNDAP_TRUSTED_PROXIES does not name it: all its clients \
                 share one client's rate limits"
            );
        });
    }
    Subject::address(board.proxies.client(peer, req.headers()))
}

/// Counts a request, before anything else of it is read. `caller` is who it says it comes from.
///
/// # Errors
/// What is wrong with the caller, [`Error::RateLimited`], and what the database says.
pub async fn enter(req: &HttpRequest, board: &Board, caller: Result<Caller, Error>) -> Result<Caller, Error> {
    let budget = Budget::of(req);
    let address = address(board, req);
    if guards_accounts(req) {
        budget.spend(board, Policy::SignIn, &address).await?;
    }
    match caller.as_ref().map(|caller| caller.account().map(|account| Subject::Account(account.id))) {
        Ok(Some(account)) if req.method().is_safe() => budget.spend(board, Policy::Reads, &account).await?,
        Ok(Some(account)) => budget.spend(board, Policy::Writes, &account).await?,
        Ok(None) if guards_accounts(req) || is_of_tokens(req.path()) => {}
        // Whoever guesses tokens is nobody yet.
        Ok(None) | Err(Error::InvalidToken) => budget.spend(board, Policy::Anonymous, &address).await?,
        // The database is away: that is all there is to say.
        Err(_) => {}
    }
    caller
}

/// Whether it makes an account, or asks for or uses a mailed token.
fn guards_accounts(req: &HttpRequest) -> bool {
    let paths = ["/api/v1/users", "/api/v1/auth/forgot", "/api/v1/auth/reset", "/api/v1/auth/verify"];
    req.method() == Method::POST && paths.contains(&req.path())
}

/// Whether it counts for one of two limits that only its form can tell: see [`of_form`].
fn is_of_tokens(path: &str) -> bool {
    matches!(path, "/api/v1/auth/token" | "/api/v1/auth/revoke")
}

/// Counts a form of the token endpoints: a password for signing in, anything else for staying signed in.
///
/// # Errors
/// [`Error::RateLimited`], and what the database says.
pub async fn of_form(req: &HttpRequest, board: &Board, has_password: bool) -> Result<(), Error> {
    let policy = if has_password { Policy::SignIn } else { Policy::Renewals };
    Budget::of(req).spend(board, policy, &address(board, req)).await
}

#[cfg(test)]
mod tests {
    use mundap_domain::rate::Quota;

    use super::*;

    fn allowance(policy: Policy, permits: u32, left: u32, more_in: TimeDelta) -> Allowance {
        Allowance { policy, quota: Quota::new(permits, TimeDelta::minutes(1)).unwrap(), left, more_in }
    }

    #[test]
    fn an_answer_says_what_is_left_of_each_limit() {
        let budget = Budget::default();
        let mut headers = HeaderMap::new();
        budget.show(&mut headers);
        assert!(headers.is_empty());
        budget.0.borrow_mut().push(allowance(Policy::Writes, 60, 59, TimeDelta::microseconds(999_999)));
        budget.0.borrow_mut().push(allowance(Policy::SignIn, 20, 0, TimeDelta::seconds(3)));
        budget.show(&mut headers);
        assert_eq!(headers.get("ratelimit-policy").unwrap(), r#""writes";q=60;w=60, "sign-in";q=20;w=60"#);
        assert_eq!(headers.get("ratelimit").unwrap(), r#""writes";r=59;t=1, "sign-in";r=0;t=3"#);
    }

    #[test]
    fn nobody_is_told_to_come_back_too_early() {
        for (millis, expected) in [(0, 1), (1, 1), (1000, 1), (1001, 2), (59_999, 60)] {
            let allowance = allowance(Policy::Writes, 60, 0, TimeDelta::milliseconds(millis));
            assert_eq!(retry_after(&allowance), expected, "{millis}");
        }
    }
}
