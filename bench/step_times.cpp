// How long a step of the real engine takes on one thread, by what is in it:
// choices that decode, rows of a prompt, tokens that they look back on. It is
// the processor time of the engine's thread, the least of the repeats, so that
// others on the machine disturb little. Writes the samples and a fit to them as
// JSON; bench_policies computes with the fit.
//
//   bench_step_times MODEL.gguf [--repeats N] [--small]
//
//   seconds = step + row * rows + draw * logits + prompt_key * prompt_keys
//             + stream_key * stream_keys
//
// rows: tokens computed; logits: rows that a token is drawn from; keys: over
// all rows of prompts, and over those of running streams (which are alone), the
// positions that they attend to.

#include "bench/measuring.hpp"
#include "bench/step_log.hpp"
#include "engine/engine.hpp"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <random>
#include <string>
#include <thread>
#include <time.h>
#include <utility>
#include <vector>

using namespace troupe;
using namespace troupe::bench;

namespace {

/// What is in a step.
struct composition {
  std::uint32_t decoders = 0;
  std::uint32_t decoder_context = 0;
  std::uint32_t prompt = 0; ///< rows of one prompt
  std::uint32_t prompt_context = 0;
};

struct sample {
  composition what;
  double rows = 0;
  double logits = 0;
  double prompt_keys = 0;
  double stream_keys = 0;
  double seconds = 0;
};

/// Of the thread that asks.
double processor_seconds() {
  timespec out{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &out);
  return static_cast<double>(out.tv_sec) +
         static_cast<double>(out.tv_nsec) * 1e-9;
}

class step_timer {
public:
  step_timer(engine::engine& of, std::size_t repeats)
      : engine_(of), repeats_(repeats) {
    engine_.start([this](engine::step_result&& step) { log_.put(step); });
  }

