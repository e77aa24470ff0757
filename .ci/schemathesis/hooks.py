"""Who the fuzzer is, and which refusals are no fault.

The operations under test end sign-ins, change passwords and delete accounts, the fuzzer's own too: where its token is
refused it goes on as another account, made by `mundap user add`, for that makes administrators as well.
"""

import base64
import itertools
import os
import subprocess
from dataclasses import dataclass

import requests
import schemathesis
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance

BASE = os.environ["FUZZ_BASE"]
BINARY = os.environ["FUZZ_BINARY"]
NAME = os.environ["FUZZ_NAME"]
ROLE = os.environ["FUZZ_ROLE"]
PASSWORD = "correct horse battery"
# A GIF of one pixel.
PIXEL = base64.b64decode("R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7")

numbers = itertools.count(1)
turns = itertools.count()


@dataclass
class Account:
    email: str
    access_token: str
    refresh_token: str

    @classmethod
    def new(cls):
        email = f"{NAME}{next(numbers)}@example.com"
        add = [BINARY, "user", "add", email, "--role", ROLE, "--password-file", "-"]
        subprocess.run(add, input=PASSWORD, text=True, check=True, capture_output=True)
        form = {"grant_type": "password", "username": email, "password": PASSWORD}
        answer = requests.post(f"{BASE}/api/v1/auth/token", data=form, timeout=10)
        answer.raise_for_status()
        tokens = answer.json()
        return cls(email, tokens["access_token"], tokens["refresh_token"])

    def known(self, path):
        """What no generator guesses: the values that lead past the first check."""
        if path == "/api/v1/auth/token":
            grant = {"grant_type": "password", "username": self.email, "password": PASSWORD}
            return [grant, {"grant_type": "refresh_token", "refresh_token": self.refresh_token}]
        if path == "/api/v1/auth/revoke":
            return [{"token": self.refresh_token}]
        if path == "/api/v1/users/me/password":
            return [{"current_password": PASSWORD}]
        if path in ("/upload", "/update_qna", "/delete_qna"):
            return [{"email": self.email}]
        if path == "/api/v1/comments/{comment_id}/images":
            return [{"file": PIXEL}]
        return []


@schemathesis.auth(refresh_interval=300)
class SignIn:
    def get(self, case, context):
        return Account.new()

    def set(self, case, account, context):
        case.headers = case.headers or {}
        case.headers["Authorization"] = f"Bearer {account.access_token}"
        known = account.known(case.operation.path)
        turn = next(turns)
        # Every other time, so that strangers' values are tried as well.
        if known and turn % 2 and isinstance(case.body, dict) and case.meta.generation.mode.is_positive:
            case.body = {**case.body, **known[turn // 2 % len(known)]}


# Refusals of what is well formed, for what the board holds, for who asks, or for what a file is; no schema can say them.
STATE = {
    "invalid_cursor",
    "version_mismatch",
    "idempotency_key_reused",
    "not_an_image",
    "image_broken",
    "range_not_satisfiable",
    "invalid_mail_token",
}


def is_about_state(response, case):
    if response.status_code < 400 or "json" not in response.headers.get("content-type", [""])[0]:
        return False
    said = response.json()
    if case.operation.path in ("/upload", "/update_qna", "/delete_qna"):
        reused = response.status_code == 422 and said["detail"][0]["loc"] == ["header", "idempotency-key"]
        return reused or said["detail"] == "you are not writer"
    return isinstance(said, dict) and said.get("code") in STATE


@schemathesis.check
def valid_data_is_accepted(ctx, response, case):
    # One case of the coverage phase takes 0 for a valid entity tag, whatever the document says of them.
    invented = case.headers.get("If-Match") == "0"
    if not invented and not is_about_state(response, case):
        positive_data_acceptance(ctx, response, case)


@schemathesis.check
def invalid_data_is_refused(ctx, response, case):
    # To the fuzzer's validator bytes are no string, and so the pixel is not valid.
    if not (isinstance(case.body, dict) and case.body.get("file") == PIXEL):
        negative_data_rejection(ctx, response, case)
