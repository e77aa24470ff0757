//! gRPC-Web: browsers speak HTTP/1.1 or cannot see trailers, and may call from origins that were named.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use mundap_grpc::{Method as Rpc, v1};
use prost::Message;
use ureq::http::{HeaderMap, Method, Request};

use crate::board::Board;
use crate::grpc::Caller;
use crate::server::{Options, PATIENCE, Server};

crate::tests![
    what_is_no_message_is_refused_by_every_method;
    once: a_page_may_call, a_page_of_an_origin_that_was_not_named_may_not, a_connection_that_ends_says_so,
];

const ORIGIN: &str = "https://board.example.com";

/// A message as it goes over the wire.
fn framed(message: &impl Message) -> Vec<u8> {
    let bytes = message.encode_to_vec();
    let length = u32::try_from(bytes.len()).unwrap().to_be_bytes();
    [&[0][..], &length, &bytes].concat()
}

/// The flags and contents of the frames of an answer.
fn frames(mut bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut frames = Vec::new();
    while let Some((head, rest)) = bytes.split_first_chunk::<5>() {
        let length = usize::try_from(u32::from_be_bytes([head[1], head[2], head[3], head[4]])).unwrap();
        frames.push((head[0], rest[..length].to_vec()));
        bytes = &rest[length..];
    }
    assert!(bytes.is_empty(), "{bytes:?}");
    frames
}

fn post(server: &Server, method: &str, origin: &str, message: &impl Message) -> (u16, HeaderMap, Vec<u8>) {
    let url = format!("http://{}/mundap.v1.QnaService/{method}", server.grpc);
    let call = server.agent.post(url).header("content-type", "application/grpc-web+proto").header("x-grpc-web", "1");
    let mut answer = call.header("origin", origin).send(framed(message)).unwrap();
    let body = answer.body_mut().read_to_vec().unwrap();
    (answer.status().as_u16(), answer.headers().clone(), body)
}

fn asks_first(server: &Server, origin: &str) -> HeaderMap {
    let request = Request::builder()
        .method(Method::OPTIONS)
        .uri(format!("http://{}/mundap.v1.QnaService/GetQna", server.grpc))
        .header("origin", origin)
        .header("access-control-request-method", "POST")
        .header("access-control-request-headers", "authorization,content-type,x-grpc-web,grpc-timeout")
        .body(())
        .unwrap();
    let answer = server.agent.run(request).unwrap();
    assert_eq!(answer.status(), 200);
    answer.headers().clone()
}

fn a_page_may_call(board: &Board) {
    let server = board.own(&Options::env("MUNDAP_CORS_ORIGINS", ORIGIN));
    let qna = Caller::of(&server).by(&server.new_user()).ask("From a page?", "Yes").unwrap();
    let headers = asks_first(&server, ORIGIN);
    assert_eq!(headers["access-control-allow-origin"], ORIGIN);
    let allowed = headers["access-control-allow-headers"].to_str().unwrap();
    for name in ["authorization", "content-type", "x-grpc-web", "grpc-timeout", "x-user-agent", "accept-language"] {
        assert!(allowed.split(',').any(|allowed| allowed == name), "{name} is not in {allowed}");
    }

    let get = v1::GetQnaRequest { qna_id: qna.qna_id, comment_count: 0 };
    let (status, headers, body) = post(&server, "GetQna", ORIGIN, &get);
    assert_eq!((status, &headers["access-control-allow-origin"]), (200, &ORIGIN.parse().unwrap()));
    assert_eq!(headers["content-type"], "application/grpc-web+proto");
    let [(0, message), (0x80, trailers)] = &*frames(&body) else { panic!("{body:?}") };
    assert_eq!(v1::Qna::decode(&**message).unwrap().title, "From a page?");
    assert!(String::from_utf8_lossy(trailers).contains("grpc-status:0"));
    let exposed = headers["access-control-expose-headers"].to_str().unwrap();
    for name in ["grpc-status", "grpc-message", "grpc-status-details-bin", "x-request-id"] {
        assert!(exposed.split(',').any(|exposed| exposed == name), "{name} is not in {exposed}");
    }

    let (status, headers, _) =
        post(&server, "GetQna", ORIGIN, &v1::GetQnaRequest { qna_id: 1 << 52, comment_count: 0 });
    assert_eq!((status, &headers["grpc-status"]), (200, &"5".parse().unwrap()));
    assert_eq!(headers["access-control-allow-origin"], ORIGIN);

    let (_, _, body) = post(&server, "StreamQnas", ORIGIN, &v1::StreamQnasRequest {});
    assert_eq!(frames(&body).iter().map(|(flag, _)| *flag).collect::<Vec<_>>(), [0, 0x80]);
}

