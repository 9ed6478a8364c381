"""Bad input: wrong tokens, kinds, sizes and speeds of bodies, and what is in them. Each is answered, and the service goes on."""

import json
import socket
import tracemalloc

import pytest

pytest.importorskip("fastapi")

from hypothesis import given, settings
from hypothesis import strategies as st
from served import ANSWER, CANARY, JSON, Scripted, Served, until

from refusal_guard import Guard, InputError
from refusal_guard.serve.app import create_app

TOKEN = "s3cret-t0ken"
ROUTES = ["/v1/scan", "/scan/output", "/analyze/output", "/beta/litellm_basic_guardrail_api"]
MEGABYTE = 1024**2


@pytest.fixture(scope="module")
def served():
    with Served(Scripted(), max_items=3, body_timeout=0.3) as served:
        yield served


@pytest.fixture(scope="module")
def locked():
    with Served(Scripted(), token=TOKEN) as served:
        yield served.client


@pytest.fixture(autouse=True)
def still_serving(served):
    """Whatever a test did, the next client is served."""
    yield
    assert served.scan(ANSWER).status_code == 200


def problem(answer):
    assert set(answer.json()) == {"error"}
    assert CANARY not in answer.text
    return answer.status_code


@pytest.mark.parametrize("authorization", [None, "", TOKEN, "Bearer", "Bearer wrong", f"Bearer {TOKEN}x", f"Basic {TOKEN}", "Bearer tökën"])
@pytest.mark.parametrize(
    ("method", "path"), [*(("POST", path) for path in ROUTES), ("GET", "/metrics"), ("GET", "/openapi.json"), ("GET", "/no")]
)
def test_a_wrong_token_is_turned_away_everywhere(locked, method, path, authorization):
    headers = {} if authorization is None else {"Authorization": authorization.encode()}
    answer = locked.request(method, path, headers=headers)
    assert problem(answer) == 401
    assert answer.headers["WWW-Authenticate"] == "Bearer"


def test_the_right_token_is_let_in_and_health_needs_none(locked):
    for scheme in ("Bearer", "bearer"):
        assert locked.post("/v1/scan", json={"response": ANSWER}, headers={"Authorization": f"{scheme} {TOKEN}"}).status_code == 200
    assert locked.get("/metrics", headers={"X-API-Key": TOKEN}).status_code == 200
    assert locked.get("/metrics", headers={"X-API-Key": f"{TOKEN}x"}).status_code == 401
    assert locked.get("/healthz").status_code == locked.get("/readyz").status_code == 200


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "", None])
def test_a_body_of_another_kind_is_not_read(served, path, kind):
    assert problem(served.client.post(path, content=b'{"response": "x"}', headers={} if kind is None else {"Content-Type": kind})) == 415


@pytest.mark.parametrize("token", ["", " ", "two\nlines", "tökën", " padded "])
def test_a_token_that_no_client_can_send_is_an_input_error(token):
    with pytest.raises(InputError, match="token"):
        create_app(Guard(Scripted()), token=token)


def test_the_charset_of_json_does_not_matter(served):
    headers = {"Content-Type": "Application/JSON; charset=utf-8"}
    assert served.client.post("/v1/scan", content=b'{"response": "x"}', headers=headers).status_code == 200


def test_fifty_megabytes_are_refused_whether_announced_or_not(served):
    big = json.dumps({"response": "x" * 50 * MEGABYTE}).encode()
    assert problem(served.client.post("/v1/scan", content=big, headers=JSON)) == 413
    chunks = (big[i : i + 64 * 1024] for i in range(0, len(big), 64 * 1024))
    assert problem(served.client.post("/v1/scan", content=chunks, headers=JSON)) == 413


def test_an_endless_body_is_not_kept_in_memory(served):
    tracemalloc.start()
    try:
        served.client.post("/v1/scan", content=(b"x" * MEGABYTE for _ in range(50)), headers=JSON)
        assert tracemalloc.get_traced_memory()[1] < 25 * MEGABYTE
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 422),
        (b"{", 400),
        (b"\xff\xfe\x00", 400),
        (b'{"response": "' + CANARY.encode(), 400),
        (b"[" * 100_000, 400),
        (b'{"response":' * 50_000 + b"1" + b"}" * 50_000, 400),
        (b'{"messages": [{"role": "assistant", "content": ' + b"[" * 900 + b"]" * 900 + b"}]}", 422),
        (b"null", 422),
        (b"NaN", 422),
        (b'"' + CANARY.encode() + b'"', 422),
        (b'{"prompt": "p"}', 422),
        (b'{"response": ["xyzzy-canary"]}', 422),
        (b'{"response": "r", "xyzzy-canary": 1}', 422),
        (b'{"messages": []}', 422),
        (b'{"messages": [{"role": "user", "content": "xyzzy-canary"}]}', 422),
        (b'{"messages": [{"role": "assistant", "content": {"xyzzy-canary": 1}}]}', 422),
        (b'{"messages": [{"role": "assistant", "content": [{"type": "text", "value": "xyzzy-canary"}]}]}', 422),
        (b'[{"response": "r"}, {"response": 1}]', 422),
        (b'[{"response":"r"},{"response":"r"},{"response":"r"},{"response":"r"}]', 422),
    ],
)
def test_a_body_that_is_not_what_the_route_takes_is_a_problem_without_its_text(served, body, status):
    assert problem(served.client.post("/v1/scan", content=body, headers=JSON)) == status


def test_a_problem_says_where_it_is(served):
    answer = served.client.post("/v1/scan", json=[{"response": "r"}, {"response": 1}])
    assert answer.json()["error"].startswith("body.1.response: ")


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/v1/scan", 405), ("GET", "/", 404), ("PUT", "/healthz", 405)])
def test_unknown_routes_and_methods_are_problems(served, method, path, status):
    assert problem(served.client.request(method, path)) == status


@settings(max_examples=25)
@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(), lambda of: st.lists(of) | st.dictionaries(st.text(), of)))
def test_any_json_is_answered_by_every_route(served, value):
    body = json.dumps(value).encode()
    for path in ROUTES:
        assert served.client.post(path, content=body, headers=JSON).status_code in (200, 422)


def talk(served, *parts):
    """Send parts of a request as they are, and return what comes until the service hangs up."""
    with socket.create_connection(served.address, timeout=30) as connection:
        for part in parts:
            connection.sendall(part)
        return b"".join(iter(lambda: connection.recv(65536), b""))


def test_a_body_that_does_not_arrive_in_time_is_given_up(served):
    head = b"POST /v1/scan HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n"
    answer = talk(served, head, b'{"respo')
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"connection: close" in answer.lower()


@pytest.mark.parametrize("request_line", [b"GARBAGE\r\n\r\n", b"POST /v1/scan HTTP/1.1\r\nContent-Length: x\r\n\r\n"])
def test_what_is_no_http_is_answered_and_hung_up(served, request_line):
    assert talk(served, request_line).startswith(b"HTTP/1.1 400 ")


def test_more_connections_than_are_allowed_are_refused_and_then_let_in_again():
    with Served(Scripted(), max_connections=1) as served:
        silent = [socket.create_connection(served.address) for _ in range(2)]
        assert served.scan(ANSWER).status_code == 503
        for connection in silent:
            connection.close()
        until(lambda: served.scan(ANSWER).status_code == 200)


def test_a_client_that_hangs_up_in_the_middle_of_its_body_leaves_nothing_behind(served):
    with socket.create_connection(served.address) as connection:
        connection.sendall(b"POST /v1/scan HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{")
    assert 'status="500"' not in served.client.get("/metrics").text
