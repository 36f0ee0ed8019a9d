"""Compares logits of a real model in every format with those of the same weights
as F32: what remains is the int8 rounding of the inputs of products.

  compare_formats.py --compare build/.../compare_logits --gguf MODEL.gguf

The model is cut to its first layers. Rows of 576 cannot be super-blocks, so each
file has two formats, as such files have outside too.
"""

import argparse
import pathlib
import struct
import subprocess
import tempfile

import gguf
from gguf import GGMLQuantizationType as Type

import requantise

LAYERS = 4
PAIRS = [(Type.Q5_0, Type.Q4_K), (Type.Q5_1, Type.Q5_K),
         (Type.IQ4_NL, Type.Q6_K), (Type.Q8_0, Type.Q3_K),
         (Type.Q4_1, Type.Q2_K)]
# README.md says where these come from.
MEAN_ALLOWED, WORST_ALLOWED = 0.1, 1.5


def reference_ids():
    """The first sequence of the committed reference."""
    raw = (pathlib.Path(__file__).parent
           / "smollm2-135m-instruct.ref").read_bytes()
    length = struct.unpack_from("<I", raw, 24)[0]
    return struct.unpack_from(f"<{length}i", raw, 28)


def compare(tool, source, folder, narrow, wide):
    """Mean and worst distance of the logits."""
    files = [folder / "quantised.gguf", folder / "f32.gguf"]
    for path, dequantised in zip(files, (False, True)):
        requantise.write(source, path, LAYERS, narrow, wide, dequantised)
    ids = [str(i) for i in reference_ids()]
    run = subprocess.run([tool, *files, *ids], check=True, text=True,
                         capture_output=True, timeout=300)
    mean, worst = (float(word) for word in run.stdout.split())
    return mean, worst


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--compare", required=True)
    parser.add_argument("--gguf", required=True)
    options = parser.parse_args()
    source = gguf.GGUFReader(options.gguf)
    wrong = 0
    for narrow, wide in PAIRS:
        with tempfile.TemporaryDirectory() as folder:
            mean, worst = compare(options.compare, source,
                                  pathlib.Path(folder), narrow, wide)
        # Equal files would mean that nothing was compared.
        fine = 0 < mean < MEAN_ALLOWED and worst < WORST_ALLOWED
        print(f"{narrow.name} and {wide.name}: logits off by {mean:.4f} on "
              f"average, {worst:.3f} at worst{'' if fine else ': TOO FAR'}")
        wrong += not fine
    raise SystemExit(1 if wrong else 0)


if __name__ == "__main__":
    main()
