#include "config/autoscaling_config.hpp"

#include "config/schema.hpp"

#include <array>
#include <charconv>
#include <fmt/format.h>

namespace troupe::config {

namespace {

constexpr double replicas_max = 4096;
constexpr double seconds_max = 1e7;
constexpr std::size_t schedule_max = 64;
constexpr std::string_view policies =
    "ongoing_requests, tokens, latency, schedule (docs/autoscaling.md)";

constexpr std::array<std::string_view, 7> day_names{"mon", "tue", "wed", "thu",
                                                    "fri", "sat", "sun"};

/// "08:30" as minutes.
std::optional<std::uint32_t> minute_of_day(std::string_view text) {
  auto two_digits = [](std::string_view from) -> std::optional<std::uint32_t> {
    std::uint32_t out = 0;
    auto read = std::from_chars(from.data(), from.data() + from.size(), out);
    if (read.ec != std::errc{} || read.ptr != from.data() + from.size())
      return std::nullopt;
    return out;
  };
  if (text.size() != 5 || text[2] != ':')
    return std::nullopt;
  auto hour = two_digits(text.substr(0, 2));
  auto minute = two_digits(text.substr(3));
  if (!hour || !minute || *hour > 23 || *minute > 59)
    return std::nullopt;
  return *hour * 60 + *minute;
}

std::uint32_t read_time(map_reader& in, std::string_view key) {
  auto value = in.take(key);
  if (!value.present()) {
    value.error("is required: a time of the day, \"08:30\"");
    return 0;
  }
  auto text = read_text(value);
  auto minute = text ? minute_of_day(*text) : std::nullopt;
  if (text && !minute)
    value.error("must be a time of the day, \"08:30\"");
  return minute.value_or(0);
}

std::uint32_t read_days(map_reader& in) {
  std::uint32_t out = 0;
  for (const auto& each : in.list("days")) {
    auto name = read_text(each);
    auto known = name ? std::find(day_names.begin(), day_names.end(), *name)
                      : day_names.end();
    if (known != day_names.end())
      out |= 1u << (known - day_names.begin());
    else if (name)
      each.error("must be one of mon, tue, wed, thu, fri, sat, sun");
  }
  return out == 0 ? 0x7f : out;
}

scheduled_minimum read_scheduled(const located& value) {
  scheduled_minimum out;
  map_reader in{value};
  out.from_minute = read_time(in, "from");
  out.to_minute = read_time(in, "to");
  out.days = read_days(in);
  auto least = in.take("min_replicas");
  if (!least.present())
    least.error("is required");
  else
    out.min_replicas = static_cast<std::uint32_t>(
        read_integer(least, {0, replicas_max}).value_or(0));
  return out;
}

/// "+02:00" as minutes.
void read_utc_offset(const located& value, autoscaling_config& out) {
  auto text = read_text(value);
  if (!text)
    return;
  auto sign = text->starts_with('-') ? -1 : 1;
  auto signed_one = text->starts_with('-') || text->starts_with('+');
  auto minutes =
      minute_of_day(std::string_view{*text}.substr(signed_one ? 1 : 0));
  if (!minutes || !signed_one || *minutes > 14 * 60)
    value.error("must be an offset such as \"+02:00\", of 14 hours at most");
  else
    out.utc_offset_minutes = sign * static_cast<std::int32_t>(*minutes);
}

void name_policy(const located& value, autoscaling_config& out) {
  auto name = read_text(value);
  if (!name)
    return;
  if (*name == "ongoing_requests")
    out.policy = scaling_policy::ongoing_requests;
  else if (*name == "tokens")
    out.policy = scaling_policy::tokens;
  else if (*name == "schedule")
    out.policy = scaling_policy::schedule;
  else if (*name == "latency")
    out.policy = scaling_policy::latency;
  else if (name->find_first_of(".:/") != std::string::npos)
    value.error(fmt::format("\"{}\": Troupe runs no Python; there are {}",
                            *name, policies));
  else
    value.error(
        fmt::format("\"{}\" is no policy; there are {}", *name, policies));
}

/// A name, or a map with the name and what it needs.
void read_policy(const located& value, autoscaling_config& out) {
  if (value.node.IsScalar()) {
    name_policy(value, out);
    if (out.policy == scaling_policy::schedule)
      value.error("schedule: say when: {name: schedule, minimums: [{from: "
                  "\"08:00\", to: \"18:00\", min_replicas: 2}]}");
    if (out.policy == scaling_policy::latency)
      value.error("latency: say what to keep: {name: latency, first_token_s: "
                  "1.0}");
    return;
  }
  map_reader in{value};
  auto own = in.take("name");
  auto function = in.take("policy_function"); // Ray's word for it
  const auto& name = function.present() ? function : own;
  if (!name.present()) {
    name.error(fmt::format("is required; there are {}", policies));
    return;
  }
  name_policy(name, out);
  if (out.policy == scaling_policy::tokens)
    out.target_queue_s =
        in.number("target_queue_s", {0.01, 3600}).value_or(out.target_queue_s);
  if (out.policy == scaling_policy::latency) {
    out.first_token_s = in.number("first_token_s", {0.001, 30});
    out.next_token_s = in.number("next_token_s", {0.001, 30});
    if (!out.first_token_s && !out.next_token_s)
      value.error("latency: needs first_token_s or next_token_s");
  }
  if (out.policy != scaling_policy::schedule)
    return;
  if (auto offset = in.take("utc_offset"); offset.present())
    read_utc_offset(offset, out);
  auto minimums = in.take("minimums");
  auto entries = in.list("minimums");
  if (entries.empty() || entries.size() > schedule_max)
    minimums.error(fmt::format("must list 1 to {} times", schedule_max));
  entries.resize(std::min(entries.size(), schedule_max));
  for (const auto& entry : entries) {
    auto one = read_scheduled(entry);
    if (one.min_replicas > out.max_replicas)
      entry.error(fmt::format("min_replicas ({}) is above max_replicas ({})",
                              one.min_replicas, out.max_replicas));
    out.schedule.push_back(one);
  }
}

void read_counts(map_reader& in, std::uint32_t default_max,
                 autoscaling_config& out) {
  auto count = [&](std::string_view key, double low) {
    auto given = in.integer(key, {low, replicas_max});
    return given ? std::optional{static_cast<std::uint32_t>(*given)}
                 : std::nullopt;
  };
  out.min_replicas = count("min_replicas", 0).value_or(1);
  out.max_replicas = count("max_replicas", 1).value_or(default_max);
  out.initial_replicas = count("initial_replicas", 0);
  if (out.max_replicas < out.min_replicas)
    in.whole().error(fmt::format("max_replicas ({}) is below min_replicas ({})",
                                 out.max_replicas, out.min_replicas));
  if (out.initial_replicas && (*out.initial_replicas < out.min_replicas ||
                               *out.initial_replicas > out.max_replicas))
    in.whole().error(fmt::format("initial_replicas ({}) must lie between "
                                 "min_replicas ({}) and max_replicas ({})",
                                 *out.initial_replicas, out.min_replicas,
                                 out.max_replicas));
}

} // namespace

autoscaling_config read_autoscaling_config(const located& value,
                                           std::uint32_t default_max) {
  autoscaling_config out;
  if (value.node.IsScalar()) { // num_replicas: auto
    out.max_replicas = default_max;
    return out;
  }
  map_reader in{value};
  read_counts(in, default_max, out);
  out.target_ongoing_requests =
      in.number("target_ongoing_requests", {1e-9, 1e12});
  using member = std::optional<double> autoscaling_config::*;
  using config = autoscaling_config;
  for (auto [key, to] :
       {std::pair<std::string_view, member>{"upscale_delay_s",
                                            &config::upscale_delay_s},
        {"downscale_delay_s", &config::downscale_delay_s},
        {"downscale_to_zero_delay_s", &config::downscale_to_zero_delay_s},
        {"metrics_interval_s", &config::metrics_interval_s},
        {"look_back_period_s", &config::look_back_period_s}})
    out.*to = in.number(key, {0, seconds_max});
  for (auto [key, to] :
       {std::pair<std::string_view, member>{"upscaling_factor",
                                            &config::upscaling_factor},
        {"downscaling_factor", &config::downscaling_factor},
        {"smoothing_factor", &config::smoothing_factor},
        {"upscale_smoothing_factor", &config::upscale_smoothing_factor},
        {"downscale_smoothing_factor", &config::downscale_smoothing_factor}})
    out.*to = in.number(key, {1e-9, 1e6});
  if (auto by = in.choice("aggregation_function", {"mean", "max", "min"}))
    out.aggregation = *by == "mean"  ? load_aggregation::mean
                      : *by == "max" ? load_aggregation::max
                                     : load_aggregation::min;
  if (auto policy = in.take("policy"); policy.present())
    read_policy(policy, out);
  return out;
}

} // namespace troupe::config
