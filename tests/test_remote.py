"""Classifiers behind a server, against real servers on the loopback interface."""

import asyncio
import gc
import random
import subprocess
import sys
import threading
import time

import pytest
from loopback import WAYS, Loopback, awaiting, cut, says, silent, status

from refusal_guard import Conversation, Guard, InputError, Label, RefusalGuardError
from refusal_guard.detectors import load_detector
from refusal_guard.detectors.http import Backoff
from refusal_guard.detectors.remote import RemoteDetector
from refusal_guard.detectors.spec import PRESETS, EncoderSpec
from refusal_guard.errors import DetectorError, EndpointError

QUICK = Backoff(retries=3, first=0.01, longest=0.05)
KINDS = ("tei", "vllm", "sglang")
KEY = "sk-very-secret"
SECRET = "my private words"


def pairs(*scores):
    return [Conversation.from_pair(f"{SECRET} {i}", f"{SECRET} p={p}") for i, p in enumerate(scores)]


@pytest.fixture(params=KINDS)
def server(request):
    with Loopback(request.param) as loopback:
        yield loopback


@pytest.fixture
def tei():
    with Loopback("tei") as loopback:
        yield loopback


def detector_of(server, model="minos", **options):
    return RemoteDetector(server.url, model, server.kind, **{"backoff": QUICK, **options})


def scores(detections):
    return [detection and round(detection.score, 6) for detection in detections]


