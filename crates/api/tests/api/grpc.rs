//! The gRPC port from outside, by the client that is generated with the server: what holds for every call.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::time::Duration;

use mundap_grpc::v1;
use mundap_grpc::v1::account_service_client::AccountServiceClient;
use mundap_grpc::v1::admin_service_client::AdminServiceClient;
use mundap_grpc::v1::auth_service_client::AuthServiceClient;
use mundap_grpc::v1::comment_service_client::CommentServiceClient;
use mundap_grpc::v1::image_service_client::ImageServiceClient;
use mundap_grpc::v1::qna_service_client::QnaServiceClient;
use mundap_grpc::v1::upload_image_request::Part;
use mundap_grpc::v1::user_service_client::UserServiceClient;
use tokio::runtime::Runtime;
use tonic::metadata::MetadataValue;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Response, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_types::StatusExt as _;

use crate::board::{Board, User};
use crate::program::eventually;
use crate::server::{Options, PATIENCE, Server};

crate::tests![a_refusal_says_why_in_the_details_of_google_rpc, every_answer_says_its_request_s_id; once:
    health_says_what_readyz_says,
    health_is_watched_for_long,
    what_there_is_can_be_asked_for,
];

/// Somebody who calls one server.
pub(crate) struct Caller {
    runtime: Runtime,
    pub(crate) channel: Channel,
    token: Option<String>,
}

/// What is sent along with each call.
#[derive(Clone)]
pub(crate) struct Bearer(Option<String>);

impl tonic::service::Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            let value = MetadataValue::try_from(format!("Bearer {token}")).map_err(|_| Status::internal("no text"))?;
            request.metadata_mut().insert("authorization", value);
        }
        Ok(request)
    }
}

pub(crate) type Line = InterceptedService<Channel, Bearer>;

impl Caller {
    pub(crate) fn of(server: &Server) -> Self {
        Self::at(&server.grpc)
    }

    pub(crate) fn at(address: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let channel = {
            let _within = runtime.enter();
            Endpoint::from_shared(format!("http://{address}")).unwrap().timeout(PATIENCE).connect_lazy()
        };
        Self { runtime, channel, token: None }
    }

    pub(crate) fn by(self, user: &User) -> Self {
        Self { token: Some(user.token.clone()), ..self }
    }

    pub(crate) fn bearer(self, token: &str) -> Self {
        Self { token: Some(token.to_owned()), ..self }
    }

    pub(crate) fn line(&self) -> Line {
        InterceptedService::new(self.channel.clone(), Bearer(self.token.clone()))
    }

    pub(crate) fn run<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    /// Runs it beside the test.
    pub(crate) fn spawn<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> tokio::task::JoinHandle<T> {
        self.runtime.spawn(work)
    }

    pub(crate) fn qnas(&self) -> QnaServiceClient<Line> {
        QnaServiceClient::new(self.line())
    }

    pub(crate) fn comments(&self) -> CommentServiceClient<Line> {
        CommentServiceClient::new(self.line())
    }

    pub(crate) fn images(&self) -> ImageServiceClient<Line> {
        ImageServiceClient::new(self.line())
    }

    pub(crate) fn users(&self) -> UserServiceClient<Line> {
        UserServiceClient::new(self.line())
    }

    pub(crate) fn accounts(&self) -> AccountServiceClient<Line> {
        AccountServiceClient::new(self.line())
    }

    pub(crate) fn auth(&self) -> AuthServiceClient<Line> {
        AuthServiceClient::new(self.line())
    }

    pub(crate) fn admin(&self) -> AdminServiceClient<Line> {
        AdminServiceClient::new(self.line())
    }

    /// Attaches an image, sent in small parts.
    pub(crate) fn attach(&self, comment: i64, bytes: &[u8], key: &str) -> Result<Response<v1::Image>, Status> {
        let head = v1::UploadImageHead { comment_id: comment, idempotency_key: key.to_owned() };
        let data = bytes.chunks(1000).map(|part| Part::Data(part.to_vec().into()));
        let parts: Vec<_> = std::iter::once(Part::Head(head)).chain(data).map(|part| upload(Some(part))).collect();
        self.run(self.images().upload_image(stream_of(parts)))
    }

    /// Asks a question.
    pub(crate) fn ask(&self, title: &str, content: &str) -> Result<v1::Qna, Status> {
        let qna = v1::Qna { title: title.to_owned(), content: content.to_owned(), ..v1::Qna::default() };
        let request = v1::CreateQnaRequest { qna: Some(qna), idempotency_key: String::new() };
        self.run(self.qnas().create_qna(request)).map(Response::into_inner)
    }

