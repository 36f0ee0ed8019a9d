#include "actors/protocol/launch_record.hpp"
#include "actors/replica/replica_process.hpp"
#include "tests/cluster/replica/faulty_engine.hpp"
#include "tests/cluster/replica/talking_engine.hpp"

#include <string_view>

#include <sys/resource.h>

// A replica as `troupe replica` is one, whose engine fails as its environment
// says (fault_plan.hpp). For `troupe start --replica-program`.

using namespace troupe;

namespace {

result<replica::engine_with_card>
load_faulty(const engine::options& options,
            const engine::load_progress& progress) {
  auto loaded = engine::engine::load(options, progress);
  if (!loaded)
    return loaded.error();
  auto card = text::encode((*loaded)->card());
  auto plan = test::plan_from_environment();
  auto inner = std::move(*loaded);
  if (plan.talks)
    inner = std::make_unique<test::talking_engine>(std::move(inner));
  return replica::engine_with_card{
      std::make_unique<test::faulty_engine>(std::move(inner), std::move(plan)),
      std::string{card.begin(), card.end()}};
}

} // namespace

int main(int argc, char** argv) {
  if (argc < 2 || std::string_view{argv[1]} != "replica")
    return 64;
  rlimit none{0, 0}; // it crashes often; nobody reads its cores
  ::setrlimit(RLIMIT_CORE, &none);
  replica::replica_overrides overrides;
  overrides.version += test::versions_apart();
  return replica::run_replica(protocol::lifeline_fd, load_faulty, overrides);
}
