#pragma once

#include <cstddef>
#include <memory>
#include <string_view>

namespace troupe::text {

/// Cuts text into extended grapheme clusters, as PCRE2 knows them.
class grapheme_cutter {
public:
  grapheme_cutter();
  ~grapheme_cutter();

  /// Bytes of the first one of `text`, which is not empty and valid UTF-8.
  std::size_t first_size(std::string_view text);

private:
  struct state;
  std::unique_ptr<state> state_;
};

} // namespace troupe::text
