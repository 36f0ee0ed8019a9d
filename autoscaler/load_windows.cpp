#include "autoscaler/load_windows.hpp"

#include <algorithm>
#include <utility>
#include <vector>

namespace troupe::autoscaler {

namespace {

constexpr std::size_t ended_max = 8; // of one source

std::chrono::nanoseconds nanoseconds_of(double seconds) {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
      std::chrono::duration<double>{seconds});
}

/// By how much the sum over the sources rises at a time.
struct change {
  time_point at;
  double running;
  double queued;
};

/// Of the step function that `changes` (by time) sum up to, until `now`.
double aggregate(const std::vector<change>& changes, double change::*member,
                 time_point now, aggregation function) {
  if (changes.empty())
    return 0;
  double level = 0;
  double area = 0;
  std::vector<double> levels;
  for (std::size_t i = 0; i < changes.size(); ++i) {
    level += changes[i].*member;
    auto last = i + 1 == changes.size();
    auto until = last ? now : changes[i + 1].at;
    if (until == changes[i].at && !last)
      continue; // changes at one time are one step
    area +=
        level * std::chrono::duration<double>{until - changes[i].at}.count();
    levels.push_back(level);
  }
  if (function == aggregation::max)
    return *std::max_element(levels.begin(), levels.end());
  if (function == aggregation::min)
    return *std::min_element(levels.begin(), levels.end());
  std::chrono::duration<double> length = now - changes.front().at;
  return length.count() > 0 ? area / length.count() : level;
}

} // namespace

load_windows::load_windows(window_options options)
    : look_back_(nanoseconds_of(options.look_back_period_s)),
      stale_after_(
          nanoseconds_of(std::max(2 * options.metrics_interval_s, 10.0))),
      aggregation_(options.aggregation_function) {
}

bool load_windows::hear(const load_report& report, time_point now) {
  key name{report.kind, report.source};
  auto i = series_.find(name);
  if (i == series_.end()) {
    if (!make_room(now))
      return false;
    i = series_.emplace(std::move(name), series{}).first;
    i->second.incarnation = report.incarnation;
  } else {
    auto& known = i->second;
    if (std::count(known.ended.begin(), known.ended.end(), report.incarnation))
      return false;
    if (report.incarnation != known.incarnation) {
      known.ended.push_back(
          std::exchange(known.incarnation, report.incarnation));
      if (known.ended.size() > ended_max)
        known.ended.pop_front();
      known.samples.clear();
    } else if (report.sequence <= known.sequence) {
      return false;
    }
    if (!counts(known, now))
      known.samples.clear();
  }
  i->second.sequence = report.sequence;
  i->second.heard = now;
  add(i->second, {now, static_cast<double>(report.running),
                  static_cast<double>(report.queued)});
  return true;
}

void load_windows::leave(load_source kind, const std::string& source,
                         std::uint64_t incarnation) {
  auto i = series_.find({kind, source});
  if (i != series_.end() && i->second.incarnation == incarnation)
    i->second.samples.clear();
}

load load_windows::over_window(time_point now) const {
  auto start = now - look_back_;
  bool replicas_report =
      std::any_of(series_.begin(), series_.end(), [&](const auto& entry) {
        return entry.first.first == load_source::replica &&
               counts(entry.second, now);
      });
  std::vector<change> changes;
  for (const auto& [name, source] : series_) {
    if (!counts(source, now))
      continue;
    bool running = name.first == load_source::replica || !replicas_report;
    sample before{};
    for (const sample& s : source.samples) {
      changes.push_back({std::max(s.at, start),
                         running ? s.running - before.running : 0,
                         s.queued - before.queued});
      before = s;
    }
  }
  std::sort(changes.begin(), changes.end(),
            [](const change& a, const change& b) { return a.at < b.at; });
  return {aggregate(changes, &change::running, now, aggregation_),
          aggregate(changes, &change::queued, now, aggregation_)};
}

std::size_t load_windows::samples() const {
  std::size_t sum = 0;
  for (const auto& [name, source] : series_)
    sum += source.samples.size();
  return sum;
}

bool load_windows::counts(const series& source, time_point now) const {
  return !source.samples.empty() && now - source.heard <= stale_after_;
}

bool load_windows::make_room(time_point now) {
  if (series_.size() >= sources_max)
    std::erase_if(
        series_, [&](const auto& entry) { return !counts(entry.second, now); });
  return series_.size() < sources_max;
}

void load_windows::add(series& source, const sample& latest) const {
  auto& samples = source.samples;
  if (!samples.empty() && samples.back().running == latest.running &&
      samples.back().queued == latest.queued)
    return; // the step goes on
  // Changes that come too fast replace each other; the latest always stands.
  if (samples.size() >= 2 && latest.at - samples[samples.size() - 2].at <
                                 look_back_ / samples_of_window)
    samples.back() = latest;
  else
    samples.push_back(latest);
  // The one at the window's start, or the last before it, still holds there.
  while (samples.size() >= 2 && samples[1].at <= latest.at - look_back_)
    samples.pop_front();
}

} // namespace troupe::autoscaler
