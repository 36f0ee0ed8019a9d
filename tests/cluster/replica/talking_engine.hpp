#pragma once

#include "engine/engine.hpp"

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <thread>

namespace troupe::test {

namespace api = troupe::engine; // in the class, `engine` is its base

/// An engine that computes nothing: a choice gets as many tokens as it may
/// have, each a function of its place, one per step and some hundred steps per
/// second. What is around an engine can be tried with many streams that way.
/// Model card and description are those of a real one.
class talking_engine : public engine::engine {
public:
  explicit talking_engine(std::unique_ptr<api::engine> real);
  ~talking_engine() override;

  const text::model_card& card() const override;
  const api::description& about() const override;
  void start(std::function<void(api::step_result&&)> on_step,
             api::step_watch* watch) override;
  void submit(api::request) override;
  void cancel(std::uint64_t id) override;
  api::stats now() const override;

private:
  struct choice {
    std::uint32_t drawn = 0;
    std::uint32_t wanted = 0;
  };

  void run();
  api::step_result step();

  std::unique_ptr<api::engine> real_;
  std::function<void(api::step_result&&)> on_step_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::map<std::uint64_t, choice> choices_; // by the request's id
  api::stats now_;
  bool stopping_ = false;
  std::thread thread_;
};

} // namespace troupe::test
