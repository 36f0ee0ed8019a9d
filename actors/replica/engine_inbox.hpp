#pragma once

#include "engine/engine.hpp"

#include <cstdint>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace troupe::replica {

/// A loaded engine and where its process can be reached.
struct loaded_engine {
  engine::engine* engine = nullptr;    ///< lives longer than the actor
  engine::step_watch* watch = nullptr; ///< none if null; outlives the engine
  std::uint16_t port = 0;              ///< of the replica's actor
  std::uint16_t blob_port = 0;
  std::string card_hash;
  std::uint32_t load_ms = 0;
};

/// What happened outside the actor since it looked last.
struct engine_news {
  std::vector<engine::step_result> steps;
  std::string doing; ///< before it loads the weights; empty = it does
  std::uint64_t bytes_done = 0; ///< of the weights, or of what is fetched
  std::uint64_t bytes_total = 0;
  std::optional<loaded_engine> loaded;
  std::optional<error> failed; ///< to load
};

/// From the engine's thread and the loading thread to the replica's actor. Any
/// thread. `wake` is called when something is there after nothing was.
class engine_inbox {
public:
  explicit engine_inbox(std::function<void()> wake) : wake_(std::move(wake)) {
    // nop
  }

  void put_step(engine::step_result&& x) {
    put([&] { news_.steps.push_back(std::move(x)); });
  }

  void put_progress(std::uint64_t done, std::uint64_t total,
                    std::string doing = {}) {
    std::lock_guard guard{mutex_}; // waits for the actor's next look
    news_.doing = std::move(doing);
    news_.bytes_done = done;
    news_.bytes_total = total;
  }

  void put_loaded(loaded_engine x) {
    put([&] { news_.loaded = std::move(x); });
  }

  void put_failed(error why) {
    put([&] { news_.failed = std::move(why); });
  }

  engine_news take() {
    std::lock_guard guard{mutex_};
    woken_ = false;
    auto out = std::move(news_);
    news_ = {};
    news_.doing = out.doing;
    news_.bytes_done = out.bytes_done;
    news_.bytes_total = out.bytes_total;
    return out;
  }

private:
  template <class Change>
  void put(Change change) {
    {
      std::lock_guard guard{mutex_};
      change();
      if (std::exchange(woken_, true))
        return;
    }
    wake_();
  }

  std::function<void()> wake_;
  std::mutex mutex_;
  engine_news news_;
  bool woken_ = false;
};

} // namespace troupe::replica
