//! What a letter says, in both languages and both forms: the texts in `letters/`, one Fluent file a language, compiled
//! in and parsed once.
//!
//! A text is plain words. HTML is made around it here, and everything in it is escaped on the way, whoever wrote it.

use std::fmt::Write as _;
use std::sync::LazyLock;

use fluent_bundle::concurrent::FluentBundle;
use fluent_bundle::{FluentArgs, FluentResource};
use mundap_domain::mail::{Language, Letter, MailToken, Message};

/// A letter, ready to be put into an envelope.
#[derive(Debug)]
pub(crate) struct Text {
    pub(crate) subject: String,
    pub(crate) plain: String,
    pub(crate) html: String,
}

/// Writes a letter of the board at `public_url`, which ends without a slash.
pub(crate) fn write(letter: &Letter, public_url: &str) -> Text {
    let words = Words { language: letter.language, public_url, letter };
    let (topic, body) = match &letter.message {
        Message::VerifyEmail(token) => ("verify-email", words.with_link("verify-email", "verify", token)),
        Message::ResetPassword(token) => ("reset-password", words.with_link("reset-password", "reset", token)),
        Message::EmailChanged => ("email-changed", words.notice("email-changed")),
        Message::PasswordChanged => ("password-changed", words.notice("password-changed")),
    };
    let greeting = if letter.name.is_some() { "greeting-name" } else { "greeting" };
    let mut blocks = vec![words.paragraph(greeting)];
    blocks.extend(body);
    blocks.push(words.paragraph("signature"));
    let subject = words.say(&format!("{topic}-subject"), None);
    Text { plain: plain(&blocks), html: html(letter.language, &subject, &blocks), subject }
}

enum Block {
    Paragraph(String),
    Link(String),
}

struct Words<'a> {
    language: Language,
    public_url: &'a str,
    letter: &'a Letter,
}

impl Words<'_> {
    fn with_link(&self, topic: &str, page: &str, token: &MailToken) -> Vec<Block> {
        let token = token.expose();
        // Behind the `#`: browsers keep that to themselves, so that no log and no Referer ever holds the token.
        let link = format!("{}/account/{page}#token={token}&lang={}", self.public_url, self.language.tag());
        vec![
            self.paragraph(&format!("{topic}-why")),
            Block::Link(link),
            Block::Paragraph(self.say("token", Some(&token))),
            self.paragraph("expiry"),
            self.paragraph(&format!("{topic}-otherwise")),
        ]
    }

    fn notice(&self, topic: &str) -> Vec<Block> {
        vec![self.paragraph(&format!("{topic}-why")), self.paragraph(&format!("{topic}-otherwise"))]
    }

    fn paragraph(&self, name: &str) -> Block {
        Block::Paragraph(self.say(name, None))
    }

    /// The text of this name; its bare name where the file lacks it, which a test keeps from happening.
    fn say(&self, name: &str, token: Option<&str>) -> String {
        let texts = texts(self.language);
        let Some(pattern) = texts.get_message(name).and_then(|message| message.value()) else {
            return name.to_owned();
        };
        let mut filled_in = FluentArgs::new();
        filled_in.set("board", self.public_url);
        filled_in.set("page", format!("{}/account/forgot", self.public_url));
        if let Some(name) = &self.letter.name {
            // A name may have lines; a greeting has one.
            filled_in.set("name", name.as_str().split_whitespace().collect::<Vec<_>>().join(" "));
        }
        if let Some(token) = token {
            filled_in.set("token", token);
        }
        texts.format_pattern(pattern, Some(&filled_in), &mut Vec::new()).into_owned()
    }
}

fn plain(blocks: &[Block]) -> String {
    let mut text = String::new();
    for block in blocks {
        match block {
            Block::Paragraph(words) | Block::Link(words) => text.push_str(words),
        }
        text.push_str("\n\n");
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}

fn html(language: Language, subject: &str, blocks: &[Block]) -> String {
    let mut body = String::new();
    for block in blocks {
        let inside = match block {
            Block::Paragraph(words) => escape(words),
            Block::Link(url) => format!("<a href=\"{0}\">{0}</a>", escape(url)),
        };
        // Writing to a string cannot fail.
        let _ = writeln!(body, "<p>{inside}</p>");
    }
    format!(
        "<!doctype html>\n<html lang=\"{}\">\n<head>\n<meta charset=\"utf-8\">\n<title>{}</title>\n</head>\n\
         <body style=\"font-family: sans-serif; line-height: 1.6; max-width: 40em\">\n{body}</body>\n</html>\n",
        language.tag(),
        escape(subject)
    )
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            _ => escaped.push(c),
        }
    }
    escaped
}

type Texts = FluentBundle<FluentResource>;

const fn source(language: Language) -> &'static str {
    match language {
        Language::English => include_str!("../letters/en.ftl"),
        Language::Korean => include_str!("../letters/ko.ftl"),
    }
}

