//! `mundap-floor URL PORT`: what the same questions cost where nothing is looked after. actix-web and sqlx, statements by
//! hand on the board's own tables; no sign-in, no rules, no limits, no log, no metrics.

#![expect(clippy::print_stderr, reason = "a program that says why it ends")]

use std::process::ExitCode;

use actix_web::http::header::ContentType;
use actix_web::{App, HttpResponse, HttpServer, web};
use chrono::{NaiveDateTime, Utc};
use serde::{Deserialize, Serialize};
use sqlx::mysql::{MySqlConnectOptions, MySqlPoolOptions, MySqlSslMode};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{MySqlPool, SqlitePool};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Failure = Box<dyn std::error::Error>;

#[derive(Serialize)]
struct Question {
    qna_id: i64,
    user_id: i64,
    title: String,
    content: String,
    created_at: NaiveDateTime,
}

#[derive(Serialize)]
#[expect(clippy::struct_field_names, reason = "as the board's JSON names it")]
struct Comment {
    comment_id: i64,
    user_id: i64,
    content: String,
    created_at: NaiveDateTime,
}

#[derive(Serialize)]
struct Thread {
    #[serde(flatten)]
    question: Question,
    comments: Vec<Comment>,
}

#[derive(Deserialize)]
struct Of {
    limit: Option<i64>,
    before: Option<i64>,
    comments: Option<i64>,
}

#[derive(Deserialize)]
struct New {
    user_id: i64,
    title: String,
    content: String,
}

fn failed(_: sqlx::Error) -> actix_web::Error {
    actix_web::error::ErrorInternalServerError("the database")
}

fn json(value: &impl Serialize) -> Result<HttpResponse, actix_web::Error> {
    let mut body = Vec::with_capacity(1024);
    serde_json::to_writer(&mut body, value)?;
    Ok(HttpResponse::Ok().content_type(ContentType::json()).body(body))
}

#[expect(clippy::disallowed_methods, reason = "no rule depends on this clock, and no test")]
fn now() -> NaiveDateTime {
    Utc::now().naive_utc()
}

/// The same handlers for each kind of database: sqlx tells them apart by type.
macro_rules! handlers {
    ($name:ident, $pool:ty) => {
        mod $name {
            use super::*;

            type Row = (i64, i64, String, String, NaiveDateTime);
            type CommentRow = (i64, i64, String, NaiveDateTime);

            fn question((qna_id, user_id, title, content, created_at): Row) -> Question {
                Question { qna_id, user_id, title, content, created_at }
            }

            async fn one(
                pool: web::Data<$pool>,
                id: web::Path<i64>,
                of: web::Query<Of>,
            ) -> Result<HttpResponse, actix_web::Error> {
                let mut connection = pool.acquire().await.map_err(failed)?;
                let row: Option<Row> =
                    sqlx::query_as("SELECT qna_id, user_id, title, content, created_at FROM qna WHERE qna_id = ?")
                        .bind(*id)
                        .fetch_optional(&mut *connection)
                        .await
                        .map_err(failed)?;
                let Some(row) = row else { return Ok(HttpResponse::NotFound().finish()) };
                let Some(comments) = of.comments else { return json(&question(row)) };
                let rows: Vec<CommentRow> = sqlx::query_as(
                    "SELECT comment_id, user_id, content, created_at FROM comment WHERE qna_id = ? \
                     ORDER BY comment_id LIMIT ?",
                )
                .bind(*id)
                .bind(comments)
                .fetch_all(&mut *connection)
                .await
                .map_err(failed)?;
                drop(connection);
                let comments = rows
                    .into_iter()
                    .map(|(comment_id, user_id, content, created_at)| Comment {
                        comment_id,
                        user_id,
                        content,
                        created_at,
                    })
                    .collect();
                json(&Thread { question: question(row), comments })
            }

            async fn list(pool: web::Data<$pool>, of: web::Query<Of>) -> Result<HttpResponse, actix_web::Error> {
                let rows: Vec<Row> = sqlx::query_as(
                    "SELECT qna_id, user_id, title, content, created_at FROM qna WHERE qna_id < ? \
                     ORDER BY qna_id DESC LIMIT ?",
                )
                .bind(of.before.unwrap_or(i64::MAX))
                .bind(of.limit.unwrap_or(20))
                .fetch_all(&**pool)
                .await
                .map_err(failed)?;
                json(&rows.into_iter().map(question).collect::<Vec<_>>())
            }

            async fn create(pool: web::Data<$pool>, new: web::Json<New>) -> Result<HttpResponse, actix_web::Error> {
                let created_at = now();
                let done = sqlx::query(
                    "INSERT INTO qna (user_id, title, content, created_at, updated_at) VALUES (?, ?, ?, ?, ?)",
                )
                .bind(new.user_id)
                .bind(&new.title)
                .bind(&new.content)
                .bind(created_at)
                .bind(created_at)
                .execute(&**pool)
                .await
                .map_err(failed)?;
                let New { user_id, title, content } = new.into_inner();
                json(&Question { qna_id: $name::id(&done), user_id, title, content, created_at })
            }

            pub(super) async fn serve(pool: $pool, port: u16) -> std::io::Result<()> {
                HttpServer::new(move || {
                    App::new()
                        .app_data(web::Data::new(pool.clone()))
                        .route("/qna", web::get().to(list))
                        .route("/qna", web::post().to(create))
                        .route("/qna/{id}", web::get().to(one))
                })
                .bind(("127.0.0.1", port))?
                .run()
                .await
            }

            pub(super) use super::of::$name as id;
        }
    };
}

/// The id of a row that was just made.
mod of {
    pub(super) fn mysql(done: &sqlx::mysql::MySqlQueryResult) -> i64 {
        i64::try_from(done.last_insert_id()).unwrap_or(i64::MAX)
    }

    pub(super) fn sqlite(done: &sqlx::sqlite::SqliteQueryResult) -> i64 {
        done.last_insert_rowid()
    }
}

handlers!(mysql, MySqlPool);
handlers!(sqlite, SqlitePool);

async fn run(url: &str, port: u16) -> Result<(), Failure> {
    if url.starts_with("mysql") {
        // As little as it can cost, and as the board has it where both are on one machine.
        let options = url.parse::<MySqlConnectOptions>()?.ssl_mode(MySqlSslMode::Disabled);
        let pool = MySqlPoolOptions::new().max_connections(16).test_before_acquire(false).connect_with(options).await?;
        mysql::serve(pool, port).await?;
    } else {
        let options: SqliteConnectOptions = url.parse()?;
        let options = options.journal_mode(SqliteJournalMode::Wal).synchronous(SqliteSynchronous::Full);
        let pool = SqlitePoolOptions::new().max_connections(4).test_before_acquire(false).connect_with(options).await?;
        sqlite::serve(pool, port).await?;
    }
    Ok(())
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let (Some(url), Some(port)) = (arguments.next(), arguments.next().and_then(|port| port.parse().ok())) else {
        eprintln!("mundap-floor URL PORT");
        return ExitCode::from(2);
    };
    match actix_web::rt::System::new().block_on(run(&url, port)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mundap-floor: {error}");
            ExitCode::FAILURE
        }
    }
}
