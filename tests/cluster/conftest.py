import pathlib
import random
import sys

import pytest
import xdist

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "e2e"))

import network
from cluster import BINARY, WEIGHTS
from load import Truth
from nodes import BASE, FAULTY, Cluster, standard


def pytest_sessionstart(session):
    if xdist.is_xdist_controller(session):
        return  # its workers are enclosed, each by itself
    if not network.is_enclosed():
        raise pytest.UsageError(
            "run it so: tests/cluster/enclosed python -m pytest tests/cluster")
    for needed, how in [(BINARY, "cmake --build --preset release"),
                        (FAULTY, "cmake --build --preset release"),
                        (WEIGHTS, "scripts/fetch_model.sh")]:
        if not needed.exists():
            raise pytest.UsageError(f"{needed} is missing: {how}")
    network.lay_wire()


@pytest.fixture(scope="session")
def running(tmp_path_factory):
    """The cluster of all tests: see `standard`."""
    cluster = Cluster(tmp_path_factory.mktemp("cluster"))
    try:
        yield standard(cluster)
    finally:
        MEASURED.extend(cluster.measured())
        cluster.end()


MEASURED = []  # lines, for the end of the report


def pytest_sessionfinish(session):
    if xdist.is_xdist_worker(session):
        session.config.workeroutput["measured"] = MEASURED


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node):
    MEASURED.extend(getattr(node, "workeroutput", {}).get("measured", []))


def pytest_terminal_summary(terminalreporter):
    for line in MEASURED:
        terminalreporter.write_line(line)


@pytest.fixture
def cluster(running):
    """The one cluster of all tests, idle and whole before and after each."""
    running.settle()
    yield running
    try:
        running.check()
    except BaseException:
        running.mend(*running.applications.values())
        raise


@pytest.fixture(scope="module")
def also(running):
    """also(application, ...): deployed beside the model of all tests until the
    end of the module. That model's replicas stay who they are."""
    def deploy(*applications):
        before = running.pids()
        running.deploy(BASE, *applications)
        assert running.pids() == before
        running.check_processes()  # of those before some may be ending yet
    yield deploy
    deploy()


@pytest.fixture(scope="session")
def truth(running):
    """truth(path, body): the answer of an undisturbed run."""
    return Truth(running)


@pytest.fixture
def chance(request):
    """Random numbers; their seed is shown when the test fails."""
    seed = request.config.getoption("seed")
    if seed is None:
        seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed} (again: --seed {seed})")
    return random.Random(seed)


def pytest_addoption(parser):
    parser.addoption("--seed", type=int, help="of every random choice")