fn texts(language: Language) -> &'static Texts {
    static ENGLISH: LazyLock<Texts> = LazyLock::new(|| parse(Language::English));
    static KOREAN: LazyLock<Texts> = LazyLock::new(|| parse(Language::Korean));
    match language {
        Language::English => &ENGLISH,
        Language::Korean => &KOREAN,
    }
}

fn parse(language: Language) -> Texts {
    let mut bundle = FluentBundle::new_concurrent(language.tag().parse().into_iter().collect());
    // Mail readers show the marks around what is filled in.
    bundle.set_use_isolating(false);
    // A test holds the files to be free of faults.
    let resource = FluentResource::try_new(source(language).to_owned()).unwrap_or_else(|(readable, _)| readable);
    bundle.add_resource_overriding(resource);
    bundle
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use mundap_domain::mail::LetterId;
    use mundap_domain::testing::{a_user, noon};
    use mundap_domain::user::{DisplayName, Role};

    use super::*;

    const URL: &str = "https://board.example.com";

    fn token() -> MailToken {
        MailToken::parse(&"A".repeat(43)).unwrap()
    }

    fn messages() -> [Message; 4] {
        [
            Message::VerifyEmail(token()),
            Message::ResetPassword(token()),
            Message::EmailChanged,
            Message::PasswordChanged,
        ]
    }

    fn letter(language: Language, name: Option<&str>, message: Message) -> Letter {
        Letter {
            id: LetterId::new(1),
            to: a_user(7, Role::Member).email.clone(),
            language,
            name: name.map(|name| DisplayName::parse(name).unwrap()),
            message,
            created_at: noon(),
        }
    }

    /// Names and, of each, what is filled in.
    fn inventory(language: Language) -> BTreeSet<(String, BTreeSet<String>)> {
        let resource = FluentResource::try_new(source(language).to_owned()).expect("no faults");
        assert!(resource.entries().count() > 10);
        let lines = source(language).lines().filter(|line| !line.starts_with('#'));
        lines
            .filter_map(|line| line.split_once(" = "))
            .map(|(name, text)| {
                let gaps = text.split("{ $").skip(1).map(|rest| rest.split(' ').next().unwrap().to_owned());
                (name.to_owned(), gaps.collect())
            })
            .collect()
    }

    #[test]
    fn both_files_have_the_same_texts_with_the_same_gaps() {
        assert_eq!(inventory(Language::English), inventory(Language::Korean));
    }

    #[test]
    fn every_letter_is_whole_in_both_languages() {
        let mut used = BTreeSet::new();
        for language in [Language::English, Language::Korean] {
            for name in [None, Some("김문답")] {
                for message in messages() {
                    let has_token = matches!(message, Message::VerifyEmail(_) | Message::ResetPassword(_));
                    let text = write(&letter(language, name, message), URL);
                    for part in [&text.subject, &text.plain, &text.html] {
                        // A name of a text, or a gap, would be what is missing.
                        assert!(!part.contains("{ $") && !part.contains("{$"), "{part}");
                        for (name, _) in inventory(language) {
                            assert!(
                                !part.lines().any(|line| line == name || line == format!("<p>{name}</p>")),
                                "{part}"
                            );
                        }
                    }
                    assert_eq!(text.plain.contains(&"A".repeat(43)), has_token, "{}", text.plain);
                    assert_eq!(text.html.contains(&"A".repeat(43)), has_token, "{}", text.html);
                    assert_eq!(text.plain.contains("김문답"), name.is_some(), "{}", text.plain);
                    assert!(text.plain.contains(URL) && text.html.contains(&format!("lang=\"{}\"", language.tag())));
                    assert!(!text.subject.contains('\n'));
                    used.insert(text.subject);
                }
            }
        }
        assert_eq!(used.len(), 8, "{used:?}");
    }

    #[test]
    fn what_somebody_wrote_is_words_in_html_too() {
        let name = "<img src=x onerror=alert(1)>&\"'\n\r".trim_end_matches('\r');
        let text = write(&letter(Language::English, Some(name), Message::PasswordChanged), URL);
        assert!(text.html.contains("Hello &lt;img src=x onerror=alert(1)&gt;&amp;&quot;&#39;,</p>"), "{}", text.html);
        assert!(text.plain.starts_with("Hello <img src=x onerror=alert(1)>&\"',\n"), "{}", text.plain);
        let tags = text.html.matches('<').count();
        let plain = write(&letter(Language::English, Some("Ann"), Message::PasswordChanged), URL);
        assert_eq!(tags, plain.html.matches('<').count(), "a name makes no tag");
    }

    #[test]
    fn the_token_is_where_no_log_sees_it() {
        let text = write(&letter(Language::Korean, None, Message::VerifyEmail(token())), URL);
        let link = text.plain.lines().find(|line| line.contains('#')).unwrap();
        let (address, fragment) = link.split_once('#').unwrap();
        assert_eq!(address, "https://board.example.com/account/verify");
        assert_eq!(fragment, format!("token={}&lang=ko", "A".repeat(43)));
    }
}
