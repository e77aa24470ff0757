//! The documents in the repository: where their links lead, what they say twice, and whether it works.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use crate::board::Board;
use crate::server::Options;

crate::tests![
    the_five_lines_do_what_they_say;
    once:
    links_lead_somewhere,
    the_korean_readme_is_in_step,
    the_ownership_table_is_the_same_everywhere,
    recipes_that_are_mentioned_exist,
    the_clients_that_are_shown_are_those_that_are_run,
];

/// The repository's folder.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// A file of the repository.
pub(crate) fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The README and all of `docs`, by their paths in the repository.
fn documents() -> Vec<String> {
    let mut found = vec!["README.md".to_owned()];
    for folder in ["docs", "docs/adr"] {
        for entry in std::fs::read_dir(root().join(folder)).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            if Path::new(&name).extension().is_some_and(|extension| extension == "md") {
                found.push(format!("{folder}/{name}"));
            }
        }
    }
    found.sort();
    assert!(found.len() > 10, "{found:?}");
    found
}

/// A Markdown text's lines outside of code blocks, and the code blocks.
fn split(text: &str) -> (Vec<&str>, Vec<String>) {
    let (mut lines, mut blocks, mut inside) = (Vec::new(), Vec::new(), false);
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            inside = !inside;
            if inside {
                blocks.push(format!("{line}\n"));
            }
        } else if inside {
            let block: &mut String = blocks.last_mut().unwrap();
            block.extend([line, "\n"]);
        } else {
            lines.push(line);
        }
    }
    assert!(!inside, "a code block has no end");
    (lines, blocks)
}

fn cells(row: &str) -> Vec<String> {
    let row = row.trim().trim_start_matches('|').trim_end_matches('|').replace("\\|", "\u{0}");
    row.split('|').map(|cell| cell.trim().replace('\u{0}', "|")).collect()
}

fn is_row(line: &str) -> bool {
    line.trim_start().starts_with('|')
}

/// The rows of the first table whose first column has this name.
pub(crate) fn table(text: &str, first_column: &str) -> Vec<Vec<String>> {
    let mut lines = text.lines().skip_while(|line| !is_row(line) || cells(line)[0] != first_column).skip(1);
    assert!(lines.next().is_some_and(|line| line.contains("---")), "no table begins with {first_column}");
    lines.take_while(|line| is_row(line)).map(cells).collect()
}

/// The headings, each with its level.
fn headings(text: &str) -> Vec<(usize, String)> {
    let heading = |line: &&str| {
        let level = line.bytes().take_while(|byte| *byte == b'#').count();
        line[level..].strip_prefix(' ').filter(|_| level > 0).map(|text| (level, text.to_owned()))
    };
    split(text).0.iter().filter_map(heading).collect()
}

/// What a link may name in a document: its headings as GitHub spells them, and the ids in it.
fn anchors(text: &str) -> BTreeSet<String> {
    let slug = |heading: &str| -> String {
        let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect::<String>().to_lowercase()
    };
    let ids = text.split("<a id=\"").skip(1).map(|rest| rest.split('"').next().unwrap().to_owned());
    headings(text).iter().map(|(_, heading)| slug(heading)).chain(ids).collect()
}

/// Where the links of a document lead, outside of code blocks.
fn targets(text: &str) -> Vec<String> {
    let text = split(text).0.join("\n");
    text.split("](").skip(1).map(|rest| rest.split(')').next().unwrap().to_owned()).collect()
}

/// `path` without its `.` and `..`.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => assert!(plain.pop(), "{} leads out of the repository", path.display()),
            Component::CurDir => {}
            other => plain.push(other),
        }
    }
    plain
}

/// Where a relative link of `document` leads in the repository.
fn resolve(document: &str, target: &str) -> PathBuf {
    plain(&Path::new(document).parent().unwrap().join(target))
}

fn links_lead_somewhere(_: &Board) {
    let mut astray = Vec::new();
    let mut followed = 0;
    for document in documents() {
        let text = read(&document);
        for target in targets(&text).into_iter().filter(|target| !target.contains("://")) {
            followed += 1;
            let (path, anchor) = target.split_once('#').map_or((&*target, None), |(path, id)| (path, Some(id)));
            let led = if path.is_empty() { PathBuf::from(&document) } else { resolve(&document, path) };
            let exists = root().join(&led).exists();
            let found = match anchor {
                Some(anchor) if exists => anchors(&read(led.to_str().unwrap())).contains(anchor),
                _ => exists,
            };
            if !found {
                astray.push(format!("{document}: {target}"));
            }
        }
    }
    assert!(astray.is_empty(), "links that lead nowhere: {astray:#?}");
    assert!(followed > 40, "only {followed} links were found");
}

