#pragma once

#include "actors/controller/state_store.hpp"

namespace troupe::test {

/// A store that forgets when the test is over.
struct fake_store : controller::state_store {
  struct contents {
    std::vector<codec::bytes> saved;
    std::uint64_t epoch = 0;
    std::vector<std::string> nodes;
    std::vector<controller::scale_target> targets;
    std::vector<protocol::asked_node> asked;
    int writes_of_nodes = 0;
    bool broken = false;
  };

  explicit fake_store(contents& in) : in(in) {
    // nop
  }

  static error disk_full() {
    return {errc::io, "state store: the disk is full"};
  }

  result<std::uint64_t> save(codec::bytes_view record) override {
    if (in.broken)
      return disk_full();
    in.saved.emplace_back(record.begin(), record.end());
    return in.saved.size();
  }

  result<std::optional<controller::stored_deployment>> latest() override {
    if (in.saved.empty())
      return std::optional<controller::stored_deployment>{};
    return std::optional{
        controller::stored_deployment{in.saved.size(), in.saved.back()}};
  }

  result<std::uint64_t> next_epoch() override {
    if (in.broken)
      return disk_full();
    return ++in.epoch;
  }

  result<void> remember_nodes(const std::vector<std::string>& nodes) override {
    in.nodes = nodes;
    ++in.writes_of_nodes;
    return {};
  }

  result<std::vector<std::string>> remembered_nodes() override {
    return in.nodes;
  }

  result<void> remember_targets(
      const std::vector<controller::scale_target>& targets) override {
    in.targets = targets;
    return {};
  }

  result<std::vector<controller::scale_target>> remembered_targets() override {
    return in.targets;
  }

  result<void>
  remember_asked(const std::vector<protocol::asked_node>& nodes) override {
    if (in.broken)
      return disk_full();
    in.asked = nodes;
    return {};
  }

  result<std::vector<protocol::asked_node>> asked_nodes() override {
    return in.asked;
  }

  contents& in;
};

} // namespace troupe::test
