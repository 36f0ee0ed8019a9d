#pragma once

#include "actors/runtime/step_journal.hpp"
#include "engine/engine.hpp"

#include <memory>
#include <utility>
#include <vector>

namespace troupe::replica {

/// Writes the owners of the running step's choices into the step journal.
class journal_watch final : public engine::step_watch {
public:
  explicit journal_watch(std::unique_ptr<runtime::step_journal> journal)
      : journal_(std::move(journal)) {
    // nop
  }

  void begin(std::span<const engine::owner> of) override {
    members_.clear();
    for (const auto& [router, record] : of)
      members_.emplace_back(router, record);
    journal_->begin(members_);
  }

  void end() override {
    journal_->end();
  }

private:
  std::unique_ptr<runtime::step_journal> journal_;
  std::vector<runtime::step_member> members_; ///< reused from step to step
};

} // namespace troupe::replica
