#pragma once

#include "engine/codec/error.hpp"
#include "engine/model/architecture.hpp"
#include "engine/model/known_tensors.hpp"
#include "engine/model/metadata.hpp"
#include "engine/ops/backend.hpp"

#include <cstdint>
#include <string>
#include <string_view>

namespace troupe::model {

/// How a model's rows turn with their position, read from its file: plain rope;
/// linear scaling; the factors of a tensor (Llama 3's scaling); YaRN (Peng et
/// al., 2023), whose factors follow from a few numbers; LongRoPE (Ding et al.,
/// 2024) with one list of factors for contexts up to the length of the first
/// training and another for longer ones. All become factors and a scale, by
/// additions and multiplications alone, so that they are the same everywhere.
class rope_reader {
public:
  /// `head_dim`, `context_length`: of the model. `longest`: positions that are
  /// going to be used at most; it chooses among LongRoPE's lists.
  struct sizes {
    std::int32_t head_dim = 0;
    std::int32_t context_length = 0;
    std::int32_t longest = 0;
  };

  rope_reader(const metadata& keys, known_tensors& tensors,
              const weights::checkpoint& file, const architecture& family,
              const sizes& model)
      : metadata_(keys), tensors_(tensors), file_(file), family_(family),
        model_(model) {
    // nop
  }

  /// The rope of most layers.
  result<ops::rope_params> run();

  /// That of layers with a window: the same as `rope`, or one of their own.
  result<ops::rope_params> of_windows(const ops::rope_params& rope) const;

  /// True if `run` took the list for short contexts though the model has one
  /// for longer ones: its arithmetic is another.
  bool took_short_factors() const {
    return took_short_factors_;
  }

private:
  std::string key(std::string_view name) const;
  result<void> base();
  result<void> dimensions();
  result<void> scaling();
  result<void> linear();
  result<void> table();
  result<void> yarn();
  result<void> longrope();
  result<void> finite(std::string_view key) const;

  const metadata& metadata_;
  known_tensors& tensors_;
  const weights::checkpoint& file_;
  const architecture& family_;
  const sizes model_;
  ops::rope_params rope_;
  bool took_short_factors_ = false;
};

/// What YaRN needs. Pairs that turn more than `fast` times within `context`
/// positions stay as they are, those that turn less than `slow` times are
/// stretched by `factor`, and between them it goes over in a line.
struct yarn_scaling {
  double factor = 0;
  double context = 0; ///< positions of the first training
  double fast = 32;
  double slow = 1;
};

/// The factor of every pair of a rope.
std::vector<float> yarn_factors(const yarn_scaling&, double theta,
                                std::int32_t dims);

} // namespace troupe::model
