"""What must be equal of two answers, and what must be true of each."""

import json
import re

# Beside these two the bytes of a body are those of an undisturbed run: when it
# was made, and how much of its prompt a cache held.
VARYING = [(rb'"created":\d+', b'"created":0'),
           (rb'"cached_tokens":\d+', b'"cached_tokens":0')]


def normal(data):
    for pattern, to in VARYING:
        data = re.sub(pattern, to, data)
    return data


def comparable(answer):
    """Of a stream the frames; those of several choices come mixed as they are
    made, so each choice's own are in order, and what belongs to none."""
    headers = {name: value for name, value in answer.headers.items()
               if name not in ("date", "content-length")}
    if not answer.frames:
        return answer.status, headers, answer.whole, normal(answer.body)
    by_choice = {}
    for frame in answer.frames:
        by_choice.setdefault(choice_of(frame), []).append(normal(frame))
    return (answer.status, headers, answer.whole,
            [part for _, part in sorted(by_choice.items())])


def choice_of(frame):
    """Its index; after all others what is of the whole answer."""
    if frame == b"[DONE]":
        return 1 << 20
    data = json.loads(frame)
    choices = data.get("choices")
    return choices[0]["index"] if choices else 1 << 19


def difference(one, other):
    """Where they part, for people; nothing if they are equal."""
    a, b = comparable(one), comparable(other)
    if a == b:
        return None
    for name, x, y in zip(("status", "headers", "whole"), a, b):
        if x != y:
            return f"{name}: {x!r} and {y!r}\n{one.body[-600:]!r}\n" \
                   f"{other.body[-600:]!r}"
    if isinstance(a[3], bytes) or isinstance(b[3], bytes):
        return f"{a[3]!r}\n{b[3]!r}"
    for index, (x, y) in enumerate(zip(a[3], b[3])):
        for place, (p, q) in enumerate(zip(x, y)):
            if p != q:
                return f"part {index}, frame {place}:\n{p!r}\n{q!r}"
        if len(x) != len(y):
            return f"part {index}: {len(x)} and {len(y)} frames; the last: " \
                   f"{x[-1]!r}\n{y[-1]!r}"
    return f"{len(a[3])} and {len(b[3])} parts: {one.frames[-1]!r} " \
           f"{other.frames[-1]!r}"


def token_ids(answer):
    """By choice, of a request with return_token_ids."""
    found = {}
    for body in answer.events() if answer.frames else [answer.json()]:
        for choice in body.get("choices", []):
            found.setdefault(choice["index"], []).extend(
                choice.get("token_ids") or [])
    return found


def check_outcome(answer, choices=1):
    """One end of each choice and of the whole, and usage that is what came. For
    a request with return_token_ids and, if streamed, include_usage."""
    assert answer.status == 200 and answer.whole, (
        answer.status, answer.whole, answer.body[-600:])
    if answer.frames:
        assert answer.frames[-1] == b"[DONE]", answer.frames[-1]
        assert answer.frames.count(b"[DONE]") == 1
    bodies = answer.events() if answer.frames else [answer.json()]
    assert not any("error" in body for body in bodies), answer.body[-600:]
    ends = [choice["index"] for body in bodies for choice in body["choices"]
            if choice["finish_reason"]]
    assert sorted(ends) == list(range(choices)), answer.body[-600:]
    (usage,) = [body["usage"] for body in bodies if body.get("usage")]
    delivered = sum(map(len, token_ids(answer).values()))
    assert usage["completion_tokens"] == delivered, (usage, delivered)
