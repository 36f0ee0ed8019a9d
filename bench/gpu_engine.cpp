// How fast the engine decodes and reads prompts, by the clock on the wall, as
// its users see it: through engine.hpp, on any device. Writes JSON.
//
//   bench_gpu_engine MODEL [--device cuda|cpu] [--batches 1,32,128,256]
//                    [--context 1024] [--prompt 2048] [--steps 64]

#include "bench/measuring.hpp"
#include "bench/step_log.hpp"
#include "engine/engine.hpp"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <fmt/format.h>
#include <optional>
#include <random>
#include <string>
#include <thread>
#include <vector>

using namespace troupe;

namespace {

struct wishes {
  std::string model;
  std::string device = "cuda";
  std::vector<std::uint32_t> batches{1, 32, 128, 256};
  std::uint32_t context = 1024;
  std::uint32_t prompt = 2048;
  std::uint32_t steps = 64;
};

/// Medians over steps.
struct decode_times {
  double step_s = 0;
  /// Between two steps on the device, by its clock. Nothing: it has none.
  std::optional<double> gap_s;
};

class measurement {
public:
  measurement(engine::engine& of, const wishes& what)
      : engine_(of), what_(what) {
    engine_.start([this](engine::step_result&& step) { log_.put(step); });
  }

  /// Seconds between the ends of steps in which `batch` sequences get a token
  /// each and nothing else is computed. The contexts grow from `context` by the
  /// number of steps. Nothing: there was no such step.
  std::optional<decode_times> decode(std::uint32_t batch) {
    const auto finished = engine_.now().finished;
    log_.clear();
    for (std::uint32_t i = 0; i < batch; ++i) // they do not begin together
      submit(what_.context, 3 * what_.steps + batch);
    const auto steps = log_.wait([&](const auto& all) {
      return times_of(all, batch).size() >= what_.steps ||
             (!all.empty() && all.back().now.finished >= finished + batch);
    });
    stop();
    const auto times = times_of(steps, batch);
    if (times.empty())
      return std::nullopt;
    decode_times out{bench::median(times), std::nullopt};
    if (const auto gaps = gaps_of(steps, batch); !gaps.empty())
      out.gap_s = bench::median(gaps);
    return out;
  }

  /// Seconds from a prompt's arrival to its first token; the median of five.
  double first_token() {
    std::vector<double> times;
    for (int i = 0; i < 5; ++i) {
      const auto finished = engine_.now().finished;
      log_.clear();
      const auto begin = bench::now();
      submit(what_.prompt, 1);
      const auto steps = log_.wait([&](const auto& all) {
        return !all.empty() && all.back().now.finished > finished;
      });
      times.push_back(steps.back().at - begin);
    }
    return bench::median(times);
  }

private:
  /// f(step before, step) of the steps that `decode` speaks of.
  template <class F>
  static void for_decodes(const std::vector<bench::seen_step>& steps,
                          std::uint32_t batch, F f) {
    for (std::size_t i = 1; i < steps.size(); ++i)
      if (steps[i].now.prompt_tokens == steps[i - 1].now.prompt_tokens &&
          steps[i].now.output_tokens == steps[i - 1].now.output_tokens + batch)
        f(steps[i - 1], steps[i]);
  }

  static std::vector<double>
  times_of(const std::vector<bench::seen_step>& steps, std::uint32_t batch) {
    std::vector<double> out;
    for_decodes(steps, batch, [&](const auto& before, const auto& step) {
      out.push_back(step.at - before.at);
    });
    return out;
  }

  static std::vector<double> gaps_of(const std::vector<bench::seen_step>& steps,
                                     std::uint32_t batch) {
    std::vector<double> out;
    for_decodes(steps, batch, [&](const auto& before, const auto& step) {
      if (step.now.device_gaps == before.now.device_gaps + 1)
        out.push_back(step.now.device_gap_seconds -
                      before.now.device_gap_seconds);
    });
    return out;
  }

  void submit(std::uint32_t length, std::uint32_t tokens) {
    engine::request out;
    out.id = ++last_id_;
    for (std::uint32_t i = 0; i < length; ++i)
      out.prompt.push_back(static_cast<token_id>(random_() % 200));
    out.params.temperature = 0;
    out.params.ignore_eos = true;
    out.params.max_tokens = tokens;
    engine_.submit(std::move(out));
  }

  void stop() {
    log_.clear();
    for (auto id = first_running_; id <= last_id_; ++id)
      engine_.cancel(id);
    first_running_ = last_id_ + 1;
    while (engine_.now().running + engine_.now().waiting > 0)
      std::this_thread::yield();
  }

  engine::engine& engine_;
  const wishes& what_;
  bench::step_log log_{&bench::now};
  std::mt19937 random_{7};
  std::uint64_t last_id_ = 0;
  std::uint64_t first_running_ = 1;
};

std::string measure_all(engine::engine& of, const wishes& what) {
  measurement now{of, what};
  std::string rows;
  for (auto batch : what.batches) {
    const auto times = now.decode(batch);
    if (!times)
      continue;
    const auto gap = times->gap_s
                         ? fmt::format(", \"gap_s\": {:.6g}", *times->gap_s)
                         : std::string{};
    rows += fmt::format("{}{{\"batch\": {}, \"step_s\": {:.6g}{}}}",
                        rows.empty() ? "" : ", ", batch, times->step_s, gap);
  }
  return fmt::format("{{\"device\": \"{}\", \"weight_bytes\": {}, "
                     "\"context\": {}, \"decode\": [{}], "
                     "\"prompt\": {}, \"first_token_s\": {:.6g}}}",
                     of.about().device, of.about().weight_bytes, what.context,
                     rows, what.prompt, now.first_token());
}

} // namespace

int main(int argc, char** argv) {
  wishes what;
  CLI::App app{"How fast the engine decodes and reads prompts"};
  app.add_option("model", what.model)->required();
  app.add_option("--device", what.device);
  app.add_option("--batches", what.batches)->delimiter(',');
  app.add_option("--context", what.context);
  app.add_option("--prompt", what.prompt);
  app.add_option("--steps", what.steps);
  CLI11_PARSE(app, argc, argv);

  engine::options o;
  o.model = what.model;
  o.device = what.device;
  o.max_num_seqs = *std::max_element(what.batches.begin(), what.batches.end());
  o.max_num_batched_tokens = std::max(2048u, o.max_num_seqs);
  o.max_model_len =
      std::max(what.context + 3 * what.steps + o.max_num_seqs, what.prompt) + 1;
  o.enable_prefix_caching = false;
  auto loaded = engine::engine::load(o, {});
  if (!loaded) {
    std::fprintf(stderr, "%s\n", loaded.error().message.c_str());
    return 1;
  }
  std::printf("%s\n", measure_all(**loaded, what).c_str());
}
