//! Asks a question over gRPC, edits it, and reads the board: `cargo run --example client -- http://127.0.0.1:8001`.

#![expect(clippy::print_stdout, reason = "that is what it is for")]

use std::error::Error;
use std::time::{Duration, Instant};

use mundap_grpc::v1::account_service_client::AccountServiceClient;
use mundap_grpc::v1::auth_service_client::AuthServiceClient;
use mundap_grpc::v1::qna_service_client::QnaServiceClient;
use mundap_grpc::v1::{
    Account, CreateAccountRequest, CreateQnaRequest, DeleteQnaRequest, ListQnasRequest, Qna, SignInRequest,
    StreamQnasRequest, UpdateQnaRequest,
};
use prost_types::FieldMask;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use tonic_types::StatusExt as _;

/// How long a call may take: the board gives up when the client does.
const PATIENCE: Duration = Duration::from_secs(5);

/// A request by whoever has this token.
fn by<T>(token: &MetadataValue<Ascii>, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(PATIENCE);
    request.metadata_mut().insert("authorization", token.clone());
    request
}

/// The stable code of a refusal, such as `version_mismatch`.
fn reason(status: &Status) -> String {
    status.get_details_error_info().map(|info| info.reason).unwrap_or_default()
}

/// Makes an account, signs in, and returns what goes into the metadata of calls from then on.
async fn sign_up(channel: &Channel, email: &str) -> Result<MetadataValue<Ascii>, Box<dyn Error>> {
    let password = "correct horse battery".to_owned();
    let account = Account { email: email.to_owned(), display_name: "Ann".to_owned(), ..Account::default() };
    let new = CreateAccountRequest { account: Some(account), password: password.clone(), ..Default::default() };
    AccountServiceClient::new(channel.clone()).create_account(new).await?;
    let sign_in = SignInRequest { email: email.to_owned(), password };
    let tokens = AuthServiceClient::new(channel.clone()).sign_in(sign_in).await?.into_inner();
    // Good for `expires_in`; `refresh_token` gets the next ones from RefreshToken.
    Ok(format!("Bearer {}", tokens.access_token).parse()?)
}

/// Asks a question; where the answer is lost, or the board is busy, again under the same key.
async fn ask(
    board: &mut QnaServiceClient<Channel>,
    ann: &MetadataValue<Ascii>,
    new: CreateQnaRequest,
) -> Result<Qna, Status> {
    let mut tries = 0;
    loop {
        tries += 1;
        match board.create_qna(by(ann, new.clone())).await {
            Ok(qna) => return Ok(qna.into_inner()),
            Err(status) if status.code() == Code::Unavailable && tries < 4 => {
                let delay = status.get_details_retry_info().and_then(|info| info.retry_delay);
                tokio::time::sleep(delay.unwrap_or(Duration::from_millis(200))).await;
            }
            Err(status) => return Err(status),
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1).ok_or("usage: client http://ADDRESS:PORT")?;
    let channel = Endpoint::from_shared(address)?.connect_timeout(PATIENCE).connect().await?;
    let mut board = QnaServiceClient::new(channel.clone());
    // A name that nobody else has.
    let unique = format!("{:?}-{}", Instant::now(), std::process::id()).replace(|c: char| !c.is_ascii_digit(), "-");
    let ann = sign_up(&channel, &format!("ann{unique}@example.com")).await?;

    let qna = Qna { title: "How do I start?".to_owned(), content: "By reading.".to_owned(), ..Qna::default() };
    let new = CreateQnaRequest { qna: Some(qna), idempotency_key: format!("start{unique}") };
    let asked = ask(&mut board, &ann, new.clone()).await?;
    assert_eq!(ask(&mut board, &ann, new).await?, asked, "the second call was answered as the first");

    // The title alone, as it was read; then once more, which comes too late.
    let edited = Qna { title: "Where do I start?".to_owned(), content: String::new(), ..asked.clone() };
    let mask = FieldMask { paths: vec!["title".to_owned()] };
    let change = UpdateQnaRequest { qna: Some(edited), update_mask: Some(mask) };
    let edited = board.update_qna(by(&ann, change.clone())).await?.into_inner();
    assert_eq!((&*edited.title, &edited.content), ("Where do I start?", &asked.content));
    let late = board.update_qna(by(&ann, change)).await.expect_err("an edit was lost");
    assert_eq!((late.code(), &*reason(&late)), (Code::Aborted, "version_mismatch"));

    // A page, the newest first; `next_page_token` gets the next one.
    let list = ListQnasRequest { page_size: 10, ..ListQnasRequest::default() };
    let page = board.list_qnas(list).await?.into_inner();
    assert!(page.qnas.iter().any(|qna| qna.qna_id == asked.qna_id));

    // All of them in one answer, oldest first, as fast as this loop goes on and no faster.
    let mut all = board.stream_qnas(StreamQnasRequest {}).await?.into_inner();
    while let Some(qna) = all.message().await? {
        println!("{} {}", qna.author.unwrap_or_default().display_name, qna.title);
    }

    board.delete_qna(by(&ann, DeleteQnaRequest { qna_id: asked.qna_id, ..Default::default() })).await?;
    Ok(())
}
