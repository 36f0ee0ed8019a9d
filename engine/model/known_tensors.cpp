#include "engine/model/known_tensors.hpp"

#include <cmath>
#include <cstring>
#include <fmt/format.h>
#include <fmt/ranges.h>

namespace troupe::model {

error known_tensors::wrong(errc code, std::string_view what) const {
  return {code, fmt::format("{}: {}", file_.name(), what)};
}

result<const weights::tensor*>
known_tensors::shaped(std::string_view name, std::vector<std::int64_t> shape) {
  auto* found = file_.find_tensor(name);
  if (!found)
    return wrong(errc::corrupt, fmt::format("tensor '{}' is missing", name));
  known_.insert(found);
  // The writers leave out trailing ones or not.
  auto actual = found->shape;
  while (actual.size() > shape.size() && actual.back() == 1)
    actual.pop_back();
  if (actual == shape)
    return found;
  return wrong(errc::corrupt,
               fmt::format("tensor '{}' has the shape [{}], not [{}]", name,
                           fmt::join(found->shape, ", "),
                           fmt::join(shape, ", ")));
}

result<const weights::tensor*> known_tensors::vector(std::string_view name,
                                                     std::int64_t size) {
  auto found = shaped(name, {size});
  if (found && (*found)->type != ops::element_type::f32)
    return wrong(errc::unsupported,
                 fmt::format("tensor '{}' is not of type F32", name));
  return found;
}

result<std::vector<float>> known_tensors::positive_values(std::string_view name,
                                                          std::int64_t size) {
  auto found = vector(name, size);
  if (!found)
    return found.error();
  std::vector<float> out(static_cast<std::size_t>(size));
  std::memcpy(out.data(), (*found)->bytes.data(), (*found)->bytes.size());
  for (auto value : out)
    if (!std::isfinite(value) || value <= 0)
      return wrong(errc::corrupt,
                   fmt::format("tensor '{}' holds {}, not a finite number "
                               "above 0",
                               name, value));
  return out;
}

result<void> known_tensors::no_others(std::string_view family) const {
  for (const auto& one : file_.tensors())
    if (!known_.contains(&one))
      return wrong(errc::unsupported,
                   fmt::format("tensor '{}' has no meaning in the family "
                               "'{}': not supported yet",
                               one.name, family));
  return {};
}

} // namespace troupe::model