fn a_page_of_an_origin_that_was_not_named_may_not(board: &Board) {
    let named = board.own(&Options::env("MUNDAP_CORS_ORIGINS", ORIGIN));
    let none = board.own(&Options::default());
    for (server, origin) in [(&named, "https://other.example.com"), (&none, ORIGIN)] {
        assert!(!asks_first(server, origin).contains_key("access-control-allow-origin"));
        let (_, headers, _) = post(server, "ListQnas", origin, &v1::ListQnasRequest::default());
        assert!(!headers.contains_key("access-control-allow-origin"), "{headers:?}");
    }
}

fn what_is_no_message_is_refused_by_every_method(board: &Board) {
    let server = board.server();
    let token = format!("Bearer {}", board.ann().token);
    let frame = |bytes: &[u8]| [&[0, 0, 0, 0, u8::try_from(bytes.len()).unwrap()][..], bytes].concat();
    let bad = [
        frame(&[0xff; 12]),
        // A string of more bytes than there are, and a number in a string's place.
        frame(&[0x0a, 0x7f, 0x41]),
        frame(&[0x07]),
        // No frame, one that breaks off, two of them, and a flag that there is not.
        vec![],
        vec![0, 0, 0, 0, 9, 1],
        [frame(&[]), frame(&[])].concat(),
        vec![9, 0, 0, 0, 0],
    ];
    for method in Rpc::all().filter(|method| !method.takes_stream) {
        for body in &bad[..5] {
            let call = server.agent.post(format!("http://{}/{}", server.grpc, method.name));
            let call = call.header("content-type", "application/grpc-web+proto").header("authorization", &token);
            let answer = call.send(body).unwrap();
            assert_eq!(answer.headers()["grpc-status"], "3", "{} {body:?} {answer:?}", method.name);
        }
        for body in &bad[5..] {
            let call = server.agent.post(format!("http://{}/{}", server.grpc, method.name));
            let call = call.header("content-type", "application/grpc-web+proto");
            let answer = call.send(body).unwrap();
            let status = answer.headers().get("grpc-status").map(|status| status.to_str().unwrap().to_owned());
            assert!(!matches!(status.as_deref(), Some("2" | "13" | "15")), "{} {body:?} {answer:?}", method.name);
        }
    }
    let details = Caller::of(server);
    assert_eq!(details.qna(1 << 52).unwrap_err().code(), tonic::Code::NotFound, "it goes on");
}

/// Calls with the head of a request alone, and its body when the answer has begun.
fn answered_early(server: &Server, method: &str) -> String {
    let mut stream = TcpStream::connect(&server.grpc).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let head = format!(
        "POST /mundap.v1.QnaService/{method} HTTP/1.1\r\nhost: board\r\ncontent-type: application/grpc-web+proto\r\n\
         content-length: 5\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut begun = [0; 1];
    stream.read_exact(&mut begun).unwrap();
    // It may be gone by now.
    let _ = stream.write_all(&[0; 5]);
    let mut answer = begun.to_vec();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

fn a_connection_that_ends_says_so(board: &Board) {
    let server = board.server();
    // A stranger's question is refused before it is there.
    for method in ["CreateQna", "NoMethod"] {
        let early = answered_early(server, method);
        assert!(early.contains("\r\nconnection: close\r\n"), "{method}: {early}");
    }
    let (_, headers, _) = post(server, "ListQnas", ORIGIN, &v1::ListQnasRequest::default());
    assert!(!headers.contains_key("connection"), "all of it was read: {headers:?}");
}
