// Prints how far the logits of two models are apart, on average and at worst,
// over the positions of one sequence:
//
//   compare_logits A.gguf B.gguf ID...

#include "engine/model/decoder.hpp"
#include "engine/ops/cpu/cpu_backend.hpp"
#include "engine/weights/gguf.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <vector>

using namespace troupe;

namespace {

constexpr int positions_max = 256, block_tokens = 16;

result<std::vector<float>> logits_of(const char* path,
                                     const engine::step_plan& plan) {
  auto file = weights::gguf_file::open(path);
  if (!file)
    return file.error();
  auto config = model::read_model_config(**file);
  if (!config)
    return config.error();
  auto backend = ops::cpu::make_backend({});
  if (!backend)
    return backend.error();
  auto decoder =
      model::decoder::make(**file, *config, **backend,
                           {positions_max, positions_max, block_tokens,
                            positions_max / block_tokens},
                           {});
  if (!decoder)
    return decoder.error();
  (*decoder)->submit(plan);
  const auto logits = (*decoder)->collect();
  return std::vector<float>(logits.begin(), logits.end());
}

/// One sequence from its start, all positions in one step.
engine::step_plan plan_for(int count, char** ids) {
  engine::step_plan plan;
  plan.tables.emplace_back();
  for (int i = 0; i < count; ++i) {
    int id = 0;
    std::from_chars(ids[i], ids[i] + std::strlen(ids[i]), id);
    plan.tokens.push_back(id);
    plan.positions.push_back(i);
    plan.sequences.push_back(0);
    plan.logit_rows.push_back(i);
    if (i % block_tokens == 0)
      plan.tables[0].push_back(i / block_tokens);
  }
  return plan;
}

} // namespace

int main(int argc, char** argv) {
  if (argc < 4 || argc > 3 + positions_max) {
    std::fprintf(stderr, "usage: compare_logits A.gguf B.gguf ID...\n");
    return 2;
  }
  const auto plan = plan_for(argc - 3, argv + 3);
  std::vector<float> logits[2];
  for (int i = 0; i < 2; ++i) {
    auto seen = logits_of(argv[1 + i], plan);
    if (!seen) {
      std::fprintf(stderr, "%s\n", seen.error().message.c_str());
      return 1;
    }
    logits[i] = std::move(*seen);
  }
  if (logits[0].size() != logits[1].size()) {
    std::fprintf(stderr, "the models' vocabularies differ\n");
    return 1;
  }
  double sum = 0, worst = 0;
  for (std::size_t i = 0; i < logits[0].size(); ++i) {
    const double apart = std::fabs(logits[0][i] - logits[1][i]);
    sum += apart;
    worst = std::isnan(apart) ? apart : std::max(worst, apart);
  }
  std::printf("%.6f %.6f\n", sum / static_cast<double>(logits[0].size()),
              worst);
}
