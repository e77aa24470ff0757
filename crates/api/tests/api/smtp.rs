//! A mail server of the test's own, on the loopback: it speaks SMTP (RFC 5321), takes letters or does not, as it is told,
//! and reads what it took with a parser that knows nothing of how it was written.

use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use mail_parser::{MessageParser, MimeHeaders as _};
use socket2::{Domain, Socket, Type};

use crate::server::PATIENCE;

/// What it does with a connection.
#[derive(Clone, Debug)]
pub(crate) enum Manner {
    /// Takes a letter.
    Take,
    /// Answers this command (`CONNECT`, `EHLO`, `MAIL`, `RCPT`, `DATA`, or `.` for the letter's end) with this line.
    Answer(&'static str, &'static str),
    /// Says nothing at all for as long as the other end waits.
    Silence,
    /// Hangs up at this command without an answer.
    HangUp(&'static str),
    /// Takes the letter in and hangs up before it says so.
    TakeAndHangUp,
}

/// A letter as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Mail {
    /// From the envelope.
    pub(crate) sender: String,
    /// The name of who wrote it.
    pub(crate) from: String,
    pub(crate) to: String,
    pub(crate) subject: String,
    pub(crate) plain: String,
    pub(crate) html: String,
    /// The whole of it.
    pub(crate) raw: String,
}

#[derive(Default)]
struct State {
    script: VecDeque<Manner>,
    always: Option<Manner>,
    letters: Vec<Mail>,
    connections: usize,
}

#[derive(Default)]
struct Desk {
    state: Mutex<State>,
    news: Condvar,
    closed: AtomicBool,
}

/// An address where nobody listens, and nobody else can for as long as this lives: other tests start servers meanwhile.
pub(crate) struct Closed {
    socket: Socket,
    pub(crate) address: SocketAddr,
}

impl Closed {
    pub(crate) fn new() -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        Self { socket, address }
    }
}

/// The mail server.
pub(crate) struct Smtp {
    desk: Arc<Desk>,
    pub(crate) address: SocketAddr,
}

impl Smtp {
    pub(crate) fn start() -> Self {
        Self::opened(Closed::new())
    }

    /// Where nobody listened until now.
    pub(crate) fn opened(Closed { socket, address }: Closed) -> Self {
        socket.listen(128).unwrap();
        let listener = TcpListener::from(socket);
        let desk = Arc::new(Desk::default());
        std::thread::spawn({
            let desk = desk.clone();
            move || {
                for stream in listener.incoming() {
                    if desk.closed.load(Ordering::SeqCst) {
                        return;
                    }
                    let (desk, stream) = (desk.clone(), stream.unwrap());
                    std::thread::spawn(move || {
                        let manner = {
                            let mut state = desk.state.lock().unwrap();
                            state.connections += 1;
                            desk.news.notify_all();
                            let next = state.script.pop_front();
                            next.or_else(|| state.always.clone()).unwrap_or(Manner::Take)
                        };
                        // Whoever hangs up in the middle has said enough.
                        let _ = converse(&desk, stream, &manner);
                    });
                }
            }
        });
        Self { desk, address }
    }

    pub(crate) fn url(&self) -> String {
        format!("smtp://{}", self.address)
    }

    /// How it treats the next connections, one each.
    pub(crate) fn next(&self, manners: impl IntoIterator<Item = Manner>) {
        self.desk.state.lock().unwrap().script.extend(manners);
    }

    /// How it treats every connection that [`next`](Self::next) says nothing of.
    pub(crate) fn always(&self, manner: Manner) {
        self.desk.state.lock().unwrap().always = Some(manner);
    }

    pub(crate) fn connections(&self) -> usize {
        self.desk.state.lock().unwrap().connections
    }

    /// Waits until so many connections have come.
    pub(crate) fn wait_for_connections(&self, count: usize) {
        let state = self.desk.state.lock().unwrap();
        let (_state, waited) =
            self.desk.news.wait_timeout_while(state, PATIENCE, |state| state.connections < count).unwrap();
        assert!(!waited.timed_out(), "{count} connections do not come");
    }

    /// Every letter so far.
    pub(crate) fn letters(&self) -> Vec<Mail> {
        self.desk.state.lock().unwrap().letters.clone()
    }

    /// The letters to an address, once there are so many.
    pub(crate) fn wait_for(&self, to: &str, count: usize) -> Vec<Mail> {
        self.wait_longer_for(to, count, PATIENCE)
    }

