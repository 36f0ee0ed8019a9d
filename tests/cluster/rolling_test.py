"""Changes of a running model under load: no request fails, and what needs no
new process gets none."""

from cluster import wait_for
from faults import wait_for_frames
from load import Load, chat, completion, open_streams
from nodes import BASE, application, model

PREFIX = "/rolling"


def rolling(path_and_body):
    path, body = path_and_body
    return PREFIX + path, {**body, "model": "rolling"}


REQUESTS = [rolling(completion("The train", max_tokens=30, seed=71)),
            rolling(completion("Bread and", max_tokens=12, n=2, seed=72)),
            rolling(chat("Who are you?", max_tokens=20, seed=73)),
            rolling(chat("Why?", max_tokens=20, seed=74, stream=False,
                         stream_options=None))]

IN_PLACE = [{"max_ongoing_requests": 64}, {"health_check_period_s": 1},
            {"health_check_timeout_s": 3}, {"graceful_shutdown_timeout_s": 9},
            {"max_ongoing_requests": 128, "health_check_period_s": 2}]
RESTARTING = [{"engine": {"max_num_seqs": 24}}, {"env": {"COLOUR": "red"}},
              {"engine": {"max_num_batched_tokens": 256}},
              {"engine": {"kv_cache_memory_bytes": 64 << 20}},
              {"env": {"COLOUR": "blue"}}]


def changes():
    """20, of both kinds in turn; each state holds the changes before it."""
    state, found = {}, []
    for round_ in range(2):
        for kept, new in zip(IN_PLACE, RESTARTING):
            for change in (kept, new):
                if round_ and change is new:  # differ from the first round
                    change = {"env": {"ROUND": str(len(found))}}
                elif round_:
                    change = {name: value + 1 for name, value in change.items()}
                state = {**state, **change}
                found.append((state, change is kept or not set(change)
                              & {"engine", "env"}))
    return found


def test_twenty_changes_fail_no_request(cluster, truth):
    def deploy(**more):
        cluster.deploy(BASE, application([model("rolling", **more)], "rolling",
                                         PREFIX), settle=False)
        return cluster.pids("rolling")

    deploy()
    others = cluster.pids()
    nodes = [cluster.nodes[name] for name in ("head", "east", "west")]
    made = changes()
    assert len(made) == 20
    with Load(truth, nodes, REQUESTS, clients=4):
        for state, in_place in made:
            before = cluster.pids("rolling")
            after = deploy(**state)
            if in_place:
                assert after == before, state
            else:
                assert not set(after.values()) & set(before.values()), state
        # Up and down: those that stay are those that were there.
        before = cluster.pids("rolling")
        grown = deploy(**state, replicas=3)
        assert len(grown) == 3 and before.items() < grown.items()
        assert deploy(**state, replicas=2).items() < grown.items()
    assert cluster.pids() == others
    cluster.deploy(BASE)


def test_a_change_without_room_moves_the_streams_to_what_remains(cluster,
                                                                 truth):
    """One replica fills a node: the old ones are given up one by one, and the
    plan says so beforehand."""
    def deploy(**more):
        cluster.deploy(BASE, application(
            [model("rolling", on={"shipped": 60}, graceful_shutdown_timeout_s=0.2,
                   **more)], "rolling", PREFIX), settle=False)

    deploy()
    said = cluster.verb("plan", cluster.folder / "serve.yaml", "--admin",
                        cluster.admin_address)
    assert "one replica at a time is given up first, and its streams move" in \
        said.partition("rolling/rolling")[2], said
    before = cluster.pids("rolling")
    assert len(before) == 2
    long = [rolling(completion("The narrow road", max_tokens=300, seed=77 + i))
            for i in range(4)]
    truth.learn(long)
    moved = cluster.head.metrics()["troupe_streams_moved_total"]
    nodes = [cluster.nodes[name] for name in ("east", "west")]
    with Load(truth, nodes, REQUESTS, clients=2):
        streams = open_streams(cluster.head, long)
        wait_for_frames(streams, 10)
        deploy(engine={"max_num_seqs": 24})
        for request, stream in zip(long, streams):
            truth.check(stream.finish(), *request, note="moved")
    assert not set(cluster.pids("rolling").values()) & set(before.values())
    # Those of the replica that was given up first.
    assert cluster.head.metrics()["troupe_streams_moved_total"] > moved
    cluster.deploy(BASE)


def test_streams_that_outlast_the_grace_go_on_at_new_replicas(cluster, truth):
    def deploy(**more):
        cluster.deploy(BASE, application(
            [model("rolling", graceful_shutdown_timeout_s=0.2, **more)],
            "rolling", PREFIX), settle=False)

    deploy()
    request = rolling(completion("The long road", max_tokens=900, seed=76))
    truth.learn([request])
    before = cluster.pids("rolling")
    (stream,) = open_streams(cluster.head, [request])
    wait_for_frames([stream], 10)
    deploy(engine={"max_num_seqs": 24})
    truth.check(stream.finish(), *request, note="handed over")
    assert not set(cluster.pids("rolling").values()) & set(before.values())
    wait_for(lambda: sum(load["resumed_tokens"] for load in
                         cluster.totals("rolling").values()) >= 10,
             "nothing was resumed")
    cluster.deploy(BASE)
