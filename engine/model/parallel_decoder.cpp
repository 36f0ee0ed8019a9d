#include "engine/model/parallel_decoder.hpp"

#include <barrier>
#include <thread>
#include <vector>

namespace troupe::model {

struct parallel_decoder::state {
  explicit state(std::ptrdiff_t ranks) : step(ranks) {
    // nop
  }

  ~state() {
    if (threads.empty())
      return;
    is_stopping = true;
    step.arrive_and_wait();
    for (auto& one : threads)
      one.join();
  }

  /// Rank 0 is computed by who calls collect.
  void start() {
    for (std::size_t i = 1; i < decoders.size(); ++i)
      threads.emplace_back([this, i] { serve(*decoders[i]); });
  }

  void serve(decoder& own) {
    for (;;) {
      step.arrive_and_wait(); // a step begins
      if (is_stopping)
        return;
      own.collect();
      step.arrive_and_wait(); // it has ended
    }
  }

  std::vector<std::unique_ptr<ops::communicator>> ranks;
  std::vector<std::unique_ptr<decoder>> decoders;
  std::vector<std::thread> threads;
  std::barrier<> step;
  bool is_stopping = false; ///< read after `step` alone
  bool is_submitted = false;
};

parallel_decoder::parallel_decoder() = default;

parallel_decoder::~parallel_decoder() = default;

result<std::unique_ptr<parallel_decoder>> parallel_decoder::make(
    const weights::checkpoint& file, const model_config& config,
    std::span<ops::backend* const> backends, const decoder_limits& limits) {
  const auto size = static_cast<std::int32_t>(backends.size());
  if (size < 1)
    return error{errc::invalid_argument, "a model has one rank at least"};
  std::unique_ptr<parallel_decoder> out{new parallel_decoder};
  out->state_ = std::make_unique<state>(size);
  auto& made = *out->state_;
  made.ranks = ops::make_thread_communicators(size);
  for (std::int32_t rank = 0; rank < size; ++rank) {
    const auto i = static_cast<std::size_t>(rank);
    auto one = decoder::make(file, config, *backends[i], limits, {},
                             made.ranks[i].get());
    if (!one)
      return one.error();
    made.decoders.push_back(std::move(*one));
  }
  made.start();
  return out;
}

void parallel_decoder::submit(const engine::step_plan& plan) {
  for (auto& one : state_->decoders)
    one->submit(plan);
  state_->is_submitted = true;
}

std::span<const float> parallel_decoder::collect() {
  auto& all = *state_;
  if (!std::exchange(all.is_submitted, false))
    return all.decoders.front()->collect();
  all.step.arrive_and_wait();
  auto logits = all.decoders.front()->collect();
  all.step.arrive_and_wait();
  return logits;
}

std::int32_t parallel_decoder::vocabulary() const {
  return state_->decoders.front()->vocabulary();
}

std::uint64_t parallel_decoder::weight_bytes_read() const {
  std::uint64_t out = 0;
  for (const auto& one : state_->decoders)
    out += one->weight_bytes_read();
  return out;
}

std::uint64_t parallel_decoder::weight_bytes() const {
  std::uint64_t out = 0;
  for (const auto& one : state_->decoders)
    out += one->weight_bytes();
  return out;
}

} // namespace troupe::model
