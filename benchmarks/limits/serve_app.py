"""Ray Serve with HAProxy and throughput mode on, and the no-op FastAPI application in one replica.

    python -m benchmarks.limits.serve_app PORT

A Ray of its own: own ports, own folder, no dashboard, so that another on the machine is
not met. SIGTERM or SIGINT shuts Serve down first, or HAProxy would live on.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile

from benchmarks.service import free_ports


def environment() -> dict[str, str]:
    """Return what must be set before Ray is imported."""
    metrics, stats, http, grpc, ingress, ingress_grpc = free_ports(6)
    return {
        "RAY_AUTH_MODE": "disabled",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        "RAY_SERVE_HAPROXY_NBTHREAD": "1",
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(metrics),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(stats),
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(http),
        "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT": str(grpc),
        "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": str(ingress),
        "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": str(ingress + 100),
        "RAY_SERVE_DIRECT_INGRESS_MIN_GRPC_PORT": str(ingress_grpc),
        "RAY_SERVE_DIRECT_INGRESS_MAX_GRPC_PORT": str(ingress_grpc + 100),
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "0",
        "RAY_SERVE_PROXY_MIN_DRAINING_PERIOD_S": "1",
    }


def serve_until_stopped(port: int, folder: str) -> None:
    """Serve on `port`, with Ray's files in `folder`; return after SIGTERM or SIGINT, when all is down."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    import ray
    from ray import serve
    from ray.serve.schema import LoggingConfig

    from benchmarks.limits.fastapi_app import app

    ray.init(
        address="local",
        num_cpus=4,
        include_dashboard=False,
        object_store_memory=150 * 1024**2,
        log_to_driver=False,
        _temp_dir=folder,
        _metrics_export_port=free_ports(1)[0],
    )
    try:
        serve.start(
            proxy_location="HeadOnly",
            http_options={"host": "127.0.0.1", "port": port},
            logging_config=LoggingConfig(enable_access_log=False),
        )
        ingress = serve.deployment(ray_actor_options={"num_cpus": 0.1}, max_ongoing_requests=1000)(
            serve.ingress(app)(type("Gateway", (), {}))
        )
        serve.run(ingress.bind(), name="no-op", route_prefix="/")
        signal.sigwait({signal.SIGTERM, signal.SIGINT})
    finally:
        serve.shutdown()
        ray.shutdown()


if __name__ == "__main__":
    os.environ.update(environment())
    # Ray puts sockets there, whose paths must be short
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as ray_folder:
        serve_until_stopped(int(sys.argv[1]), ray_folder)
