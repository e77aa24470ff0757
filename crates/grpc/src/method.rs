//! What each method is by nature, read from its descriptor: what it reads or writes, what it costs, which limits it counts
//! for.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use prost::Message as _;
use prost_types::method_options::IdempotencyLevel;
use prost_types::{FileDescriptorSet, MethodDescriptorProto};

use crate::DESCRIPTORS;

/// What a call costs the board.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    /// A few statements.
    Light,
    /// A password is hashed.
    Hashes,
    /// Megabytes are held while they arrive.
    Uploads,
    /// It goes on as long as its caller reads.
    Streams,
}

/// What a call is for, as far as limits go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    Reads,
    Writes,
    /// It makes an account, or asks for or uses a mailed token.
    GuardsAccounts,
    /// It signs in by a password.
    SignsIn,
    /// It keeps somebody signed in, or ends that.
    Renews,
}

/// A method of the board.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Method {
    /// Such as `mundap.v1.QnaService/GetQna`.
    pub name: String,
    pub load: Load,
    pub purpose: Purpose,
    /// Whether it looks at who is asking. Signing in does not: a client that renews its token sends the old one along.
    pub authenticates: bool,
    /// Whether more than one message may come.
    pub takes_stream: bool,
    /// Whether more than one message may go.
    pub gives_stream: bool,
}

/// Those that hash a password.
const HASHES: [&str; 4] = [
    "AccountService/CreateAccount",
    "AccountService/ChangePassword",
    "AuthService/SignIn",
    "AuthService/ResetPassword",
];

/// Those that make an account, or ask for or use a mailed token.
const GUARDS_ACCOUNTS: [&str; 4] = [
    "AccountService/CreateAccount",
    "AuthService/RequestPasswordReset",
    "AuthService/ResetPassword",
    "AuthService/VerifyEmail",
];

const RENEWS: [&str; 2] = ["AuthService/RefreshToken", "AuthService/RevokeToken"];

static METHODS: LazyLock<BTreeMap<String, Method>> = LazyLock::new(|| {
    // A test reads it.
    let set = FileDescriptorSet::decode(DESCRIPTORS).unwrap_or_default();
    let mut methods = BTreeMap::new();
    for file in set.file.iter().filter(|file| file.package() == PACKAGE) {
        for service in &file.service {
            for method in &service.method {
                let method = Method::new(service.name(), method);
                methods.insert(method.name.clone(), method);
            }
        }
    }
    methods
});

const PACKAGE: &str = "mundap.v1";

static SERVICES: LazyLock<Vec<String>> = LazyLock::new(|| {
    let mut services: Vec<String> =
        METHODS.keys().filter_map(|name| name.split_once('/')).map(|(service, _)| service.to_owned()).collect();
    services.dedup();
    services
});

/// The names of all services, such as `mundap.v1.QnaService`.
pub fn services() -> impl Iterator<Item = &'static str> {
    SERVICES.iter().map(String::as_str)
}

impl Method {
    fn new(service: &str, method: &MethodDescriptorProto) -> Self {
        let short = format!("{service}/{}", method.name());
        let short = short.as_str();
        let reads = method.options.as_ref().is_some_and(|o| o.idempotency_level() == IdempotencyLevel::NoSideEffects);
        let purpose = match short {
            "AuthService/SignIn" => Purpose::SignsIn,
            _ if GUARDS_ACCOUNTS.contains(&short) => Purpose::GuardsAccounts,
            _ if RENEWS.contains(&short) => Purpose::Renews,
            _ if reads => Purpose::Reads,
            _ => Purpose::Writes,
        };
        let load = match (method.client_streaming(), method.server_streaming()) {
            (true, _) => Load::Uploads,
            (false, true) => Load::Streams,
            (false, false) if HASHES.contains(&short) => Load::Hashes,
            (false, false) => Load::Light,
        };
        Self {
            name: format!("{PACKAGE}.{short}"),
            load,
            purpose,
            authenticates: service != "AuthService",
            takes_stream: method.client_streaming(),
            gives_stream: method.server_streaming(),
        }
    }

    /// All of them.
    pub fn all() -> impl Iterator<Item = &'static Self> {
        METHODS.values()
    }

    /// The one at this path of a request, such as `/mundap.v1.QnaService/GetQna`.
    #[must_use]
    pub fn at(path: &str) -> Option<&'static Self> {
        METHODS.get(path.strip_prefix('/')?)
    }
}
