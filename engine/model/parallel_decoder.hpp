#pragma once

#include "engine/model/decoder.hpp"

#include <cstdint>
#include <memory>
#include <span>

namespace troupe::model {

/// The ranks of a model in one process, each with a backend and a thread of its
/// own, as one runner. All are given every plan; what they compute together is
/// the same wherever they run.
class parallel_decoder final : public engine::model_runner {
public:
  /// As decoder::make, for as many ranks as there are backends, which outlive
  /// it.
  static result<std::unique_ptr<parallel_decoder>>
  make(const weights::checkpoint& file, const model_config& config,
       std::span<ops::backend* const> backends, const decoder_limits& limits);

  ~parallel_decoder() override;

  void submit(const engine::step_plan& plan) override;
  std::span<const float> collect() override;
  std::int32_t vocabulary() const override;
  std::uint64_t weight_bytes_read() const override;

  /// Bytes of the weights of all ranks, as their backends keep them.
  std::uint64_t weight_bytes() const;

private:
  parallel_decoder();
  struct state;
  std::unique_ptr<state> state_;
};

} // namespace troupe::model
