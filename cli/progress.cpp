#include "cli/progress.hpp"

#include <algorithm>
#include <cstdio>
#include <fmt/format.h>

namespace troupe::cli {

using protocol::replica_phase;

namespace {

double megabytes(std::uint64_t bytes) {
  return static_cast<double>(bytes) / 1e6;
}

/// How long the slowest ready replica took to load.
double seconds(const protocol::model_status& model) {
  std::uint32_t slowest = 0;
  for (const auto& replica : model.replicas)
    slowest = std::max(slowest, replica.load_ms);
  return slowest / 1000.0;
}

} // namespace

void progress::show(const protocol::cluster_status& status) {
  std::string loading;
  for (const auto& model : status.models) {
    std::string verb = "load   ";
    std::uint64_t done = 0;
    std::uint64_t total = 0;
    for (const auto& replica : model.replicas)
      if (replica.phase == replica_phase::loading) {
        done += replica.bytes_done;
        total += replica.bytes_total;
        if (replica.reason.starts_with("fetching"))
          verb = "fetch  ";
      }
    auto name = model.application + "/" + model.model;
    if (model.replicas_ready == model.replicas_wanted) {
      std::uint64_t bytes = 0;
      for (const auto& replica : model.replicas)
        bytes += replica.bytes_total;
      line(name, fmt::format("ready   {}: {} replica{}, {:.1f} MB in {:.2f} s",
                             model.model, model.replicas_ready,
                             model.replicas_ready == 1 ? "" : "s",
                             megabytes(bytes), seconds(model)));
    } else if (model.status == "DEPLOYING") {
      line(name, fmt::format("{} {}: {} replica{}", verb, model.model,
                             model.replicas_wanted,
                             model.replicas_wanted == 1 ? "" : "s"));
      if (total != 0)
        loading += fmt::format("{}{} {} {:.1f} of {:.1f} MB",
                               loading.empty() ? "" : ", ", verb, model.model,
                               megabytes(done), megabytes(total));
    } else {
      line(name,
           fmt::format("{} {}: {}", model.status, model.model, model.reason));
    }
  }
  if (!loading.empty())
    moving(loading);
}

void progress::line(const std::string& model, const std::string& text) {
  auto& last = shown_[model];
  if (last == text)
    return;
  last = text;
  if (unfinished_)
    fmt::print("\r\033[K");
  unfinished_ = false;
  fmt::print("{}\n", text);
  std::fflush(stdout);
}

void progress::moving(const std::string& text) {
  if (!terminal_)
    return;
  fmt::print("\r\033[K{}", text);
  std::fflush(stdout);
  unfinished_ = true;
}

bool progress::settled(const protocol::cluster_status& status) {
  return std::all_of(
      status.models.begin(), status.models.end(), [](const auto& model) {
        return model.status != "DEPLOYING" && model.status != "UNHEALTHY";
      });
}

} // namespace troupe::cli
