"""Makes fixtures/quantised.bin: floats and what PyPI's gguf makes of them.

    python make_quantised_fixture.py

Little-endian: u32 number of floats, the floats, then their Q8_0 and their Q4_0
blocks, then their BF16 and their F16 values.
"""

import struct
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType as Type
from gguf.quants import quantize

HERE = Path(__file__).resolve().parent


def blocks(random):
    """Blocks of 32 of many sizes, zeros, ties, and values next to steps."""
    scales = 10.0 ** random.uniform(-6, 3, (128, 1))
    yield random.standard_normal((128, 32)) * scales
    yield np.zeros((2, 32))
    yield np.eye(32)[:8] * -3.5
    steps = np.tile(np.arange(-16, 16) / 2, (4, 1))
    yield steps * np.array([[1], [-1], [0.25], [16]])
    steps = np.linspace(-127, 127, 32)[None, :] / 2
    yield np.concatenate([np.round(steps) + 0.5, steps, -steps])
    yield random.choice([-1.0, 1.0], (4, 32)) * 0.3
    yield random.standard_normal((4, 32)) * 1e-9


if __name__ == "__main__":
    values = np.concatenate(list(blocks(np.random.default_rng(11))))
    values = values.astype(np.float32)
    with open(HERE / "fixtures" / "quantised.bin", "wb") as out:
        out.write(struct.pack("<I", values.size))
        out.write(values.tobytes())
        for kind in (Type.Q8_0, Type.Q4_0, Type.BF16):
            out.write(quantize(values, kind).tobytes())
        out.write(values.astype(np.float16).tobytes())
