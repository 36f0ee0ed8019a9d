#pragma once

#include "engine/model/rank_runner.hpp"
#include "tests/unit/model/feeding.hpp"
#include "tests/unit/model/reference_file.hpp"
#include "tests/unit/ranks/rank_kinds.hpp"

#include <catch2/catch.hpp>

#include <filesystem>
#include <memory>
#include <string>
#include <thread>
#include <vector>

// A model that several ranks hold together, each on a thread of its own.

namespace troupe::test {

inline constexpr model::decoder_limits limits{64, 64, 16, 8};

/// Ranks with backends and threads of their own.
struct parallel_model {
  parallel_model() = default;
  parallel_model(parallel_model&&) = default;

  ~parallel_model() {
    decoder.reset(); // ends the others
    for (auto& one : threads)
      one.join();
  }

  std::uint64_t weight_bytes() const {
    std::uint64_t out = first_bytes;
    for (const auto& one : others)
      out += one->weight_bytes();
    return out;
  }

  std::vector<one_rank> ranks;
  std::unique_ptr<model::rank_runner> decoder;
  std::uint64_t first_bytes = 0;
  std::vector<std::unique_ptr<model::decoder>> others;
  std::vector<std::thread> threads;
  std::string refused; ///< why there is none
};

inline parallel_model
load_parallel(const std::filesystem::path& path, int ranks,
              std::int32_t longest, const backend_maker& make,
              const rank_kind& kind = threads_of_a_process(),
              const model::decoder_limits& within = limits) {
  auto file = model::open_checkpoint(path);
  REQUIRE(file.has_value());
  auto config = model::read_model_config(**file, longest);
  REQUIRE(config.has_value());
  parallel_model out;
  out.ranks = kind.make(ranks, make);
  std::vector<std::unique_ptr<model::decoder>> made;
  for (auto& rank : out.ranks) {
    auto one = model::decoder::make(**file, *config, *rank.backend, within, {},
                                    rank.ranks.get());
    if (!one) {
      out.refused = one.error().message;
      return out;
    }
    made.push_back(std::move(*one));
  }
  out.first_bytes = made[0]->weight_bytes();
  out.decoder = std::make_unique<model::rank_runner>(std::move(made[0]),
                                                     *out.ranks[0].ranks);
  for (std::size_t i = 1; i < made.size(); ++i) {
    auto& own = *out.others.emplace_back(std::move(made[i]));
    out.threads.emplace_back([&own, to = out.ranks[i].ranks.get()] {
      model::follow(own, *to).value();
    });
  }
  return out;
}

inline std::filesystem::path family_file(const std::string& name) {
  return reference_folder() / "families" / (name + ".gguf");
}

} // namespace troupe::test
