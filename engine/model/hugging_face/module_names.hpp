#pragma once

#include "engine/model/hugging_face/family.hpp"

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace troupe::model::hugging_face {

/// What a module of a checkpoint is called in GGUF.
struct module_name {
  std::string to;             ///< empty: nothing reads it
  std::int64_t in_stack = -1; ///< its place in a stack; -1 = it is alone
  change how = change::none;
};

/// Looks `module` ("model.layers.3.self_attn.q_proj") up in the rows of the
/// family, then in the common ones. Nothing if no row fits.
std::optional<module_name> name_module(const family& of,
                                       std::string_view module);

} // namespace troupe::model::hugging_face
