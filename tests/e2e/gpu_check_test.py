"""What scripts/gpu-check.sh does with its parts, where there is no GPU: their
programs are made up here."""

import os
import pathlib
import subprocess
import sys
import tarfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "bench"))
BUILDS = ["build", "build-engine"]
PARTS = [*BUILDS, "rows", "kernels", "families", "serve", "bench-Qwen2.5-0.5B",
         "kernel-times", "made-families", "ranks", "bench-Qwen2.5-7B",
         "memcheck", "racecheck", "synccheck", "made-fp8", "bench-Llama-3-8B"]
PROGRAMS = ["unit_cuda", "unit_ranks", "check_families"]
TOOLS = ["nvidia-smi", "compute-sanitizer", "python3", "cmake"]


class Checked:
    """A run of the script over programs that do what they are told: lines of
    shell, by name; the others are content with everything."""

    def __init__(self, folder, *parts, without=(), budget=60, **bodies):
        pack, tools = folder / "pack", folder / "tools"
        out = folder / "results"
        for place, names in (pack, PROGRAMS), (tools, TOOLS):
            place.mkdir(parents=True)
            for name in names:
                if name in without:
                    continue
                file = place / name
                body = bodies.get(name.replace("-", "_"), "exit 0")
                file.write_text(f"#!/bin/bash\n{body}\n")
                file.chmod(0o755)
        environment = dict(
            os.environ, GPU_CHECK_PACK=str(pack), OUT=str(out),
            GPU_CHECK_BUDGET_S=str(budget),
            PATH=f"{tools}:{os.environ['PATH']}")
        ended = subprocess.run(
            [ROOT / "scripts" / "gpu-check.sh", *parts], env=environment,
            capture_output=True, text=True, timeout=120)
        self.status = ended.returncode
        with tarfile.open(out / "gpu-check.tar.gz") as tar:
            self.files = {
                file.name.removeprefix("./"): tar.extractfile(file).read()
                .decode() for file in tar if file.isfile()}
        self.summary = self.files["summary.txt"]
        assert self.summary == ended.stdout

    def said(self, part):
        lines = [line for line in self.summary.splitlines()
                 if line.startswith(part + ": ")]
        assert len(lines) < 2
        return lines[0].split(": ")[1] if lines else None


def test_all_parts_pass(tmp_path):
    seen = Checked(tmp_path, nvidia_smi="echo a GPU, 580.1, 9.0")
    assert seen.status == 0
    assert all(seen.said(part).startswith("passed") for part in PARTS)
    lines = seen.summary.splitlines()
    assert lines[0] == "a GPU, 580.1, 9.0"
    assert lines[-1] == "16 of 16 parts passed"
    assert {f"{part}.log" for part in PARTS} <= seen.files.keys()
    assert {"made-families.json", "made-fp8.json"} <= seen.files.keys()


def test_a_part_that_fails_is_named_and_the_others_go_on(tmp_path):
    seen = Checked(tmp_path, check_families="exit 1",
                   compute_sanitizer='[ "$2" != racecheck ]')
    assert seen.status == 1
    failed = {part for part in PARTS if seen.said(part).startswith("FAILED")}
    assert failed == {"made-families", "made-fp8", "racecheck"}
    assert all(seen.said(part).startswith("passed")
               for part in set(PARTS) - failed)
    assert seen.summary.endswith("13 of 16 parts passed\n")


def test_models_that_could_not_be_made_fail_their_part(tmp_path):
    seen = Checked(tmp_path, python3='[[ "$1" != *make_random* ]]')
    assert seen.status == 1
    assert seen.said("made-families").startswith("FAILED")
    assert seen.said("serve").startswith("passed")


def test_a_part_that_hangs_is_stopped_and_what_has_no_time_says_so(tmp_path):
    seen = Checked(tmp_path, budget=8, unit_cuda="sleep 1000",
                   cmake="sleep 1000")
    assert seen.status == 1
    for part in "rows", "build":
        assert seen.said(part).startswith("FAILED, it was stopped after")
    for part in "families", "build-engine":
        assert seen.said(part) == "did not run, no time was left"
    assert seen.summary.endswith("0 of 16 parts passed\n")


def test_a_tool_that_is_missing_is_no_success(tmp_path):
    seen = Checked(tmp_path, without=["unit_cuda"])
    assert seen.status == 1
    assert seen.said("kernels").startswith("did not run, there is no")
    assert seen.said("made-families").startswith("passed")


def test_parts_are_chosen_by_name(tmp_path):
    seen = Checked(tmp_path, "serve", "bench-Llama-3-8B")
    assert seen.status == 0
    assert [part for part in PARTS if seen.said(part)] == [
        "serve", "bench-Llama-3-8B"]
    assert Checked(tmp_path / "none", "no-such-part").status == 1


# A compiler whose two builds end while the first two parts run, and programs
# that say what they were given.
SAY = 'echo "$TROUPE_CUDA_MODULE $GPU_PROGRAMS"\n'
MEANWHILE = dict(
    unit_ranks=SAY, python3=SAY, unit_cuda=SAY + """
        meanwhile() {
          touch "$GPU_CHECK_PACK/$1"
          until [ -e "$GPU_CHECK_PACK/out/$2.ended" ]; do sleep 0.1; done
        }
        case "$1 $2" in
          "*bits* ~*family*") meanwhile rows build ;;
          "~*family* ~*bits*") meanwhile kernels build-engine ;;
        esac""",
    cmake="""
        during() {
          until [ -e "$GPU_CHECK_PACK/$1" ]; do sleep 0.1; done
        }
        case "$*" in
          *" troupe_cuda") during rows ;;
          *" bench_gpu_engine") during kernels
            for program in unit_cuda bench_gpu_engine; do
              install -D /bin/true "$GPU_CHECK_PACK-built/programs/$program"
            done ;;
        esac""")


