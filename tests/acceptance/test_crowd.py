"""Two thousand who only wait cost little, and hear of the end at once."""

from __future__ import annotations

import logging
import os
from datetime import datetime

import pytest

from benchmarks.load.crowd import Crowd
from tests.acceptance.running import RunningFlik

COUNT = int(os.environ.get("FLIK_CROWD", "2000"))
MAX_BYTES = 300e6
TOLD_WITHIN_S = 1.0
SLACK_S = 4.0  # the machine is shared, the client runs on it too; `make bench` has the figure


@pytest.mark.timeout(180)
async def test_two_thousand_wait_on_one_gateway_and_hear_of_the_end(flik: RunningFlik) -> None:
    (gateway,) = flik.find("gateway")
    tenant = flik.tenant("crowded", maxRunning=0)  # so its task waits
    task_id = flik.submit(tenantId=tenant)
    before = gateway.memory_info().rss
    crowd = Crowd("127.0.0.1", flik.port, flik.key, f"/api/v1/tasks/{task_id}/events")
    try:
        await crowd.gather(COUNT)
        grown = gateway.memory_info().rss - before
        assert flik.http.patch(f"/api/v1/tenants/{tenant}", json={"limits": {"maxRunning": 1}}).status_code == 200
        await crowd.wait(60)
    finally:
        await crowd.leave()
    ended_at = datetime.fromisoformat(flik.wait(task_id)["completedAt"]).timestamp()
    assert len(crowd.told_at) == COUNT
    late_s = max(crowd.told_at) - ended_at
    logging.getLogger("crowd").info("%d followers: %.0f MB, all told after %.2f s", COUNT, grown / 1e6, late_s)
    assert grown < MAX_BYTES
    assert late_s < TOLD_WITHIN_S + SLACK_S
