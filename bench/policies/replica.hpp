#pragma once

#include "actors/protocol/load_messages.hpp"
#include "actors/replica/session_table.hpp"
#include "bench/policies/event_queue.hpp"
#include "bench/policies/step_time.hpp"
#include "engine/engine_core.hpp"
#include "engine/step_fit.hpp"
#include "engine/step_rate.hpp"

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace troupe::bench {

/// What every replica of a fleet is.
struct replica_options {
  step_time times;
  double slowness = 1; ///< times as long as `times` for every step
  std::uint32_t rows_max = 512;
  std::uint32_t sequences_max = 256;
  std::uint32_t context_max = 8'192;
  std::uint64_t cache_tokens = 32'768;
  std::uint32_t block_size = 16;
  std::uint32_t answer_max = 2'000; ///< tokens that clients ask for at most
};

/// How long a choice of a router becomes.
struct answer_plan {
  std::uint32_t prompt_tokens = 0;
  std::uint32_t output_tokens = 0;
};

using choice_id = std::pair<std::uint64_t, std::uint64_t>; // router, record

/// A model that computes nothing: a pass takes its time, and a choice ends when
/// it is as long as planned.
class timed_runner final : public engine::model_runner,
                           public engine::step_watch {
public:
  timed_runner(const replica_options&, std::uint64_t seed);

  void plan(choice_id, answer_plan);

  /// Of the last pass.
  double seconds() const {
    return seconds_;
  }

  static constexpr token_id end_token = 15;

  void begin(std::span<const engine::owner> of) override;
  void end() override {
  }
  void submit(const engine::step_plan&) override;
  std::span<const float> collect() override {
    return logits_;
  }
  std::int32_t vocabulary() const override {
    return end_token + 1;
  }
  std::uint64_t weight_bytes_read() const override {
    return 0;
  }

private:
  const replica_options& options_;
  std::uint64_t seed_;
  std::map<choice_id, answer_plan> plans_;
  std::vector<engine::owner> owners_;
  std::vector<float> logits_;
  double seconds_ = 0;
};

/// A replica's process: the real session table on the real engine core, whose
/// passes take simulated time.
class simulated_replica {
public:
  using sender = std::function<void(replica::send_tokens&&)>;

  /// `options` outlive it. `send` hears what goes to routers, when it leaves.
  simulated_replica(event_queue&, const replica_options&,
                    std::uint64_t incarnation, std::uint32_t choices_max,
                    sender);

  void attach(std::uint64_t router);
  void follow_blocks(std::uint64_t router, bool wanted);
  void generate(std::uint64_t router, const protocol::request_record&,
                answer_plan);
  void cancel(std::uint64_t router, std::uint64_t record);

  /// Takes no more choices.
  void drain() {
    sessions_.close("the replica is draining");
  }

  bool idle() const {
    return sessions_.running() == 0;
  }

  /// What its load report would say; the sequence is for the caller.
  protocol::replica_load_news news() const;

  const engine::stats& stats() const {
    return published_;
  }

private:
  void run(replica::session_commands);
  void step();
  void stepped(engine::step_result, double seconds);

  event_queue& events_;
  const replica_options& options_;
  std::uint64_t incarnation_;
  sender send_;
  timed_runner runner_;
  engine::engine_core core_;
  replica::session_table sessions_;
  std::vector<engine::request> inbox_;
  std::vector<std::uint64_t> cancelled_;
  bool is_busy_ = false;
  engine::step_rate rate_;
  engine::step_fit fit_;
  engine::stats published_;
};

} // namespace troupe::bench
