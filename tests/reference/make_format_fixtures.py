"""Makes fixtures/formats.gguf: random blocks of every quantised format that the
engine reads, and what PyPI's `gguf` says they mean.

  build/venv/bin/python tests/reference/make_format_fixtures.py

A tensor NAME holds raw blocks, NAME.values the same as F32. The file is made
with gguf 0.19.0 and numpy 2.4.6; the test compares bits, so nothing may differ.
"""

import pathlib

import gguf
import numpy as np

ROWS, COLUMNS = 5, 512
# Where a block has its f16 scale and minimum.
HALVES = {
    "Q8_0": [0],
    "Q4_0": [0],
    "Q4_1": [0, 2],
    "Q5_0": [0],
    "Q5_1": [0, 2],
    "IQ4_NL": [0],
    "Q4_K": [0, 2],
    "Q5_K": [0, 2],
    "Q6_K": [208],
    "Q3_K": [108],
    "Q2_K": [80, 82],
}
# Beside random ones: zeros, the smallest and the largest denormal, the smallest
# normal, one, and large ones, all with both signs.
ODD = [0.0, 2.0**-24, 1023 * 2.0**-24, 2.0**-14, 1.0, 2048.0, 65504.0]


def random_blocks(random, count, size, halves):
    blocks = random.integers(0, 256, (count, size), dtype=np.uint8)
    for at in halves:
        values = random.normal(0, 0.02, count)
        odd = random.random(count) < 0.3
        values[odd] = random.choice(ODD + [-x for x in ODD], odd.sum())
        raw = values.astype(np.float16).view(np.uint8).reshape(count, 2)
        blocks[:, at : at + 2] = raw
    return blocks


def main():
    random = np.random.default_rng(20261128)
    path = pathlib.Path(__file__).parent / "fixtures" / "formats.gguf"
    writer = gguf.GGUFWriter(path, "none")
    for name, halves in HALVES.items():
        kind = gguf.GGMLQuantizationType[name]
        elements, size = gguf.GGML_QUANT_SIZES[kind]
        count = ROWS * COLUMNS // elements
        raw = random_blocks(random, count, size, halves).reshape(ROWS, -1)
        writer.add_tensor(name.lower(), raw, raw_dtype=kind)
        values = gguf.quants.dequantize(raw, kind).astype(np.float32)
        assert np.isfinite(values).all()
        writer.add_tensor(name.lower() + ".values", values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main()
