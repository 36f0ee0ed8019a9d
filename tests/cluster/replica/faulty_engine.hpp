#pragma once

#include "engine/engine.hpp"
#include "tests/cluster/replica/fault_plan.hpp"

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <span>

namespace troupe::test {

namespace api = troupe::engine; // in the class, `engine` is its base

/// The engine of this build with the faults of a plan.
class faulty_engine : public engine::engine, private engine::step_watch {
public:
  faulty_engine(std::unique_ptr<api::engine> inner, fault_plan plan);

  const text::model_card& card() const override;
  const api::description& about() const override;
  void start(std::function<void(api::step_result&&)> on_step,
             api::step_watch* watch) override;
  void submit(api::request) override;
  void cancel(std::uint64_t id) override;
  api::stats now() const override;

private:
  struct choice {
    api::owner whose;
    std::uint64_t seed = 0; // with the index: whose random numbers
    std::uint32_t index = 0;
    bool aborts = false;
    bool repeats = false; // the next token is sent twice
    std::uint64_t outputs = 0;
  };

  void begin(std::span<const api::owner>) override;
  void end() override;
  void hang_if_asked() const;
  void abort_if_asked(std::span<const api::owner>);
  void abort() const;
  void resume_wrongly(api::request&) const;
  void count(api::step_result&);

  fault_plan plan_;
  api::step_watch* watch_ = nullptr;
  std::function<void(api::step_result&&)> on_step_;
  std::mutex mutex_;
  std::map<std::uint64_t, choice> choices_; // by the request's id
  std::unique_ptr<api::engine> inner_;      // ends first
};

} // namespace troupe::test
