#include "engine/weights/made_tensor.hpp"

#include "engine/weights/quantise.hpp"

#include <algorithm>
#include <fmt/format.h>
#include <iterator>
#include <optional>

namespace troupe::weights {

namespace {

std::optional<ops::element_type> float_type_of(stored_type type) {
  switch (type) {
  case stored_type::f32:
    return ops::element_type::f32;
  case stored_type::f16:
    return ops::element_type::f16;
  case stored_type::bf16:
    return ops::element_type::bf16;
  default:
    return std::nullopt;
  }
}

error not_float(const stored_tensor& stored) {
  return {errc::unsupported,
          fmt::format("tensor '{}': dtype {} is not supported here",
                      stored.name, name_of(stored.type))};
}

} // namespace

result<std::vector<float>> floats_of(const stored_tensor& stored) {
  auto type = float_type_of(stored.type);
  if (!type)
    return not_float(stored);
  return widen(*type, stored.bytes);
}

result<made_tensor> stored_matrix(const stored_tensor& stored) {
  auto type = float_type_of(stored.type);
  if (!type)
    return not_float(stored);
  if (stored.elements() == 0 || stored.shape.empty())
    return error{errc::corrupt,
                 fmt::format("tensor '{}' has no elements", stored.name)};
  made_tensor made;
  made.out.type = *type;
  made.out.shape.assign(stored.shape.rbegin(), stored.shape.rend());
  made.out.bytes = stored.bytes;
  return made;
}

result<made_tensor> stack(std::vector<made_tensor> parts) {
  made_tensor made;
  const auto& first = parts.front();
  made.out.type = first.out.type;
  made.out.shape = first.out.shape;
  made.out.row_scales = first.out.row_scales;
  for (const auto& part : parts)
    if (part.out.type != made.out.type || part.out.shape != made.out.shape ||
        part.out.row_scales != made.out.row_scales)
      return error{errc::corrupt, "the parts of a stack differ in type or "
                                  "shape"};
  made.out.shape.push_back(static_cast<std::int64_t>(parts.size()));
  if (first.scales)
    made.scales = [parts]() -> result<std::vector<float>> {
      std::vector<float> out;
      for (const auto& part : parts) {
        auto own = part.scales();
        if (!own)
          return own.error();
        std::ranges::copy(*own, std::back_inserter(out));
      }
      return out;
    };
  made.write = [parts = std::move(parts)](std::span<std::byte> out) {
    for (const auto& part : parts) {
      auto here = out.first(part.out.byte_size());
      out = out.subspan(here.size());
      if (!part.write)
        std::ranges::copy(part.out.bytes, here.begin());
      else if (auto done = part.write(here); !done)
        return done;
    }
    return result<void>{};
  };
  return made;
}

} // namespace troupe::weights
