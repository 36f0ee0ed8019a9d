#include "actors/controller/status_query.hpp"

#include <caf/all.hpp>
#include <chrono>

#include <future>

namespace troupe::controller {

using protocol::status_atom;

namespace {

constexpr std::chrono::seconds answer_time{2};

error no_answer() {
  return {errc::unavailable, "the controller does not answer"};
}

} // namespace

void query_status(caf::actor_system& system,
                  const protocol::controller_actor& controller,
                  std::function<void(result<protocol::cluster_status>)> done) {
  system.spawn([controller, done = std::move(done)](
                   caf::event_based_actor* self) {
    self->request(controller, answer_time, status_atom::value)
        .then(
            [done](const codec::bytes& record) {
              done(protocol::decode_cluster_status(record));
            },
            [done](const caf::error&) { done(no_answer()); });
  });
}

result<protocol::cluster_status>
status_now(caf::actor_system& system,
           const protocol::controller_actor& controller) {
  auto answer =
      std::make_shared<std::promise<result<protocol::cluster_status>>>();
  auto future = answer->get_future();
  query_status(system, controller, [answer](auto status) {
    answer->set_value(std::move(status));
  });
  if (future.wait_for(2 * answer_time) != std::future_status::ready)
    return no_answer();
  return future.get();
}

} // namespace troupe::controller
