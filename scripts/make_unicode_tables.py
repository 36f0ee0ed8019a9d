"""Writes engine/text/unicode_additions.hpp, nfc_tables.hpp and unicode_forms.hpp.

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

FORMS = '''#pragma once

#include "engine/text/unicode_additions.hpp"

#include <array>
#include <cstdint>
#include <string_view>

namespace troupe::text {

// What `tokenizers` makes of single characters. Written by
// scripts/make_unicode_tables.py.

/// Characters first, first + step, .. last, whose small letter is `shift` away.
/// Only U+0130 has a small form of two characters, and is not here.
struct lowercase_range {
  char32_t first;
  char32_t last;
  std::uint8_t step;
  std::int32_t shift;
};

inline constexpr auto lowercase_ranges = std::to_array<lowercase_range>({
%s
});

/// A character whose compatibility decomposition is not its canonical one: all
/// of it, in UTF-8. By `character`.
struct compatibility_form {
  char32_t character;
  std::string_view form;
};

inline constexpr auto compatibility_forms = std::to_array<compatibility_form>({
%s
});

/// What StripAccents takes away: marks of any kind.
inline constexpr auto combining_marks = std::to_array<unicode_range>({
%s
});

/// What BertNormalizer takes away as accents.
inline constexpr auto nonspacing_marks = std::to_array<unicode_range>({
%s
});

/// What BertNormalizer takes away as control characters.
inline constexpr auto bert_controls = std::to_array<unicode_range>({
%s
});

/// What BertNormalizer puts between spaces.
inline constexpr auto bert_ideographs = std::to_array<unicode_range>({
%s
});

/// What the pre-tokenizers Punctuation and BertPreTokenizer mean.
inline constexpr auto punctuation = std::to_array<unicode_range>({
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


def small_letters():
    """[(first, last, step, shift)] of the characters with a small form."""
    lower, out = normalizers.Lowercase().normalize_str, []
    for c in CHARACTERS:
        small = lower(chr(c))
        if small == chr(c) or c == 0x130:
            continue
        shift, last = ord(small) - c, out[-1] if out else None
        if last and last[3] == shift and (
                c - last[1] == last[2] or last[0] == last[1] and
                c - last[1] <= 2):
            out[-1] = (last[0], c, c - last[1], shift)
        else:
            out.append((c, c, 1, shift))
    return out


def forms():
    nfd = normalizers.NFD().normalize_str
    nfkd = normalizers.NFKD().normalize_str
    compatible = [(c, "".join(f"\\x{b:02X}" for b in nfkd(chr(c)).encode()))
                  for c in CHARACTERS if nfkd(chr(c)) != nfd(chr(c))]

    def bert(**on):
        off = dict(clean_text=False, handle_chinese_chars=False,
                   strip_accents=False, lowercase=False)
        return normalizers.BertNormalizer(**(off | on)).normalize_str

    def removed(normalize):
        return [c for c in CHARACTERS if normalize(chr(c)) == ""]

    pad = bert(handle_chinese_chars=True)
    cut = pre_tokenizers.Punctuation("removed")
    kept = set("".join(p for p, _ in cut.pre_tokenize_str(
        "".join(map(chr, CHARACTERS)))))
    sets = [removed(normalizers.StripAccents().normalize_str),
            removed(bert(strip_accents=True)), removed(bert(clean_text=True)),
            [c for c in CHARACTERS if pad(chr(c)) != chr(c)],
            [c for c in CHARACTERS if chr(c) not in kept]]
    form = '0x{:X}, 0x{:X}, "{}"'
    return FORMS % (rows(small_letters(), "0x{:X}, 0x{:X}, {}, {}"),
                    rows(compatible, '0x{:X}, "{}"'),
                    *(rows(ranges(dict.fromkeys(s, "")), form) for s in sets))


def main():
    assert unicodedata.unidata_version == "14.0.0", "needs Python 3.11"
    for name, text in (("unicode_additions.hpp", additions()),
                       ("nfc_tables.hpp", nfc()),
                       ("unicode_forms.hpp", forms())):
        (FOLDER / name).write_text(text)
        subprocess.run(["clang-format", "-i", FOLDER / name], check=True)


if __name__ == "__main__":
    main()