fn the_korean_readme_is_in_step(_: &Board) {
    let (english, korean) = (read("README.md"), read("docs/README.ko.md"));
    let levels = |text: &str| headings(text).into_iter().map(|(level, _)| level).collect::<Vec<_>>();
    assert_eq!(levels(&korean), levels(&english));
    assert_eq!(split(&korean).1, split(&english).1);

    let rows = |text: &str| split(text).0.into_iter().filter(|line| is_row(line)).map(cells).collect::<Vec<_>>();
    let (korean_rows, english_rows) = (rows(&korean), rows(&english));
    assert_eq!(korean_rows.len(), english_rows.len());
    for (korean, english) in korean_rows.iter().zip(&english_rows) {
        assert_eq!(korean.len(), english.len(), "{korean:?} is not {english:?}");
        // Names and values are nobody's language.
        for (korean, english) in korean.iter().zip(english).take(2) {
            let is_name = english.split(", ").all(|part| {
                let name = part.strip_prefix('`').and_then(|rest| rest.strip_suffix('`'));
                name.is_some_and(|name| !name.contains('`'))
            });
            assert!(korean == english || !is_name, "{korean} is not {english}");
        }
    }

    let led = |document: &str, text: &str| {
        let mut led: Vec<PathBuf> = targets(text).iter().map(|target| resolve(document, target)).collect();
        led.retain(|path| !path.ends_with("README.md") && !path.ends_with("README.ko.md"));
        led.sort();
        led
    };
    assert_eq!(led("docs/README.ko.md", &korean), led("README.md", &english));
    assert!(targets(&english).contains(&"docs/README.ko.md".to_owned()));
    assert!(targets(&korean).contains(&"../README.md".to_owned()));
}

fn the_ownership_table_is_the_same_everywhere(_: &Board) {
    let code = read("crates/domain/src/actor.rs");
    let comment: Vec<&str> = code.lines().filter_map(|line| line.trim().strip_prefix("/// ")).collect();
    let code = table(&comment.join("\n"), "who");
    assert!(code.len() >= 6, "{code:?}");
    assert_eq!(table(&read("docs/architecture.md"), "who"), code);
    // The command line is no part of the API.
    let online: Vec<Vec<String>> = code.into_iter().filter(|row| row[0] != "operator").collect();
    assert_eq!(table(&read("docs/api.md"), "who"), online);
}

fn recipes_that_are_mentioned_exist(_: &Board) {
    let justfile = read("justfile");
    let recipe = |line: &&str| line.starts_with(|c: char| c.is_ascii_lowercase()) && line.contains(':');
    let name = |line: &str| line.split([' ', ':']).next().unwrap().to_owned();
    let recipes: BTreeSet<String> = justfile.lines().filter(recipe).map(name).collect();
    let mut mentioned = Vec::new();
    let mut texts = documents();
    texts.push("justfile".to_owned());
    for document in texts {
        let text = read(&document);
        // In code, that is: behind a backtick or at the beginning of a block's line.
        for line in text.lines() {
            for rest in line.split('`').chain([line]).filter_map(|code| code.trim_start().strip_prefix("just ")) {
                mentioned.push((document.clone(), name(rest)));
            }
        }
    }
    assert!(!mentioned.is_empty());
    let unknown: Vec<_> = mentioned.iter().filter(|(_, name)| !recipes.contains(name)).collect();
    assert!(unknown.is_empty(), "{unknown:?} are none of {recipes:?}");
}

fn the_clients_that_are_shown_are_those_that_are_run(_: &Board) {
    let blocks = split(&read("docs/grpc.md")).1;
    for (language, file) in [("python", "python/client.py"), ("rust", "client.rs")] {
        let shown: Vec<_> = blocks.iter().filter_map(|block| block.strip_prefix(&format!("```{language}\n"))).collect();
        assert_eq!(shown, [read(&format!("crates/grpc/examples/{file}"))], "docs/grpc.md shows another {file}");
    }
}

/// A shell line's words: single quotes keep all, double quotes and bare words expand `$TOKEN`.
fn words(line: &str, token: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for c in line.replace("$TOKEN", token).chars() {
        match (quote, c) {
            (Some(open), c) if open == c => quote = None,
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, ' ') => words.extend(word.take()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

fn the_five_lines_do_what_they_say(board: &Board) {
    let readme = read("README.md");
    let block = split(&readme).1.into_iter().find(|block| block.contains("curl ")).unwrap();
    let lines: Vec<&str> = block.lines().skip(1).collect();
    assert_eq!(lines.len(), 5, "{block}");
    let server = board.own(&Options::default());
    let mut token = String::new();
    let mut statuses = Vec::new();
    for line in lines {
        let command = line.strip_prefix("TOKEN=$(").map_or(line, |line| line.split(" | ").next().unwrap());
        let mut words = words(command, &token).into_iter();
        assert_eq!(words.next().as_deref(), Some("curl"), "{line}");
        let (mut method, mut url, mut headers, mut data) = (None, None, Vec::new(), Vec::new());
        while let Some(word) = words.next() {
            match word.as_str() {
                "-s" => {}
                "-X" => method = words.next(),
                "-H" => headers.push(words.next().unwrap()),
                "-d" => data.push(words.next().unwrap()),
                _ => url = Some(word),
            }
        }
        let url = url.unwrap();
        let path = url.strip_prefix("localhost:8000").unwrap_or_else(|| panic!("{line}"));
        let method = method.unwrap_or_else(|| if data.is_empty() { "GET" } else { "POST" }.to_owned());
        let mut call = server.call(&method, path);
        let mut content_type = "application/x-www-form-urlencoded".to_owned();
        for header in headers {
            match header.split_once(": ").unwrap() {
                ("Content-Type", value) => value.clone_into(&mut content_type),
                (name, value) => call = call.header(name, value),
            }
        }
        if !data.is_empty() {
            call = call.body(&content_type, data.join("&"));
        }
        let reply = call.send();
        statuses.push(reply.status);
        if line.starts_with("TOKEN=") {
            reply.json()["access_token"].as_str().unwrap().clone_into(&mut token);
        }
    }
    assert_eq!(statuses, [201, 200, 201, 201, 401]);
    let qna = server.get("/api/v1/qna/1").send().is(200).json();
    assert_eq!((&qna["author"]["display_name"], &qna["comment_count"]), (&"Ann".into(), &1.into()));
}
