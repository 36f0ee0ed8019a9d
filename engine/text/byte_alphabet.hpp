#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace troupe::text {

/// Byte-level BPE spells every byte as one visible character: printable Latin-1
/// stands for itself, the other 68 bytes are U+0100 onwards in their order (the
/// space is "Ġ").
std::string spell_bytes(std::string_view bytes);

/// The bytes of such a spelling; nothing if a character is not of the alphabet.
std::optional<std::string> bytes_of_spelling(std::string_view spelling);

} // namespace troupe::text
