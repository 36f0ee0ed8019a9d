#pragma once

#include "engine/model/decoder.hpp"
#include "engine/model/open_checkpoint.hpp"
#include "engine/weights/converted_checkpoint.hpp"
#include "engine/weights/gguf.hpp"

#include <catch2/catch.hpp>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

namespace troupe::test {

/// A loaded model with the backend that it computes in.
struct loaded_model {
  std::unique_ptr<ops::backend> backend;
  model::model_config config;
  std::unique_ptr<model::decoder> decoder;
};

constexpr model::decoder_limits small_limits{64, 64, 8, 32};

inline loaded_model load_model(
    const std::filesystem::path& path, std::unique_ptr<ops::backend> backend,
    model::decoder_limits limits = small_limits, std::int32_t longest = 0,
    weights::matrix_form form = weights::matrix_form::as_stored) {
  auto opened = model::open_checkpoint(path);
  INFO((opened ? std::string{} : opened.error().message));
  REQUIRE(opened.has_value());
  const auto file = weights::convert_matrices(std::move(*opened), form);
  auto config = model::read_model_config(*file, longest);
  INFO((config ? std::string{} : config.error().message));
  REQUIRE(config.has_value());
  auto decoder = model::decoder::make(*file, *config, *backend, limits, {});
  INFO((decoder ? std::string{} : decoder.error().message));
  REQUIRE(decoder.has_value());
  return {std::move(backend), *config, std::move(*decoder)};
}

/// A sequence on its way through a decoder, with the KV blocks it may use.
struct fed_sequence {
  std::vector<token_id> ids;
  std::vector<std::int32_t> table;
  std::size_t done = 0;
  std::vector<std::vector<float>> logits; ///< of every position done
};

/// How many tokens of which sequence go into a step.
struct portion {
  fed_sequence* sequence;
  std::size_t tokens;
};

/// Runs one step over the portions and keeps the logits of all its rows.
inline void feed(engine::model_runner& decoder,
                 const std::vector<portion>& step) {
  engine::step_plan plan;
  for (std::size_t i = 0; i < step.size(); ++i) {
    const auto& sequence = *step[i].sequence;
    plan.tables.push_back(sequence.table);
    for (std::size_t n = 0; n < step[i].tokens; ++n) {
      auto position = sequence.done + n;
      plan.logit_rows.push_back(static_cast<std::int32_t>(plan.tokens.size()));
      plan.tokens.push_back(sequence.ids[position]);
      plan.positions.push_back(static_cast<std::int32_t>(position));
      plan.sequences.push_back(static_cast<std::int32_t>(i));
    }
  }
  decoder.submit(plan);
  auto logits = decoder.collect();
  std::size_t width = decoder.vocabulary();
  REQUIRE(logits.size() == plan.tokens.size() * width);
  auto row = logits.begin();
  for (const auto& one : step)
    for (std::size_t n = 0; n < one.tokens; ++n, row += width) {
      one.sequence->logits.emplace_back(row, row + width);
      ++one.sequence->done;
    }
}

/// Runs a sequence alone in chunks of at most `chunk` tokens.
inline void feed_alone(engine::model_runner& decoder, fed_sequence& sequence,
                       std::size_t chunk) {
  while (sequence.done < sequence.ids.size())
    feed(decoder,
         {{&sequence, std::min(chunk, sequence.ids.size() - sequence.done)}});
}

} // namespace troupe::test
