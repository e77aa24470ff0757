//! What is asked. Each n-th request is the same for every contender.

use std::rc::Rc;

use clap::ValueEnum;
use mundap_trial::Result;
use mundap_trial::client::{Call, Client};
use mundap_trial::load::Mix;
use serde_json::json;

use crate::contender::Face;
use crate::fill::DISCUSSED;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Scenario {
    /// A question by its id
    Get,
    /// The first page of 20
    List,
    /// A page of 20 that is 90 % of the way down
    Keyset,
    /// A question with its first 20 comments
    Thread,
    /// A new question; the board's is sent with an Idempotency-Key
    Post,
    /// Nine questions by their ids, and a new one
    Mixed,
}

impl Scenario {
    pub const ALL: [Self; 6] = [Self::Get, Self::List, Self::Keyset, Self::Thread, Self::Post, Self::Mixed];

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Get => "get one",
            Self::List => "list, first page",
            Self::Keyset => "list, keyset page 90 % deep",
            Self::Thread => "question + 20 comments",
            Self::Post => "post",
            Self::Mixed => "90/10 mix",
        }
    }

    /// Whether it can be asked by this door.
    #[must_use]
    pub const fn has(self, face: Face) -> bool {
        match face {
            Face::Rest | Face::Floor => true,
            Face::Grpc { .. } => matches!(self, Self::Get),
        }
    }
}

/// What the requests are about.
pub struct Subjects {
    pub questions: u64,
    /// Of the member who asks.
    pub token: String,
    /// Cursors of pages that are 90 % of the way down.
    pub cursors: Vec<String>,
    /// Different for every run, so that no key comes twice.
    pub run: u32,
}

impl Subjects {
    /// The id of the n-th question that is asked for: all over the table, in no order.
    #[must_use]
    pub const fn id(&self, n: u64) -> u64 {
        // Knuth's multiplicative hash (The Art of Computer Programming, vol. 3, 6.4).
        (n.wrapping_mul(2_654_435_761) >> 4) % self.questions + 1
    }

    fn discussed(&self, n: u64) -> u64 {
        self.id(n).div_ceil(DISCUSSED).min(self.questions / DISCUSSED).max(1) * DISCUSSED
    }

    /// What is sent.
    #[must_use]
    pub fn requests(self: &Rc<Self>, scenario: Scenario, face: Face) -> Mix {
        let subjects = self.clone();
        Rc::new(move |n| match face {
            Face::Floor => subjects.to_floor(scenario, n),
            Face::Rest | Face::Grpc { .. } => subjects.to_board(scenario, n).bearer(&subjects.token),
        })
    }

    fn to_board(&self, scenario: Scenario, n: u64) -> Call {
        match scenario {
            Scenario::Get => Call::get(format!("/api/v1/qna/{}", self.id(n))),
            Scenario::List => Call::get("/api/v1/qna?limit=20"),
            Scenario::Keyset => {
                let cursor = &self.cursors[usize::try_from(n).unwrap_or(0) % self.cursors.len()];
                Call::get(format!("/api/v1/qna?limit=20&cursor={cursor}"))
            }
            Scenario::Thread => Call::get(format!("/api/v1/qna/{}?comments=20", self.discussed(n))),
            Scenario::Post => {
                let body = json!({"title": title(n), "content": content(n)});
                Call::post("/api/v1/qna").json(&body).once(&format!("bench-{}-{n}", self.run))
            }
            Scenario::Mixed if n % 10 == 9 => self.to_board(Scenario::Post, n),
            Scenario::Mixed => self.to_board(Scenario::Get, n),
        }
    }

    fn to_floor(&self, scenario: Scenario, n: u64) -> Call {
        match scenario {
            Scenario::Get => Call::get(format!("/qna/{}", self.id(n))),
            Scenario::List => Call::get("/qna?limit=20"),
            Scenario::Keyset => Call::get(format!("/qna?limit=20&before={}", self.questions / 10 - n % 100)),
            Scenario::Thread => Call::get(format!("/qna/{}?comments=20", self.discussed(n))),
            Scenario::Post => {
                let body = json!({"user_id": 1_000_000, "title": title(n), "content": content(n)});
                Call::post("/qna").json(&body)
            }
            Scenario::Mixed if n % 10 == 9 => self.to_floor(Scenario::Post, n),
            Scenario::Mixed => self.to_floor(Scenario::Get, n),
        }
    }
}

fn title(n: u64) -> String {
    format!("질문 {n}: how is it done?")
}

fn content(n: u64) -> String {
    format!("{n}: 이렇게 해 보았습니다. ").repeat(10)
}

/// Walks down the list, newest first, and gives the cursors of a hundred pages that are 90 % of the way down.
///
/// # Errors
/// Where a page is refused.
pub async fn deep_cursors(client: &mut Client, questions: u64) -> Result<Vec<String>> {
    let (mut cursors, mut cursor, mut seen) = (Vec::new(), None::<String>, 0);
    let deep = questions / 10 * 9;
    while cursors.len() < 100 {
        let limit = if seen + 100 <= deep { 100 } else { 1 };
        let from = cursor.map(|cursor| format!("&cursor={cursor}")).unwrap_or_default();
        let page = client.expect(200, &Call::get(format!("/api/v1/qna?limit={limit}{from}"))).await?.json();
        seen += limit;
        let Some(next) = page["next"].as_str() else { break };
        if seen >= deep {
            cursors.push(next.to_owned());
        }
        cursor = Some(next.to_owned());
    }
    if cursors.is_empty() { Err("there are too few questions for a page that is deep".into()) } else { Ok(cursors) }
}
