#include "actors/controller/status_query.hpp"

#include "actors/controller/answered_error.hpp"

#include <caf/all.hpp>
#include <chrono>
#include <future>
#include <memory>

namespace troupe::controller {

using namespace protocol;

namespace {

constexpr std::chrono::seconds answer_max{10}; ///< it may wait for a disk
constexpr std::chrono::seconds stored_max{30};

error no_answer() {
  return {errc::unavailable, "the controller does not answer"};
}

/// Asks from an actor of its own. `Reply` is what the controller answers, and
/// `read` makes what `done` gets of it.
template <class Reply, class Controller, class Read, class Done,
          class... Question>
void ask(caf::actor_system& system, const Controller& controller,
         std::chrono::seconds time_max, Read read, Done done,
         Question... question) {
  system.spawn([=](caf::event_based_actor* self) {
    self->request(controller, time_max, question...)
        .then([=](const Reply& reply) { done(read(reply)); },
              [=](const caf::error& why) { done(from_answer(why)); });
  });
}

/// Waits for what `start` gives to the function that it gets.
template <class T, class Start>
result<T> wait_for(std::chrono::seconds time_max, Start start) {
  auto answer = std::make_shared<std::promise<result<T>>>();
  auto future = answer->get_future();
  start([answer](result<T> got) { answer->set_value(std::move(got)); });
  if (future.wait_for(2 * time_max) != std::future_status::ready)
    return no_answer();
  return future.get();
}

result<std::uint64_t> version_of(std::uint64_t answer) {
  return answer;
}

} // namespace

void query_status(caf::actor_system& system, const controller_actor& controller,
                  std::function<void(result<cluster_status>)> done) {
  ask<codec::bytes>(system, controller, answer_max, decode_cluster_status,
                    std::move(done), status_atom::value);
}

result<cluster_status> status_now(caf::actor_system& system,
                                  const controller_actor& controller) {
  return wait_for<cluster_status>(answer_max, [&](auto done) {
    query_status(system, controller, std::move(done));
  });
}

void query_config(caf::actor_system& system, const controller_actor& controller,
                  std::function<void(result<deployment>)> done) {
  ask<codec::bytes>(system, controller, answer_max, decode_deployment,
                    std::move(done), config_atom::value);
}

result<deployment> config_now(caf::actor_system& system,
                              const controller_actor& controller) {
  return wait_for<deployment>(answer_max, [&](auto done) {
    query_config(system, controller, std::move(done));
  });
}

void deploy(caf::actor_system& system, const controller_actor& controller,
            const deployment& wanted,
            std::function<void(result<std::uint64_t>)> done) {
  ask<std::uint64_t>(system, controller, stored_max, version_of,
                     std::move(done), deploy_atom::value, encode(wanted));
}

result<std::uint64_t> deploy_now(caf::actor_system& system,
                                 const controller_actor& controller,
                                 const deployment& wanted) {
  return wait_for<std::uint64_t>(stored_max, [&](auto done) {
    deploy(system, controller, wanted, std::move(done));
  });
}

void delete_application(caf::actor_system& system,
                        const controller_actor& controller,
                        const std::string& application,
                        std::function<void(result<std::uint64_t>)> done) {
  ask<std::uint64_t>(system, controller, stored_max, version_of,
                     std::move(done), delete_atom::value, application);
}

void revoke_node(caf::actor_system& system,
                 const head_controller_actor& controller,
                 const std::string& node,
                 std::function<void(result<std::string>)> done) {
  auto same = [](const std::string& answer) -> result<std::string> {
    return answer;
  };
  ask<std::string>(system, controller, stored_max, same, std::move(done),
                   revoke_atom::value, node);
}

void scale_model(caf::actor_system& system,
                 const head_controller_actor& controller,
                 const std::string& application, const std::string& model,
                 std::uint32_t replicas,
                 std::function<void(result<std::uint32_t>)> done) {
  auto same = [](std::uint32_t answer) -> result<std::uint32_t> {
    return answer;
  };
  ask<std::uint32_t>(system, controller, stored_max, same, std::move(done),
                     scale_atom::value, application, model, replicas);
}

} // namespace troupe::controller
