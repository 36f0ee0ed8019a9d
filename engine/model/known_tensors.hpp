#pragma once

#include "engine/codec/error.hpp"
#include "engine/weights/checkpoint.hpp"

#include <cstdint>
#include <set>
#include <string_view>
#include <vector>

namespace troupe::model {

/// The tensors of a checkpoint that somebody has a use for: each is checked as
/// it is asked for, and what nobody asked for is found at the end. Errors name
/// the file and the tensor.
class known_tensors {
public:
  /// `file` must outlive this object.
  explicit known_tensors(const weights::checkpoint& file) : file_(file) {
    // nop
  }

  /// A tensor that has to be there with exactly this shape.
  result<const weights::tensor*> shaped(std::string_view name,
                                        std::vector<std::int64_t> shape);

  /// The same of a vector of type F32.
  result<const weights::tensor*> vector(std::string_view name,
                                        std::int64_t size);

  /// Its values, which are finite and above 0.
  result<std::vector<float>> positive_values(std::string_view name,
                                             std::int64_t size);

  /// Fails on a tensor that was never asked for.
  result<void> no_others(std::string_view family) const;

private:
  error wrong(errc code, std::string_view what) const;

  const weights::checkpoint& file_;
  std::set<const weights::tensor*> known_;
};

} // namespace troupe::model
