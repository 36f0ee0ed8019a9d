"""The policies under all loads, beside Ray's, simple ones and an oracle.

  bench/policies.py [--grid] [--plots-only] [--only TEXT] [--jobs N]

Runs build/release/bench/policies/bench_policies over the matrix and writes
bench/results/policies-DATE.json, policies-DATE.md and docs/plots/policies-*.png.
`--grid` searches set-points instead, Ray's and ours, and writes
policies-grid-DATE.json and .md; the matrix takes its best values from the
newest of these. `--only` runs the rows alone whose policy has that text, and
takes the others from the newest results. matplotlib comes from PyPI into build/bench/plots.
docs/policies.md says what is simulated.
"""

import argparse
import concurrent.futures
import datetime
import itertools
import json
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
RESULTS = ROOT / "bench/results"
TRACES = ROOT.parent / "shared/traces"
DATE = datetime.date.today().isoformat()
MATPLOTLIB = "matplotlib==3.10.8"

# Lengths are divided, times and the sharing of blocks kept. `slowness`: a
# replica takes so many times longer than was measured. Limits grow with it.
MOONCAKE = {"load": "mooncake", "divisor": 32, "slowness": 8,
            "expected-output": 256 // 32, "answer-max": 2000,
            "first-token-max": 8, "next-token-max": 1.6}
AZURE = {"load": "azure", "divisor": 2, "slowness": 1,
         "expected-output": 256 // 2, "answer-max": 2000,
         "first-token-max": 1, "next-token-max": 0.2}


def made(load, **more):
    return {**AZURE, "lengths": "azure", "seconds": 900, "low": 1, "high": 7,
            "cache-tokens": 65536, "load": load, **more}


LOADS = {
    "step": made("step"),
    "burst": made("burst"),
    "ramp": made("ramp"),
    "diurnal": made("diurnal", seconds=1800),
    "azure": {**AZURE, "trace-seconds": 1800, "cache-tokens": 65536},
    "mooncake": {**MOONCAKE, "cache-tokens": 65536, "choice": "kv_aware"},
}
RAY = {"scaler": "ongoing_requests", "target": 2, "up-delay": 30,
       "down-delay": 600, "look-back": 30, "metrics-interval": 10,
       "report-min": 10, "report-max": 10}
SCALERS = {
    "ongoing_requests, 4": {"scaler": "ongoing_requests", "target": 4},
    "ongoing_requests, 8": {"scaler": "ongoing_requests", "target": 8},
    "ongoing_requests, 16": {"scaler": "ongoing_requests", "target": 16},
    "tokens, 2 s": {"scaler": "tokens", "queue-s": 2},
    "tokens, 3 s": {"scaler": "tokens", "queue-s": 3},
    "tokens, 10 s": {"scaler": "tokens", "queue-s": 10},
    "latency, 2 s": {"scaler": "latency", "goal-first": 2},
    "latency, 4 s": {"scaler": "latency", "goal-first": 4},
    "Ray, 2 (default)": RAY,
    "Ray, 1e9": {**RAY, "target": 1e9},
}
# Minutes of the simulated day in which an operator who knows the load's shape
# has more.
SCHEDULE = {"scaler": "schedule", "target": 4,
            "minimums": "4-11:6,6-9:8,19-26:6,21-24:8"}
ORACLES = [{"scaler": "oracle", "oracle-window": window,
            "oracle-utilization": used}
           for window, used in ((5, .95), (5, .8), (5, .65), (5, .5),
                                (15, .95), (15, .8), (15, .65),
                                (40, .95), (40, .7))]
CHOICES = ("random", "round_robin", "power_of_two", "prefix", "kv_aware")
GRID_LOADS = ("step", "burst", "diurnal")
GOODPUT = 0.9


def newest(pattern):
    found = sorted(RESULTS.glob(pattern))
    return found[-1] if found else None


class runner:
    def __init__(self, binary, times, jobs):
        self.binary, self.times, self.jobs = binary, times, jobs
        self.pool = concurrent.futures.ThreadPoolExecutor(jobs)

    def one(self, options):
        command = [self.binary, "--times", self.times, "--traces", TRACES]
        for key, value in options.items():
            command.append(f"--{key}")
            if value is not True:
                command.append(str(value))
        out = subprocess.run([str(word) for word in command], check=True,
                             capture_output=True, text=True)
        return json.loads(out.stdout)

    def all(self, rows):
        """Each row is (name..., options); the options become figures."""
        figures = self.pool.map(self.one, [row["options"] for row in rows])
        for row, figure in zip(rows, figures):
            row.update(figure)
            print(row["group"], row["load"], row["policy"],
                  f"p95 {row['first_token_p95_s']:.2f} s",
                  f"{row['replica_hours']:.2f} h", flush=True)
        return rows


