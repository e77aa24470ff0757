//! What is hot inside an answer, by itself: `just bench-inside`. How fast the board is beside others is for `just bench`.

use std::hint::black_box;

use actix_web::test::TestRequest;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use mundap_api::reply;
use mundap_api::routes::v1::qna::QnaView;
use mundap_domain::account::{ACCESS_LIFETIME, AccessClaims, AccessTokens as _};
use mundap_domain::actor::Actor;
use mundap_domain::page::{CursorKey, Order, Page, PageRequest, PageSize};
use mundap_domain::qna::{Qna, QnaDraft};
use mundap_domain::sign_in::SignInId;
use mundap_domain::testing::{a_qna, noon};
use mundap_domain::user::UserId;
use mundap_infra::{Ed25519Tokens, SigningKeys};

/// As people write, and not only in ASCII.
const TEXT: &str = "I followed the tutorial up to its last page and nothing answers. 포트를 바꿔도 마찬가지입니다. \
    The log says \"listening\", the browser says refused. 방화벽은 꺼져 있습니다. What do I look at next? I have tried \
    another machine, another browser and another network, with the same result each time. 설정 파일을 아래에 \
    붙였습니다. Thank you to whoever has an idea; I would like to know why, and not only what to type.";

/// One page of 20 questions as JSON.
fn page(criterion: &mut Criterion) {
    let items: Vec<Qna> = (1..=20).map(|id| a_qna(id, 1 + id % 7)).collect();
    let page = Page { items, next: Some("AAAAAAAAAGSl1l0GxV4JmXQ6F0L8nTb_".to_owned()) };
    let request = TestRequest::with_uri("/api/v1/qna?limit=20").to_http_request();
    let mut group = criterion.benchmark_group("page");
    group.throughput(Throughput::Elements(20));
    group.bench_function("20 questions to JSON", |bencher| {
        bencher.iter(|| reply::page(&request, black_box(&page), |qna| QnaView::new(qna, &Actor::Anonymous)).is_ok());
    });
    group.finish();
}

/// An access token, seen for the first time and seen before.
fn token(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a folder");
    let keys = SigningKeys::load_or_create(&folder.path().join("signing.pem")).expect("a key");
    let tokens = || Ed25519Tokens::new(&keys, "https://board.example");
    let claims = AccessClaims {
        user: UserId::new(7),
        sign_in: SignInId::new(9),
        issued_at: noon(),
        expires_at: noon().plus(ACCESS_LIFETIME),
    };
    let signed = tokens().issue(&claims).expect("a token");
    let remembering = tokens();
    assert!(remembering.verify(&signed, noon()).is_some(), "its own token is good");
    let mut group = criterion.benchmark_group("token");
    group.bench_function("seen for the first time", |bencher| {
        bencher.iter_batched(tokens, |tokens| tokens.verify(black_box(&signed), noon()), BatchSize::SmallInput);
    });
    group.bench_function("seen before", |bencher| bencher.iter(|| remembering.verify(black_box(&signed), noon())));
    group.bench_function("issued", |bencher| bencher.iter(|| remembering.issue(black_box(&claims))));
    group.finish();
}

/// A cursor of a list: opened with the request, sealed with its answer.
fn cursor(criterion: &mut Criterion) {
    let key = CursorKey::new(&[7; 32]);
    let first = key.slice("qna", Order::Newest, &PageRequest::first(PageSize::DEFAULT)).expect("a slice");
    let sealed = key.page("qna", &first, (1..=21).rev().collect(), |id| *id).next;
    let request = PageRequest { size: PageSize::DEFAULT, cursor: sealed };
    let mut group = criterion.benchmark_group("cursor");
    group.bench_function("opened", |bencher| {
        bencher.iter(|| key.slice("qna", Order::Newest, black_box(&request)).is_ok());
    });
    group.bench_function("sealed", |bencher| {
        let items: Vec<i64> = (1..=21).rev().collect();
        bencher.iter_batched(|| items.clone(), |items| key.page("qna", &first, items, |id| *id), BatchSize::SmallInput);
    });
    group.finish();
}

/// What somebody asks, held to the rules of its fields.
fn validation(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("validation");
    group.throughput(Throughput::Bytes(TEXT.len() as u64));
    group.bench_function("the rules of a question", |bencher| {
        bencher.iter(|| QnaDraft::parse(Some("Why does nothing answer?"), Some(black_box(TEXT))).is_ok());
    });
    group.finish();
}

criterion_group!(inside, page, token, cursor, validation);
criterion_main!(inside);