def ran_with(seen, part, module, whose, program):
    """Whether a part said that it did so, and was given that."""
    folder = {"packed": "pack", "built": "pack-built"}
    given = seen.files[f"{part}.log"].split()
    assert given[0].endswith(f"/{folder[module]}/libtroupe_cuda.so")
    assert given[1].endswith(f"/{folder[whose]}/programs")
    return seen.said(part).endswith(
        f"with the {module} module and the {whose} {program}")


def test_parts_run_with_what_was_built_once_it_is(tmp_path):
    seen = Checked(tmp_path, **MEANWHILE)
    assert seen.status == 0
    assert seen.said("build").startswith("passed")
    assert seen.said("build-engine").startswith("passed")
    assert ran_with(seen, "rows", "packed", "packed", "unit_cuda")
    assert ran_with(seen, "kernels", "built", "packed", "unit_cuda")
    assert ran_with(seen, "families", "built", "built", "unit_cuda")
    assert ran_with(seen, "bench-Llama-3-8B", "built", "built",
                    "bench_gpu_engine")
    # Those were not built.
    assert ran_with(seen, "ranks", "built", "packed", "unit_ranks")
    assert ran_with(seen, "serve", "built", "packed", "troupe")


def test_what_an_earlier_call_built_is_not_used_unasked(tmp_path):
    left = tmp_path / "pack-built" / "programs" / "unit_ranks"
    left.parent.mkdir(parents=True)
    left.touch(mode=0o755)
    seen = Checked(tmp_path, "ranks", unit_ranks=SAY)
    assert ran_with(seen, "ranks", "packed", "packed", "unit_ranks")


def test_what_cannot_be_built_fails_its_part_alone(tmp_path):
    for broken, target, other, module, whose in (
            ("build", "troupe_cuda", "build-engine", "packed", "built"),
            ("build-engine", "bench_gpu_engine", "build", "built", "packed")):
        seen = Checked(tmp_path / broken, **dict(
            MEANWHILE, cmake=f'{MEANWHILE["cmake"]}\n[[ $* != *" {target}" ]]'))
        assert seen.status == 1
        assert seen.said(broken).startswith("FAILED")
        assert seen.said(other).startswith("passed")
        assert ran_with(seen, "bench-Llama-3-8B", module, whose,
                        "bench_gpu_engine")
        assert seen.summary.endswith("15 of 16 parts passed\n")


def test_what_the_engine_needs_is_among_what_travels(tmp_path):
    (tmp_path / "include").mkdir()
    (tmp_path / "lib").mkdir()
    libraries = [
        tmp_path / "lib" / f"lib{name}.so.1"
        for name in ("crypto", "curl", "fmt", "gloo", "pcre2-8", "simdjson")]
    for library in libraries:
        library.touch()
    built = tmp_path / "built"
    subprocess.run(["cmake", "-S", ROOT, "-B", built, "-G", "Ninja",
                    f"-DTROUPE_BARE={tmp_path}", "-DTROUPE_CUDA=OFF"],
                   check=True)
    inputs = subprocess.run(
        ["ninja", "-C", built, "-t", "inputs", "bench_gpu_engine", *PROGRAMS],
        check=True, capture_output=True, text=True).stdout.splitlines()
    assert str(ROOT / "engine" / "engine_core.cpp") in inputs
    assert all(str(library) in inputs for library in libraries)


def test_what_has_been_seen_is_handed_in_after_each_part(tmp_path):
    seen = Checked(
        tmp_path, compute_sanitizer='tar -xzOf "$OUT/gpu-check.tar.gz" '
        "./summary.txt | grep -q '^serve: passed'")
    assert seen.status == 0


def test_what_the_arithmetic_contract_costs_is_added_up(tmp_path):
    import gpu_engine
    shape = gpu_engine.SHAPES["tiny"]  # two layers, 64 wide
    lines = ["troupe-products 3", "device A GPU, cublasLt 1",
             "128 64 bf16 prompt " + "0" * 128 + " 64:1000/900",
             "64 64 bf16 prompt own 64:500/500",
             "256 64 bf16 prompt own 64:2000/1000",
             "64 128 bf16 prompt own 64:3000/3000",
             "64 128 bf16 output own 1:3000/3000", "sum 0"]
    (tmp_path / "gpu").mkdir()
    (tmp_path / "gpu" / "products-A-GPU.txt").write_text("\n".join(lines))
    rows = list(gpu_engine.contract_rows(
        "tiny", shape, gpu_engine.chosen_products(tmp_path)))
    # Not all products of an output are there.
    assert rows == [{"model": "tiny", "role": "prompt", "rows": 64,
                     "chosen_ms": 0.013, "fastest_ms": 0.0108}]
    assert "| tiny | prompt | 64 | 0.013 | 0.011 | 20% |" in (
        gpu_engine.contract_table(rows))
    assert gpu_engine.contract_table([]) == ""