def row(group, load, policy, options, **more):
    return {"group": group, "load": load, "policy": policy, **more,
            "options": options}


def choice_rows():
    out = []
    for (cache, routers), choice in itertools.product(
            ((65536, 1), (65536, 4), (16384, 1)), CHOICES):
        out.append(row("choice", "mooncake", choice, {
            **MOONCAKE, "replicas": 16, "cache-tokens": cache,
            "routers": routers, "choice": choice}, routers=routers,
            cache_tokens=cache))
    for choice in ("random", "prefix", "kv_aware"):
        out.append(row("choice", "mooncake", choice, {
            **MOONCAKE, "replicas": 16, "cache-tokens": 1 << 20,
            "routers": 1, "choice": choice}, routers=1,
            cache_tokens=1 << 20))
    # The same load on replicas that are less busy, and busier.
    for slowness, choice in itertools.product((1, 2, 4, 6, 8, 10, 12),
                                              CHOICES[2:]):
        out.append(row("spare", "mooncake", choice, {
            **MOONCAKE, "slowness": slowness, "replicas": 16,
            "cache-tokens": 65536, "choice": choice,
            "first-token-max": slowness, "next-token-max": .2 * slowness},
            slowness=slowness))
    for routers, choice in itertools.product((1, 4), CHOICES[2:]):
        out.append(row("stamped", "mooncake", choice, {
            **MOONCAKE, "stamped": True, "replicas": 16,
            "cache-tokens": 65536, "routers": routers, "choice": choice},
            routers=routers))
    for routers, choice in itertools.product((1, 4), CHOICES[:3]):
        out.append(row("choice", "azure", choice, {
            **LOADS["azure"], "replicas": 8, "routers": routers,
            "choice": choice}, routers=routers, cache_tokens=65536))
    for expected in (32, 256, 1024):
        out.append(row("expected", "mooncake", f"kv_aware, {expected}", {
            **MOONCAKE, "replicas": 16, "cache-tokens": 65536,
            "choice": "kv_aware",
            "expected-output": max(1, expected // 32)}, expected=expected))
    return out


def scaling_rows(best_ray):
    out = []
    scalers = {**SCALERS, "Ray, best of the grid": best_ray}
    for load, options in LOADS.items():
        for name, scaler in scalers.items():
            out.append(row("scaling", load, name,
                           {**options, **scaler, "timeline": True}, birth=.9))
        for oracle in ORACLES:
            out.append(row("scaling", load, "oracle",
                           {**options, **oracle, "timeline": True}, birth=.9))
    out.append(row("scaling", "diurnal", "schedule", {
        **LOADS["diurnal"], **SCHEDULE, "timeline": True}, birth=.9))
    late = {"birth": 30}
    for load in ("step",):
        for name, scaler in scalers.items():
            if name != "Ray, 1e9":
                out.append(row("slow birth", load, name,
                               {**LOADS[load], **scaler, **late}, birth=30))
        for oracle in ORACLES:
            out.append(row("slow birth", load, "oracle",
                           {**LOADS[load], **oracle, **late}, birth=30))
    return out


def oracle_hours(rows, of):
    """The fewest replica-hours of an oracle that is no slower at its p95."""
    limit = of["first_token_p95_s"] * 1.005
    hours = [one["replica_hours"] for one in rows
             if one["policy"] == "oracle" and one["group"] == of["group"]
             and one["load"] == of["load"]
             and one["first_token_p95_s"] <= limit]
    return min(hours) if hours else None


# -- the grid

def grid_settings():
    for target, up, down, back in itertools.product(
            (2, 4, 6, 8), (0, 30), (60, 600), (10, 30)):
        yield "Ray", {**RAY, "target": target, "up-delay": up,
                      "down-delay": down, "look-back": back}
    for target, down in itertools.product((2, 3, 4, 6, 8, 12, 16), (30, 60)):
        yield "ongoing_requests", {"scaler": "ongoing_requests",
                                   "target": target, "down-delay": down}
    for queue in (1, 1.5, 2, 3, 5, 10):
        yield "tokens", {"scaler": "tokens", "queue-s": queue}


def grid(run):
    rows = [row("grid", load, policy, {**LOADS[load], **setting},
                setting=setting)
            for policy, setting in grid_settings() for load in GRID_LOADS]
    run.all(rows)
    out = []
    for begin in range(0, len(rows), len(GRID_LOADS)):
        some = rows[begin:begin + len(GRID_LOADS)]
        out.append({
            "policy": some[0]["policy"], "setting": some[0]["setting"],
            "goodput": sum(one["goodput"] for one in some) / len(some),
            "replica_hours": sum(one["replica_hours"] for one in some),
            "first_token_p95_s": max(one["first_token_p95_s"]
                                     for one in some)})
    best = {}
    for policy in ("Ray", "ongoing_requests", "tokens"):
        able = [one for one in out if one["policy"] == policy]
        good = [one for one in able if one["goodput"] >= GOODPUT]
        best[policy] = (min(good, key=lambda one: one["replica_hours"]) if good
                        else max(able, key=lambda one: one["goodput"]))
    result = {"loads": GRID_LOADS, "goodput_at_least": GOODPUT, "best": best,
              "settings": out, "times": pathlib.Path(run.times).name}
    (RESULTS / f"policies-grid-{DATE}.json").write_text(
        json.dumps(result, indent=1) + "\n")
    lines = ["| policy | set | goodput | replica-hours | worst p95, s |",
             "| --- | --- | --- | --- | --- |"]
    for one in sorted(out, key=lambda one: (one["policy"],
                                            one["replica_hours"])):
        mark = "**" if one is best[one["policy"]] else ""
        setting = ", ".join(f"{key} {value}" for key, value
                            in one["setting"].items()
                            if key not in ("scaler", "metrics-interval",
                                           "report-min", "report-max"))
        lines.append(f"| {one['policy']} | {mark}{setting}{mark} | "
                     f"{one['goodput']:.3f} | {one['replica_hours']:.2f} | "
                     f"{one['first_token_p95_s']:.1f} |")
    text = "\n".join(lines) + "\n"
    (RESULTS / f"policies-grid-{DATE}.md").write_text(text)
    print(text)


# -- tables

def seconds(value):
    return "never" if value >= 1e6 else f"{value:.2f}"


def choice_table(rows, load):
    yield ("| policy | routers | cache of a replica, tokens | first token p50, "
           "s | p95 | p99 | goodput | prompt tokens hit | of the ideal |")
    yield "| --- " * 9 + "|"
    for one in rows:
        if one["group"] != "choice" or one["load"] != load:
            continue
        ideal = one["hits_ideal"]
        share = f"{one['hits'] / ideal:.1%}" if ideal > 0 else "-"
        yield (f"| {one['policy']} | {one['routers']} | "
               f"{one['cache_tokens']} | {seconds(one['first_token_p50_s'])} | "
               f"{seconds(one['first_token_p95_s'])} | "
               f"{seconds(one['first_token_p99_s'])} | {one['goodput']:.3f} | "
               f"{one['hits']:.1%} | {share} |")


def scaling_table(rows, group):
    yield ("| load | policy | first token p50, s | p95 | p99 | goodput | "
           "replica-hours | oracle's at that p95 | ratio | order, s | "
           "followed, s | recovered, s | flaps |")
    yield "| --- " * 13 + "|"
    loads = dict.fromkeys(one["load"] for one in rows if one["group"] == group)
    for load in loads:
        some = [one for one in rows
                if one["group"] == group and one["load"] == load]
        for one in some:
            if one["policy"] == "oracle":
                continue
            hours = oracle_hours(rows, one)
            step = [f"{one[key]:.1f}" if load == "step" and one[key] >= 0
                    else "-" for key in ("first_order_s", "followed_s",
                                         "recovered_s")]
            yield (f"| {load} | {one['policy']} | "
                   f"{seconds(one['first_token_p50_s'])} | "
                   f"{seconds(one['first_token_p95_s'])} | "
                   f"{seconds(one['first_token_p99_s'])} | "
                   f"{one['goodput']:.3f} | {one['replica_hours']:.2f} | "
                   + (f"{hours:.2f} | {one['replica_hours'] / hours:.2f}"
                      if hours else "none is so fast | -")
                   + f" | {' | '.join(step)} | {one['flaps']} |")


def table(result):
    rows = result["runs"]
    lines = [f"Step times: {result['times']}; remade by bench/policies.py.", "",
             "Choice of a replica, Mooncake's trace, 16 replicas:", ""]
    lines += choice_table(rows, "mooncake")
    lines += ["", "Azure's trace (first half hour), 8 replicas:", ""]
    lines += choice_table(rows, "azure")
    lines += ["", "Mooncake's trace, 16 replicas of 65,536 tokens of cache, "
              "one router, by how busy it keeps them if all is hit:", "",
              "| busy | policy | first token p50, s | p95 | goodput | "
              "of the ideal hits |", "| --- " * 6 + "|"]
    work = {one["load"]: one["work_replicas"] for one in result["loads"]}
    lines += [f"| {work['mooncake'] / 8 * one['slowness'] / 16:.0%} | "
              f"{one['policy']} | {seconds(one['first_token_p50_s'])} | "
              f"{seconds(one['first_token_p95_s'])} | {one['goodput']:.3f} | "
              f"{one['hits'] / one['hits_ideal']:.0%} |"
              for one in rows if one["group"] == "spare"]
    stamped = [one for one in rows if one["group"] == "stamped"]
    lines += ["", "All requests of a time stamp (3 s) at once:", "",
              "| policy | routers | p95, s | goodput | of the ideal hits |",
              "| --- " * 5 + "|"]
    lines += [f"| {one['policy']} | {one['routers']} | "
              f"{seconds(one['first_token_p95_s'])} | {one['goodput']:.3f} | "
              f"{one['hits'] / one['hits_ideal']:.0%} |" for one in stamped]
    lines += ["", "Tokens of output that kv_aware counts per choice at most "
              "(before the division):", "",
              "| counted | p95, s | goodput | hits |", "| --- " * 4 + "|"]
    lines += [f"| {one['expected']} | {one['first_token_p95_s']:.2f} | "
              f"{one['goodput']:.3f} | {one['hits']:.1%} |"
              for one in rows if one["group"] == "expected"]
    lines += ["", "Number of replicas, born in 0.9 s:", ""]
    lines += scaling_table(rows, "scaling")
    lines += ["", "Born in 30 s:", ""]
    lines += scaling_table(rows, "slow birth")
    lines += ["", "Oracles:", "",
              "| group | load | window, s | used | p95, s | goodput | "
              "replica-hours |", "| --- " * 7 + "|"]
    lines += [f"| {one['group']} | {one['load']} | "
              f"{one['options']['oracle-window']} | "
              f"{one['options']['oracle-utilization']} | "
              f"{one['first_token_p95_s']:.2f} | {one['goodput']:.3f} | "
              f"{one['replica_hours']:.2f} |"
              for one in rows if one["policy"] == "oracle"]
    return "\n".join(lines) + "\n"


# -- plots, in a Python of their own

def draw(path):
    home = ROOT / "build/bench/plots"
    python = home / "bin/python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", home], check=True)
    subprocess.run([python, "-m", "pip", "install", "--quiet",
                    "--disable-pip-version-check", MATPLOTLIB], check=True)
    subprocess.run([python, ROOT / "bench/policies_plots.py", path,
                    ROOT / "docs/plots"], check=True)


def main():
    options = argparse.ArgumentParser()
    options.add_argument("--binary", default=str(
        ROOT / "build/release/bench/policies/bench_policies"))
    options.add_argument("--times", default=newest("step-times-*.json"))
    options.add_argument("--jobs", type=int, default=1)
    options.add_argument("--grid", action="store_true")
    options.add_argument("--plots-only", action="store_true")
    options.add_argument("--only", default="")
    given = options.parse_args()
    path = RESULTS / f"policies-{DATE}.json"
    run = runner(given.binary, str(given.times), given.jobs)
    if given.grid:
        return grid(run)
    if given.plots_only:
        return draw(newest("policies-2*.json"))
    found = newest("policies-grid-*.json")
    best = (json.loads(found.read_text())["best"]["Ray"]["setting"]
            if found else RAY)
    ideals = [{**run.one({**LOADS[load], "ideal": True, "replicas": 16}),
               "load": load} for load in ("mooncake", "azure")]
    rows = choice_rows() + scaling_rows(best)
    again = [one for one in rows if given.only in one["policy"]]
    run.all(again)
    if given.only:
        before = json.loads(newest("policies-2*.json").read_text())["runs"]
        rows = [one for one in before if given.only not in one["policy"]]
        rows += again
    result = {"times": pathlib.Path(run.times).name, "best_ray": best,
              "loads": ideals, "runs": rows}
    path.write_text(json.dumps(result) + "\n")
    text = table(result)
    path.with_suffix(".md").write_text(text)
    print(text)
    draw(path)


if __name__ == "__main__":
    main()
