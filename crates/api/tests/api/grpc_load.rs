//! More calls than the board can take, calls that take too long, and calls that nobody waits for.

use std::io::Read as _;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use mundap_grpc::v1;
use mundap_grpc::v1::upload_image_request::Part;
use tonic::codec::Streaming;
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;
use tonic_types::StatusExt as _;

use crate::board::Board;
use crate::database::{insert_qnas, number, while_held};
use crate::grpc::{Caller, reason};
use crate::program::eventually;
use crate::server::{Options, PATIENCE, Server};
use crate::stop::stopping;

crate::tests![
    a_call_that_takes_too_long_is_given_up_and_leaves_nothing,
    whoever_stops_waiting_gives_a_connection_back,
    whoever_sends_slowly_takes_no_place,
    streams_have_places_of_their_own_and_hold_no_connection,
    a_stream_ends_with_its_deadline,
    a_stream_that_nobody_reads_gives_its_place_back;
    once:
    a_message_that_is_too_large_is_refused,
    a_message_that_does_not_come_is_given_up,
    a_connection_that_never_calls_is_closed,
    limits_are_one_for_both_faces,
    no_call_is_cut_off_by_a_stop,
    a_reader_that_is_stuck_does_not_hold_up_a_stop,
];

fn options(variables: &[(&'static str, &str)]) -> Options {
    Options { env: variables.iter().map(|(name, value)| (*name, (*value).to_owned())).collect(), dir: None }
}

fn while_nobody_can_write(server: &Server, something: impl FnOnce()) {
    let sqlite = server.database_url.starts_with("sqlite");
    while_held(&server.database_url, if sqlite { "BEGIN IMMEDIATE" } else { "LOCK TABLES qna WRITE" }, something);
}

fn in_lane(server: &Server, lane: &str, count: u32) {
    let name = format!("mundap_http_lane_in_flight{{lane=\"{lane}\"}}");
    let there = || server.metrics().get(&name).copied().unwrap_or_default();
    eventually(&format!("{count} in {lane}"), || (there() - f64::from(count)).abs() < 0.5);
}

fn rows(server: &Server, title: &str) -> i64 {
    number(&server.database_url, &format!("SELECT COUNT(*) AS n FROM qna WHERE title = '{title}'"))
}

/// A new question, as soon as the database takes one again.
fn writes_again(caller: &Caller) {
    eventually("the database to be good again", || caller.ask("Stays", "").is_ok());
}

fn a_call_that_takes_too_long_is_given_up_and_leaves_nothing(board: &Board) {
    let server = board.own(&options(&[
        ("MUNDAP_HTTP_REQUEST_TIMEOUT", "700ms"),
        // Fewer than are given up: one that is lost is missed.
        ("MUNDAP_DATABASE_MAX_CONNECTIONS", "2"),
    ]));
    let caller = Caller::of(&server).by(&server.new_user());
    while_nobody_can_write(&server, || {
        for _ in 0..4 {
            let start = Instant::now();
            let late = caller.ask("Given up", "").unwrap_err();
            let took = start.elapsed();
            assert!((Duration::from_millis(700)..Duration::from_secs(5)).contains(&took), "{took:?}");
            assert_eq!((late.code(), &*reason(&late)), (Code::DeadlineExceeded, "too_slow"));
        }
    });
    writes_again(&caller);
    assert_eq!(rows(&server, "Given up"), 0);
    assert!(server.metrics()["mundap_http_timeouts_total{lane=\"writes\"}"] > 3.5);
    in_lane(&server, "requests", 0);
}

fn whoever_stops_waiting_gives_a_connection_back(board: &Board) {
    let server = board.own(&options(&[("MUNDAP_DATABASE_MAX_CONNECTIONS", "2")]));
    let caller = Caller::of(&server).by(&server.new_user());
    while_nobody_can_write(&server, || {
        for _ in 0..4 {
            let qna = v1::Qna { title: "Left".to_owned(), ..v1::Qna::default() };
            let mut request = Request::new(v1::CreateQnaRequest { qna: Some(qna), idempotency_key: String::new() });
            // Both ends know it.
            request.set_timeout(Duration::from_millis(200));
            let start = Instant::now();
            let left = caller.run(caller.qnas().create_qna(request)).unwrap_err();
            assert!(matches!(left.code(), Code::DeadlineExceeded | Code::Cancelled), "{left:?}");
            assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
        }
        in_lane(&server, "requests", 0);
    });
    writes_again(&caller);
    assert_eq!(rows(&server, "Left"), 0);
}

/// A call of a method for one message, whose message comes when it comes.
async fn slowly(
    caller: &Caller,
    message: impl Future<Output = v1::GetQnaRequest> + Send + 'static,
) -> Result<v1::Qna, Status> {
    let mut client = tonic::client::Grpc::new(caller.line());
    client.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let path = "/mundap.v1.QnaService/GetQna".parse().unwrap();
    let messages = futures_util::stream::once(message);
    let codec: ProstCodec<v1::GetQnaRequest, v1::Qna> = ProstCodec::default();
    Ok(client.client_streaming(Request::new(messages), path, codec).await?.into_inner())
}

fn whoever_sends_slowly_takes_no_place(board: &Board) {
    let server = board.own(&options(&[("MUNDAP_HTTP_REQUESTS", "1"), ("MUNDAP_HTTP_QUEUE", "0")]));
    let caller = Caller::of(&server).by(&server.new_user());
    let qna_id = caller.ask("Slowly", "But surely").unwrap().qna_id;
    caller.run(async {
        let (send, _) = tokio::sync::broadcast::channel::<()>(1);
        let slow = (0..5).map(|_| {
            let mut go = send.subscribe();
            slowly(&caller, async move {
                let _ = go.recv().await;
                v1::GetQnaRequest { qna_id, comment_count: 0 }
            })
        });
        let all = futures_util::future::join_all(slow);
        let others = async {
            // All five are on their way, and none is in the one place.
            for _ in 0..200 {
                let in_flight = tokio::task::spawn_blocking({
                    let url = format!("http://{}/metrics", server.ops);
                    move || ureq::get(url).call().unwrap().body_mut().read_to_string().unwrap()
                });
                let metrics = in_flight.await.unwrap();
                if metrics.contains("mundap_http_requests_in_flight 5") {
                    break;
                }
            }
            let request = v1::GetQnaRequest { qna_id, comment_count: 0 };
            let quick = caller.qnas().get_qna(request).await;
            // One after the other, for there is one place.
            let _ = send.send(());
            quick
        };
        let (slow, quick) = tokio::join!(all, others);
        assert_eq!(quick.unwrap().into_inner().qna_id, qna_id);
        for outcome in slow {
            match outcome {
                Ok(qna) => assert_eq!(qna.qna_id, qna_id),
                // They all came back at once.
                Err(busy) => assert_eq!((busy.code(), &*reason(&busy)), (Code::Unavailable, "busy")),
            }
        }
    });
    in_lane(&server, "requests", 0);
}

async fn stream_of(caller: &Caller, timeout: Option<Duration>) -> Result<Streaming<v1::Qna>, Status> {
    let mut request = Request::new(v1::StreamQnasRequest {});
    if let Some(timeout) = timeout {
        request.set_timeout(timeout);
    }
    caller.qnas().stream_qnas(request).await.map(tonic::Response::into_inner)
}

fn streams_have_places_of_their_own_and_hold_no_connection(board: &Board) {
    let server = board.own(&options(&[
        ("MUNDAP_HTTP_STREAMS", "2"),
        ("MUNDAP_HTTP_REQUESTS", "1"),
        ("MUNDAP_DATABASE_MAX_CONNECTIONS", "2"),
    ]));
    let user = server.new_user();
    // More than a stream's window holds.
    insert_qnas(&server.database_url, user.id, 5_000, &"x".repeat(1_000));
    let caller = Caller::of(&server).by(&user);
    let mut readers = Vec::new();
    for n in 1..=2 {
        readers.push(caller.run(stream_of(&caller, None)).unwrap());
        in_lane(&server, "streams", n);
    }
    let start = Instant::now();
    let busy = caller.run(stream_of(&caller, None)).unwrap_err();
    assert_eq!((busy.code(), &*reason(&busy)), (Code::Unavailable, "busy"));
    assert!(busy.get_error_details().retry_info().unwrap().retry_delay.unwrap() >= Duration::from_secs(1));
    assert!(start.elapsed() < Duration::from_secs(2));
    // Both faces share the places.
    server.get("/load_all_qna").may_fail().send().is(503);
    // Whoever does not read holds no connection: there are two.
    for _ in 0..4 {
        caller.ask("Meanwhile", "").unwrap();
        server.get("/api/v1/qna").send().is(200);
    }
    // One that is left gives its place back, and one that is read goes to its end.
    let mut last = readers.pop().unwrap();
    drop(readers);
    in_lane(&server, "streams", 1);
    let read = caller.run(async {
        let mut count = 0;
        while last.message().await.unwrap().is_some() {
            count += 1;
        }
        count
    });
    assert!((5_000..=5_004).contains(&read), "{read}");
    in_lane(&server, "streams", 0);
}

fn a_stream_ends_with_its_deadline(board: &Board) {
    let server = board.own(&Options::default());
    let user = server.new_user();
    insert_qnas(&server.database_url, user.id, 5_000, &"x".repeat(1_000));
    let caller = Caller::of(&server);
    let stream = caller.run(stream_of(&caller, Some(Duration::from_secs(1)))).unwrap();
    // Not read, and not left either: its time is up for the server too, as soon as it wants to send.
    let end = caller.run(async {
        let mut stream = stream;
        tokio::time::sleep(Duration::from_millis(1_200)).await;
        loop {
            match stream.message().await {
                Ok(Some(_)) => {}
                other => break other,
            }
        }
    });
    let late = end.expect_err("it has no end of its own");
    assert!(matches!(late.code(), Code::DeadlineExceeded | Code::Cancelled), "{late:?}");
    in_lane(&server, "streams", 0);
}

fn a_stream_that_nobody_reads_gives_its_place_back(board: &Board) {
    let server = board.own(&options(&[("MUNDAP_HTTP_WRITE_TIMEOUT", "500ms"), ("MUNDAP_HTTP_STREAMS", "1")]));
    let user = server.new_user();
    insert_qnas(&server.database_url, user.id, 10_000, &"x".repeat(1_000));
    let (caller, other) = (Caller::of(&server), Caller::of(&server));
    let mut unread = caller.run(stream_of(&caller, None)).unwrap();
    in_lane(&server, "streams", 1);
    in_lane(&server, "streams", 0);
    // Nobody takes a place from whoever reads, however slowly.
    let mut slow = other.run(stream_of(&other, None)).unwrap();
    let read = other.run(async {
        let mut count = 0;
        while slow.message().await.unwrap().is_some() {
            if count % 2_000 == 0 {
                tokio::time::sleep(Duration::from_millis(300)).await;
            }
            count += 1;
        }
        count
    });
    assert_eq!(read, 10_000);
    let end = caller.run(async {
        loop {
            match unread.message().await {
                Ok(Some(_)) => {}
                other => break other,
            }
        }
    });
    assert!(end.is_err(), "it is not whole, and says so");
}

fn a_message_that_is_too_large_is_refused(board: &Board) {
    let server = board.own(&options(&[("MUNDAP_HTTP_BODY_LIMIT", "50000")]));
    let caller = Caller::of(&server).by(&server.new_user());
    caller.ask("Large enough", &"x".repeat(20_000)).unwrap();
    let large = caller.ask("Too large", &"x".repeat(60_000)).unwrap_err();
    assert_eq!((large.code(), &*reason(&large)), (Code::ResourceExhausted, "body_too_large"));
    // The parts of an upload are messages too.
    let part = v1::UploadImageRequest { part: Some(Part::Data(vec![0; 60_000].into())) };
    let upload = caller.run(caller.images().upload_image(futures_util::stream::iter([part]))).unwrap_err();
    assert_eq!((upload.code(), &*reason(&upload)), (Code::ResourceExhausted, "body_too_large"), "{upload:?}");
}

fn a_message_that_does_not_come_is_given_up(board: &Board) {
    let server = board.own(&options(&[("MUNDAP_HTTP_BODY_TIMEOUT", "300ms")]));
    let caller = Caller::of(&server);
    let start = Instant::now();
    let late = caller.run(slowly(&caller, std::future::pending())).unwrap_err();
    assert_eq!((late.code(), &*reason(&late)), (Code::DeadlineExceeded, "body_timeout"));
    assert!((Duration::from_millis(300)..Duration::from_secs(5)).contains(&start.elapsed()));
    let member = Caller::of(&server).by(&server.new_user());
    let upload = member.run(member.images().upload_image(futures_util::stream::pending())).unwrap_err();
    assert_eq!((upload.code(), &*reason(&upload)), (Code::DeadlineExceeded, "body_timeout"), "{upload:?}");
}

fn a_connection_that_never_calls_is_closed(board: &Board) {
    let server = board.own(&options(&[("MUNDAP_HTTP_KEEP_ALIVE", "500ms"), ("MUNDAP_GRPC_KEEP_ALIVE", "1s")]));
    let start = Instant::now();
    let mut silent = TcpStream::connect(&server.grpc).unwrap();
    silent.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut rest = Vec::new();
    let _ = silent.read_to_end(&mut rest);
    assert!((Duration::from_millis(400)..Duration::from_secs(12)).contains(&start.elapsed()), "{:?}", start.elapsed());
    // One that lies idle after a call is told to go, and the next call connects anew.
    let caller = Caller::of(&server);
    let connections = || server.metrics()["mundap_http_connections"];
    let before = connections();
    caller.run(caller.qnas().list_qnas(v1::ListQnasRequest::default())).unwrap();
    assert!(connections() > before);
    eventually("the idle connection to be closed", || connections() < before + 0.5);
    caller.run(caller.qnas().list_qnas(v1::ListQnasRequest::default())).unwrap();
}

fn limits_are_one_for_both_faces(board: &Board) {
    let server = board.own(&options(&[("MUNDAP_RATE_LIMIT", "on"), ("MUNDAP_RATE_LIMIT_ANONYMOUS", "4/1h")]));
    let caller = Caller::of(&server);
    let list = || caller.run(caller.qnas().list_qnas(v1::ListQnasRequest::default()));
    // The tests' own client reads the document once.
    server.document();
    let first = list().unwrap();
    assert_eq!(first.metadata().get("ratelimit-policy").unwrap(), "\"anonymous\";q=4;w=3600");
    server.get("/api/v1/qna").send().is(200);
    list().unwrap();
    let often = list().unwrap_err();
    assert_eq!((often.code(), &*reason(&often)), (Code::ResourceExhausted, "rate_limited"));
    let details = often.get_error_details();
    assert!(details.retry_info().unwrap().retry_delay.unwrap() > Duration::from_mins(1));
    assert_eq!(details.error_info().unwrap().metadata["limit"], "anonymous");
    assert!(often.metadata().get("ratelimit").unwrap().to_str().unwrap().starts_with("\"anonymous\";r=0;"));
    server.get("/api/v1/qna").may_fail().send().is(429);
    // Whoever asks whether it serves is not counted.
    for _ in 0..5 {
        let mut health = tonic_health::pb::health_client::HealthClient::new(caller.channel.clone());
        caller.run(health.check(tonic_health::pb::HealthCheckRequest::default())).unwrap();
    }
}

fn no_call_is_cut_off_by_a_stop(board: &Board) {
    let server = board.own(&Options::default());
    let user = server.new_user();
    insert_qnas(&server.database_url, user.id, 5_000, &"x".repeat(1_000));
    let caller = Caller::of(&server).by(&user);
    let mut stream = caller.run(stream_of(&caller, None)).unwrap();
    caller.run(stream.message()).unwrap().unwrap();
    server.signal("TERM");
    stopping(&server);
    eventually("the port to be closed", || TcpStream::connect(&server.grpc).is_err());
    let count = caller.run(async {
        let mut count = 1;
        while stream.message().await.unwrap().is_some() {
            count += 1;
        }
        count
    });
    assert_eq!(count, 5_000);
    assert_eq!(server.end().code(), Some(0));
}

fn a_reader_that_is_stuck_does_not_hold_up_a_stop(board: &Board) {
    let server = board.own(&options(&[("MUNDAP_SHUTDOWN_TIMEOUT", "2s")]));
    let user = server.new_user();
    insert_qnas(&server.database_url, user.id, 5_000, &"x".repeat(1_000));
    let caller = Caller::of(&server);
    let _stuck = caller.run(stream_of(&caller, None)).unwrap();
    let start = Instant::now();
    server.signal("TERM");
    assert_eq!(server.end().code(), Some(0));
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
}
