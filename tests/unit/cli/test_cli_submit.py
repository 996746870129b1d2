"""`flik submit`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fakes_gateway import PICTURE, FakeGateway, busy, task_id
from invoking import Run, documents
from starlette.responses import JSONResponse


def test_it_prints_the_id_alone(run: Run) -> None:
    result = run("submit", "TEXT", "a haiku")

    assert (result.exit_code, result.stdout, result.stderr) == (0, task_id(1) + "\n", "")


def test_options_become_the_payload(gateway: FakeGateway, run: Run) -> None:
    run("submit", "image", "a lighthouse", "--style", "ink", "--seed", "7", "--num-outputs", "2", "--format", "webp")

    assert gateway.requests[0].body["taskType"] == "IMAGE"
    assert gateway.requests[0].body["payload"] == {
        "prompt": "a lighthouse",
        "style": "ink",
        "seed": 7,
        "numOutputs": 2,
        "outputFormat": "webp",
    }


def test_options_go_on_top_of_a_payload_from_stdin_or_a_file(gateway: FakeGateway, run: Run, tmp_path: Path) -> None:
    file = tmp_path / "payload.json"
    file.write_text('{"prompt": "old", "maxWords": 9}')

    run("submit", "TEXT", "--payload", "-", "--priority", "0", input='{"prompt": "from stdin"}')
    run("submit", "TEXT", "new", "--payload", f"@{file}", "--start-deadline", "30", "--max-attempts", "9")

    first, second = (asked.body for asked in gateway.requests)
    assert (first["payload"], first["priority"]) == ({"prompt": "from stdin"}, 0)
    assert (second["payload"], second["startDeadlineS"]) == ({"prompt": "new", "maxWords": 9}, 30)
    assert (first.get("maxAttempts"), second["maxAttempts"]) == (None, 9)


def test_webhook_goes_with_its_secret_from_the_environment_or_an_option(
    gateway: FakeGateway, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLIK_WEBHOOK_SECRET", "whsec_kept")

    run("submit", "TEXT", "rain", "--webhook", "https://hooks.example.com/")
    run("submit", "TEXT", "rain", "--webhook", "https://hooks.example.com/", "--webhook-secret", "whsec_given")
    run("submit", "TEXT", "rain")

    assert [asked.body.get("webhook") for asked in gateway.requests] == [
        {"url": "https://hooks.example.com/", "secret": "whsec_kept"},
        {"url": "https://hooks.example.com/", "secret": "whsec_given"},
        None,
    ]


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["submit"], "Missing argument 'TYPE'"),
        (["submit", "TEXT", "x", "--webhook", "https://hooks.example.com/"], "FLIK_WEBHOOK_SECRET"),
        (["submit", "TEXT"], "Say what to make"),
        (["submit", "TEXT", "x", "--priority", "3"], "0<=x<=2"),
        (["submit", "TEXT", "x", "--seed", "-1"], "x>=0"),
        (["submit", "TEXT", "--payload", "{"], "not JSON"),
        (["submit", "TEXT", "--payload", "[1]"], "is a JSON object"),
        (["submit", "TEXT", "--payload", '{"prompt": NaN}'], "NaN is not a JSON number"),
        (["submit", "TEXT", "--payload", "[" * 100_000], "not JSON"),
        (["submit", "TEXT", "--payload", "@/nonexistent"], "No such file"),
        (["submit", "TEXT", "bad \udcff"], "not valid UTF-8"),
        (["submit", "TEXT", "x", "--out", "/dev/null/x"], "cannot make the folder"),
        (["--url", "nonsense", "submit", "TEXT", "x"], "not a URL of a gateway"),
        (["--api-key", "two\nlines", "submit", "TEXT", "x"], "API key"),
    ],
)
def test_what_cannot_be_sent_is_a_usage_error(gateway: FakeGateway, run: Run, args: list[str], says: str) -> None:
    result = run(*args)

    assert result.exit_code == 2
    assert says in result.stderr
    assert result.stdout == ""
    assert gateway.requests == []


def test_a_payload_larger_than_the_gateway_reads_is_not_sent(gateway: FakeGateway, run: Run, tmp_path: Path) -> None:
    file = tmp_path / "huge.json"
    file.write_text(json.dumps({"prompt": "x" * 1024 * 1024}))

    result = run("submit", "TEXT", "--payload", f"@{file}")

    assert result.exit_code == 2 and "larger than 1,048,576 bytes" in result.stderr
    assert gateway.requests == []


def test_a_refusal_names_the_fields(run: Run) -> None:
    result = run("submit", "SOUND", "x")

    assert result.exit_code == 4
    assert result.stderr == ("flik: 1 field is wrong (request r-9)\n  /taskType: is not one of TEXT, IMAGE, VIDEO\n")


def test_a_refusal_in_json_is_on_stdout_too(run: Run) -> None:
    result = run("--json", "submit", "SOUND", "x")

    (document,) = documents(result)
    assert result.exit_code == 4
    assert (document["error"]["code"], document["error"]["status"]) == ("invalid_request", 422)
    assert document["error"]["errors"][0]["pointer"] == "/taskType"


def test_a_wrong_key_says_what_to_set(run: Run) -> None:
    result = run("submit", "TEXT", "x", "--api-key", "wrong")

    assert result.exit_code == 4 and "FLIK_API_KEY" in result.stderr


def test_json_is_the_gateways_answer(run: Run) -> None:
    (document,) = documents(run("submit", "TEXT", "x", "--json"))

    assert document["taskId"] == task_id(1)
    assert document["statusUrl"].endswith(task_id(1))


def test_wait_prints_the_text(run: Run) -> None:
    result = run("submit", "TEXT", "x", "--wait")

    assert (result.exit_code, result.stdout) == (0, "rain on the roof\n")


def test_wait_prints_whole_links(gateway: FakeGateway, run: Run) -> None:
    result = run("submit", "IMAGE", "x", "--wait")

    assert result.stdout == f"{gateway.url}/artifacts/0?sig=secret\n"


def test_out_waits_downloads_and_prints_the_files(run: Run, tmp_path: Path) -> None:
    result = run("submit", "IMAGE", "x", "--out", str(tmp_path / "new" / "folder"))

    file = tmp_path / "new" / "folder" / f"{task_id(1)}-0.png"
    assert (result.exit_code, result.stdout) == (0, f"{file}\n")
    assert file.read_bytes() == PICTURE


def test_waiting_in_json_gives_one_document_with_the_files(run: Run, tmp_path: Path) -> None:
    (document,) = documents(run("submit", "IMAGE", "x", "--out", str(tmp_path), "--json"))

    assert document["status"] == "COMPLETED"
    assert document["files"] == [str(tmp_path / f"{task_id(1)}-0.png")]


def test_a_download_with_other_bytes_is_refused_and_leaves_nothing(
    gateway: FakeGateway, run: Run, tmp_path: Path
) -> None:
    gateway.picture = PICTURE[:-1] + b"!"

    result = run("submit", "IMAGE", "x", "--out", str(tmp_path))

    assert result.exit_code == 1 and "SHA-256" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_failed_task_exits_with_1_and_says_why(run: Run) -> None:
    result = run("submit", "TEXT", "fail", "--wait")

    assert (result.exit_code, result.stdout) == (1, "")
    assert f"task {task_id(1)} ended as FAILED: boom: it broke" in result.stderr


def test_a_wait_that_takes_too_long_exits_with_1(gateway: FakeGateway, run: Run) -> None:
    gateway.looks_forever = True

    result = run("submit", "TEXT", "x", "--wait", "--timeout", "0.2")

    assert result.exit_code == 1 and "did not finish within 0.2 s" in result.stderr


@pytest.mark.parametrize("evil", ["../../evil", "..", "/etc/x", "a\x1b[2J"])
def test_an_id_that_could_be_a_path_is_not_believed(gateway: FakeGateway, run: Run, tmp_path: Path, evil: str) -> None:
    done = {"taskId": evil, "status": "COMPLETED", "result": {"artifacts": [gateway.artifact()]}}
    good = {"taskId": task_id(1), "status": "QUEUED"}
    gateway.answer_next(JSONResponse(good, 202), JSONResponse(done))

    result = run("submit", "IMAGE", "x", "--out", str(tmp_path / "out"))

    assert result.exit_code == 5 and "`taskId` is not an id" in result.stderr
    assert list((tmp_path / "out").iterdir()) == []


def test_an_overloaded_gateway_is_tried_again_then_reported(gateway: FakeGateway, run: Run) -> None:
    gateway.answer_next(*(busy() for _ in range(3)))
    assert run("submit", "TEXT", "x").exit_code == 0

    gateway.answer_next(*(busy(503, "0.1") for _ in range(4)))
    result = run("submit", "TEXT", "x")
    assert result.exit_code == 5 and "postgresql is not available" in result.stderr


def test_too_many_requests_is_a_refusal_that_says_when_to_come_back(gateway: FakeGateway, run: Run) -> None:
    gateway.answer_next(busy(429, "60"))

    result = run("submit", "TEXT", "x")

    assert result.exit_code == 4 and "try again in 60 s" in result.stderr