    pub(crate) fn wait_longer_for(&self, to: &str, count: usize, patience: Duration) -> Vec<Mail> {
        let deadline = Instant::now() + patience;
        let mut state = self.desk.state.lock().unwrap();
        loop {
            let found: Vec<Mail> = state.letters.iter().filter(|mail| mail.to == to).cloned().collect();
            if found.len() >= count {
                return found;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let all: Vec<_> = state.letters.iter().map(|mail| (&mail.to, &mail.subject)).collect();
            assert!(!left.is_zero(), "there are {} letters to {to}, not {count}: {all:?}", found.len());
            state = self.desk.news.wait_timeout(state, left).unwrap().0;
        }
    }

    /// The letters to an address, where there is exactly this number.
    #[track_caller]
    pub(crate) fn exactly<const N: usize>(&self, to: &str) -> [Mail; N] {
        self.wait_for(to, N)
            .try_into()
            .unwrap_or_else(|found: Vec<_>| panic!("{} letters to {to}, not {N}", found.len()))
    }
}

impl Drop for Smtp {
    fn drop(&mut self) {
        self.desk.closed.store(true, Ordering::SeqCst);
        // Wakes the listener, which then ends.
        let _ = TcpStream::connect(self.address);
    }
}

fn converse(desk: &Desk, stream: TcpStream, manner: &Manner) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_mins(1)))?;
    let mut input = BufReader::new(stream.try_clone()?);
    let mut output = stream;
    let mut line = String::new();
    if matches!(manner, Manner::Silence) {
        // Until the other end has had enough.
        while input.read_line(&mut line)? > 0 {}
        return Ok(());
    }
    // `false`: hang up.
    let mut answer = |command: &str, usual: &str| -> std::io::Result<bool> {
        let text = match manner {
            Manner::HangUp(at) if *at == command => return Ok(false),
            Manner::Answer(at, text) if *at == command => text,
            _ => usual,
        };
        output.write_all(format!("{text}\r\n").as_bytes())?;
        Ok(true)
    };
    if !answer("CONNECT", "220 mail.test ESMTP")? {
        return Ok(());
    }
    let (mut sender, mut to) = (String::new(), String::new());
    loop {
        line.clear();
        if input.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let command = line.trim_end().to_owned();
        let verb = command.split([' ', ':']).next().unwrap_or_default().to_ascii_uppercase();
        let path =
            || command.split_once('<').and_then(|(_, rest)| rest.split('>').next()).unwrap_or_default().to_owned();
        let go_on = match verb.as_str() {
            "EHLO" => answer("EHLO", "250-mail.test\r\n250-8BITMIME\r\n250 AUTH PLAIN")?,
            "MAIL" => {
                sender = path();
                answer("MAIL", "250 ok")?
            }
            "RCPT" => {
                to = path();
                answer("RCPT", "250 ok")?
            }
            "DATA" => {
                if !answer("DATA", "354 go on")? {
                    return Ok(());
                }
                if let Manner::Answer("DATA", _) = manner {
                    continue;
                }
                let mut raw = String::new();
                loop {
                    line.clear();
                    if input.read_line(&mut line)? == 0 {
                        return Ok(());
                    }
                    if line == ".\r\n" {
                        break;
                    }
                    // RFC 5321, 4.5.2
                    raw.push_str(line.strip_prefix('.').unwrap_or(&line));
                }
                let takes = !matches!(manner, Manner::Answer(".", _) | Manner::HangUp("."));
                if takes {
                    let mail = Mail::read(&sender, &to, raw);
                    desk.state.lock().unwrap().letters.push(mail);
                }
                if matches!(manner, Manner::TakeAndHangUp) {
                    desk.news.notify_all();
                    return Ok(());
                }
                let said = answer(".", "250 taken")?;
                desk.news.notify_all();
                said
            }
            "AUTH" => answer("AUTH", "235 welcome")?,
            "QUIT" => {
                answer("QUIT", "221 bye")?;
                false
            }
            _ => answer("", "250 ok")?,
        };
        if !go_on {
            return Ok(());
        }
    }
}

impl Mail {
    fn read(sender: &str, to: &str, raw: String) -> Self {
        let parsed = MessageParser::default().parse(raw.as_bytes()).unwrap();
        // Both forms of one text, the plain one first (RFC 2046, 5.1.4).
        let whole = parsed.content_type().unwrap();
        assert_eq!((whole.ctype(), whole.subtype()), ("multipart", Some("alternative")), "{raw}");
        let named: Vec<_> = parsed.to().unwrap().iter().map(|to| (to.name(), to.address())).collect();
        assert_eq!(named, [(None, Some(to))], "{raw}");
        Self {
            sender: sender.to_owned(),
            from: parsed.from().unwrap().first().unwrap().name().unwrap().to_owned(),
            to: to.to_owned(),
            subject: parsed.subject().unwrap().to_owned(),
            plain: parsed.body_text(0).unwrap().replace("\r\n", "\n"),
            html: parsed.body_html(0).unwrap().replace("\r\n", "\n"),
            raw,
        }
    }

    /// The link in it: the same in both forms.
    pub(crate) fn link(&self) -> String {
        let found = self.plain.lines().find(|line| line.contains("/account/") && line.contains('#'));
        let link = found.unwrap_or_else(|| panic!("no link: {}", self.plain)).trim().to_owned();
        let escaped = link.replace('&', "&amp;");
        assert!(self.html.contains(&format!("<a href=\"{escaped}\">{escaped}</a>")), "{}", self.html);
        link
    }

    /// The token in it: in the link's fragment, and spelled out.
    pub(crate) fn token(&self) -> String {
        let link = self.link();
        let fragment = link.split_once('#').unwrap().1;
        let token = fragment.split('&').find_map(|pair| pair.strip_prefix("token=")).unwrap().to_owned();
        assert_eq!(self.plain.matches(&token).count(), 2, "{}", self.plain);
        token
    }
}
