"""Writes the first layers of a real model in other formats.

PyPI's `gguf` quantises Q8_0, Q4_0, Q5_0 and Q5_1. The other quantisers here are
as simple as can be: each part of a block gets the scale (and minimum) that its
extremes need. Any valid encoding does, since what it means is `gguf`'s to say.
"""

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type

IQ4_NL = np.array(gguf.quants.IQ4_NL.kvalues, dtype=np.float32)


def half(values):
    """Rounded to float16: as float32, and as bytes."""
    rounded = values.astype(np.float16)
    return rounded.astype(np.float32), rounded[:, None].view(np.uint8)


def divide(a, b):
    """a / b, and 0 where b is."""
    return np.divide(a, b, out=np.zeros(np.broadcast(a, b).shape, np.float32),
                     where=b != 0)


def levels(values, least, most):
    return np.rint(values).clip(least, most).astype(np.int32)


def as_bytes(*parts):
    return np.concatenate([p.astype(np.uint8) for p in parts], axis=1)


def with_minimum(x, parts, top, scale_top):
    """x as d * scale * q - dmin * minimum, q from 0 to top."""
    x = x.reshape(len(x), parts, -1)
    low = np.maximum(-x.min(2), 0)
    scale = (x.max(2) + low) / top
    d, d_raw = half(scale.max(1) / scale_top)
    dmin, dmin_raw = half(low.max(1) / scale_top)
    scales = levels(divide(scale, d[:, None]), 0, scale_top)
    minimums = levels(divide(low, dmin[:, None]), 0, scale_top)
    q = divide(x + (dmin[:, None] * minimums)[..., None],
               (d[:, None] * scales)[..., None])
    return d_raw, dmin_raw, scales, minimums, levels(q, 0, top)


def around_zero(x, middle, scale_top):
    """x as d * scale * (q - middle), q from 0 to 2 * middle - 1, in 16 parts."""
    x = x.reshape(len(x), 16, 16)
    scale = abs(x).max(2) / (middle - 1)
    d, d_raw = half(scale.max(1) / scale_top)
    scales = levels(divide(scale, d[:, None]), 0, scale_top)
    q = divide(x, (d[:, None] * scales)[..., None])
    return d_raw, scales, levels(q, -middle, middle - 1) + middle


def interleaved(q, bits):
    """[n, ..., k, 32] small numbers as [n, ... * 32] bytes of k of them."""
    shifts = bits * np.arange(q.shape[-2])[:, None]
    return (q << shifts).sum(-2).reshape(len(q), -1)


def six_bits(scales, minimums):
    return as_bytes(
        scales[:, :4] | scales[:, 4:] >> 4 << 6,
        minimums[:, :4] | minimums[:, 4:] >> 4 << 6,
        scales[:, 4:] & 15 | (minimums[:, 4:] & 15) << 4)


def q4_k(x, top=15):
    d, dmin, scales, minimums, q = with_minimum(x, 8, top, 63)
    fifth = [interleaved(q >> 4, 1)] if top == 31 else []
    low = interleaved((q & 15).reshape(len(q), 4, 2, 32), 4)
    return as_bytes(d, dmin, six_bits(scales, minimums), *fifth, low)


def q5_k(x):
    return q4_k(x, top=31)


def q6_k(x):
    d, scales, q = around_zero(x, 32, 127)
    q = q.reshape(len(q), 2, 2, 2, 32)
    low = interleaved((q & 15).swapaxes(2, 3), 4)
    high = interleaved((q >> 4).reshape(len(q), 2, 4, 32), 2)
    return as_bytes(low, high, scales, d)


def q3_k(x):
    d, scales, q = around_zero(x, 4, 31)
    scales = scales + 32
    low = interleaved((q & 3).reshape(len(q), 2, 4, 32), 2)
    high = interleaved((q >> 2).reshape(len(q), 8, 32), 1)
    packed = as_bytes(scales[:, :8] & 15 | (scales[:, 8:] & 15) << 4,
                      interleaved((scales >> 4).reshape(-1, 4, 4), 2))
    return as_bytes(high, low, packed, d)


def q2_k(x):
    d, dmin, scales, minimums, q = with_minimum(x, 16, 3, 15)
    low = interleaved(q.reshape(len(q), 2, 4, 32), 2)
    return as_bytes(scales | minimums << 4, low, d, dmin)


def iq4_nl(x):
    d, d_raw = half(abs(x).max(1) / 127)
    wanted = divide(x, d[:, None])[..., None]
    q = abs(wanted - IQ4_NL).argmin(2)
    return as_bytes(d_raw, interleaved(q.reshape(len(q), 2, 16), 4))


OWN = {Type.Q4_K: q4_k, Type.Q5_K: q5_k, Type.Q6_K: q6_k, Type.Q3_K: q3_k,
       Type.Q2_K: q2_k, Type.IQ4_NL: iq4_nl}


def quantise(values, kind):
    """Rows of float32 as raw blocks."""
    if kind not in OWN:
        return gguf.quants.quantize(values, kind)
    block = gguf.GGML_QUANT_SIZES[kind][0]
    return OWN[kind](values.reshape(-1, block)).reshape(len(values), -1)


def layer_of(name):
    parts = name.split(".")
    return int(parts[1]) if parts[0] == "blk" else -1


def write(source, path, layers, narrow, wide, dequantised):
    """The first `layers` layers of `source` (a GGUFReader): matrices with rows of
    whole blocks of 256 in format `wide`, other ones in `narrow`, or both as the
    F32 that these mean. All else is copied."""
    writer = gguf.GGUFWriter(path, "llama")
    for field in source.fields.values():
        if field.name.startswith("GGUF.") or field.name == "general.architecture":
            continue
        value = layers if field.name == "llama.block_count" else field.contents()
        writer.add_key_value(field.name, value, field.types[0],
                             field.types[-1] if len(field.types) > 1 else None)
    for tensor in source.tensors:
        if layer_of(tensor.name) >= layers:
            continue
        data, kind = tensor.data, tensor.tensor_type
        if layer_of(tensor.name) >= 0 and len(tensor.shape) == 2:
            kind = wide if tensor.shape[0] % 256 == 0 else narrow
            values = gguf.quants.dequantize(data, tensor.tensor_type)
            data = quantise(values, kind)
            meant = gguf.quants.dequantize(data, kind)
            # A wrong encoding is off by about the values' own size.
            assert abs(meant - values).mean() < 0.4 * abs(values).mean(), kind
            if dequantised:
                data, kind = meant, Type.F32
        writer.add_tensor(tensor.name, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
