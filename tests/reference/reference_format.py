"""Writes .ref files (README.md, "Format of a .ref file")."""

import struct

import numpy as np


def write_reference(path, vocabulary, top_k, sequences):
    """sequences: (prompt length, token ids, [positions][vocabulary] logits)."""
    with open(path, "wb") as out:
        out.write(b"TRPREF01")
        out.write(struct.pack("<III", len(sequences), top_k, vocabulary))
        for prompt_length, ids, logits in sequences:
            top = np.argsort(-logits, axis=1, kind="stable")[:, :top_k]
            values = np.take_along_axis(logits, top, axis=1)
            out.write(struct.pack("<II", prompt_length, len(ids)))
            out.write(np.asarray(ids, dtype="<i4").tobytes())
            out.write(top.astype("<i4").tobytes())
            out.write(values.astype("<f4").tobytes())
