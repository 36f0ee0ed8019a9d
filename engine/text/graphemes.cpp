#define PCRE2_CODE_UNIT_WIDTH 8

#include "engine/text/graphemes.hpp"

#include <cstdlib>
#include <pcre2.h>

namespace troupe::text {

namespace {

struct deleter {
  void operator()(pcre2_code* p) const {
    pcre2_code_free(p);
  }
  void operator()(pcre2_match_data* p) const {
    pcre2_match_data_free(p);
  }
};

std::unique_ptr<pcre2_code, deleter> compile() {
  int code = 0;
  std::size_t at = 0;
  std::unique_ptr<pcre2_code, deleter> out{
      pcre2_compile(reinterpret_cast<PCRE2_SPTR>("\\X"), 2,
                    PCRE2_UTF | PCRE2_ANCHORED, &code, &at, nullptr)};
  if (!out)
    std::abort(); // out of memory
  return out;
}

} // namespace

struct grapheme_cutter::state {
  std::unique_ptr<pcre2_match_data, deleter> data{
      pcre2_match_data_create(1, nullptr)};
};

grapheme_cutter::grapheme_cutter() : state_(std::make_unique<state>()) {
  if (!state_->data)
    std::abort(); // out of memory
}

grapheme_cutter::~grapheme_cutter() = default;

std::size_t grapheme_cutter::first_size(std::string_view text) {
  static const auto pattern = compile();
  auto* data = state_->data.get();
  auto code =
      pcre2_match(pattern.get(), reinterpret_cast<PCRE2_SPTR>(text.data()),
                  text.size(), 0, PCRE2_NO_UTF_CHECK, data, nullptr);
  return code > 0 ? pcre2_get_ovector_pointer(data)[1] : 1;
}

} // namespace troupe::text
