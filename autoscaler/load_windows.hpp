#pragma once

#include "autoscaler/policy/ongoing_requests.hpp"

#include <cstddef>
#include <deque>
#include <map>
#include <string>

namespace troupe::autoscaler {

enum class aggregation : std::uint8_t { mean, max, min };

/// What of `autoscaling_config` measures, with Ray Serve's defaults.
struct window_options {
  double look_back_period_s = 30; ///< 0 = the latest reports alone
  double metrics_interval_s = 10; ///< every source reports at least so often
  aggregation aggregation_function = aggregation::mean;
};

enum class load_source : std::uint8_t { replica, router };

/// What a replica or a router says of one model.
struct load_report {
  load_source kind = load_source::replica;
  std::string source;            ///< its name, unique within its kind
  std::uint64_t incarnation = 0; ///< another one is another life of it
  std::uint64_t sequence = 0;    ///< rises within an incarnation
  std::uint32_t running = 0;     ///< a router: requests it has at replicas
  std::uint32_t queued = 0;      ///< a router: requests without a replica

  bool operator==(const load_report&) const = default;
};

/// Requests, aggregated.
struct load {
  double running = 0;
  double queued = 0;
};

/// The load of one model over the last `look_back_period_s`.
///
/// A source's reports are a step function of the time they came at: each holds
/// until the next. The sum over the sources, itself such a function, is
/// averaged by time, or its greatest or least value taken, as Ray's controller
/// does: running and queued each by itself, running from the replicas if any
/// report, else from the routers. A source that was not heard for longer than
/// max(2 x metrics_interval_s, 10 s), or has left, takes its past along.
///
/// Late and doubled reports are dropped; a lost one is mended by the next.
/// Bounded: `sources_max`, and of each about two samples per
/// `samples_of_window`th of the window.
class load_windows {
public:
  static constexpr std::size_t sources_max = 8192;
  static constexpr int samples_of_window = 512;

  explicit load_windows(window_options);

  /// False if it is dropped: late, doubled, of an ended life, or one source
  /// too many. `now` does not fall.
  bool hear(const load_report&, time_point now);

  /// The source is away: it does not count until it says something newer, or
  /// begins another life.
  void leave(load_source, const std::string& source, std::uint64_t incarnation);

  load over_window(time_point now) const;

  std::size_t samples() const; ///< that it holds, of all sources

private:
  struct sample {
    time_point at;
    double running;
    double queued;
  };

  struct series {
    std::deque<std::uint64_t> ended; ///< earlier incarnations, at most a few
    std::uint64_t incarnation = 0;
    std::uint64_t sequence = 0;
    time_point heard;
    std::deque<sample> samples; ///< by time; empty = it does not live
  };

  using key = std::pair<load_source, std::string>;

  bool counts(const series&, time_point now) const;
  bool make_room(time_point now);
  void add(series&, const sample&) const;

  std::chrono::nanoseconds look_back_;
  std::chrono::nanoseconds stale_after_;
  aggregation aggregation_;
  std::map<key, series> series_;
};

} // namespace troupe::autoscaler
