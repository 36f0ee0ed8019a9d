#include "engine/rank_threads.hpp"

#include <exception>
#include <string>
#include <utility>

namespace troupe::engine {

rank_threads::rank_threads(std::shared_ptr<ops::thread_group> group,
                           std::function<result<void>(std::uint32_t)> serve)
    : group_(std::move(group)), serve_(std::move(serve)) {
  for (std::int32_t rank = 1; rank < group_->size(); ++rank)
    threads_.emplace_back(
        [this, rank] { run(static_cast<std::uint32_t>(rank)); });
}

rank_threads::~rank_threads() {
  group_->end("the engine has ended");
  for (auto& one : threads_)
    one.join();
}

void rank_threads::run(std::uint32_t rank) {
  const auto name = "rank " + std::to_string(rank) + ": ";
  try {
    if (auto done = serve_(rank); !done)
      group_->end(name + done.error().message);
  } catch (const std::exception& why) {
    group_->end(name + why.what());
  }
}

} // namespace troupe::engine