    pub(crate) fn qna(&self, id: i64) -> Result<v1::Qna, Status> {
        let request = v1::GetQnaRequest { qna_id: id, comment_count: 0 };
        self.run(self.qnas().get_qna(request)).map(Response::into_inner)
    }
}

pub(crate) fn upload(part: Option<Part>) -> v1::UploadImageRequest {
    v1::UploadImageRequest { part }
}

/// The stable code of a refusal.
pub(crate) fn reason(status: &Status) -> String {
    status.get_error_details().error_info().unwrap_or_else(|| panic!("no reason: {status:?}")).reason.clone()
}

fn a_refusal_says_why_in_the_details_of_google_rpc(board: &Board) {
    let server = board.server();
    let ann = Caller::of(server).by(board.ann());
    let broken = ann.ask("", &"x".repeat(20_001)).unwrap_err();
    assert_eq!(broken.code(), Code::InvalidArgument);
    let details = broken.get_error_details();
    let info = details.error_info().unwrap();
    assert_eq!((info.reason.as_str(), info.domain.as_str()), ("validation_failed", "mundap"));
    let fields = &details.bad_request().unwrap().field_violations;
    let fields: Vec<_> = fields.iter().map(|field| (field.field.as_str(), field.reason.as_str())).collect();
    assert_eq!(fields, [("qna.title", "too_short"), ("qna.content", "too_long")]);

    let missing = ann.qna(1 << 52).unwrap_err();
    assert_eq!((missing.code(), reason(&missing).as_str()), (Code::NotFound, "qna_not_found"));
    let stranger = Caller::of(server).ask("Who am I?", "").unwrap_err();
    assert_eq!((stranger.code(), reason(&stranger).as_str()), (Code::Unauthenticated, "unauthenticated"));
    let details = stranger.get_error_details();
    let said = &details.localized_message().unwrap().message;
    assert!(said.contains("AuthService.SignIn") && !said.contains("/api/"), "{said}");
    let forger = Caller::of(server).bearer("forged").qna(1).unwrap_err();
    assert_eq!((forger.code(), reason(&forger).as_str()), (Code::Unauthenticated, "invalid_token"));

    // To a person, in the language that the call asks for.
    let mut request = Request::new(v1::GetQnaRequest { qna_id: 1 << 52, comment_count: 0 });
    request.metadata_mut().insert("accept-language", MetadataValue::from_static("ko"));
    let korean = ann.run(ann.qnas().get_qna(request)).unwrap_err();
    let details = korean.get_error_details();
    let said = details.localized_message().unwrap();
    assert_eq!(said.locale, "ko");
    let rest = server.get(format!("/api/v1/qna/{}", 1_i64 << 52)).header("accept-language", "ko").send().is(404);
    assert_eq!(said.message, rest.json()["detail"]);
}

fn every_answer_says_its_request_s_id(board: &Board) {
    let server = board.server();
    let ann = Caller::of(server).by(board.ann());
    let mut request = Request::new(v1::GetQnaRequest { qna_id: 1 << 52, comment_count: 0 });
    request.metadata_mut().insert("x-request-id", MetadataValue::from_static("of-a-call"));
    let status = ann.run(ann.qnas().get_qna(request)).unwrap_err();
    assert_eq!(status.metadata().get("x-request-id").unwrap(), "of-a-call");
    let line = server.log.wait_for("the access log's on this call", |line| {
        line["request.id"] == "of-a-call" && line["rpc.code"].is_string()
    });
    assert_eq!(line["rpc.method"], "mundap.v1.QnaService/GetQna");
    assert_eq!(line["rpc.code"], "NOT_FOUND");
    assert_eq!(line["actor.id"], board.ann().id);

    let listed = ann.run(ann.qnas().list_qnas(v1::ListQnasRequest::default())).unwrap();
    assert_eq!(listed.metadata().get("x-request-id").unwrap().len(), 32);
}

