"""The Ray head node of a region on this machine, without what nobody here uses.

`ray.init` on its own also starts an autoscaler monitor, which adds machines, a log monitor,
which forwards lines to a terminal, and an API server, which serves the dashboard: 280 MB
together (Ray 2.60, measured 2026-11). Flik starts the first two never and the third with the
dashboard only. Ray has switches for them in hidden options of `ray start`, but that command
also writes down the new cluster for every other Ray program of this user to join. So its Node
class is used here, in this file and no other.

The node ends with this process: the kernel kills its daemons when their parent dies.
"""

from __future__ import annotations

import ray._private.utils
from ray._private.node import Node
from ray._private.parameter import RayParams


class _Head(Node):  # type: ignore[misc]  # Ray is not typed
    """A head node whose API server is optional."""

    def start_api_server(self, *, include_dashboard: bool | None, raise_on_failure: bool) -> None:
        """Start the API server for a dashboard; without one there is nobody to serve."""
        if include_dashboard:
            super().start_api_server(include_dashboard=include_dashboard, raise_on_failure=raise_on_failure)


def start_head(*, num_cpus: int, object_store_bytes: int, temp_dir: str, dashboard_port: int | None) -> str:
    """Start a head node and return its address, for `ray.init`; `dashboard_port` None: without a dashboard."""
    # Ray asks this to see whether the parts of its dashboard are there, and would import them: 25 MB here. What it is
    # told decides as well whether the node's agent serves a dashboard: 11 MB (both measured 2026-11).
    missing = None if dashboard_port else ImportError("no dashboard is wanted")
    ray._private.utils.get_dashboard_dependency_error = lambda: missing
    node = _Head(
        RayParams(
            num_cpus=num_cpus,
            object_store_memory=object_store_bytes,
            temp_dir=temp_dir,
            include_dashboard=dashboard_port is not None,
            dashboard_host="127.0.0.1",
            dashboard_port=dashboard_port,
            include_log_monitor=False,
            no_monitor=True,
        ),
        head=True,
        shutdown_at_exit=True,
        spawn_reaper=True,
        ray_init_cluster=True,
    )
    address: str = node.gcs_address
    return address
