#include "actors/replica/replica_main.hpp"

#include "actors/replica/replica_process.hpp"

namespace troupe::replica {

namespace {

result<engine_with_card> load_engine(const engine::options& options,
                                     const engine::load_progress& progress) {
  auto loaded = engine::engine::load(options, progress);
  if (!loaded)
    return loaded.error();
  auto card = text::encode((*loaded)->card());
  return engine_with_card{std::move(*loaded),
                          std::string{card.begin(), card.end()}};
}

} // namespace

int run_replica(int lifeline) {
  return run_replica(lifeline, load_engine);
}

} // namespace troupe::replica
