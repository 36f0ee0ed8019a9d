"""What nvcc makes of a file of kernels: registers, bytes spilled, instructions,
and of each loop with tensor cores how many instructions it has, how many of
them are for tensor cores, and how many read 16 bytes of global memory.

    bench/gpu_code.py cuda/compiled/linear.cu --nvdisasm PATH

nvdisasm is part of CUDA's toolkit, though not of every installation; the wheel
of `triton` on PyPI has one (triton/backends/nvidia/bin). Nothing is run.
"""

import argparse
import collections
import pathlib
import re
import subprocess
import tempfile

COMPILE = ["nvcc", "-std=c++20", "-fmad=false", "--expt-relaxed-constexpr",
           "-I.", "-Xptxas", "-v", "-cubin"]


def compiled(source, arch, cubin):
    """Registers and bytes spilled of each kernel."""
    said = subprocess.run([*COMPILE, f"-arch={arch}", source, "-o", cubin],
                          check=True, capture_output=True, text=True).stderr
    out, name, spilled = {}, None, 0
    for line in said.splitlines():
        if found := re.search(r"Compiling entry function '(\S+)'", line):
            name = found[1]
        if found := re.search(r"(\d+) bytes spill stores", line):
            spilled = int(found[1])
        if found := re.search(r"Used (\d+) registers", line):
            out[name] = (int(found[1]), spilled)
    return out


def kernels_of(listing):
    """Instructions, and labels by the place of the next one, of each kernel."""
    out, current = {}, None
    for line in listing.splitlines():
        if found := re.match(r"\.text\.(\S+):", line):
            current = out.setdefault(found[1], ([], {}))
        elif current is None:
            continue
        elif found := re.match(r"\.(L_x_\d+):", line):
            current[1][found[1]] = len(current[0])
        elif found := re.search(r"/\*[0-9a-f]{4,}\*/\s+(.*?);", line):
            current[0].append(found[1])
    return out


def loops_of(instructions, labels):
    for place, text in enumerate(instructions):
        found = re.search(r"BRA.*\(\.(L_x_\d+)\)", text)
        if not found or labels.get(found[1], place + 1) > place:
            continue
        body = instructions[labels[found[1]]:place + 1]
        count = collections.Counter(
            kind for one in body for kind in ("HMMA", "LDG.E.128")
            if kind in one)
        if count["HMMA"]:
            yield len(body), count["HMMA"], count["LDG.E.128"]


def plain(name):
    text = subprocess.run(["c++filt", name], check=True, capture_output=True,
                          text=True).stdout
    found = re.search(r"run_(?:bounded_)?kernel<(.*?)>\(", text)
    return (found[1] if found else text).replace("troupe::cuda::", "").strip()


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("source", type=pathlib.Path)
    parser.add_argument("--nvdisasm", default="nvdisasm")
    parser.add_argument("--arch", default="sm_90a")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        cubin = pathlib.Path(folder) / "kernels.cubin"
        about = compiled(args.source, args.arch, cubin)
        listing = subprocess.run([args.nvdisasm, "-c", cubin], check=True,
                                 capture_output=True, text=True).stdout
    print("| kernel | registers | spilled | instructions | loops: "
          "instructions, tensor cores, reads |")
    print("| --- | --- | --- | --- | --- |")
    for name, (instructions, labels) in kernels_of(listing).items():
        registers, spilled = about[name]
        loops = "; ".join(", ".join(map(str, one))
                          for one in loops_of(instructions, labels))
        print(f"| {plain(name)} | {registers} | {spilled} | "
              f"{len(instructions)} | {loops} |")


if __name__ == "__main__":
    main()
