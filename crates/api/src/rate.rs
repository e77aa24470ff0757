//! Rate limits at the edge: which limit a request counts for, and what its answer says of it.
//!
//! The rules are the domain's ([`mundap_domain::rate`]); `docs/api.md` has the table of limits.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, Once, PoisonError};

use actix_web::http::Method;
use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};
use actix_web::{HttpMessage as _, HttpRequest};
use chrono::TimeDelta;
use mundap_domain::rate::{Allowance, Policy, Subject};
use mundap_domain::{Actor, Error};

use crate::app::Board;
use crate::headers::Headers;
use crate::input::Caller;

/// draft-ietf-httpapi-ratelimit-headers-10: two lists of structured fields (RFC 9651).
pub const RATE_LIMIT: &str = "ratelimit";
pub const RATE_LIMIT_POLICY: &str = "ratelimit-policy";

/// What a request has counted for so far. Cloning shares it.
#[derive(Clone, Debug, Default)]
pub struct Budget(Arc<Mutex<Vec<Allowance>>>);

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
            Ok(Some(allowance)) | Err(Error::RateLimited(allowance)) => {
                self.0.lock().unwrap_or_else(PoisonError::into_inner).push(*allowance);
            }
            Ok(None) | Err(_) => {}
        }
        outcome.map(|_| ())
    }

    /// What is said of what is left: the limits, and their state. `None` where nothing was counted.
    #[must_use]
    pub fn say(&self) -> Option<(String, String)> {
        let allowances = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let list = |item: fn(&Allowance) -> String| allowances.iter().map(item).collect::<Vec<_>>().join(", ");
        (!allowances.is_empty()).then(|| (list(policy), list(left)))
    }

    /// Says what is left.
    pub fn show(&self, headers: &mut HeaderMap) {
        let Some((policies, left)) = self.say() else { return };
        if let (Ok(policies), Ok(left)) = (HeaderValue::try_from(policies), HeaderValue::try_from(left)) {
            headers.insert(HeaderName::from_static(RATE_LIMIT_POLICY), policies);
            headers.insert(HeaderName::from_static(RATE_LIMIT), left);
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
    address_of(board, peer, req.headers())
}

/// As [`address`], of a request from `peer` with these headers.
#[must_use]
pub fn address_of(board: &Board, peer: IpAddr, headers: &impl Headers) -> Subject {
    if peer.is_loopback() && board.proxies.is_empty() && headers.texts("x-forwarded-for").next().is_some() {
        // Nobody but a proxy on this machine says so: all its clients are counted as one.
        static ONCE: Once = Once::new();
        ONCE.call_once(|| {
            tracing::warn!(
                "a proxy on this machine forwards requests, and MUNDAP_TRUSTED_PROXIES does not name it: all its clients \
                 share one client's rate limits"
            );
        });
    }
    Subject::address(board.proxies.client(peer, headers))
}

/// What a request is, as far as limits go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Demand {
    /// It looks at something.
    Read,
    /// It may change something.
    Write,
    /// It makes an account, or asks for or uses a mailed token.
    GuardsAccounts,
    /// It is about tokens: a password for signing in counts for one limit, anything else for staying signed in for another.
    Tokens { has_password: bool },
    /// As [`Tokens`](Self::Tokens), where only what it brings will tell which: see [`of_form`].
    TokensOfAForm,
}

/// Counts a request, before anything else of it is read. `caller` is who it says it comes from.
///
/// # Errors
/// What is wrong with the caller, [`Error::RateLimited`], and what the database says.
pub async fn enter(req: &HttpRequest, board: &Board, caller: Result<Caller, Error>) -> Result<Caller, Error> {
    let demand = if guards_accounts(req) {
        Demand::GuardsAccounts
    } else if is_of_tokens(req) {
        Demand::TokensOfAForm
    } else if req.method().is_safe() {
        Demand::Read
    } else {
        Demand::Write
    };
    let actor = caller.as_ref().map(|caller| &**caller);
    count(board, &Budget::of(req), &address(board, req), demand, actor).await?;
    caller
}

/// Counts a request of whatever face.
///
/// # Errors
/// [`Error::RateLimited`], and what the database says.
pub async fn count(
    board: &Board,
    budget: &Budget,
    address: &Subject,
    demand: Demand,
    caller: Result<&Actor, &Error>,
) -> Result<(), Error> {
    match demand {
        Demand::GuardsAccounts | Demand::Tokens { has_password: true } => {
            budget.spend(board, Policy::SignIn, address).await?;
        }
        Demand::Tokens { has_password: false } => budget.spend(board, Policy::Renewals, address).await?,
        Demand::Read | Demand::Write | Demand::TokensOfAForm => {}
    }
    let counts_already = match demand {
        Demand::Read | Demand::Write => false,
        Demand::GuardsAccounts | Demand::Tokens { .. } | Demand::TokensOfAForm => true,
    };
    match caller.map(|caller| caller.account().map(|account| Subject::Account(account.id))) {
        Ok(Some(account)) if demand == Demand::Read => budget.spend(board, Policy::Reads, &account).await,
        Ok(Some(account)) => budget.spend(board, Policy::Writes, &account).await,
        Ok(None) if counts_already => Ok(()),
        // Whoever guesses tokens is nobody yet.
        Ok(None) | Err(Error::InvalidToken) => budget.spend(board, Policy::Anonymous, address).await,
        // The database is away: that is all there is to say.
        Err(_) => Ok(()),
    }
}

/// Whether it makes an account, or asks for or uses a mailed token.
fn guards_accounts(req: &HttpRequest) -> bool {
    let paths = ["/api/v1/users", "/api/v1/auth/forgot", "/api/v1/auth/reset", "/api/v1/auth/verify"];
    req.method() == Method::POST && paths.contains(&req.path())
}

/// Whether it counts for one of two limits that only its form can tell: see [`of_form`].
fn is_of_tokens(req: &HttpRequest) -> bool {
    req.method() == Method::POST && matches!(req.path(), "/api/v1/auth/token" | "/api/v1/auth/revoke")
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
        budget.0.lock().unwrap().push(allowance(Policy::Writes, 60, 59, TimeDelta::microseconds(999_999)));
        budget.0.lock().unwrap().push(allowance(Policy::SignIn, 20, 0, TimeDelta::seconds(3)));
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
