//! What tests stand on: the servers of a database, and people on them.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};

use crate::client::Reply;
use crate::database::Database;
use crate::server::{Options, Server, run, run_with_input};
use crate::smtp::Smtp;

/// One database's servers. Tests share them, each with people of its own where it counts.
pub(crate) struct Board {
    pub(crate) database: Database,
    token: OnceLock<Server>,
    trusted: OnceLock<Server>,
    /// See `mail`.
    pub(crate) mailing: OnceLock<(Server, Smtp)>,
    ann: OnceLock<User>,
    bob: OnceLock<User>,
    moderator: OnceLock<User>,
    admin: OnceLock<User>,
    suspended: OnceLock<User>,
}

/// Somebody who is signed in.
#[derive(Clone, Debug)]
pub(crate) struct User {
    pub(crate) id: i64,
    pub(crate) email: String,
    pub(crate) name: String,
    pub(crate) token: String,
    pub(crate) refresh: String,
}

pub(crate) const PASSWORD: &str = "correct horse battery";

impl Board {
    pub(crate) fn new(database: Database) -> Self {
        Self {
            database,
            token: OnceLock::new(),
            trusted: OnceLock::new(),
            mailing: OnceLock::new(),
            ann: OnceLock::new(),
            bob: OnceLock::new(),
            moderator: OnceLock::new(),
            admin: OnceLock::new(),
            suspended: OnceLock::new(),
        }
    }

    /// Ends the servers and drops their databases.
    pub(crate) fn close(self) {
        let Self { database, token, trusted, mailing, .. } = self;
        drop((token, trusted, mailing));
        database.clean_up();
    }

    /// The server in `token` mode.
    pub(crate) fn server(&self) -> &Server {
        self.token.get_or_init(|| self.own(&Options::default()))
    }

    /// The server in `trusted-email` mode.
    pub(crate) fn trusted(&self) -> &Server {
        self.trusted.get_or_init(|| self.own(&Options::env("MUNDAP_IDENTITY", "trusted-email")))
    }

    /// The servers that were started so far.
    pub(crate) fn servers(&self) -> impl Iterator<Item = &Server> {
        let others = [&self.token, &self.trusted].into_iter().filter_map(OnceLock::get);
        others.chain(self.mailing.get().map(|(server, _)| server))
    }

    /// A server on a new database, for one test alone.
    pub(crate) fn own(&self, options: &Options) -> Server {
        Server::start(&self.database.fresh(), options)
    }

    /// A member.
    pub(crate) fn ann(&self) -> &User {
        self.ann.get_or_init(|| self.server().new_user())
    }

    /// Another member.
    pub(crate) fn bob(&self) -> &User {
        self.bob.get_or_init(|| self.server().new_user())
    }

    pub(crate) fn moderator(&self) -> &User {
        self.moderator.get_or_init(|| self.server().new_user_with_role("moderator"))
    }

    pub(crate) fn admin(&self) -> &User {
        self.admin.get_or_init(|| self.server().new_user_with_role("admin"))
    }

    pub(crate) fn suspended(&self) -> &User {
        self.suspended.get_or_init(|| self.server().new_suspended_user())
    }
}

/// An address that nobody has yet.
pub(crate) fn new_email() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    format!("somebody-{}@example.com", NEXT.fetch_add(1, Ordering::Relaxed))
}

impl Server {
    /// Registers somebody and signs them in.
    pub(crate) fn new_user(&self) -> User {
        let email = new_email();
        let name = format!("Name of {}", email.split('@').next().unwrap());
        let body = json!({"email": email, "password": PASSWORD, "display_name": name});
        let account = self.post("/api/v1/users").json(body).send().is(201).json();
        self.signed_in(&email, account["user_id"].as_i64().unwrap(), &name)
    }

    /// Somebody whom the command line made.
    pub(crate) fn new_user_with_role(&self, role: &str) -> User {
        let email = new_email();
        let name = format!("The {role}");
        let arguments = ["user", "add", &email, "--role", role, "--display-name", &name, "--password-file", "-"];
        let ended = run_with_input(&mut self.command(&arguments), &format!("{PASSWORD}\n"));
        assert_eq!(ended.code, Some(0), "{ended:?}");
        let id = ended.out.trim().rsplit(' ').next().unwrap().parse().unwrap();
        self.signed_in(&email, id, &name)
    }

    /// Suspends the account with this e-mail from the console; every sign-in of it has ended then.
    pub(crate) fn suspend(&self, email: &str) {
        let ended = run(&mut self.command(&["user", "suspend", email]));
        assert_eq!(ended.code, Some(0), "{ended:?}");
    }

    /// Suspends somebody and signs them in again.
    pub(crate) fn suspended(&self, user: &User) -> User {
        self.suspend(&user.email);
        self.signed_in(&user.email, user.id, &user.name)
    }

    pub(crate) fn new_suspended_user(&self) -> User {
        self.suspended(&self.new_user())
    }

    fn signed_in(&self, email: &str, id: i64, name: &str) -> User {
        let tokens = self.sign_in(email, PASSWORD).is(200).json();
        let text = |name: &str| tokens[name].as_str().unwrap().to_owned();
        let (token, refresh) = (text("access_token"), text("refresh_token"));
        User { id, email: email.to_owned(), name: name.to_owned(), token, refresh }
    }

    pub(crate) fn sign_in(&self, email: &str, password: &str) -> Reply {
        let form = [("grant_type", "password"), ("username", email), ("password", password)];
        self.post("/api/v1/auth/token").form(&form).send()
    }

    pub(crate) fn refresh(&self, refresh_token: &str) -> Reply {
        let form = [("grant_type", "refresh_token"), ("refresh_token", refresh_token)];
        self.post("/api/v1/auth/token").form(&form).send()
    }

    /// Asks a question; the answer's body.
    pub(crate) fn ask(&self, by: &User, title: &str) -> Value {
        let body = json!({"title": title, "content": format!("What is to be said about: {title}")});
        self.post("/api/v1/qna").by(by).json(body).send().is(201).json()
    }

    /// Asks a question; its path.
    pub(crate) fn ask_at(&self, by: &User, title: &str) -> String {
        format!("/api/v1/qna/{}", self.ask(by, title)["qna_id"])
    }

    /// Comments on the question at `path`; the comment's path.
    pub(crate) fn comment_at(&self, by: &User, path: &str, content: &str) -> String {
        let comment = self.post(format!("{path}/comments")).by(by).json(json!({"content": content})).send().is(201);
        format!("/api/v1/comments/{}", comment.json()["comment_id"])
    }

    /// Attaches an image to the comment at `path`; the image's path.
    pub(crate) fn image_at(&self, by: &User, path: &str, bytes: &[u8]) -> String {
        let image = self.post(format!("{path}/images")).by(by).file(bytes).send().is(201);
        format!("/api/v1/images/{}", image.json()["image_id"])
    }
}
