#include "bench/policies/oracle.hpp"

#include <algorithm>
#include <cmath>

namespace troupe::bench {

std::vector<double> work_of(const load& of, const replica_options& by) {
  constexpr double at_once = 8; // choices that decode together
  auto cached = ideal_hits(of, by.block_size);
  std::vector<double> out;
  for (std::size_t i = 0; i < of.arrivals.size(); ++i) {
    const auto& one = of.arrivals[i];
    double prompt = one.prompt_tokens;
    double output = one.output_tokens;
    out.push_back(by.slowness *
                  (by.times.prompt(prompt, cached[i], by.rows_max) +
                   by.times.output(output, prompt + output / 2, at_once)));
  }
  return out;
}

std::vector<planned_target> plan_fleet(const load& of,
                                       const replica_options& by,
                                       const oracle_options& options,
                                       double birth_s,
                                       std::uint32_t replicas_max) {
  auto work = work_of(of, by);
  auto seconds = static_cast<std::size_t>(std::ceil(of.seconds)) + 1;
  std::vector<double> came(seconds + 1, 0);
  for (std::size_t i = 0; i < work.size(); ++i) {
    auto at = static_cast<std::size_t>(of.arrivals[i].at_s);
    came[std::min(at, seconds)] += work[i];
  }
  auto window = std::max<std::size_t>(
      static_cast<std::size_t>(std::lround(options.window_s)), 1);
  std::vector<double> need(seconds + 1, 0);
  double sum = 0;
  for (std::size_t i = 0; i <= seconds; ++i) {
    sum += came[i];
    if (i >= window)
      sum -= came[i - window];
    need[i] = sum / static_cast<double>(window) / options.utilization;
  }
  auto ahead = static_cast<std::size_t>(std::ceil(birth_s));
  std::vector<planned_target> out;
  for (std::size_t i = 0; i <= seconds; ++i) {
    double most = 1;
    for (auto k = i; k <= std::min(i + ahead, seconds); ++k)
      most = std::max(most, std::ceil(need[k] - 1e-9));
    auto replicas = static_cast<std::uint32_t>(
        std::min(most, static_cast<double>(replicas_max)));
    if (out.empty() || out.back().replicas != replicas)
      out.push_back({static_cast<double>(i), replicas});
  }
  return out;
}

} // namespace troupe::bench
