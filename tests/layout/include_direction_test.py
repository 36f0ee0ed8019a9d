"""Includes run one way: reads every #include of the tree and fails on an edge
that docs/architecture.md's layout does not have.
"""

import pathlib
import re
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[2]
SUFFIXES = {".hpp", ".cpp", ".h", ".cu", ".cuh", ".inc"}
INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*([<"])([^>"]+)[>"]')

# A folder may include itself, what is below it, and what stands here. The entry
# of the longest path that holds a file counts; "engine" is the files beside
# engine.hpp, which see all of the engine.
ALLOWED = {
    # How a model's source is written is said once, for all who read it.
    "config": {"engine/weights/download/model_reference.hpp"},
    "engine/codec": set(),
    "engine/text": {"engine/codec", "engine/sampling/sampling_params.hpp"},
    "engine/grammar": {"engine/codec", "engine/text"},
    "engine/ops": {"engine/codec"},
    "engine/weights": {"engine/codec", "engine/ops", "engine/text"},
    "engine/weights/download": {"engine/codec"},
    "engine/sampling": {"engine/codec"},
    "engine/kv_cache": {"engine/codec", "engine/sampling"},
    "engine/scheduler": {"engine/codec", "engine/kv_cache", "engine/sampling"},
    "engine/model": {"engine/codec", "engine/ops", "engine/weights",
                     "engine/text", "engine/sampling/fixed_math.hpp",
                     "engine/sampling/sampling_params.hpp"},
    "engine": set(),
    # It draws tokens with the arithmetic of the CPU's sampler.
    "cuda": {"engine/ops", "engine/codec", "engine/sampling/draw_math.hpp"},
    # The public face of the engine, and the values that stand in messages.
    "actors/protocol": {"engine/codec", "engine/sampling/sampling_params.hpp"},
    "actors/runtime": {"actors/protocol", "engine/codec"},
    "actors/controller": {"actors/protocol", "actors/runtime", "engine/codec",
                          "engine/engine.hpp", "config"},
    "actors/node_agent": {"actors/protocol", "actors/runtime", "engine/codec",
                          "engine/engine.hpp", "config"},
    "actors/replica": {"actors/protocol", "actors/runtime", "engine/codec",
                       "engine/engine.hpp", "engine/text", "engine/sampling",
                       "config"},
    "router/http": {"engine/codec"},
    "router/policy": {"actors/protocol", "engine/codec"},
    "router/api": {"actors/protocol", "engine/codec", "engine/text",
                   "engine/grammar", "config"},
    "router": {"actors/protocol", "actors/runtime", "engine/codec",
               "engine/text", "engine/grammar", "config"},
    "autoscaler/policy": {"config/autoscaling_config.hpp"},
    # What the controller tells it.
    "autoscaler": {"actors/controller/scaling.hpp", "actors/protocol",
                   "actors/runtime", "engine/codec", "config",
                   # Nodes are packed as replicas are placed.
                   "actors/controller/placement.hpp",
                   "node/provider/node_provider.hpp"},
    # Brings machines; knows nothing of what runs there.
    "node/provider": {"actors/runtime/log.hpp",
                      "actors/runtime/private_file.hpp", "engine/codec"},
    # Of the engine its face: what it takes and what a model needs.
    "node": {"actors", "autoscaler", "config", "engine/codec",
             "engine/engine.hpp", "router"},
    # A client of any service; what it shares with the router is how JSON is
    # written.
    "client": {"engine/codec", "router/api/json_writer.hpp"},
    "cli": {"actors", "autoscaler", "client", "config", "cuda", "engine",
            "node", "router"},
}
CODE = {"actors", "autoscaler", "cli", "client", "config", "cuda", "engine", "node",
        "router"}
EVERYTHING = CODE | {"tests", "bench"}
FREE = {"tests", "bench", "examples"}  # these look into everything

# Who may see CAF: the actors, and the router's own actor with what starts it.
CAF_FOLDERS = {"actors", "cli", "node"}
CAF_FILES = {"router/router_actor.hpp", "router/router_actor.cpp",
             "router/service.hpp", "router/service.cpp",
             "autoscaler/autoscaler.hpp", "autoscaler/autoscaler.cpp"}
# The engine returns values; it neither logs nor speaks HTTP, YAML or SQL.
ENGINE_REFUSES = ("spdlog/", "iostream", "caf/", "boost/beast", "boost/asio",
                  "yaml-cpp/", "sqlite3.h")


def is_in(path, folder):
    return path == folder or path.startswith(folder + "/")


def rule_of(path):
    holders = [folder for folder in ALLOWED if is_in(path, folder)]
    return max(holders, key=len) if holders else None


def fault(path, form, target):
    """Why `path` may not include `target`; None if it may."""
    top = path.split("/")[0]
    if form == "<":
        if (target.startswith("caf/") and top in CODE
                and top not in CAF_FOLDERS and path not in CAF_FILES):
            return "CAF is seen by actors/ and the router's actor only"
        if top in ("engine", "cuda") and target.startswith(ENGINE_REFUSES):
            return f"{top}/ returns values: no {target} in it"
        if target.split("/")[0] in CODE:
            return "files of the tree are included with quotes"
        return None
    if top in FREE:
        return None
    if "/" not in target or target.split("/")[0] not in EVERYTHING:
        return "an include names its file from the root of the tree"
    rule = rule_of(path)
    if rule is None:
        return f"no rule says what {top}/ may include"
    other = rule_of(target)
    # A folder sees its own files and its parts; a part does not see the whole.
    if other and is_in(other, rule):
        return None
    if any(is_in(target, allowed) for allowed in ALLOWED[rule]):
        return None
    return f"{rule}/ may not include {other or target}"


def faults(files):
    """`files`: pairs of path and text. A sentence per forbidden edge."""
    found = []
    for path, text in files:
        for number, line in enumerate(text.splitlines(), 1):
            if match := INCLUDE.match(line):
                if why := fault(path, match[1], match[2]):
                    found.append(f"{path}:{number}: {line.strip()}: {why}")
    return found


def files_of_the_tree():
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in filter(None, listed.split("\0")):
        path = ROOT / name
        if path.suffix in SUFFIXES and path.is_file():
            yield name, path.read_text(encoding="utf-8")


def test_no_include_goes_against_the_direction():
    files = list(files_of_the_tree())
    assert len(files) > 50, "the tree was not found"
    assert sum(len(INCLUDE.findall(line)) for _, text in files
               for line in text.splitlines()) > 300
    assert faults(files) == []


def planted(path, line):
    return faults([(path, f"#pragma once\n\n{line}\n")])


def test_a_planted_edge_is_found():
    for path, line in [
            ("engine/text/a.cpp", '#include "engine/engine.hpp"'),
            ("engine/codec/a.cpp", '#include "engine/text/tokenizer.hpp"'),
            ("engine/model/a.cpp", '#include "engine/engine.hpp"'),
            ("engine/ops/cpu/a.cpp", '#include "engine/model/runner.hpp"'),
            ("engine/engine.cpp", '#include "config/serve_config.hpp"'),
            ("engine/engine.cpp", '#include "actors/protocol/actors.hpp"'),
            ("engine/engine.cpp", "#include <spdlog/spdlog.h>"),
            ("engine/engine.cpp", "# include  <caf/all.hpp>"),
            ("config/a.cpp", '#include "engine/codec/error.hpp"'),
            ("config/a.cpp", "#include <caf/all.hpp>"),
            ("config/a.cpp",
             '#include "engine/weights/download/fetch_model.hpp"'),
            ("engine/weights/download/a.cpp",
             '#include "engine/weights/gguf.hpp"'),
            ("actors/protocol/a.hpp", '#include "actors/runtime/link.hpp"'),
            ("actors/replica/a.cpp", '#include "router/service.hpp"'),
            ("actors/replica/a.cpp", '#include "engine/model/runner.hpp"'),
            ("router/edge.cpp", '#include "actors/replica/replica.hpp"'),
            ("router/edge.cpp", '#include "engine/engine.hpp"'),
            ("router/edge.cpp", "#include <caf/all.hpp>"),
            ("router/http/a.cpp", '#include "router/edge.hpp"'),
            ("router/http/a.cpp", '#include "actors/protocol/actors.hpp"'),
            ("cuda/a.cu", '#include "engine/model/runner.hpp"'),
            ("cli/a.cpp", '#include "tests/actors/deterministic.hpp"'),
            ("node/a.cpp", '#include "cli/commands.hpp"'),
            ("node/a.cpp", '#include "engine/model/runner.hpp"'),
            ("router/edge.cpp", '#include "node/node_process.hpp"'),
            ("engine/text/a.cpp", '#include "tokenizer.hpp"'),
            ("engine/text/a.cpp", '#include <engine/codec/error.hpp>')]:
        assert len(planted(path, line)) == 1, (path, line)


def test_the_written_directions_are_free():
    for path, line in [
            ("engine/engine.cpp", '#include "engine/model/runner.hpp"'),
            ("engine/ops/cpu/a.cpp", '#include "engine/ops/backend.hpp"'),
            ("router/edge.cpp", '#include "router/http/server.hpp"'),
            ("router/edge.cpp", '#include "engine/text/tokenizer.hpp"'),
            ("router/router_actor.cpp", "#include <caf/all.hpp>"),
            ("actors/replica/a.cpp", '#include "engine/engine.hpp"'),
            ("cli/main.cpp", '#include "router/service.hpp"'),
            ("cli/main.cpp", '#include "node/node_process.hpp"'),
            ("node/node_process.cpp", '#include "router/service.hpp"'),
            ("tests/unit/a.cpp", '#include "engine/model/runner.hpp"')]:
        assert planted(path, line) == [], (path, line)
