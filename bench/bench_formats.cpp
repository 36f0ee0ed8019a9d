// Speed of a product in every quantised format, against q4_0. The weights are
// more than caches hold; the two formats take turns, since the machine's own
// speed changes by the second.
//
//   bench_formats [--threads N] [--seconds S] [--only TYPE]

#include "bench/measuring.hpp"
#include "engine/ops/cpu/cpu_backend.hpp"

#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>
#include <string>

using namespace troupe;
using namespace troupe::ops;
using namespace troupe::bench;

namespace {

constexpr std::int64_t inputs = 4096, outputs = 4096, matrices = 6;
constexpr double all_weights = double{inputs} * outputs * matrices;

struct named_type {
  const char* name;
  element_type type;
};

constexpr named_type types[] = {
    {"q4_0", element_type::q4_0}, {"q8_0", element_type::q8_0},
    {"q4_1", element_type::q4_1}, {"q5_0", element_type::q5_0},
    {"q5_1", element_type::q5_1}, {"iq4_nl", element_type::iq4_nl},
    {"q4_k", element_type::q4_k}, {"q5_k", element_type::q5_k},
    {"q6_k", element_type::q6_k}, {"q3_k", element_type::q3_k},
    {"q2_k", element_type::q2_k}};

/// Matrices of one type.
class weights {
public:
  weights(backend& ops, element_type type) : ops_(ops) {
    const auto raw = random_bytes(type, inputs * outputs);
    const matrix_view views[] = {{type, outputs, inputs, raw}};
    for (std::int64_t i = 0; i < matrices; ++i) {
      all_.push_back(ops.load(views).value());
      bytes_ += all_.back()->bytes();
    }
  }

  double bytes() const {
    return static_cast<double>(bytes_);
  }

  /// Seconds for all of them on `rows` rows.
  double pass(const float* x, std::int64_t rows, float* y) const {
    const double start = now();
    for (const auto& one : all_)
      ops_.linear(*one, x, rows, y, false);
    return now() - start;
  }

private:
  backend& ops_;
  std::vector<std::unique_ptr<weight>> all_;
  std::int64_t bytes_ = 0;
};

struct comparison {
  double seconds; ///< of the format, median
  double ratio;   ///< to q4_0 just before, median
};

comparison compare(const weights& q4_0, const weights& other, std::int64_t rows,
                   double budget) {
  std::vector<float> x(rows * inputs), y(rows * outputs);
  for (std::size_t i = 0; i < x.size(); ++i)
    x[i] = static_cast<float>(i * 7919 % 1000) / 500 - 1;
  std::vector<double> times, ratios;
  const double end = now() + budget;
  while (now() < end || times.size() < 5) {
    const double control = q4_0.pass(x.data(), rows, y.data());
    times.push_back(other.pass(x.data(), rows, y.data()));
    ratios.push_back(times.back() / control);
  }
  return {median(times), median(ratios)};
}

} // namespace

int main(int argc, char** argv) {
  int threads = 1;
  double budget = 2;
  std::string only;
  CLI::App app{"Speed of products in every quantised format, against q4_0"};
  app.add_option("--threads", threads, "threads of the team; 0: one per core");
  app.add_option("--seconds", budget, "time per format and number of rows");
  app.add_option("--only", only, "measure this type only");
  CLI11_PARSE(app, argc, argv);
  auto ops = cpu::make_backend({threads, {}});
  if (!ops) {
    std::fprintf(stderr, "%s\n", ops.error().message.c_str());
    return 1;
  }
  std::printf("%s; time relative to q4_0 in brackets\n",
              (*ops)->description().c_str());
  const weights q4_0{**ops, element_type::q4_0};
  for (const auto& [name, type] : types) {
    if (!only.empty() && only != name)
      continue;
    const weights other{**ops, type};
    std::printf("%-7s %.3f bits", name, 8 * other.bytes() / all_weights);
    const auto one = compare(q4_0, other, 1, budget);
    std::printf(", 1 row %5.2f GB/s %5.2f G weights/s [%.2f]",
                other.bytes() / one.seconds / 1e9,
                all_weights / one.seconds / 1e9, one.ratio);
    const auto many = compare(q4_0, other, 64, budget);
    std::printf(", 64 rows %5.1f G products/s [%.2f]\n",
                64 * all_weights / many.seconds / 1e9, many.ratio);
    std::fflush(stdout);
  }
}
