#pragma once

#include "engine/ops/backend.hpp"

#include <cstdint>
#include <memory>

namespace troupe::ops::cpu {

/// Who would keep it: sizes differ.
enum class kept_by : std::uint8_t { cpu, gpu };

/// A backend that knows how large everything is that a backend of this kind
/// keeps, and keeps nothing: for plans. No operation of a step may be called.
/// `kv` is a GPU's.
std::unique_ptr<backend> make_sizing_backend(kept_by = kept_by::cpu,
                                             kv_type kv = kv_type::f16);

} // namespace troupe::ops::cpu