fn health_says_what_readyz_says(board: &Board) {
    let server = board.own(&Options::env("MUNDAP_SHUTDOWN_DELAY", "3s"));
    let caller = Caller::of(&server);
    let health = |service: &str| {
        let request = HealthCheckRequest { service: service.to_owned() };
        let answer = caller.run(HealthClient::new(caller.channel.clone()).check(request));
        answer.map(|answer| answer.into_inner().status())
    };
    eventually("it to say that it is ready", || health("").unwrap() == ServingStatus::Serving);
    assert_eq!(health("mundap.v1.QnaService").unwrap(), ServingStatus::Serving);
    assert_eq!(health("mundap.v1.Nothing").unwrap_err().code(), Code::NotFound);
    server.signal("TERM");
    eventually("it to say that it is not ready", || server.operator("/readyz").0 == 503);
    assert_eq!(health("").unwrap(), ServingStatus::NotServing);
    assert_eq!(health("mundap.v1.QnaService").unwrap(), ServingStatus::NotServing);
    // Whoever watches does not hold it up.
    let watch = HealthCheckRequest { service: String::new() };
    let mut seen = caller.run(HealthClient::new(caller.channel.clone()).watch(watch)).unwrap().into_inner();
    let first = caller.run(seen.message()).unwrap().unwrap();
    assert_eq!(first.status(), ServingStatus::NotServing);
    let end = caller.run(async { tokio::time::timeout(Duration::from_secs(10), seen.message()).await });
    assert!(matches!(end, Ok(Ok(None) | Err(_))), "{end:?}");
    assert_eq!(server.end().code(), Some(0));
}

/// Whoever watches is told of changes alone, and for as long as they watch.
fn health_is_watched_for_long(board: &Board) {
    let env =
        [("MUNDAP_HTTP_KEEP_ALIVE", "500ms"), ("MUNDAP_GRPC_KEEP_ALIVE", "1s"), ("MUNDAP_HTTP_WRITE_TIMEOUT", "1s")];
    let server = board.own(&Options { env: env.map(|(name, value)| (name, value.to_owned())).to_vec(), dir: None });
    let caller = Caller::of(&server);
    let watch = HealthCheckRequest { service: String::new() };
    let mut client = HealthClient::new(caller.channel.clone());
    let mut seen = caller.run(client.watch(watch)).unwrap().into_inner();
    let mut next = || caller.run(seen.message()).unwrap().unwrap().status();
    // It may be seen before it knows that it is ready.
    assert!(next() == ServingStatus::Serving || next() == ServingStatus::Serving);
    // A connection that nobody calls on, not even to acknowledge what it is told, is told to go, has some seconds to do so, and is
    // closed. It came later.
    let mut silent = std::net::TcpStream::connect(&server.grpc).unwrap();
    silent.set_read_timeout(Some(PATIENCE)).unwrap();
    let no_settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    silent.write_all(&[b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice(), &no_settings].concat()).unwrap();
    let _ = silent.read_to_end(&mut Vec::new());
    let said = caller.run(async { tokio::time::timeout(Duration::from_millis(1), seen.message()).await });
    assert!(said.is_err(), "nothing has changed: {said:?}");
    server.signal("TERM");
    let last = caller.run(seen.message()).unwrap().unwrap();
    assert_eq!(last.status(), ServingStatus::NotServing);
    assert_eq!(server.end().code(), Some(0));
}

fn what_there_is_can_be_asked_for(board: &Board) {
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
    use tonic_reflection::pb::v1::{ServerReflectionRequest, ServerReflectionResponse};
    use tonic_reflection::pb::v1alpha;

    let caller = Caller::of(board.server());
    let services = caller.run(async {
        let ask = |message| ServerReflectionRequest { host: String::new(), message_request: Some(message) };
        let requests = [MessageRequest::ListServices(String::new())].map(ask);
        let mut client = ServerReflectionClient::new(caller.channel.clone());
        let mut answers = client.server_reflection_info(stream_of(requests)).await.unwrap().into_inner();
        let ServerReflectionResponse { message_response, .. } = answers.message().await.unwrap().unwrap();
        let Some(MessageResponse::ListServicesResponse(list)) = message_response else { panic!("no list") };
        list.service.into_iter().map(|service| service.name).collect::<BTreeSet<_>>()
    });
    for known in ["mundap.v1.QnaService", "grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection"] {
        assert!(services.contains(known), "{known} is not among {services:?}");
    }
    caller.run(async {
        let request = v1alpha::ServerReflectionRequest {
            host: String::new(),
            message_request: Some(v1alpha::server_reflection_request::MessageRequest::FileContainingSymbol(
                "mundap.v1.QnaService".to_owned(),
            )),
        };
        let mut client = v1alpha::server_reflection_client::ServerReflectionClient::new(caller.channel.clone());
        let mut answers = client.server_reflection_info(stream_of([request])).await.unwrap().into_inner();
        let answer = answers.message().await.unwrap().unwrap();
        assert!(
            matches!(
                answer.message_response,
                Some(v1alpha::server_reflection_response::MessageResponse::FileDescriptorResponse(_))
            ),
            "{answer:?}"
        );
    });
}

/// A stream of these messages.
pub(crate) fn stream_of<T: Send + 'static>(
    items: impl IntoIterator<Item = T, IntoIter: Send + 'static>,
) -> impl futures_util::Stream<Item = T> + Send + 'static {
    futures_util::stream::iter(items)
}
