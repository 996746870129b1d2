"""Followers never take all connections that HAProxy has, and who sets more of them than fit is told."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from flik.cli import open_files
from flik.settings import load


@given(
    files=st.integers(64, 1 << 21),
    followers=st.integers(1, 1_000_000),
    gateways=st.integers(1, 64),
)
def test_followers_leave_a_quarter_to_those_who_come_and_go(files: int, followers: int, gateways: int) -> None:
    chosen = load(followers=followers, gateway_replicas=gateways)
    found = open_files.connections(chosen, files)
    assert 1 <= found.followers <= followers
    assert found.most <= max(16, files * 2 // 5)
    if found.followers > 1:
        assert found.followers * gateways <= found.most * 3 / 4 or found.most - found.followers * gateways >= 4_096
    said = open_files.shortage(chosen, files)
    assert (said is None) == (found.followers == followers)
    if said is not None:
        enough = int(re.findall(r"to ([\d,]+),", said)[0].replace(",", ""))
        assert open_files.connections(chosen, enough).followers == followers
        assert enough > files


def test_what_is_usual_fits() -> None:
    assert open_files.connections(load(), 524_288) == open_files.Connections(14_096, 10_000)
    assert open_files.connections(load(), 20_000) == open_files.Connections(7_800, 5_850)
    assert open_files.connections(load(followers=1_000, gateway_replicas=2), 20_000).most == 6_096
