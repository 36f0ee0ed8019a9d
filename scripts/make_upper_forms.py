"""Writes engine/text/jinja/upper_forms.hpp: the capital forms, as this Python
(3.11, Unicode 14) has them, that are not the way back of the small forms in
engine/text/unicode_forms.hpp.
"""

import pathlib

PATH = (pathlib.Path(__file__).resolve().parent.parent / "engine" / "text" /
        "jinja" / "upper_forms.hpp")
CHARACTERS = [chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000]

TEXT = '''#pragma once

#include <array>
#include <string_view>

namespace troupe::text::jinja {

/// A character and its capital form, of up to three characters.
struct upper_form {
  char32_t from;
  std::u32string_view to;
};

/// What lowercase_ranges read backwards does not give. Written by
/// scripts/make_upper_forms.py.
inline constexpr auto upper_forms = std::to_array<upper_form>({
%s
});

} // namespace troupe::text::jinja
'''


def main():
    capital = {}
    for c in CHARACTERS:
        small = c.lower()
        if small != c and len(small) == 1:
            capital.setdefault(small, c)
    rows = []
    for c in CHARACTERS:
        if c.upper() != capital.get(c, c):
            to = "".join("\\x%X" % ord(part) for part in c.upper())
            rows.append('    {0x%X, U"%s"},' % (ord(c), to))
    PATH.write_text(TEXT % "\n".join(rows))


main()
