//! Lists: pages, their links, and cursors.

use std::collections::BTreeSet;
use std::sync::mpsc::sync_channel;

use serde_json::{Value, json};
use url::Url;

use crate::board::{Board, User};
use crate::client::Reply;
use crate::database::{execute, insert_qnas};
use crate::server::{Options, Server};

crate::tests![
    a_walk_meets_what_lives_throughout_once,
    a_walk_over_ten_thousand_meets_what_lives_throughout_once,
    a_walk_over_comments_meets_what_lives_throughout_once,
    twenty_items_are_a_page,
    a_full_last_page_has_no_next,
    newest_come_first,
    an_author_filter_holds_nothing_else,
    a_link_keeps_what_was_asked_for,
    limits_of_a_page,
    unknown_and_repeated_parameters_are_refused,
    a_cursor_is_good_for_its_list_alone,
    a_cursor_cannot_be_made_or_bent,
    a_cursor_outlives_its_item,
];

/// Somebody with this many questions.
fn author_of(server: &Server, count: u32) -> User {
    let author = server.new_user();
    insert_qnas(&server.database_url, author.id, count, "…");
    author
}

/// The ids of a page's items.
fn ids(page: &Value, name: &str) -> Vec<i64> {
    page["items"].as_array().unwrap().iter().map(|item| item[name].as_i64().unwrap()).collect()
}

