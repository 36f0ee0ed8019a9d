#pragma once

#include <algorithm>
#include <array>
#include <string_view>

namespace troupe::config {

/// True for what a chat template gets from elsewhere than its arguments: the
/// messages and tools, the tokens' spellings, the names that say how a prompt
/// is made, and the functions. Neither a request's chat_template_kwargs nor an
/// operator's may hold it.
inline bool is_reserved_template_name(std::string_view name) {
  constexpr auto reserved =
      std::to_array<std::string_view>({"messages",
                                       "tools",
                                       "add_generation_prompt",
                                       "continue_final_message",
                                       "bos_token",
                                       "eos_token",
                                       "unk_token",
                                       "chat_template",
                                       "tokenize",
                                       "conversation",
                                       "return_tensors",
                                       "return_dict",
                                       "raise_exception",
                                       "strftime_now",
                                       "range",
                                       "namespace",
                                       "dict",
                                       "loop",
                                       "self",
                                       "caller",
                                       "now_seconds"});
  return std::find(reserved.begin(), reserved.end(), name) != reserved.end();
}

} // namespace troupe::config
