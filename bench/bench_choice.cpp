// Time of one choice of a replica by its cache (kv_aware): names of a prompt's
// blocks, and the cost of every replica from an index of their caches.
//
//   bench_choice [--tokens N] [--replicas N] [--blocks N] [--rounds N]

#include "bench/measuring.hpp"
#include "router/policy/kv_index.hpp"

#include <CLI/CLI.hpp>
#include <cstdio>
#include <random>
#include <vector>

using namespace troupe;
using namespace troupe::bench;

namespace {

constexpr std::uint32_t block_size = 16;

struct measure {
  std::size_t tokens = 12'000;
  std::size_t replicas = 64;
  std::size_t blocks = 10'000; ///< in each replica's cache
  std::size_t rounds = 400;
};

using prompt = std::vector<std::int32_t>;

prompt random_prompt(std::size_t tokens, std::mt19937_64& random) {
  prompt out(tokens);
  for (auto& token : out)
    token = static_cast<std::int32_t>(random() % 50'000);
  return out;
}

/// Every replica has the beginning of each prompt, of a length of its own, and
/// fills up with others'.
void fill(router::kv_index& index, const measure& what,
          const std::vector<prompt>& prompts, std::mt19937_64& random) {
  for (std::size_t replica = 1; replica <= what.replicas; ++replica) {
    protocol::kv_events all{1, true, block_size, {}, {}};
    for (const auto& one : prompts) {
      auto names = codec::block_names(one, block_size);
      auto kept = replica == 1 ? names.size() : random() % names.size();
      all.stored.insert(all.stored.end(), names.begin(), names.begin() + kept);
    }
    while (all.stored.size() < what.blocks)
      all.stored.push_back(random() | 1);
    index.follow(replica);
    index.take(replica, all);
  }
}

void report(const char* what, std::vector<double> seconds) {
  std::sort(seconds.begin(), seconds.end());
  auto at = [&](double share) {
    return 1e6 * seconds[static_cast<std::size_t>(
                     share * static_cast<double>(seconds.size() - 1))];
  };
  std::printf("%-10s median %6.1f us  p90 %6.1f us  lowest %6.1f us\n", what,
              at(0.5), at(0.9), at(0));
}

void run(const measure& what) {
  std::mt19937_64 random{1};
  std::vector<prompt> prompts;
  for (int i = 0; i < 8; ++i)
    prompts.push_back(random_prompt(what.tokens, random));
  router::kv_index index{{}, random()};
  fill(index, what, prompts, random);
  std::vector<router::replica_snapshot> replicas(what.replicas);
  for (std::size_t i = 0; i < replicas.size(); ++i)
    replicas[i].incarnation = i + 1;
  std::vector<double> naming, choosing;
  std::uint64_t found = 0;
  for (std::size_t i = 0; i < what.rounds; ++i) {
    auto begin = now();
    auto names = codec::block_names(prompts[i % prompts.size()], block_size);
    auto named = now();
    auto chosen =
        index.choose({what.tokens, 0, names, block_size}, replicas, random());
    choosing.push_back(now() - named);
    naming.push_back(named - begin);
    found += chosen->cached_tokens;
  }
  std::printf("%zu tokens, %zu replicas, %zu different blocks known in %.1f "
              "MiB; %zu of the prompt found cached\n",
              what.tokens, what.replicas, index.blocks().size(),
              static_cast<double>(index.blocks().bytes()) / (1 << 20),
              static_cast<std::size_t>(found / what.rounds));
  report("naming", naming);
  report("choosing", choosing);
}

} // namespace

int main(int argc, char** argv) {
  measure what;
  CLI::App app{"Measures one choice of a replica by its cache"};
  app.add_option("--tokens", what.tokens)->check(CLI::Range(17, 1'000'000));
  app.add_option("--replicas", what.replicas)->check(CLI::Range(1, 4096));
  app.add_option("--blocks", what.blocks)->check(CLI::Range(0, 1'000'000));
  app.add_option("--rounds", what.rounds)->check(CLI::Range(1, 1'000'000));
  CLI11_PARSE(app, argc, argv);
  run(what);
}
