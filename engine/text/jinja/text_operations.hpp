#pragma once

#include "engine/text/jinja/builtins.hpp"

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

// What Python's str can do. Widths and places count characters; every byte
// keeps the mark of the byte that it comes from.

namespace troupe::text::jinja {

std::size_t count_characters(std::string_view text);

// -- case ---------------------------------------------------------------------

marked_string lower(const marked_string&);
marked_string upper(const marked_string&);
marked_string capitalize(const marked_string&);
marked_string swap_case(const marked_string&);

/// str.title(): a word begins behind what is no letter.
marked_string title(const marked_string&);

/// The filter: a word begins behind white space, "-" and open brackets.
marked_string title_of_words(const marked_string&);

bool is_lower(const marked_string&);
bool is_upper(const marked_string&);
bool is_title(const marked_string&);

// -- ends ---------------------------------------------------------------------

/// Without white space at the ends, or without the characters of `set`.
marked_string strip(const marked_string& text, const std::string* set,
                    bool left, bool right);

/// Of an odd room, `center` leaves more on the right where the width is even,
/// as str.center does; `middle` always, as "^" in a format does.
enum class side { left, center, middle, right };

/// Filled up to `width` characters; `where` is where the text stands.
marked_string pad(meter&, const marked_string& text, std::int64_t width,
                  const marked_string& fill, side where);

/// Zeros behind the sign.
marked_string zero_fill(meter&, const marked_string& text, std::int64_t width);

// -- parts --------------------------------------------------------------------

/// The first `count` characters.
marked_string first_characters(const marked_string& text, std::size_t count);

marked_string replace(meter&, const marked_string& text,
                      const marked_string& from, const marked_string& to,
                      std::int64_t count);

/// str.split and str.rsplit; no separator: white space. Negative `most`: all.
list split(meter&, const marked_string& text, const marked_string* separator,
           std::int64_t most, bool from_right);

list split_lines(meter&, const marked_string& text, bool keep_ends);

/// str.partition and str.rpartition: a tuple of three.
list partition(const marked_string& text, const marked_string& separator,
               bool from_right);

/// Place of the first or last such part, in characters; -1: there is none.
std::int64_t find_text(const marked_string& text, const marked_string& part,
                       bool last);
std::int64_t count_text(const marked_string& text, const marked_string& part);

/// Items between `by`, each as it prints; of `escaping`, each escaped.
marked_string joined(meter&, const list& items, const marked_string& by,
                     bool escaping);

/// As HTML: & < > ' " become references. Markup stays as it is.
marked_string escaped(meter&, const marked_string& text);

/// As `printed`, within the meter's bound.
marked_string printed(meter&, const runtime_value&);

/// As `iterate`; the characters of a text cost.
std::shared_ptr<const list> iterate(meter&, const runtime_value&);

// -- kinds of characters; false for an empty text -----------------------------

enum class character_kind { letter, digit, decimal, numeric, word, space };

bool all_of_kind(const marked_string& text, character_kind kind);

/// The words of a text, as \w+ finds them.
std::int64_t count_words(const marked_string& text);

} // namespace troupe::text::jinja
