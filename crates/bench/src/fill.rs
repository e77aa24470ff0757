//! The rows that are measured on.

use std::fmt::Write as _;

use mundap_trial::Result;
use sea_orm::{ConnectOptions, ConnectionTrait as _, Database, DatabaseConnection};

/// One question in so many is discussed a lot.
pub const DISCUSSED: u64 = 50;
const COMMENTS: u64 = 60;

/// Authors of all that is there.
const MEMBERS: u64 = 1_000;

/// Rows a statement. Larger ones are no faster, and MySQL takes 64 MiB at most.
const BATCH: u64 = 500;

const TIME: &str = "'2026-01-02 12:00:00.000001'";

const SENTENCE: &str = "배포한 뒤에 연결 풀이 가득 찼다는 오류가 납니다. Which setting limits it, and how do I see who holds the connections? ";

/// So many questions, by their number; the first has the id 1.
///
/// # Errors
/// Where the database refuses them.
pub async fn fill(url: &str, questions: u64) -> Result<()> {
    let mut options = ConnectOptions::new(url);
    options.max_connections(1).sqlx_logging(false);
    let database = Database::connect(options).await?;
    if url.starts_with("mysql") {
        database.execute_unprepared("SET SESSION foreign_key_checks = 0, unique_checks = 0").await?;
    }
    rows(
        &database,
        "INSERT INTO users (user_id, display_name, email, email_key, role, created_at, updated_at)",
        MEMBERS,
        |sql, n| write!(sql, "({}, 'Member {n}', NULL, NULL, 'member', {TIME}, {TIME})", member(n)),
    )
    .await?;
    rows(
        &database,
        "INSERT INTO qna (qna_id, user_id, title, content, comment_count, created_at, updated_at)",
        questions,
        |sql, n| {
            let (id, comments) = (n + 1, comments(n + 1));
            let content = SENTENCE.repeat(usize::try_from(n % 5).unwrap_or(0) + 1);
            write!(sql, "({id}, {}, '연결 풀 {n}: pool exhausted', '{content}', {comments}, {TIME}, {TIME})", member(n))
        },
    )
    .await?;
    let discussed = questions / DISCUSSED;
    let columns = "INSERT INTO comment (qna_id, user_id, content, created_at, updated_at)";
    rows(&database, columns, discussed * COMMENTS, |sql, n| {
        let question = (n / COMMENTS + 1) * DISCUSSED;
        write!(sql, "({question}, {}, '{n}: {SENTENCE}', {TIME}, {TIME})", member(n * 7))
    })
    .await?;
    if url.starts_with("mysql") {
        database.execute_unprepared("ANALYZE TABLE users, qna, comment").await?;
    } else {
        database.execute_unprepared("ANALYZE; PRAGMA wal_checkpoint(TRUNCATE)").await?;
    }
    database.close().await?;
    Ok(())
}

/// Far from the ids of those who register themselves.
const fn member(n: u64) -> u64 {
    1_000_000 + n % MEMBERS
}

/// How many comments the question with this id has.
#[must_use]
pub const fn comments(id: u64) -> u64 {
    if id.is_multiple_of(DISCUSSED) { COMMENTS } else { 0 }
}

async fn rows(
    database: &DatabaseConnection,
    head: &str,
    count: u64,
    row: impl Fn(&mut String, u64) -> std::fmt::Result,
) -> Result<()> {
    let mut sql = String::new();
    // A commit for each batch would be a wait for the disk each.
    database.execute_unprepared("BEGIN").await?;
    for first in (0..count).step_by(usize::try_from(BATCH)?) {
        sql.clear();
        write!(sql, "{head} VALUES ")?;
        for n in first..count.min(first + BATCH) {
            if n > first {
                sql.push(',');
            }
            row(&mut sql, n)?;
        }
        database.execute_unprepared(&sql).await?;
        if first % (BATCH * 100) == BATCH * 99 {
            database.execute_unprepared("COMMIT").await?;
            database.execute_unprepared("BEGIN").await?;
        }
    }
    database.execute_unprepared("COMMIT").await?;
    Ok(())
}
