"""Writes engine/text/unicode_additions.hpp and nfc_tables.hpp.

Asks Hugging Face's tokenizers (tests/requirements.txt), whose results we have to
give, and compares with this Python's unicodedata, which has to be Unicode 14
(Python 3.11): the oldest version that a PCRE2 we accept may know.
"""

import pathlib
import subprocess
import unicodedata

from tokenizers import Regex, normalizers, pre_tokenizers

FOLDER = pathlib.Path(__file__).resolve().parent.parent / "engine" / "text"
CATEGORIES = ("Lu Ll Lt Lm Lo Mn Mc Me Nd Nl No Pc Pd Ps Pe Pi Pf Po Sm Sc Sk "
              "So").split()
CHARACTERS = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]

ADDITIONS = '''#pragma once

#include <array>
#include <string_view>

namespace troupe::text {

/// Characters first..last, of a general category.
struct unicode_range {
  char32_t first;
  char32_t last;
  std::string_view category; ///< two letters: "Lo"
};

/// What Unicode 16, which tokenizer.json's patterns are read by, added to
/// Unicode 14, the oldest that a PCRE2 we accept knows. Written by
/// scripts/make_unicode_tables.py.
inline constexpr auto unicode_additions = std::to_array<unicode_range>({
%s
});

/// White space in patterns (Unicode's White_Space), of any category.
inline constexpr auto white_space = std::to_array<unicode_range>({
%s
});

} // namespace troupe::text
'''

NFC = '''#pragma once

#include <array>
#include <cstdint>

namespace troupe::text {

// Normalisation data of the Unicode version that `tokenizers` normalises by (9),
// without Hangul, which is computed. Written by scripts/make_unicode_tables.py.

/// Characters first..last, of a canonical combining class that is not 0.
struct combining_range {
  char32_t first;
  char32_t last;
  std::uint8_t combining_class;
};

inline constexpr auto combining_classes = std::to_array<combining_range>({
%s
});

/// One step of a canonical decomposition; `second` may be 0. By `composed`.
struct decomposition {
  char32_t composed;
  char32_t first;
  char32_t second;
};

inline constexpr auto decompositions = std::to_array<decomposition>({
%s
});

/// Those that NFC composes again. By `first`, then `second`.
inline constexpr auto compositions = std::to_array<decomposition>({
%s
});

} // namespace troupe::text
'''


def matched(pattern):
    """All characters that a pattern of tokenizers matches."""
    remove = pre_tokenizers.Split(Regex(f"(?:{pattern})+"), "removed")
    text = "".join(map(chr, CHARACTERS))
    kept = set("".join(p for p, _ in remove.pre_tokenize_str(text)))
    return [c for c in CHARACTERS if chr(c) not in kept]


def ranges(values):
    """[(first, last, value)] of {character: value}."""
    out = []
    for c, value in sorted(values.items()):
        if out and out[-1][1] == c - 1 and out[-1][2] == value:
            out[-1] = (out[-1][0], c, value)
        else:
            out.append((c, c, value))
    return out


def rows(entries, form):
    return "\n".join("{" + form.format(*e) + "}," for e in entries)


def additions():
    new = {}
    for category in CATEGORIES:
        for c in matched(r"\p{%s}" % category):
            if unicodedata.category(chr(c)) == "Cn":
                new[c] = category
    spaces = dict.fromkeys(matched(r"\s"), "")
    form = '0x{:X}, 0x{:X}, "{}"'
    return ADDITIONS % (rows(ranges(new), form), rows(ranges(spaces), form))


def knows(normalize, mark):
    """Whether tokenizers orders a mark as unicodedata does."""
    others = "\u0334\u0316\u0301\u0345\u3099\u0323\u05b0\u094d\u0f71\u031b"
    return all(normalize(text) == unicodedata.normalize("NFD", text)
               for other in others
               for text in ("\u2603" + mark + other, "\u2603" + other + mark))


def nfc():
    nfd = normalizers.NFD().normalize_str
    classes, steps = {}, []
    for c in CHARACTERS:
        value = unicodedata.combining(chr(c))
        if value and (nfd(chr(c)) != chr(c) or knows(nfd, chr(c))):
            classes[c] = value
        parts = unicodedata.decomposition(chr(c)).split()
        if parts and parts[0][0] != "<" and nfd(chr(c)) != chr(c):
            pair = [int(p, 16) for p in parts] + [0]
            steps.append((c, pair[0], pair[1]))
    composed = sorted((s for s in steps if s[2] and unicodedata.normalize(
        "NFC", chr(s[1]) + chr(s[2])) == chr(s[0])), key=lambda s: s[1:])
    form = "0x{:X}, 0x{:X}, 0x{:X}"
    return NFC % (rows(ranges(classes), "0x{:X}, 0x{:X}, {}"),
                  rows(steps, form), rows(composed, form))


def main():
    assert unicodedata.unidata_version == "14.0.0", "needs Python 3.11"
    for name, text in (("unicode_additions.hpp", additions()),
                       ("nfc_tables.hpp", nfc())):
        (FOLDER / name).write_text(text)
        subprocess.run(["clang-format", "-i", FOLDER / name], check=True)


if __name__ == "__main__":
    main()
