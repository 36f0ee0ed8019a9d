#pragma once

#include "actors/controller/state_store.hpp"
#include "tests/sim/world.hpp"

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace troupe::sim {

/// What is on the head's disk. A write takes its time; the head's death before
/// its end leaves it whole or absent.
class disk {
public:
  explicit disk(world& w) : world_(w) {
    // nop
  }

  struct contents {
    std::vector<codec::bytes> deployments; ///< version = place + 1
    std::uint64_t epoch = 0;
    std::vector<std::string> nodes;
    std::vector<controller::scale_target> targets;
    std::vector<protocol::asked_node> asked;
  };

  const contents& now() const {
    return now_;
  }
  /// False: the disk is full.
  bool write(contents);
  /// When the last write ends.
  instant busy_until() const {
    return busy_until_;
  }
  /// The process that writes is gone: what had not ended is there or not, the
  /// later ones only with the earlier ones.
  void crash();

  // Faults.
  void slow_down(nanoseconds write_time) {
    write_time_ = write_time;
  }
  void fill(bool full) {
    full_ = full;
  }

private:
  struct unfinished {
    instant done;
    contents before;
  };

  world& world_;
  contents now_;
  instant busy_until_{0};
  nanoseconds write_time_ = milliseconds{1};
  bool full_ = false;
  std::vector<unfinished> unfinished_;
};

/// The store of one head's life, as the controller sees it.
class simulated_store : public controller::state_store {
public:
  explicit simulated_store(disk& d) : disk_(d) {
    // nop
  }

  result<std::uint64_t> save(codec::bytes_view record) override;
  result<std::optional<controller::stored_deployment>> latest() override;
  result<std::uint64_t> next_epoch() override;
  result<void> remember_nodes(const std::vector<std::string>&) override;
  result<std::vector<std::string>> remembered_nodes() override;
  result<void>
  remember_targets(const std::vector<controller::scale_target>&) override;
  result<std::vector<controller::scale_target>> remembered_targets() override;
  result<void>
  remember_asked(const std::vector<protocol::asked_node>&) override;
  result<std::vector<protocol::asked_node>> asked_nodes() override;

private:
  disk& disk_;
};

} // namespace troupe::sim
