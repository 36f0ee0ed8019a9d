#pragma once

#include <string>
#include <string_view>

namespace troupe::text {

// Valid UTF-8 in Unicode's normalisation forms, by the version of Unicode that
// `tokenizers` follows (newer marks stay where they are).

std::string to_nfc(std::string_view text);
std::string to_nfd(std::string_view text);
std::string to_nfkc(std::string_view text);
std::string to_nfkd(std::string_view text);

} // namespace troupe::text
