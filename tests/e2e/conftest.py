import contextlib
import signal
import sys

import pytest

from cluster import BINARY, WEIGHTS, Cluster, model_config, serve_config


def pytest_sessionstart():
    # A runner that is told to end ends its clusters first.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    for needed, how in [(BINARY, "cmake --build --preset release"),
                        (WEIGHTS, "scripts/fetch_model.sh")]:
        if not needed.exists():
            raise pytest.UsageError(f"{needed} is missing: {how}")


@contextlib.contextmanager
def running(cluster, **how):
    try:
        yield cluster.start(**how)
    finally:
        if cluster.process.poll() is None:
            cluster.stop()


@pytest.fixture(scope="session")
def cluster(tmp_path_factory):
    """One model with the context length of the recorded answers."""
    config = serve_config(
        model_config(engine_kwargs={"max_model_len": 2048}),
        troupe={"max_requests_in_flight": 2000})
    with running(Cluster(tmp_path_factory.mktemp("main"), config)) as one:
        yield one


@pytest.fixture
def start(tmp_path):
    """start(config, *arguments): a cluster that ends with the test."""
    with contextlib.ExitStack() as stack:
        def begin(config, *arguments, ready=True, **more):
            folder = tmp_path / str(len(list(tmp_path.iterdir())))
            return stack.enter_context(
                running(Cluster(folder, config, *arguments, **more),
                        ready=ready))
        yield begin
