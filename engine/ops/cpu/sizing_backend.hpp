#pragma once

#include "engine/ops/backend.hpp"

#include <memory>

namespace troupe::ops::cpu {

/// A backend that knows how large everything is that the CPU backend keeps, and
/// keeps nothing: for plans. No operation of a step may be called.
std::unique_ptr<backend> make_sizing_backend();

} // namespace troupe::ops::cpu
