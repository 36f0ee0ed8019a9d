"""Measures how long steps of the real engine take, for bench/policies.

  bench/step_times.py [--model models/SmolLM2-135M-Instruct.Q4_1.gguf]

Runs build/release/bench/bench_step_times between two calibration loops
(bench/calibrate.cpp) and writes bench/results/step-times-DATE.json.
"""

import argparse
import datetime
import json
import os
import pathlib
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[1]


def calibrate(program):
    out = subprocess.run([program], check=True, capture_output=True, text=True)
    return [float(rate) for rate in out.stdout.split()]


def main():
    options = argparse.ArgumentParser()
    options.add_argument("--binary", type=pathlib.Path,
                         default=ROOT / "build/release/bench/bench_step_times")
    options.add_argument("--model", default=str(
        ROOT / "models/SmolLM2-135M-Instruct.Q4_1.gguf"))
    options.add_argument("--repeats", default="7")
    given = options.parse_args()
    program = ROOT / "build/bench/calibrate"
    program.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["c++", "-O2", "-std=c++20", "-pthread",
                    ROOT / "bench/calibrate.cpp", "-o", program], check=True)
    before = calibrate(program)
    out = subprocess.run([given.binary, given.model, "--repeats",
                          given.repeats], check=True, capture_output=True,
                         text=True)
    measured = json.loads(out.stdout)
    measured["model"] = pathlib.Path(given.model).name
    measured["additions_per_core_G_s"] = [before, calibrate(program)]
    measured["load_average"] = os.getloadavg()[1]
    date = datetime.date.today().isoformat()
    path = ROOT / f"bench/results/step-times-{date}.json"
    path.write_text(json.dumps(measured, indent=1) + "\n")
    print(path, measured["fit"], measured["fit_error_median"],
          measured["fit_error_p90"])


if __name__ == "__main__":
    main()
