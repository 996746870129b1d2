"""How much a run does: every count and every limit on time, for the full and the quick form."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Plan:
    """The sizes of one run. Whatever comes first ends a load: its count or its seconds."""

    single_tasks: int = 40_000
    batched_tasks: int = 200_000
    load_s: float = 15.0
    connections: int = 256
    batch_size: int = 100
    batch_connections: int = 8
    warm_up_tasks: int = 2_000
    paced_requests: int = 600  # at 20 a second: 30 s
    followers: int = 2_000
    chains: int = 1_000
    chain_rounds: int = 5
    few_waiting_chains: int = 100
    waiting_chains: int = 10_000
    backlog_tasks: int = 5_000
    urgent_tasks: int = 200
    urgent_rounds: int = 3
    waiting_tasks: int = 1_000_000
    kills: int = 3
    idle_s: float = 10.0  # before memory is read
    settle_within_s: float = 60.0  # after the last 202
    checked_tasks: int = 500  # asked for one by one after a load
    limit_s: float = 5.0  # each physical line
    peer_tasks: int = 8_000


FULL = Plan()
QUICK = Plan(
    single_tasks=4_000,
    batched_tasks=20_000,
    load_s=3.0,
    warm_up_tasks=300,
    paced_requests=60,
    followers=200,
    chains=300,
    chain_rounds=2,
    waiting_chains=1_000,
    urgent_tasks=60,
    urgent_rounds=1,
    waiting_tasks=50_000,
    kills=1,
    idle_s=2.0,
    settle_within_s=30.0,
    checked_tasks=100,
    limit_s=1.5,
    peer_tasks=1_000,
)
RATE_PER_S = 20.0
