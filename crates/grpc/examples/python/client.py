"""Asks a question over gRPC, edits it, and reads the board: `python client.py 127.0.0.1:8001`."""

import sys
import uuid

import grpc
from google.protobuf.field_mask_pb2 import FieldMask
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo
from grpc_status import rpc_status
from mundap.v1 import account_pb2 as account
from mundap.v1 import account_pb2_grpc, auth_pb2_grpc, qna_pb2_grpc
from mundap.v1 import auth_pb2 as auth
from mundap.v1 import qna_pb2 as qna

# Seconds that a call may take: the board gives up when the client does.
PATIENCE = 5

# What is UNAVAILABLE may succeed in a moment. A call that creates something has a key, so that nothing is created twice.
RETRIES = """{"methodConfig": [{"name": [{"service": "mundap.v1.QnaService"}], "retryPolicy": {
    "maxAttempts": 4, "initialBackoff": "0.2s", "maxBackoff": "2s", "backoffMultiplier": 2,
    "retryableStatusCodes": ["UNAVAILABLE"]}}]}"""


def details(error, kind):
    """The detail of this kind that a refusal brings along, or None."""
    status = rpc_status.from_call(error)
    for packed in status.details if status else []:
        detail = kind()
        if packed.Unpack(detail):
            return detail
    return None


def sign_up(channel):
    """Makes an account, signs in, and returns what goes into the metadata of calls from then on."""
    email, password = f"{uuid.uuid4()}@example.com", "correct horse battery"
    account_pb2_grpc.AccountServiceStub(channel).CreateAccount(
        account.CreateAccountRequest(
            account=account.Account(email=email, display_name="Ann"), password=password
        ),
        timeout=PATIENCE,
    )
    tokens = auth_pb2_grpc.AuthServiceStub(channel).SignIn(
        auth.SignInRequest(email=email, password=password), timeout=PATIENCE
    )
    # Good for `tokens.expires_in`; RefreshToken exchanges `tokens.refresh_token` for the next ones.
    return [("authorization", f"Bearer {tokens.access_token}")]


def ask(board, ann):
    """Asks a question, again under the same key as after a lost answer, and not without a title."""
    request = qna.CreateQnaRequest(
        qna=qna.Qna(title="How do I start?", content="I have read the README."),
        idempotency_key=str(uuid.uuid4()),
    )
    asked = board.CreateQna(request, metadata=ann, timeout=PATIENCE)
    again, call = board.CreateQna.with_call(request, metadata=ann, timeout=PATIENCE)
    assert again == asked, "the second call was answered as the first"
    assert ("idempotent-replayed", "true") in [(m.key, m.value) for m in call.initial_metadata()]

    try:
        board.CreateQna(qna.CreateQnaRequest(qna=qna.Qna()), metadata=ann, timeout=PATIENCE)
        raise AssertionError("a question without a title was taken")
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.INVALID_ARGUMENT, error
        assert details(error, ErrorInfo).reason == "validation_failed"
        fields = details(error, BadRequest).field_violations
        assert [(field.field, field.reason) for field in fields] == [("qna.title", "too_short")], fields
    return asked


def edit(board, ann, asked):
    """Edits the title alone, as it was read; then once more, which comes too late."""
    change = qna.UpdateQnaRequest(
        qna=qna.Qna(qna_id=asked.qna_id, title="Where do I start?", etag=asked.etag),
        update_mask=FieldMask(paths=["title"]),
    )
    edited = board.UpdateQna(change, metadata=ann, timeout=PATIENCE)
    assert (edited.title, edited.content, edited.version) == ("Where do I start?", asked.content, 2)
    try:
        board.UpdateQna(change, metadata=ann, timeout=PATIENCE)
        raise AssertionError("an edit was lost")
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.ABORTED, error
        assert details(error, ErrorInfo).reason == "version_mismatch"


def pages(board):
    """Every question, the newest first, by pages."""
    token = ""
    while True:
        page = board.ListQnas(qna.ListQnasRequest(page_size=100, page_token=token), timeout=PATIENCE)
        yield from page.qnas
        token = page.next_page_token
        if not token:
            return


def main(address):
    with grpc.insecure_channel(address, options=[("grpc.service_config", RETRIES)]) as channel:
        board = qna_pb2_grpc.QnaServiceStub(channel)
        ann = sign_up(channel)
        asked = ask(board, ann)
        edit(board, ann, asked)
        assert asked.qna_id in [found.qna_id for found in pages(board)]
        # All of them in one answer, oldest first, as fast as this loop goes on and no faster.
        for found in board.StreamQnas(qna.StreamQnasRequest(), timeout=60):
            print(found.create_time.ToDatetime().isoformat(), found.author.display_name, found.title)
        board.DeleteQna(qna.DeleteQnaRequest(qna_id=asked.qna_id), metadata=ann, timeout=PATIENCE)
        try:
            board.GetQna(qna.GetQnaRequest(qna_id=asked.qna_id), timeout=PATIENCE)
            raise AssertionError("it is still there")
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.NOT_FOUND, error


if __name__ == "__main__":
    main(*sys.argv[1:])