  sample time(const composition& what) {
    start_decoders(what);
    std::vector<double> times;
    double grown = 0; // tokens that a decoder has drawn, on average
    if (what.prompt == 0)
      times = decode_steps(grown);
    else
      times = prompt_steps(what);
    stop_decoders();
    sample out{what, 0, 0, 0, 0, *std::min_element(times.begin(), times.end())};
    double prompt = what.prompt;
    out.rows = what.decoders + prompt;
    out.logits = what.decoders + (prompt > 0 ? 1 : 0);
    out.stream_keys = what.decoders * (what.decoder_context + grown);
    out.prompt_keys = prompt * (what.prompt_context + (prompt + 1) / 2);
    return out;
  }

private:
  std::vector<token_id> random_tokens(std::size_t count) {
    std::vector<token_id> out(count);
    for (auto& one : out)
      one = static_cast<token_id>(100 + random_() % 40'000);
    return out;
  }

  std::uint64_t submit(std::vector<token_id> prompt, std::uint32_t tokens) {
    engine::request out;
    out.id = ++last_id_;
    out.prompt = std::move(prompt);
    out.params.temperature = 0;
    out.params.ignore_eos = true;
    out.params.max_tokens = tokens;
    engine_.submit(std::move(out));
    return last_id_;
  }

  void compute(std::vector<token_id> prompt) {
    auto before = engine_.now().finished;
    log_.clear();
    submit(std::move(prompt), 1);
    log_.wait([&](const auto& steps) {
      return !steps.empty() && steps.back().now.finished > before;
    });
  }

  void start_decoders(const composition& what) {
    log_.clear();
    auto drawn = engine_.now().output_tokens;
    for (std::uint32_t i = 0; i < what.decoders; ++i)
      decoders_.push_back(submit(random_tokens(what.decoder_context), 2000));
    if (what.decoders > 0)
      log_.wait([&](const auto& steps) {
        return !steps.empty() && steps.back().now.waiting_tokens == 0 &&
               steps.back().now.output_tokens >= drawn + what.decoders &&
               steps.back().now.running == what.decoders;
      });
  }

  void stop_decoders() {
    for (auto id : std::exchange(decoders_, {}))
      engine_.cancel(id);
    while (engine_.now().running + engine_.now().waiting > 0)
      std::this_thread::yield();
  }

  std::vector<double> decode_steps(double& grown) {
    log_.clear();
    auto steps =
        log_.wait([&](const auto& all) { return all.size() > 3 * repeats_; });
    std::vector<double> out;
    for (std::size_t i = 1; i < steps.size(); ++i)
      out.push_back(steps[i].at - steps[i - 1].at);
    grown = 1.5 * static_cast<double>(repeats_);
    return out;
  }

  /// The steps in which the whole prompt is computed, and nothing more of it.
  std::vector<double> prompt_steps(const composition& what) {
    auto before = random_tokens(what.prompt_context);
    compute(before.empty() ? random_tokens(16) : before);
    std::vector<double> out;
    for (std::size_t i = 0; i < 20 * repeats_ && out.size() < repeats_; ++i) {
      auto prompt = before;
      for (auto id : random_tokens(what.prompt))
        prompt.push_back(id);
      compute(prompt);
      auto steps = log_.wait([](auto&) { return true; });
      for (std::size_t k = 1; k < steps.size(); ++k)
        if (steps[k].now.prompt_tokens - steps[k - 1].now.prompt_tokens ==
                what.prompt &&
            steps[k].now.output_tokens - steps[k - 1].now.output_tokens ==
                what.decoders + 1)
          out.push_back(steps[k].at - steps[k - 1].at);
    }
    return out;
  }

  engine::engine& engine_;
  std::size_t repeats_;
  step_log log_{&processor_seconds};
  std::mt19937_64 random_{1};
  std::uint64_t last_id_ = 0;
  std::vector<std::uint64_t> decoders_;
};

std::vector<composition> compositions(bool small) {
  std::vector<composition> out;
  auto tokens_max = small ? 4'096u : 40'000u;
  auto add = [&](const composition& one) {
    if (one.decoders * (one.decoder_context + 200) + one.prompt +
            one.prompt_context <
        tokens_max)
      out.push_back(one);
  };
  for (std::uint32_t decoders : {1, 2, 4, 8, 16, 32})
    add({decoders, 64, 0, 0});
  for (std::uint32_t decoders : {1, 8})
    add({decoders, 1024, 0, 0});
  add({4, 4096, 0, 0});
  for (std::uint32_t prompt : {16, 64, 256, 512})
    for (std::uint32_t context : {0, 2048, 4096})
      add({0, 0, prompt, context});
  for (std::uint32_t decoders : {4, 16})
    for (std::uint32_t prompt : {64, 256})
      add({decoders, 64, prompt, 0});
  return out;
}

constexpr std::size_t terms = 5;
using coefficients = std::array<double, terms>;

coefficients factors(const sample& of) {
  return {1, of.rows, of.logits, of.prompt_keys, of.stream_keys};
}

/// Least squares of the relative errors, by the terms that `used` names.
coefficients solve(const std::vector<sample>& samples,
                   const std::array<bool, terms>& used) {
  std::array<std::array<double, terms + 1>, terms> a{};
  for (const auto& one : samples) {
    auto x = factors(one);
    for (std::size_t i = 0; i < terms; ++i) {
      for (std::size_t k = 0; k < terms; ++k)
        a[i][k] += x[i] * x[k] / (one.seconds * one.seconds);
      a[i][terms] += x[i] / one.seconds;
    }
  }
  for (std::size_t i = 0; i < terms; ++i)
    if (!used[i])
      for (std::size_t k = 0; k < terms; ++k)
        a[i][k] = a[k][i] = i == k ? 1 : 0;
  for (std::size_t i = 0; i < terms; ++i)
    if (!used[i])
      a[i][terms] = 0;
  for (std::size_t i = 0; i < terms; ++i)
    for (std::size_t row = 0; row < terms; ++row) {
      if (row == i)
        continue;
      auto factor = a[row][i] / a[i][i];
      for (std::size_t k = i; k <= terms; ++k)
        a[row][k] -= factor * a[i][k];
    }
  coefficients out{};
  for (std::size_t i = 0; i < terms; ++i)
    out[i] = a[i][terms] / a[i][i];
  return out;
}

/// No term may shorten a step.
coefficients fit(const std::vector<sample>& samples) {
  std::array<bool, terms> used;
  used.fill(true);
  while (true) {
    auto out = solve(samples, used);
    auto least = std::min_element(out.begin(), out.end());
    if (*least >= 0)
      return out;
    used[static_cast<std::size_t>(least - out.begin())] = false;
  }
}

double predicted(const coefficients& by, const sample& of) {
  double out = 0;
  auto x = factors(of);
  for (std::size_t i = 0; i < terms; ++i)
    out += by[i] * x[i];
  return out;
}

void print(const engine::description& about,
           const std::vector<sample>& samples) {
  auto by = fit(samples);
  std::vector<double> errors;
  for (const auto& one : samples)
    errors.push_back(std::abs(predicted(by, one) / one.seconds - 1));
  std::sort(errors.begin(), errors.end());
  std::printf("{\"device\": \"%s\",\n \"fit\": {\"step_s\": %.9g, \"row_s\": "
              "%.9g, \"draw_s\": %.9g, \"prompt_key_s\": %.9g, "
              "\"stream_key_s\": %.9g},\n"
              " \"fit_error_median\": %.3f, \"fit_error_p90\": %.3f,\n"
              " \"samples\": [\n",
              about.device.c_str(), by[0], by[1], by[2], by[3], by[4],
              errors[errors.size() / 2], errors[errors.size() * 9 / 10]);
  for (std::size_t i = 0; i < samples.size(); ++i) {
    const auto& one = samples[i];
    std::printf("  {\"decoders\": %u, \"decoder_context\": %u, \"prompt\": %u, "
                "\"prompt_context\": %u, \"rows\": %g, \"logits\": %g, "
                "\"prompt_keys\": %g, \"stream_keys\": %g, \"seconds\": %.6f, "
                "\"fit\": %.6f}%s\n",
                one.what.decoders, one.what.decoder_context, one.what.prompt,
                one.what.prompt_context, one.rows, one.logits, one.prompt_keys,
                one.stream_keys, one.seconds, predicted(by, one),
                i + 1 < samples.size() ? "," : "");
  }
  std::printf(" ]}\n");
}

} // namespace

int main(int argc, char** argv) {
  engine::options options;
  options.kv_cache_bytes = std::uint64_t{2} << 30;
  options.threads = 1;
  std::size_t repeats = 5;
  bool small = false;
  CLI::App app{"Measures how long steps of the engine take"};
  app.add_option("model", options.model)->required();
  app.add_option("--repeats", repeats)->check(CLI::Range(2, 1000));
  app.add_flag("--small", small, "short contexts alone");
  CLI11_PARSE(app, argc, argv);
  if (small)
    options.kv_cache_bytes = std::uint64_t{256} << 20;
  auto loaded = engine::engine::load(
      options, [](std::uint64_t, std::uint64_t) { /* bytes done, in all */ });
  if (!loaded) {
    std::fprintf(stderr, "%s\n", loaded.error().message.c_str());
    return 1;
  }
  auto about = (*loaded)->about();
  step_timer timer{**loaded, repeats};
  std::vector<sample> samples;
  for (const auto& one : compositions(small))
    samples.push_back(timer.time(one));
  loaded->reset(); // its thread calls the timer
  print(about, samples);
}
