#include "router/histogram.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>

namespace troupe::router {

void histogram::observe(double seconds) {
  auto place = std::lower_bound(bounds.begin(), bounds.end(), seconds);
  ++counts_[static_cast<std::size_t>(place - bounds.begin())];
  sum_.fetch_add(seconds);
}

void histogram::write(std::string_view name, std::string_view labels,
                      std::string& out) const {
  // Some of Ray's names are in milliseconds.
  auto unit = name.ends_with("_ms") ? 1000.0 : 1.0;
  auto add = std::back_inserter(out);
  std::uint64_t total = 0;
  auto comma = labels.empty() ? "" : ",";
  for (std::size_t i = 0; i < bounds.size(); ++i) {
    total += counts_[i];
    fmt::format_to(add, "{}_bucket{{{}{}le=\"{}\"}} {}\n", name, labels, comma,
                   bounds[i] * unit, total);
  }
  total += counts_.back();
  fmt::format_to(add, "{}_bucket{{{}{}le=\"+Inf\"}} {}\n", name, labels, comma,
                 total);
  fmt::format_to(add, "{}_sum{{{}}} {}\n", name, labels, sum_.load() * unit);
  fmt::format_to(add, "{}_count{{{}}} {}\n", name, labels, total);
}

} // namespace troupe::router
