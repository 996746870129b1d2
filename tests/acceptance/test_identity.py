"""Who may call a real Flik: keys from the command line, revocation, strangers. One that is open: test_start_stop.py."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import time
from typing import Any

import httpx
import pytest

from tests.acceptance.running import RunningFlik, eventually, task

pytestmark = pytest.mark.timeout(240)
PROMISED_S = 5.0


def cli(flik: RunningFlik, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `flik` as somebody who sits beside the data folder."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("FLIK_")}
    beside = {"FLIK_URL": flik.url, "FLIK_DATA_DIR": str(flik.data_dir), **environment}
    return subprocess.run(
        [sys.executable, "-m", "flik", *arguments],
        env={**ours, **beside}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def caller(flik: RunningFlik, key: str) -> httpx.Client:
    return httpx.Client(base_url=flik.url, headers={"Authorization": f"Bearer {key}"}, timeout=30)


def made_by_cli(flik: RunningFlik, tenant: str, *arguments: str) -> dict[str, Any]:
    run = cli(flik, "keys", "create", "--tenant", tenant, "--json", *arguments)
    assert run.returncode == 0, run.stderr
    made: dict[str, Any] = json.loads(run.stdout)
    return made


def test_key_of_the_first_start_is_its_owners_alone_and_no_log_has_it(flik: RunningFlik) -> None:
    for name in ("admin_key", "admin_key.header"):
        assert stat.S_IMODE((flik.data_dir / name).stat().st_mode) == 0o600
    for log in (flik.data_dir / "up.log", *(flik.data_dir / "logs").glob("*.log")):
        assert flik.key not in log.read_text(errors="replace")
    assert flik.http.get("/health").json()["auth"] == "keys"


def test_curl_reads_the_first_key_by_itself(flik: RunningFlik) -> None:
    header = f"@{flik.data_dir / 'admin_key.header'}"
    run = subprocess.run(
        ["curl", "-s", "-H", header, f"{flik.url}/api/v1/tenants"], capture_output=True, timeout=30, check=True
    )
    assert "demo" in [tenant["tenantId"] for tenant in json.loads(run.stdout)["items"]]


def test_key_made_by_the_command_line_works_until_it_is_revoked(flik: RunningFlik) -> None:
    assert cli(flik, "tenants", "create", "cli-tenant", "--rate", "100000", "--burst", "100000").returncode == 0
    made = made_by_cli(flik, "cli-tenant")
    used = cli(flik, "submit", "TEXT", "rain", "--wait", FLIK_API_KEY=made["key"], FLIK_TENANT="cli-tenant")
    assert used.returncode == 0, used.stderr
    with caller(flik, made["key"]) as client:
        assert client.get("/api/v1/tasks").json()["items"][0]["tenantId"] == "cli-tenant"
        assert client.get("/api/v1/keys").status_code == 403
        assert cli(flik, "keys", "revoke", made["keyId"]).returncode == 0
        revoked_at = time.monotonic()
        eventually(lambda: client.get("/api/v1/tasks").status_code == 401, within_s=PROMISED_S, what="the refusal")
        while time.monotonic() < revoked_at + 2 * PROMISED_S:
            assert client.get("/api/v1/tasks").status_code == 401
            time.sleep(0.5)
    row = next(key for key in flik.http.get("/api/v1/keys").json()["items"] if key["keyId"] == made["keyId"])
    assert row["revokedAt"] is not None
    assert row["lastUsedAt"] is not None
    assert "cli-tenant" in cli(flik, "tenants", "list").stdout


def test_stranger_finds_nothing_and_moves_nothing(flik: RunningFlik) -> None:
    done = flik.submit(tenantId="ours")
    flik.wait(done)
    slow = flik.submit("VIDEO", tenantId="ours", payload={"script": {"durationS": 4000}})
    with caller(flik, flik.key_of("theirs")) as stranger:
        for task_id in (done, slow):
            for method, path in (("GET", ""), ("GET", "/result"), ("GET", "/events"), ("DELETE", ""),
                                 ("POST", "/cancel"), ("POST", "/retry")):  # fmt: skip
                answer = stranger.request(method, f"/api/v1/tasks/{task_id}{path}")
                assert (answer.status_code, answer.json()["code"]) == (404, "task_not_found")
            assert stranger.post(f"/api/v1/dead-letters/{task_id}/replay").status_code == 404
        assert stranger.get("/api/v1/tasks").json()["items"] == []
        assert stranger.get("/api/v1/tasks", params={"tenantId": "ours"}).json()["items"] == []
        refused = stranger.post("/api/v1/tasks", json=task(tenantId="ours"))
        assert (refused.status_code, refused.json()["code"]) == (403, "tenant_mismatch")
    assert flik.get(slow)["status"] in ("QUEUED", "PROCESSING")
    with caller(flik, flik.key_of("ours")) as owner:
        assert owner.get(f"/api/v1/tasks/{done}").status_code == 200
        assert owner.delete(f"/api/v1/tasks/{slow}").json()["status"] == "CANCELLED"


def test_limit_is_changed_and_the_change_is_in_the_log(flik: RunningFlik) -> None:
    flik.tenant("limited")
    run = cli(flik, "tenants", "set", "limited", "--max-queued", "3", "--json")
    assert json.loads(run.stdout)["effectiveLimits"]["maxQueued"] == 3
    entry = flik.http.get("/api/v1/audit", params={"limit": 1}).json()["items"][0]
    assert (entry["action"], entry["subject"], entry["detail"]) == ("tenant.changed", "limited", {"max_queued": 3})