@WAYS
@pytest.mark.parametrize("count", [0, 1, 2, 31, 32, 33, 100])
def test_scores_come_back_in_order_whatever_the_batch(server, ask, count):
    wanted = [round(i / 200, 6) for i in range(count)]
    with detector_of(server) as detector:
        assert scores(ask(detector, pairs(*wanted))) == wanted
    assert len(server.requests) == -(-count // 32)


@WAYS
def test_empty_responses_are_not_sent_and_abstain(server, ask):
    empty = Conversation.from_pair("p", " \n")
    mixed = [empty, *pairs(0.25), empty, *pairs(0.75), empty]
    with detector_of(server) as detector:
        assert scores(ask(detector, mixed)) == [None, 0.25, None, 0.75, None]
        assert scores(ask(detector, [empty, empty])) == [None, None]
    assert len(server.texts()) == 2


def test_the_card_format_goes_over_the_wire(server):
    with detector_of(server) as detector:
        detector.detect([Conversation.from_pair(" How?\n", "\nLike this. ")])
    assert server.texts() == ["<|user|>\nHow?\n<|assistant|>\nLike this."]


def test_a_response_model_gets_the_response_alone():
    with Loopback("tei", labels=("NORMAL", "REJECTION")) as server, detector_of(server, "protectai") as detector:
        assert scores(detector.detect(pairs(0.5))) == [0.5]
        assert server.texts() == [f"{SECRET} p=0.5"]


def test_a_detection_names_server_and_model_and_the_guard_takes_the_specs_threshold(tei):
    with detector_of(tei, PRESETS["minos"].model_copy(update={"threshold": 0.7})) as detector:
        verdict = Guard(detector).scan("p", "r p=0.7")
    assert (verdict.refused, verdict.threshold, verdict.detector, verdict.label) == (True, 0.7, "tei:minos", Label.REFUSAL)


FIVE = ("compliant", "capability", "clarification", "partial", "full")


@pytest.mark.parametrize("kind", KINDS)
def test_a_set_of_refusal_labels_is_summed_and_partial_told_apart(kind):
    spec = EncoderSpec(
        repo="NousResearch/Minos-v1",
        inputs="response",
        num_labels=5,
        labels=FIVE,
        refusal_labels=frozenset({"full", "capability"}),
        partial_labels=frozenset({"partial"}),
        reasons={"capability": "cannot"},
    )
    p = dict(zip(FIVE, (0.1, 0.2, 0.05, 0.4, 0.25), strict=True))
    rows = {
        "tei": [[{"label": name, "score": p[name]} for name in sorted(p, key=p.get, reverse=True)]],
        "vllm": {"data": [{"index": 0, "label": "partial", "probs": list(p.values()), "num_classes": 5}]},
    }
    with Loopback(kind, labels=FIVE) as server, detector_of(server, spec) as detector:
        server.faults += [says(rows["tei" if kind == "tei" else "vllm"])]
        (detection,) = detector.detect(pairs(0.5))
    assert (round(detection.score, 9), detection.label, detection.reason) == (0.85, Label.REFUSAL, "cannot")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("labels", [("LABEL_0", "LABEL_1"), ("non refusal", "REFUSAL")])
def test_placeholder_labels_and_other_spellings_are_understood(kind, labels):
    with Loopback(kind, labels=labels) as server, detector_of(server) as detector:
        assert scores(detector.detect(pairs(0.25, 0.75))) == [0.25, 0.75]


def test_temperature_softens_as_it_does_on_logits(tei):
    with detector_of(tei, PRESETS["minos"].model_copy(update={"temperature": 2.0})) as detector:
        (detection,) = detector.detect(pairs(0.9))
    assert detection.score == pytest.approx(3 / 4)  # odds of 9 become odds of 3


@WAYS
@pytest.mark.parametrize("fault", [status(429), status(500), status(503), cut], ids=["429", "500", "503", "cut"])
def test_a_passing_fault_is_retried(server, ask, fault):
    server.faults += [fault, fault]
    with detector_of(server) as detector:
        assert scores(ask(detector, pairs(0.5))) == [0.5]
    assert len(server.requests) == 3


@WAYS
def test_retries_are_bounded(server, ask):
    server.faults += [status(503)] * 10
    with detector_of(server) as detector, pytest.raises(EndpointError, match="503") as caught:
        ask(detector, pairs(0.5))
    assert caught.value.status == 503
    assert len(server.requests) == 1 + QUICK.retries


def test_retry_after_is_honoured_and_capped(tei):
    tei.faults += [status(429, Retry_After="1")]
    with detector_of(tei, backoff=Backoff(retries=1, first=0.0, longest=5.0)) as detector:
        began = time.monotonic()
        detector.detect(pairs(0.5))
        assert time.monotonic() - began >= 1.0
    tei.faults += [status(429, Retry_After="86400")]
    with detector_of(tei, backoff=QUICK) as detector:
        began = time.monotonic()
        detector.detect(pairs(0.5))
        assert time.monotonic() - began < 60


@WAYS
@pytest.mark.parametrize(
    ("code", "says_what_to_do"),
    [
        *[(400, "server of this kind"), (401, "API key"), (403, "API key"), (404, "URL"), (413, "batch_size"), (422, "kind")],
        *[(424, "log"), (307, "right URL"), (418, "right URL"), (204, "right URL")],
    ],
)
def test_other_statuses_are_final_and_say_what_to_do(tei, ask, code, says_what_to_do):
    tei.faults += [lambda handler: handler.answer(code, b"" if code == 204 else {"error": "secret text"}, {"Location": "http://other/"})]
    with detector_of(tei) as detector, pytest.raises(EndpointError, match=says_what_to_do) as caught:
        ask(detector, pairs(0.5))
    assert caught.value.status == code
    assert len(tei.requests) == 1


@WAYS
def test_a_wrong_key_fails_and_no_error_holds_a_key_or_a_text(ask):
    with Loopback("tei", key="another") as server, detector_of(server, api_key=KEY) as detector:
        with pytest.raises(EndpointError, match="401") as caught:
            ask(detector, pairs(0.5))
        assert server.requests[0][2]["Authorization"] == f"Bearer {KEY}"
    _holds_nothing(caught.value)


def _holds_nothing(error):
    assert error.__cause__ is None
    assert error.__context__ is None
    assert KEY not in f"{error!r} {error} {vars(error)}"
    assert SECRET not in f"{error!r} {error}"
    assert "secret" not in str(error)


@WAYS
def test_the_right_key_is_let_in(ask):
    with Loopback("vllm", key=KEY) as server, detector_of(server, api_key=KEY) as detector:
        assert scores(ask(detector, pairs(0.5))) == [0.5]
        assert KEY not in repr(detector)


@pytest.mark.parametrize("key", ["", "two words", "line\nbreak", "schlüssel"])
def test_a_key_that_no_header_can_hold_is_refused_unquoted(key):
    with pytest.raises(InputError, match="API key") as caught:
        RemoteDetector("http://localhost:1", "minos", "tei", api_key=key)
    assert not key or key not in str(caught.value)


NO_ANSWERS = [
    b"<html>hello</html>",
    b"\xff\xfe",
    b"",
    b"[" * 100_000,
    b"null",
    b"3",
    b'"text"',
    b"{}",
    b"[[[]]]",
    b'[[{"label": 1, "score": 1}]]',
]
TEI_ROWS = [
    [{"label": "Refusal", "score": 0.5}, {"label": "Non-refusal", "score": 0.5}],  # one answer, not a batch of one
    [[{"label": "Refusal", "score": "secret"}, {"label": "Non-refusal", "score": 0.5}]],
    [[{"label": "Refusal", "score": None}, {"label": "Non-refusal", "score": 0.5}]],
    [[{"label": "Refusal", "score": 2.5}, {"label": "Non-refusal", "score": -1.5}]],
    [[{"label": "Refusal", "score": 0.1}, {"label": "Non-refusal", "score": 0.1}]],
    [[{"label": "Refusal", "score": float("nan")}, {"label": "Non-refusal", "score": 0.5}]],
]


@WAYS
@pytest.mark.parametrize("payload", [*NO_ANSWERS, *TEI_ROWS], ids=lambda payload: str(payload)[:40])
def test_garbage_is_an_endpoint_error(tei, ask, payload):
    tei.faults += [says(payload)]
    with detector_of(tei) as detector, pytest.raises(EndpointError, match=r"right URL|another kind") as caught:
        ask(detector, pairs(0.5))
    assert caught.value.status == 200
    _holds_nothing(caught.value)


VLLM_ROW = {"index": 0, "label": "Refusal", "probs": [0.25, 0.75], "num_classes": 2}


@pytest.mark.parametrize(
    "data",
    [
        None,
        {},
        [{**VLLM_ROW, "index": 1}],
        [{**VLLM_ROW, "probs": "ab"}],
        [{**VLLM_ROW, "probs": [0.2, "x"]}],
        [{**VLLM_ROW, "label": None}],
    ],
)
def test_vllm_garbage_is_an_endpoint_error(data):
    with Loopback("vllm") as server, detector_of(server) as detector:
        server.faults += [says({"data": data})]
        with pytest.raises(EndpointError, match=r"another kind|came back"):
            detector.detect(pairs(0.5))


def test_vllm_rows_are_matched_by_index():
    with Loopback("vllm") as server, detector_of(server) as detector:
        server.faults += [says({"data": [{**VLLM_ROW, "index": 1}, {"index": 0, "label": "Non-refusal", "probs": [0.9, 0.1]}]})]
        assert scores(detector.detect(pairs(0.1, 0.75))) == [0.1, 0.75]


@WAYS
@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_wrong_number_of_answers_is_an_endpoint_error(server, ask, count):
    row = [{"label": "Refusal", "score": 0.5}, {"label": "Non-refusal", "score": 0.5}]
    payload = [row] * count if server.kind == "tei" else {"data": [{**VLLM_ROW, "index": i} for i in range(count)]}
    server.faults += [says(payload)]
    with detector_of(server) as detector, pytest.raises(EndpointError, match=f"{count} answers came back for 2 texts"):
        ask(detector, pairs(0.5, 0.5))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("labels", [("NORMAL", "REJECTION"), ("a", "b", "c")])
def test_wrong_labels_are_an_endpoint_error_that_names_the_expected_ones(kind, labels):
    expected = pytest.raises(EndpointError, match=r"nonrefusal, refusal.*Minos-v1")
    with Loopback(kind, labels=labels) as server, detector_of(server) as detector, expected:
        detector.detect(pairs(0.9))


def test_the_same_label_twice_is_an_endpoint_error(tei):
    tei.faults += [says([[{"label": "Refusal", "score": 0.5}, {"label": "refusal", "score": 0.5}]])]
    with detector_of(tei) as detector, pytest.raises(EndpointError, match="labels"):
        detector.detect(pairs(0.5))


def test_labels_in_another_order_than_the_spec_says_are_caught():
    expected = pytest.raises(EndpointError, match="labels")
    with Loopback("vllm", labels=("Refusal", "Non-refusal")) as server, detector_of(server) as detector, expected:
        detector.detect(pairs(0.9))


def test_class_order_has_to_be_known_where_the_server_does_not_send_it():
    spec = EncoderSpec(repo="a/b", inputs="response", refusal_labels=frozenset({"refused"}))
    with pytest.raises(InputError, match="class order"):
        RemoteDetector("http://localhost:1", spec, "vllm")
    RemoteDetector("http://localhost:1", spec, "tei").close()


@WAYS
def test_a_silent_server_times_out_and_is_not_asked_again(server, ask):
    server.faults += [silent]
    with detector_of(server, timeout=0.2) as detector, pytest.raises(EndpointError, match=r"no answer within 0\.2 s.*timeout") as caught:
        ask(detector, pairs(0.5))
    assert caught.value.status is None
    assert len(server.requests) == 1
    _holds_nothing(caught.value)


@WAYS
def test_no_server_is_an_endpoint_error(ask):
    with Loopback("tei") as gone:
        pass
    with (
        detector_of(gone, backoff=Backoff(retries=1, first=0.01)) as detector,
        pytest.raises(EndpointError, match="can't be reached") as caught,
    ):
        ask(detector, pairs(0.5))
    _holds_nothing(caught.value)


def test_a_failing_server_fails_open_or_closed_as_the_guard_was_told(tei):
    tei.faults += [status(401)] * 2
    with detector_of(tei) as detector:
        verdict = Guard(detector, on_error="refuse").scan("p", "r")
        assert (verdict.refused, verdict.label) == (True, Label.UNKNOWN)
        assert "401" in verdict.error
        with pytest.raises(DetectorError):
            Guard(detector).scan("p", "r")


def test_one_failing_batch_drops_those_not_yet_sent(tei):
    tei.faults += [status(401)]
    with detector_of(tei, batch_size=1, concurrency=1) as detector, pytest.raises(EndpointError):
        detector.detect(pairs(*[0.5] * 200))
    assert len(tei.requests) < 200


@WAYS
def test_no_more_requests_are_open_than_allowed(tei, ask):
    with detector_of(tei, batch_size=1, concurrency=3) as detector:
        ask(detector, pairs(*[0.5] * 30))
    assert 1 <= tei.most_at_once <= 3


def test_cancelling_closes_the_connections(server):
    server.faults += [silent]

    async def run():
        async with detector_of(server) as detector:
            task = asyncio.create_task(detector.adetect(pairs(0.5)))
            while not server.requests:
                assert not task.done(), task
                await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await asyncio.to_thread(server.hung_up.wait, 20)
            return await detector.adetect(pairs(0.25))

    assert scores(asyncio.run(run())) == [0.25]


def test_one_detector_serves_several_event_loops(tei):
    detector = detector_of(tei)

    async def run():
        found = await detector.adetect(pairs(0.25))
        await detector.aclose()
        return scores(found)

    assert [asyncio.run(run()) for _ in range(3)] == [[0.25]] * 3
    assert [asyncio.run(detector.adetect([])) for _ in range(3)] == [[]] * 3
    detector.close()


def test_a_closed_detector_says_so(tei):
    with detector_of(tei) as detector:
        pass
    with pytest.raises(EndpointError, match="closed"):
        detector.detect(pairs(0.5))


def test_logs_hold_neither_key_nor_text(server, caplog):
    server.key = KEY
    with caplog.at_level("DEBUG"), detector_of(server, api_key=KEY) as detector:
        detector.detect(pairs(0.5))
    assert "HTTP" in caplog.text
    assert KEY not in caplog.text
    assert SECRET not in caplog.text


def test_closing_leaves_no_connection_behind(tei):
    detector = detector_of(tei)
    awaiting(detector, pairs(0.5))
    with detector_of(tei) as other:
        other.detect(pairs(0.5))
    del detector, other
    gc.collect()  # an open socket would warn, and warnings are errors here


def test_thirty_two_threads_on_one_detector_give_the_serial_scores(server):
    rng = random.Random(7)
    work = [pairs(*(round(rng.random(), 3) for _ in range(rng.randrange(0, 70)))) for _ in range(32)]
    with detector_of(server, concurrency=4) as detector:
        serial = [scores(detector.detect(conversations)) for conversations in work]
        found = [None] * len(work)
        threads = [threading.Thread(target=lambda i=i: found.__setitem__(i, scores(detector.detect(work[i])))) for i in range(len(work))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert found == serial
    assert server.most_at_once <= 4


# A URL instead of a name.


@pytest.mark.parametrize("kind", KINDS)
def test_a_url_finds_out_server_and_model(kind):
    with Loopback(kind) as server:
        guard = Guard(detector=server.url)
        with guard.detector:
            assert guard.scan("p", "r p=0.9").refused
            assert guard.scan("p", "r p=0.1").detector == f"{kind}:minos"


def test_a_url_takes_batch_size_and_length_from_tei():
    with Loopback("tei") as server:
        server.batch_limit = 5
        with load_detector(f"{server.url}/") as detector:
            assert (detector.batch_size, detector.spec.max_tokens) == (5, 512)
            assert scores(detector.detect(pairs(*[0.5] * 11))) == [0.5] * 11


@pytest.mark.parametrize("kind", KINDS)
def test_the_url_can_name_the_model(kind):
    with Loopback(kind, labels=("NORMAL", "REJECTION"), model="/models/mine") as server:
        server.known_as = "mine"
        with pytest.raises(EndpointError, match="minos"):
            load_detector(server.url)
        with load_detector(f"{server.url}#protectai") as detector:
            assert scores(detector.detect(pairs(0.5))) == [0.5]
        with pytest.raises(InputError, match="unknown model"):
            load_detector(f"{server.url}#nothing")


def test_the_url_key_comes_from_the_environment(monkeypatch):
    with Loopback("vllm", key=KEY) as server:
        server.faults += [lambda handler: handler.answer(404, {})]  # vLLM has no /info, with or without a key
        with pytest.raises(EndpointError, match="REFUSAL_GUARD_API_KEY"):
            load_detector(server.url)
        monkeypatch.setenv("REFUSAL_GUARD_API_KEY", KEY)
        with load_detector(server.url) as detector:
            assert scores(detector.detect(pairs(0.5))) == [0.5]


def test_servers_that_hold_no_known_classifier_say_so():
    with Loopback("tei", labels=()) as server, pytest.raises(EndpointError, match="no classifier"):
        load_detector(server.url)
    with Loopback("vllm") as server:
        server.owner = "someone"
        with pytest.raises(EndpointError, match="neither TEI, vLLM nor SGLang"):
            load_detector(server.url)
    for payload in ({"version": "2"}, [], None):
        with Loopback("tei") as server:
            server.faults += [says(payload)]
            with pytest.raises(EndpointError, match="/info"):
                load_detector(server.url)
    for payload in ({"data": []}, {"data": [3]}, []):
        with Loopback("vllm") as server:
            server.faults += [status(404), says(payload)]
            with pytest.raises(EndpointError, match="/v1/models"):
                load_detector(server.url)


def test_the_command_line_takes_a_url():
    with Loopback("tei") as server:
        command = [sys.executable, "-m", "refusal_guard.cli", "check", "--detector", server.url, "--response"]
        refused = subprocess.run([*command, "No. p=0.9"], capture_output=True, text=True, timeout=60, check=False)
        answered = subprocess.run([*command, "Yes. p=0.1"], capture_output=True, text=True, timeout=60, check=False)
    assert (refused.returncode, answered.returncode) == (1, 0), refused.stderr
    assert "Traceback" not in refused.stderr + answered.stderr


def test_without_httpx_the_extra_is_named():
    code = "import sys; sys.modules['httpx'] = None\nfrom refusal_guard import Guard\nGuard('http://localhost:1')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert "pip install 'refusal-guard[remote]'" in done.stderr


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "localhost:8080",
        "ftp://host",
        "http://",
        "http://host:port",
        "http://host:99999",
        "http://user:key@host",
        "http://host?key=x",
        "http://[",
        "http://a b",
        "http://host\n",
        "http://\ud800",
    ],
)
def test_what_is_no_server_url_is_an_input_error(bad):
    with pytest.raises(InputError, match="URL"):
        RemoteDetector(bad, "minos", "tei")


@pytest.mark.parametrize(
    "options", [{"batch_size": 0}, {"timeout": 0}, {"timeout": float("nan")}, {"concurrency": 0}, {"server": "triton"}, {"model": "none"}]
)
def test_bad_settings_are_input_errors(options):
    settings = {"url": "http://localhost:1", "model": "minos", "server": "tei", **options}
    with pytest.raises(InputError):
        RemoteDetector(**settings)


def test_every_error_is_of_the_library():
    assert issubclass(EndpointError, DetectorError)
    assert issubclass(EndpointError, RefusalGuardError)
