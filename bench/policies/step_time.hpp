#pragma once

#include "engine/codec/error.hpp"

#include <filesystem>
#include <string>

namespace troupe::bench {

/// How long a step takes: the fit of bench_step_times.
struct step_time {
  double step_s = 0;
  double row_s = 0;
  double draw_s = 0;
  double prompt_key_s = 0;
  double stream_key_s = 0;

  double of(double rows, double logits, double prompt_keys,
            double stream_keys) const {
    return step_s + row_s * rows + draw_s * logits +
           prompt_key_s * prompt_keys + stream_key_s * stream_keys;
  }

  /// All that a prompt of so many tokens takes if it is alone, of which the
  /// first `cached` are there; `rows` in a step.
  double prompt(double tokens, double cached, double rows) const;

  /// What a choice's output takes of a replica that decodes so many at once.
  double output(double tokens, double context, double at_once) const;
};

/// From what bench_step_times wrote.
result<step_time> read_step_time(const std::filesystem::path&);

} // namespace troupe::bench
