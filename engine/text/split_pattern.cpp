#define PCRE2_CODE_UNIT_WIDTH 8

#include "engine/text/split_pattern.hpp"

#include <cstdlib>
#include <fmt/format.h>
#include <pcre2.h>

namespace troupe::text {

namespace {

constexpr std::uint32_t steps_max = 10'000'000;
constexpr std::uint32_t heap_kib_max = 64u << 10;
constexpr std::size_t jit_stack_bytes = 512u << 10;

struct compile_context_deleter {
  void operator()(pcre2_compile_context* p) const {
    pcre2_compile_context_free(p);
  }
};

std::string message_of(int code) {
  unsigned char buffer[160] = {};
  pcre2_get_error_message(code, buffer, sizeof buffer);
  return reinterpret_cast<const char*>(buffer);
}

} // namespace

void match_scratch::deleter::operator()(pcre2_match_context* p) const {
  pcre2_match_context_free(p);
}

void match_scratch::deleter::operator()(pcre2_match_data* p) const {
  pcre2_match_data_free(p);
}

void match_scratch::deleter::operator()(pcre2_jit_stack* p) const {
  pcre2_jit_stack_free(p);
}

void split_pattern::deleter::operator()(pcre2_code* p) const {
  pcre2_code_free(p);
}

match_scratch::match_scratch()
    : stack_(pcre2_jit_stack_create(32u << 10, jit_stack_bytes, nullptr)),
      context_(pcre2_match_context_create(nullptr)),
      data_(pcre2_match_data_create(1, nullptr)) {
  if (!context_ || !data_)
    std::abort(); // out of memory
  pcre2_set_match_limit(context_.get(), steps_max);
  pcre2_set_depth_limit(context_.get(), steps_max);
  pcre2_set_heap_limit(context_.get(), heap_kib_max);
  if (stack_)
    pcre2_jit_stack_assign(context_.get(), nullptr, stack_.get());
}

result<split_pattern> split_pattern::compile(std::string_view pattern) {
  auto source = to_pcre2(pattern);
  if (!source)
    return source.error();
  std::unique_ptr<pcre2_compile_context, compile_context_deleter> context{
      pcre2_compile_context_create(nullptr)};
  if (!context)
    std::abort(); // out of memory
  pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
  int code = 0;
  std::size_t offset = 0;
  auto compile_with = [&](std::uint32_t options) {
    options |= PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C;
    return pcre2_compile(reinterpret_cast<PCRE2_SPTR>(source->data()),
                         source->size(), options, &code, &offset,
                         context.get());
  };
  split_pattern out;
  out.code_.reset(compile_with(0));
  if (!out.code_)
    return error{errc::unsupported,
                 fmt::format("pattern: {}", message_of(code))};
  std::uint32_t may_be_empty = 0;
  pcre2_pattern_info(out.code_.get(), PCRE2_INFO_MATCHEMPTY, &may_be_empty);
  if (may_be_empty != 0)
    return error{errc::unsupported, "pattern: may match an empty text"};
  // Without a just-in-time compiler the pattern is interpreted.
  out.is_compiled_ =
      pcre2_jit_compile(out.code_.get(), PCRE2_JIT_COMPLETE) == 0;
  // Tried without shortcuts, which do not help on every text.
  split_pattern slow;
  slow.code_.reset(compile_with(PCRE2_NO_START_OPTIMIZE));
  if (!slow.code_ || !slow.passes_limits_on_runs())
    return error{errc::limit, "pattern: takes too many steps on simple texts"};
  return out;
}

split_pattern::outcome split_pattern::search(std::string_view text,
                                             std::size_t from,
                                             match_scratch& scratch) const {
  auto run = [&](std::uint32_t options) {
    return pcre2_match(code_.get(), reinterpret_cast<PCRE2_SPTR>(text.data()),
                       text.size(), from, PCRE2_NO_UTF_CHECK | options,
                       scratch.data_.get(), scratch.context_.get());
  };
  auto code = is_compiled_
                  ? pcre2_jit_match(code_.get(),
                                    reinterpret_cast<PCRE2_SPTR>(text.data()),
                                    text.size(), from, 0, scratch.data_.get(),
                                    scratch.context_.get())
                  : run(0);
  if (code == PCRE2_ERROR_JIT_STACKLIMIT)
    code = run(PCRE2_NO_JIT);
  if (code >= 0)
    return outcome::match;
  return code == PCRE2_ERROR_NOMATCH ? outcome::no_match : outcome::limit;
}

std::optional<split_pattern::range>
split_pattern::find(std::string_view text, std::size_t from,
                    match_scratch& scratch) const {
  if (search(text, from, scratch) != outcome::match)
    return std::nullopt;
  const auto* ends = pcre2_get_ovector_pointer(scratch.data_.get());
  return range{ends[0], ends[1]};
}

bool split_pattern::passes_limits_on_runs() const {
  match_scratch scratch;
  for (std::string_view unit : {"a", " ", "\n", "0", ".", "aB", "a "}) {
    std::string text;
    while (text.size() < 512)
      text += unit;
    for (const char* end : {"", "!", "x", "\n"})
      if (search(text + end, 0, scratch) == outcome::limit)
        return false;
  }
  return true;
}

} // namespace troupe::text
