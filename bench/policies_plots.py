"""Draws what bench/policies.py found: policies_plots.py RESULT.json FOLDER."""

import json
import pathlib
import sys

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

MARKS = {"ongoing_requests, 4": "s", "ongoing_requests, 8": "o",
         "ongoing_requests, 16": "h", "tokens, 2 s": "^", "tokens, 3 s": "v",
         "tokens, 10 s": "<", "schedule": "*", "Ray, 2 (default)": "D",
         "Ray, best of the grid": "P"}


def hits(runs, folder):
    some = [one for one in runs
            if one["group"] == "choice" and one["load"] == "mooncake"
            and one["cache_tokens"] == 65536]
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4))
    names = list(dict.fromkeys(one["policy"] for one in some))
    for shift, routers in ((-.2, 1), (.2, 4)):
        of = {one["policy"]: one for one in some if one["routers"] == routers}
        places = [i + shift for i in range(len(names))]
        left.bar(places, [of[name]["hits"] * 100 for name in names], .4,
                 label=f"{routers} router" + ("s" if routers > 1 else ""))
        right.bar(places, [of[name]["first_token_p95_s"] for name in names],
                  .4)
    left.axhline(some[0]["hits_ideal"] * 100, color="black", linestyle="--",
                 label="a cache without a bound")
    left.set_ylabel("prompt tokens found cached, %")
    right.set_ylabel("time to first token, p95, s")
    for axes in (left, right):
        axes.set_xticks(range(len(names)), names, rotation=20)
    left.legend()
    figure.suptitle("Mooncake's trace on 16 replicas of 65,536 tokens of cache")
    figure.tight_layout()
    figure.savefig(folder / "policies-hits.png", dpi=110)


def frontiers(runs, folder):
    some = [one for one in runs if one["group"] == "scaling"]
    loads = list(dict.fromkeys(one["load"] for one in some))
    figure, grid = plt.subplots(2, 3, figsize=(13, 8))
    for axes, load in zip(grid.flat, loads):
        oracle = sorted((one["first_token_p95_s"], one["replica_hours"])
                        for one in some if one["load"] == load
                        and one["policy"] == "oracle")
        best, line = float("inf"), []
        for p95, hours in oracle:
            if hours < best:
                best = hours
                line.append((p95, hours))
        axes.plot([p for p, _ in line], [h for _, h in line], "k.-",
                  label="oracle")
        for name, mark in MARKS.items():
            for one in some:
                if one["load"] == load and one["policy"] == name:
                    axes.plot(one["first_token_p95_s"], one["replica_hours"],
                              mark, markersize=8, label=name)
        axes.set_xscale("log")
        axes.set_title(load)
        axes.set_xlabel("time to first token, p95, s")
        axes.set_ylabel("replica-hours")
        axes.set_ylim(bottom=0)
    grid.flat[0].legend(fontsize=7)
    grid.flat[3].legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(folder / "policies-scaling.png", dpi=110)


def timelines(runs, folder):
    some = [one for one in runs if one["group"] == "scaling"]
    figure, grid = plt.subplots(2, 1, figsize=(11, 8))
    for axes, load in zip(grid, ("step", "diurnal")):
        for name in ("ongoing_requests, 4", "ongoing_requests, 8",
                     "tokens, 3 s", "Ray, 2 (default)", "Ray, best of the grid", "oracle"):
            of = [one for one in some
                  if one["load"] == load and one["policy"] == name
                  and (name != "oracle" or
                       (one["options"]["oracle-window"],
                        one["options"]["oracle-utilization"]) == (15, .8))]
            for one in of[:1]:
                axes.step([at for at, _, _ in one["sizes"]],
                          [ready for _, _, ready in one["sizes"]],
                          where="post", label=name, linewidth=1.2,
                          color="black" if name == "oracle" else None,
                          alpha=.45 if name == "oracle" else 1)
        rate = of[0]["arrivals_per_10_s"]
        axes.fill_between([10 * i for i in range(len(rate))],
                          [n / 10 for n in rate], color="lightgray",
                          label="requests per second")
        axes.set_title(load)
        axes.set_xlabel("s")
        axes.set_ylabel("replicas that serve")
        axes.set_xlim(0, len(rate) * 10)
    grid[0].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(folder / "policies-timeline.png", dpi=110)


def main():
    runs = json.loads(pathlib.Path(sys.argv[1]).read_text())["runs"]
    folder = pathlib.Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    hits(runs, folder)
    frontiers(runs, folder)
    timelines(runs, folder)


if __name__ == "__main__":
    main()
