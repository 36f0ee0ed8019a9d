#include "actors/replica/rank_process.hpp"

#include "actors/protocol/actors.hpp"
#include "actors/replica/replica.hpp"
#include "actors/replica/replica_process.hpp"
#include "actors/runtime/link.hpp"
#include "actors/runtime/log.hpp"
#include "actors/runtime/system_config.hpp"

#include <caf/actor_system.hpp>
#include <caf/scoped_actor.hpp>

#include <stdexcept>
#include <thread>

namespace troupe::replica {

namespace {

using namespace std::chrono_literals;
using protocol::launch_record;
using protocol::meet_atom;

constexpr std::chrono::milliseconds agent_timeout{10'000};

/// How long a rank that failed waits for the first one to say so to the node
/// agent, which ends them all then.
constexpr auto farewell = 10s;

/// The key under which the first rank of a node says where the model and its
/// tokenizer lie there.
std::string source_key(const protocol::replica_spec& spec) {
  return "source/" + std::to_string(spec.part);
}

/// Words at the node agent. A word is waited for as long as the process lives,
/// which ends with its node agent.
class agent_meeting final : public ops::rank_meeting {
public:
  agent_meeting(caf::actor_system& system, protocol::meeting_agent_actor agent,
                std::uint64_t incarnation)
      : system_(system), agent_(std::move(agent)), incarnation_(incarnation) {
    // nop
  }

  void put(const std::string& key, const std::vector<char>& word) override {
    codec::bytes bytes(word.begin(), word.end());
    caf::scoped_actor self{system_};
    self->request(agent_, caf::duration{agent_timeout}, meet_atom::value,
                  incarnation_, key, bytes)
        .receive([](bool) {}, [this](const caf::error& why) { fail(why); });
  }

  std::vector<char> get(const std::string& key) override {
    std::vector<char> out;
    caf::scoped_actor self{system_};
    self->request(agent_, caf::infinite, meet_atom::value, incarnation_, key)
        .receive(
            [&](const codec::bytes& word) {
              out.assign(word.begin(), word.end());
            },
            [this](const caf::error& why) { fail(why); });
    return out;
  }

private:
  [[noreturn]] void fail(const caf::error& why) const {
    throw std::runtime_error{system_.render(why)};
  }

  caf::actor_system& system_;
  protocol::meeting_agent_actor agent_;
  std::uint64_t incarnation_;
};

result<std::shared_ptr<ops::rank_meeting>>
meeting_of(caf::actor_system& system, const launch_record& launch) {
  auto agent = runtime::connect_now<protocol::node_agent_actor>(
      system, launch.agent, agent_timeout);
  if (!agent)
    return agent.error();
  return std::make_shared<agent_meeting>(
      system, caf::actor_cast<protocol::meeting_agent_actor>(*agent),
      launch.incarnation);
}

/// The two paths in one word.
std::vector<char> source_word(const engine::options& with) {
  auto text = with.model.string() + '\0' + with.tokenizer.string();
  return {text.begin(), text.end()};
}

void read_source(const std::vector<char>& word, engine::options& to) {
  std::string text{word.begin(), word.end()};
  auto end = std::min(text.find('\0'), text.size());
  to.model = text.substr(0, end);
  to.tokenizer = text.substr(std::min(end + 1, text.size()));
}

/// Where ranks are on several nodes, they talk over those's own addresses.
void place(engine::options& rank, const launch_record& launch) {
  rank.rank = launch.rank;
  rank.ranks_here = protocol::ranks_here(launch.spec).count;
  if (!launch.spec.ranks_on.empty())
    rank.rank_address = launch.listen_address;
}

/// The first rank of a node that has but a part of the replica.
result<engine::options> fetch_here(const launch_record& launch) {
  auto fetched =
      engine::fetch(engine_options(launch.spec),
                    [](const std::string&, std::uint64_t, std::uint64_t) {});
  if (!fetched)
    return fetched.error();
  return std::move(fetched->with);
}

result<void> follow(caf::actor_system& system, const launch_record& launch) {
  auto meeting = meeting_of(system, launch);
  if (!meeting)
    return meeting.error();
  auto options = engine_options(launch.spec);
  const auto key = source_key(launch.spec);
  try {
    if (launch.rank == protocol::ranks_here(launch.spec).first) {
      auto fetched = fetch_here(launch);
      if (!fetched)
        return fetched.error();
      options = std::move(*fetched);
      (*meeting)->put(key, source_word(options));
    } else {
      read_source((*meeting)->get(key), options);
    }
  } catch (const std::exception& why) {
    return error{errc::unavailable, why.what()};
  }
  options.meeting = *meeting;
  place(options, launch);
  return engine::serve_ranks(options, {});
}

} // namespace

result<engine::options> lead_ranks(caf::actor_system& system,
                                   const launch_record& launch,
                                   engine::options with) {
  auto meeting = meeting_of(system, launch);
  if (!meeting)
    return meeting.error();
  with.meeting = *meeting;
  place(with, launch);
  try {
    with.meeting->put(source_key(launch.spec), source_word(with));
  } catch (const std::exception& why) {
    return error{errc::unavailable, why.what()};
  }
  return with;
}

int run_rank(const launch_record& launch, const runtime::credentials& files) {
  runtime::system_config config{{files}};
  caf::actor_system system{config};
  auto done = follow(system, launch);
  if (done)
    return exit_stopped;
  // What the first rank says is said once.
  spdlog::log(done.error().code == errc::cancelled ? spdlog::level::debug
                                                   : spdlog::level::err,
              "{}", done.error().message);
  std::this_thread::sleep_for(farewell);
  return exit_failed;
}

} // namespace troupe::replica
