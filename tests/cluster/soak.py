"""A cluster that is hurt for a long time; see scripts/soak.sh. What it prints is
the result."""

import argparse
import pathlib
import random
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "e2e"))

import network
from answers import choice_of
from faults import LOSSES, kill_at, lose_head, lose_worker
from load import PENALTIES, Load, Truth, chat, completion
from nodes import (BASE, FAULTY_ONLY, Cluster, application, model,
                   resident_kb, standard)

WORDS = ["river", "lamp", "winter", "engine", "paper", "island", "clock", "bread"]


def any_request(chance, tokens, streams=False):
    """One of 250 or so, so that what is true of it is asked once."""
    word = chance.choice(WORDS)
    seed = chance.randrange(6)
    makers = [
        lambda: completion(f"The {word}", max_tokens=tokens, seed=seed),
        lambda: completion(f"A {word} and", max_tokens=tokens, seed=seed, n=2,
                           **PENALTIES),
        lambda: completion(f"My {word}", max_tokens=tokens, seed=seed,
                           logprobs=3, echo=True, temperature=1.2),
        lambda: completion(f"Our {word}", max_tokens=tokens, temperature=0,
                           repetition_penalty=1.3),
        lambda: chat(f"Tell me of a {word}.", max_tokens=tokens, seed=seed,
                     logprobs=True, top_logprobs=2, **PENALTIES),
        lambda: chat(f"What is a {word}?", max_tokens=tokens, seed=seed,
                     stream=False, stream_options=None)]
    return chance.choice(makers[:-1] if streams else makers)()


def any_place(chance, answer):
    """Where to kill in an answer: see `kill_at`."""
    if not answer.frames:
        return chance.random() * 0.9
    return chance.randrange(max(
        at for at, frame in enumerate(answer.frames) if choice_of(frame) == 0))


def kill_replicas(cluster, truth, chance, kills):
    """Each in the middle of a stream, at a random token, beside other load."""
    background = [any_request(chance, 40) for _ in range(6)]
    truth.learn(background)
    done = 0
    while done < kills:
        batch = [any_request(chance, 30) for _ in range(min(50, kills - done))]
        truth.learn(batch)
        with Load(truth, [cluster.nodes["edge"]], background, clients=2) as load:
            for request in batch:
                undisturbed = truth(*request)
                place = any_place(chance, undisturbed)
                answer, _ = kill_at(cluster, request, place, undisturbed,
                                    edge="edge")
                truth.check(answer, *request, note=f"killed at {place}")
                done += 1
        print(f"{done} kills, {load.done()} answers beside them, all exact",
              flush=True)
        cluster.check()


def hurt_anything(cluster, truth, chance, seconds):
    """Workers, the head, replicas and deployments, one after the other, beside
    load that must not notice."""
    workers = [cluster.nodes[name] for name in ("east", "west", "edge")]
    background = [any_request(chance, 60) for _ in range(8)]
    end = time.monotonic() + seconds
    count = {}

    def lose_a_worker():
        loss = chance.choice(list(LOSSES))
        name = chance.choice([one["node"] for one in cluster.ready()])
        lose_worker(cluster, truth, name, loss,
                    [any_request(chance, 250, True) for _ in range(5)],
                    chance.randrange(1, 60), edge="edge")
        return f"worker {loss}"

    def lose_the_head():
        lose_head(cluster, workers, chance.uniform(0.1, 6),
                  chance.choice(["killed", "killed", "stopped"]))
        return "head lost"

    def change():
        count["changes"] = count.get("changes", 0) + 1
        cluster.deploy(BASE, application(
            [model("changing", replicas=chance.randrange(1, 3), on=FAULTY_ONLY,
                   env={"CHANGE": str(count["changes"] // 2)})], "changing",
            "/changing"), settle=False)
        return "change deployed"

    def kill_some():
        for _ in range(10):
            request = any_request(chance, 30)
            undisturbed = truth(*request)
            place = any_place(chance, undisturbed)
            answer, _ = kill_at(cluster, request, place, undisturbed,
                                edge="edge")
            truth.check(answer, *request, note=f"killed at {place}")
        return "kills"

    while time.monotonic() < end:
        act = chance.choice([lose_a_worker, lose_a_worker, lose_the_head, change,
                             kill_some])
        truth.learn(background)
        with Load(truth, [cluster.nodes["edge"]], background, clients=2) as load:
            name = act()
        cluster.check()
        count[name] = count.get(name, 0) + 1
        print(f"{name}: {load.done()} answers beside it, all exact; "
              f"{resident(cluster)}", flush=True)
    return count


def resident(cluster):
    """Memory and descriptors of each node's process."""
    said = []
    for node in cluster.nodes.values():
        kilobytes = resident_kb(node.process.pid)
        files = len(list(pathlib.Path(f"/proc/{node.process.pid}/fd").iterdir()))
        said.append(f"{node.name} {kilobytes >> 10} MB {files} fds")
    return ", ".join(said)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--seconds", type=int, default=1800)
    parser.add_argument("--seed", type=int, required=True)
    given = parser.parse_args()
    assert network.is_enclosed(), "run it by scripts/soak.sh"
    print(f"{given.kills} kills, then {given.seconds} s of random faults; seed "
          f"{given.seed}", flush=True)
    chance = random.Random(given.seed)
    network.lay_wire()
    with tempfile.TemporaryDirectory() as folder:
        cluster = Cluster(pathlib.Path(folder))
        try:
            standard(cluster)
            # Where clients come in; nothing happens to this one.
            cluster.add_worker("edge", resources={})
            truth = Truth(cluster)
            print(f"at first: {resident(cluster)}", flush=True)
            kill_replicas(cluster, truth, chance, given.kills)
            print(f"after the kills: {resident(cluster)}", flush=True)
            count = hurt_anything(cluster, truth, chance, given.seconds)
            print(f"at the end: {resident(cluster)}")
            print("faults: " + ", ".join(
                f"{number} {name}" for name, number in sorted(count.items())))
            for line in cluster.measured():
                print(line)
        except BaseException:
            for node in cluster.nodes.values():
                print(f"--- {node.name}\n{node.said()[-4000:]}")
            raise
        finally:
            cluster.end()


if __name__ == "__main__":
    main()
