#pragma once

#include "engine/codec/error.hpp"

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <utility>
#include <vector>

namespace troupe::runtime {

/// A choice as its router knows it: (router incarnation, request_record::id).
using step_member = std::pair<std::uint64_t, std::uint64_t>;

/// Which choices the running step of a replica computes, in a small mapped file
/// that outlives the process: written by the replica's engine thread, read by
/// its node agent once the process has ended, whatever ended it. No system calls
/// and no locks while stepping.
class step_journal {
public:
  /// Makes the file for steps of up to `members_max` choices (a step of more
  /// records the first so many).
  static result<std::unique_ptr<step_journal>>
  create(const std::filesystem::path&, std::size_t members_max);

  ~step_journal();
  step_journal(const step_journal&) = delete;
  step_journal& operator=(const step_journal&) = delete;

  void begin(std::span<const step_member>);
  void end();

private:
  struct page;

  step_journal(page*, std::size_t bytes, std::size_t members_max);

  page* page_;
  std::size_t bytes_;
  std::size_t members_max_;
};

/// The choices of the step during which the journal's process ended; none if it
/// was between two steps. Errors: no such file, or it says what cannot be.
result<std::vector<step_member>>
read_step_journal(const std::filesystem::path&);

} // namespace troupe::runtime
