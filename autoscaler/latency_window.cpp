#include "autoscaler/latency_window.hpp"

#include "actors/protocol/latency_places.hpp"

#include <algorithm>

namespace troupe::autoscaler {

void latency_window::hear(const std::string& router, std::uint64_t incarnation,
                          const std::vector<std::uint64_t>& said,
                          time_point now) {
  if (said.size() != protocol::latency_places)
    return; // none yet, or of another version
  auto& before = routers_[router];
  auto knows = before.incarnation == incarnation && !before.said.empty();
  if (knows && now >= from_) {
    if (slots_.empty() || now >= slots_.back().from + std::chrono::seconds{1})
      slots_.push_back({now, counts(protocol::latency_places)});
    auto& more = slots_.back().more;
    for (std::size_t i = 0; i < more.size(); ++i)
      if (said[i] > before.said[i])
        more[i] += said[i] - before.said[i];
  }
  before = {incarnation, said};
  while (!slots_.empty() && slots_.front().from + length < now)
    slots_.pop_front();
}

void latency_window::forget(const std::string& router) {
  routers_.erase(router);
}

void latency_window::begin_anew(time_point when) {
  from_ = when;
  slots_.clear();
}

std::optional<double> latency_window::quantile(double share,
                                               time_point now) const {
  counts all(protocol::latency_places);
  std::uint64_t samples = 0;
  for (const auto& slot : slots_)
    if (slot.from + length >= now)
      for (std::size_t i = 0; i < all.size(); ++i) {
        all[i] += slot.more[i];
        samples += slot.more[i];
      }
  if (samples < samples_min)
    return std::nullopt;
  auto wanted = share * static_cast<double>(samples);
  double below = 0;
  for (std::size_t i = 0; i < all.size(); ++i) {
    auto here = static_cast<double>(all[i]);
    if (here > 0 && below + here >= wanted) {
      // Evenly within the place.
      auto low = i == 0 ? 0 : protocol::latency_bound(i - 1);
      auto high = protocol::latency_bound(i);
      return low + (high - low) * std::clamp((wanted - below) / here, 0.0, 1.0);
    }
    below += here;
  }
  return protocol::latency_bound(all.size() - 1);
}

} // namespace troupe::autoscaler
