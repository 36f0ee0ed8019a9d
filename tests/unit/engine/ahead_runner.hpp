#pragma once

#include "engine/model/runner.hpp"

#include "hash_runner.hpp"

#include <deque>

namespace troupe::engine {

/// A hash_runner that draws, and runs ahead if it is told to. A step is
/// computed when it is collected: what was submitted has to stand on its own.
/// How it draws is its own, but all that a plan says of a row matters.
class ahead_runner final : public model_runner {
public:
  ahead_runner(hash_runner& of, bool goes_ahead)
      : of_(of), goes_ahead_(goes_ahead) {
  }

  void submit(const step_plan&) override;
  std::span<const float> collect() override;

  bool has_roles() const override {
    return of_.has_roles();
  }
  bool draws() const override {
    return true;
  }
  bool runs_ahead() const override {
    return goes_ahead_;
  }
  void submit_drawn(const step_plan& plan,
                    const ops::draw_plan& draws) override;
  std::span<const ops::drawn_row> collect_drawn() override;
  std::span<const float> logits_of(std::size_t logit_row) override;

  std::int32_t vocabulary() const override {
    return of_.vocabulary();
  }
  std::uint64_t weight_bytes_read() const override {
    return of_.weight_bytes_read();
  }

  std::size_t under_way() const {
    return steps_.size();
  }

private:
  struct step {
    step_plan plan;
    ops::draw_plan draws;
  };

  hash_runner& of_;
  bool goes_ahead_;
  std::deque<step> steps_; ///< under way
  std::vector<float> logits_;
  std::vector<ops::drawn_row> drawn_;
};

} // namespace troupe::engine