/// The `next` of a page, as a target to be asked for; `None` on the last page. Holds body and header to one another.
fn next(reply: &Reply) -> Option<Url> {
    let body = reply.json();
    let Some(cursor) = body["next"].as_str() else {
        assert_eq!((&body["next"], reply.header("link")), (&Value::Null, None), "{reply}");
        return None;
    };
    let link = reply.header("link").unwrap_or_else(|| panic!("no Link: {reply}"));
    let target = link.strip_prefix('<').and_then(|link| link.strip_suffix(r#">; rel="next""#));
    let target = Url::parse(target.unwrap_or_else(|| panic!("{link}"))).unwrap();
    let cursors: Vec<String> =
        target.query_pairs().filter(|(name, _)| name == "cursor").map(|(_, value)| value.into_owned()).collect();
    assert_eq!(cursors, [cursor], "{link}");
    Some(target)
}

/// The ids that a walk along `Link` meets, from page to page; `meanwhile` happens before each page.
fn walk(server: &Server, target: &str, size: usize, name: &str, mut meanwhile: impl FnMut()) -> Vec<i64> {
    let mut met = Vec::new();
    let mut target = target.to_owned();
    loop {
        meanwhile();
        let reply = server.get(&target).send().is(200);
        let page = ids(&reply.json(), name);
        met.extend_from_slice(&page);
        assert!(met.len() < 20_000, "the walk does not end");
        let Some(next) = next(&reply) else { return met };
        assert_eq!(page.len(), size, "a page before the last is full");
        target = next.into();
    }
}

/// Every seventh of `all`, from both ends in turn: what a walk has passed and what is ahead of it.
fn every_seventh(all: &[i64]) -> Vec<i64> {
    let some: Vec<i64> = all.iter().copied().step_by(7).collect();
    (0..some.len()).map(|n| if n % 2 == 0 { some[n / 2] } else { some[some.len() - 1 - n / 2] }).collect()
}

/// Walks `target` while `write` makes an item and `remove` deletes one, over and over; each between any two pages at
/// least once. `doomed` are those of `all` that are deleted on the way.
fn walk_amid_change(
    server: &Server,
    (target, size, name): (&str, usize, &str),
    (all, doomed): (&[i64], &[i64]),
    write: impl Fn() -> i64 + Send,
    remove: impl Fn(i64) + Send,
) {
    let (met, written) = std::thread::scope(|scope| {
        // In here, so that a walk that fails ends the writer too.
        let (cycle, cycles) = sync_channel(0);
        let writer = scope.spawn(move || {
            let mut written = Vec::new();
            let mut doomed = doomed.iter();
            // Ends when nobody walks any more.
            while cycle.send(()).is_ok() {
                let new = write();
                written.push(new);
                remove(doomed.next().copied().unwrap_or(new));
                if written.len() % 2 == 0 {
                    written.push(write());
                }
            }
            written
        });
        let met = walk(server, target, size, name, || cycles.recv().unwrap());
        drop(cycles);
        (met, writer.join().unwrap())
    });
    assert!(!written.is_empty(), "nothing was written meanwhile");
    let once: BTreeSet<i64> = met.iter().copied().collect();
    assert_eq!(once.len(), met.len(), "an item was met twice: {met:?}");
    let missed: Vec<i64> = all.iter().copied().filter(|id| !doomed.contains(id) && !once.contains(id)).collect();
    assert!(missed.is_empty(), "items were missed: {missed:?}");
    let strange: Vec<i64> = once.into_iter().filter(|id| !all.contains(id) && !written.contains(id)).collect();
    assert!(strange.is_empty(), "items of no such author or never written: {strange:?}");
}

fn a_walk_meets_what_lives_throughout_once(board: &Board) {
    let server = board.server();
    for (order, size) in [("newest", 20), ("oldest", 20), ("newest", 100), ("oldest", 100)] {
        let author = author_of(server, 250);
        let target = format!("/api/v1/qna?author={}&limit={size}&order={order}", author.id);
        let all = walk(server, &target, size, "qna_id", || ());
        assert_eq!(all.len(), 250);
        let descending = order == "newest";
        assert!(all.is_sorted_by(|a, b| if descending { a > b } else { a < b }), "{order}: {all:?}");
        let doomed = every_seventh(&all);
        let write = || server.ask(&author, "Meanwhile")["qna_id"].as_i64().unwrap();
        let remove = |id| drop(server.delete(format!("/api/v1/qna/{id}")).by(&author).send().is(204));
        walk_amid_change(server, (&target, size, "qna_id"), (&all, &doomed), write, remove);
    }
}

/// The whole list, on a server of its own, since nobody else's questions are known.
fn a_walk_over_ten_thousand_meets_what_lives_throughout_once(board: &Board) {
    let server = board.own(&Options::default());
    let author = author_of(&server, 10_000);
    let target = "/api/v1/qna?limit=100";
    let all = walk(&server, target, 100, "qna_id", || ());
    assert_eq!(all.len(), 10_000);
    let doomed = every_seventh(&all);
    let write = || server.ask(&author, "Meanwhile")["qna_id"].as_i64().unwrap();
    let remove = |id| drop(server.delete(format!("/api/v1/qna/{id}")).by(&author).send().is(204));
    walk_amid_change(&server, (target, 100, "qna_id"), (&all, &doomed), write, remove);
}

fn a_walk_over_comments_meets_what_lives_throughout_once(board: &Board) {
    let server = board.server();
    let author = author_of(server, 250);
    for size in [20, 100] {
        let qna = server.ask_at(&author, "Where does it end?");
        let id = qna.rsplit('/').next().unwrap();
        let time = "'2026-01-02 12:00:00.000001'";
        execute(
            &server.database_url,
            &format!(
                "INSERT INTO comment (qna_id, user_id, content, created_at, updated_at) \
                 SELECT {id}, user_id, 'a comment', {time}, {time} FROM qna WHERE user_id = {} LIMIT 250",
                author.id
            ),
        );
        execute(&server.database_url, &format!("UPDATE qna SET comment_count = 250 WHERE qna_id = {id}"));
        let target = format!("{qna}/comments?limit={size}");
        let all = walk(server, &target, size, "comment_id", || ());
        assert_eq!(all.len(), 250);
        assert!(all.is_sorted_by(|a, b| a < b), "{all:?}");
        let doomed = every_seventh(&all);
        let write = || {
            let path = server.comment_at(&author, &qna, "Meanwhile");
            path.rsplit('/').next().unwrap().parse().unwrap()
        };
        let remove = |id| drop(server.delete(format!("/api/v1/comments/{id}")).by(&author).send().is(204));
        walk_amid_change(server, (&target, size, "comment_id"), (&all, &doomed), write, remove);
        // All that was written and deleted meanwhile was counted.
        let left = walk(server, &format!("{qna}/comments?limit=100"), 100, "comment_id", || ()).len();
        assert_eq!(server.get(&qna).send().is(200).json()["comment_count"], left);
    }
}

fn twenty_items_are_a_page(board: &Board) {
    let server = board.server();
    let author = author_of(server, 21);
    let list = format!("/api/v1/qna?author={}", author.id);
    let first = server.get(&list).send().is(200);
    assert_eq!(ids(&first.json(), "qna_id").len(), 20);
    assert_eq!(first.header("cache-control"), Some("private, no-cache"));
    assert_eq!(first.header("vary"), Some("Authorization"));
    let second = server.get(next(&first).unwrap()).send().is(200);
    assert_eq!(ids(&second.json(), "qna_id").len(), 1);
    assert_eq!(next(&second), None);
    // An item of a list is what a read of it gives.
    let item = &second.json()["items"][0];
    assert_eq!(*item, server.get(format!("/api/v1/qna/{}", item["qna_id"])).send().is(200).json());

    let qna = server.ask_at(&author, "Twenty?");
    for n in 0..21 {
        server.comment_at(&author, &qna, &format!("Number {n}"));
    }
    let first = server.get(format!("{qna}/comments")).send().is(200);
    assert_eq!(first.json()["items"].as_array().unwrap().len(), 20);
    let second = server.get(next(&first).unwrap()).by(&author).send().is(200);
    let item = &second.json()["items"][0];
    assert_eq!((&item["content"], next(&second)), (&json!("Number 20"), None));
    assert_eq!(*item, server.get(format!("/api/v1/comments/{}", item["comment_id"])).by(&author).send().is(200).json());
}

fn a_full_last_page_has_no_next(board: &Board) {
    let server = board.server();
    let author = author_of(server, 6);
    for (size, pages) in
        [(1, vec![1; 6]), (2, vec![2; 3]), (3, vec![3; 2]), (5, vec![5, 1]), (6, vec![6]), (100, vec![6])]
    {
        let mut sizes = Vec::new();
        let mut target = Some(format!("/api/v1/qna?author={}&limit={size}", author.id));
        while let Some(asked) = target {
            let reply = server.get(asked).send().is(200);
            sizes.push(ids(&reply.json(), "qna_id").len());
            target = next(&reply).map(String::from);
        }
        assert_eq!(sizes, pages, "limit {size}");
    }
}

fn newest_come_first(board: &Board) {
    let server = board.server();
    let author = server.new_user();
    let asked: Vec<i64> = (0..3).map(|n| server.ask(&author, &format!("{n}"))["qna_id"].as_i64().unwrap()).collect();
    let list = |query: &str| ids(&server.get(format!("/api/v1/qna?{query}")).send().is(200).json(), "qna_id");
    let backwards: Vec<i64> = asked.iter().rev().copied().collect();
    assert_eq!(list(&format!("author={}", author.id)), backwards);
    assert_eq!(list(&format!("author={}&order=newest", author.id)), backwards);
    assert_eq!(list(&format!("order=oldest&author={}", author.id)), asked);
    // An edit moves nothing.
    server.patch(format!("/api/v1/qna/{}", asked[0])).by(&author).json(json!({"title": "Edited"})).send().is(200);
    assert_eq!(list(&format!("author={}", author.id)), backwards);
    // A member's own writes are there for the member's next read, also in the list of all.
    let newest = server.ask(&author, "The newest")["qna_id"].as_i64().unwrap();
    assert_eq!(list(&format!("author={}&limit=1", author.id)), [newest]);
    let all = walk(server, "/api/v1/qna?limit=100", 100, "qna_id", || ());
    assert!(all.contains(&newest) && all.is_sorted_by(|a, b| a > b), "{all:?}");
    assert!(list("limit=100&order=oldest").is_sorted_by(|a, b| a < b));
}

fn an_author_filter_holds_nothing_else(board: &Board) {
    let server = board.server();
    let author = server.new_user();
    let nothing = json!({"items": [], "next": null});
    let of = |author: &str| server.get(format!("/api/v1/qna?author={author}")).send().is(200);
    for nobody in ["0", "-1", "9007199254740991", "9223372036854775807", &author.id.to_string()] {
        let reply = of(nobody);
        assert_eq!((reply.json(), reply.header("link")), (nothing.clone(), None));
    }
    let kept = server.ask(&author, "Mine")["qna_id"].clone();
    let gone = server.ask_at(&author, "Not for long");
    server.ask(board.ann(), "Not mine");
    server.delete(gone).by(&author).send().is(204);
    let page = of(&author.id.to_string()).json();
    assert_eq!(
        (ids(&page, "qna_id"), &page["items"][0]["author"]["user_id"]),
        (vec![kept.as_i64().unwrap()], &json!(author.id))
    );
}

fn a_link_keeps_what_was_asked_for(board: &Board) {
    let server = board.server();
    let author = author_of(server, 5);
    let asked = format!("order=oldest&author={}&limit=2", author.id);
    let mut link = next(&server.get(format!("/api/v1/qna?{asked}")).send().is(200)).unwrap();
    for _ in 0..2 {
        let text = link.as_str();
        assert!(text.starts_with(&format!("{}/api/v1/qna?", server.base())), "{text}");
        let mut pairs: Vec<(String, String)> = link.query_pairs().into_owned().collect();
        pairs.retain(|(name, _)| name != "cursor");
        let expected = [("order", "oldest"), ("author", &author.id.to_string()), ("limit", "2")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(pairs, expected, "{text}");
        match next(&server.get(link.clone()).send().is(200)) {
            Some(next) => link = next,
            None => return,
        }
    }
    panic!("5 items are 3 pages of 2, and the last has no next");
}

fn limits_of_a_page(board: &Board) {
    let server = board.server();
    let author = author_of(server, 101);
    let qna = server.ask_at(&author, "How many?");
    server.comment_at(&author, &qna, "One");
    for (list, sep) in [(format!("/api/v1/qna?author={}", author.id), '&'), (format!("{qna}/comments"), '?')] {
        let page = |limit: &str| server.get(format!("{list}{sep}limit={limit}")).send();
        for bad in ["0", "101", "-1", "9223372036854775807", "18446744073709551616", "-9223372036854775809"] {
            page(bad).violates(&["/limit out_of_range"]);
        }
        for bad in ["abc", "", "1.5", "1e1", "0x10", "%2010", "10,20", "%EC%8A%A4", "null"] {
            page(bad).problem(400, "invalid_query");
        }
        let most = page("100").is(200).json()["items"].as_array().unwrap().len();
        assert_eq!(most, if sep == '&' { 100 } else { 1 });
        assert_eq!(page("1").is(200).json()["items"].as_array().unwrap().len(), 1);
    }
    server.get("/api/v1/qna?order=sideways").send().violates(&["/order not_one_of"]);
    server.get("/api/v1/qna?order=Newest&limit=0").send().violates(&["/order not_one_of", "/limit out_of_range"]);
    for beyond in ["9223372036854775808", "-9223372036854775809", "18446744073709551616"] {
        let reply = server.get(format!("/api/v1/qna?author={beyond}")).send();
        assert!(reply.text().contains("between -9223372036854775808 and 9223372036854775807"), "{reply}");
        reply.violates(&["/author out_of_range"]);
    }
    for bad in ["me", "", "1.0", "1,2"] {
        server.get(format!("/api/v1/qna?author={bad}")).send().problem(400, "invalid_query");
    }
}

fn unknown_and_repeated_parameters_are_refused(board: &Board) {
    let server = board.server();
    let qna = server.ask_at(board.ann(), "Which parameters?");
    let comments = format!("{qna}/comments");
    for query in ["page=2", "Limit=5", "offset=20", "autor=1", "limit=5&sort=asc", "=", "limit", "limit=5&limit=5"] {
        for list in ["/api/v1/qna", comments.as_str()] {
            server.get(format!("{list}?{query}")).send().problem(400, "invalid_query");
        }
    }
    for query in ["author=1&author=2", "order=newest&order=oldest", "cursor=a&cursor=a", "author=1&limit=2&author=1"] {
        server.get(format!("/api/v1/qna?{query}")).send().problem(400, "invalid_query");
    }
    // Comments are read in one order, whoever wrote them.
    for query in ["order=oldest", "author=1"] {
        server.get(format!("{comments}?{query}")).send().problem(400, "invalid_query");
    }
    for list in ["/api/v1/qna", comments.as_str()] {
        server.get(format!("{list}?")).send().is(200);
    }
}

fn a_cursor_is_good_for_its_list_alone(board: &Board) {
    let server = board.server();
    let (author, other) = (author_of(server, 3), author_of(server, 3));
    let qna = server.ask_at(&author, "One list");
    let other_qna = server.ask_at(&author, "Another list");
    for path in [&qna, &other_qna] {
        for n in 0..3 {
            server.comment_at(&author, path, &format!("Number {n}"));
        }
    }
    let (id, other_id) = (author.id, other.id);
    let lists = [
        "/api/v1/qna?order=newest".to_owned(),
        "/api/v1/qna?order=oldest".to_owned(),
        format!("/api/v1/qna?author={id}&order=newest"),
        format!("/api/v1/qna?author={id}&order=oldest"),
        format!("/api/v1/qna?author={other_id}&order=newest"),
        format!("{qna}/comments?"),
        format!("{other_qna}/comments?"),
    ];
    for made_for in &lists {
        let page = server.get(format!("{made_for}&limit=1")).send().is(200).json();
        let cursor = page["next"].as_str().unwrap();
        for list in &lists {
            let reply = server.get(format!("{list}&limit=2&cursor={cursor}")).send();
            if list == made_for {
                // A page may have another size than the one before.
                assert_eq!(reply.is(200).json()["items"].as_array().unwrap().len(), 2, "{list}");
            } else {
                reply.problem(400, "invalid_cursor");
            }
        }
    }
    // What is the default may be said or not.
    let page = server.get("/api/v1/qna?limit=1").send().is(200).json();
    server.get(format!("/api/v1/qna?order=newest&cursor={}", page["next"].as_str().unwrap())).send().is(200);
    // Another board seals with another key.
    let elsewhere = board.trusted();
    let stranger = elsewhere.new_user();
    insert_qnas(&elsewhere.database_url, stranger.id, 2, "…");
    for order in ["newest", "oldest"] {
        let page = elsewhere.get(format!("/api/v1/qna?order={order}&limit=1")).send().is(200).json();
        let cursor = page["next"].as_str().unwrap();
        server.get(format!("/api/v1/qna?order={order}&cursor={cursor}")).send().problem(400, "invalid_cursor");
    }
}

fn a_cursor_cannot_be_made_or_bent(board: &Board) {
    let server = board.server();
    let author = author_of(server, 3);
    let page = server.get(format!("/api/v1/qna?author={}&limit=1", author.id)).send().is(200).json();
    let good = page["next"].as_str().unwrap();
    let read = |cursor: &str| {
        let mut target = Url::parse(&format!("{}/api/v1/qna?author={}", server.base(), author.id)).unwrap();
        target.query_pairs_mut().append_pair("cursor", cursor);
        server.get(target).send()
    };
    assert_eq!(read(good).is(200).json()["items"].as_array().unwrap().len(), 2);
    for index in 0..good.len() {
        let mut bent = good.as_bytes().to_vec();
        bent[index] = if bent[index] == b'A' { b'B' } else { b'A' };
        read(str::from_utf8(&bent).unwrap()).problem(400, "invalid_cursor");
    }
    let half = &good[..good.len() / 2];
    let (doubled, longer, padded) = (good.repeat(2), format!("{good}AAAA"), format!("{good}="));
    let spaced = format!(" {good}");
    let long = "A".repeat(2000);
    let id = page["items"][0]["qna_id"].to_string();
    for bad in [
        "",
        "0",
        &id,
        "null",
        "한국어",
        "../..",
        "' OR 1=1 --",
        "\u{0}",
        half,
        &doubled,
        &longer,
        &padded,
        &spaced,
        &long,
    ] {
        read(bad).problem(400, "invalid_cursor");
    }
}

fn a_cursor_outlives_its_item(board: &Board) {
    let server = board.server();
    let author = author_of(server, 4);
    let list = format!("/api/v1/qna?author={}&limit=2", author.id);
    let all = walk(server, &list, 2, "qna_id", || ());
    let first = server.get(&list).send().is(200);
    for id in &all[..2] {
        server.delete(format!("/api/v1/qna/{id}")).by(&author).send().is(204);
    }
    let second = server.get(next(&first).unwrap()).send().is(200);
    assert_eq!(ids(&second.json(), "qna_id"), all[2..]);
    for id in &all[2..] {
        server.delete(format!("/api/v1/qna/{id}")).by(&author).send().is(204);
    }
    let emptied = server.get(next(&first).unwrap()).send().is(200);
    assert_eq!((emptied.json(), next(&emptied)), (json!({"items": [], "next": null}), None));

    let qna = server.ask_at(&author, "And comments?");
    let comments: Vec<String> = (0..3).map(|n| server.comment_at(&author, &qna, &format!("Number {n}"))).collect();
    let first = server.get(format!("{qna}/comments?limit=1")).send().is(200);
    let rest = next(&first).unwrap();
    server.delete(&comments[0]).by(&author).send().is(204);
    server.delete(&comments[1]).by(&author).send().is(204);
    let second = server.get(rest.clone()).send().is(200).json();
    assert_eq!(second["items"][0]["content"], "Number 2");
    server.delete(&qna).by(&author).send().is(204);
    server.get(rest).send().problem(404, "qna_not_found");
}
