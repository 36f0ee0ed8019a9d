#include "router/wake_queue.hpp"

#include <catch2/catch.hpp>

#include <string>
#include <vector>

using namespace troupe;
using namespace troupe::router;
using namespace std::chrono_literals;

namespace {

struct outcome {
  bool waits = true;
  int gone_on = 0;
  std::vector<std::string> failures;

  wake_queue::waiter waiter() {
    return {[this] { return waits; }, [this] { ++gone_on; },
            [this](const error& why) { failures.push_back(why.message); }};
  }
};

const wake_queue::model_key a{"app", "a"};
const wake_queue::model_key b{"app", "b"};
constexpr wake_queue::time_point start{1h};

} // namespace

TEST_CASE("who waits for a model is told of, and goes on when it has woken") {
  wake_queue queue{{}};
  outcome first, second, other;
  REQUIRE(queue.add(a, first.waiter(), start));
  REQUIRE(queue.add(a, second.waiter(), start));
  REQUIRE(queue.add(b, other.waiter(), start));
  CHECK(queue.load() == std::vector<protocol::router_load>{{"app", "a", 2, 0},
                                                           {"app", "b", 1, 0}});
  queue.woken(a);
  CHECK(first.gone_on == 1);
  CHECK(second.gone_on == 1);
  CHECK(other.gone_on == 0);
  queue.woken(a);
  CHECK(first.gone_on == 1);
  CHECK(queue.models() == std::vector{b});
}

TEST_CASE("who has left wakes nothing and takes no place") {
  wake_queue queue{{.waiting_max = 1}};
  outcome gone, next, more;
  REQUIRE(queue.add(a, gone.waiter(), start));
  CHECK_FALSE(queue.add(a, next.waiter(), start));
  CHECK(queue.add(b, more.waiter(), start)); // the bound is a model's
  gone.waits = false;
  CHECK(queue.add(a, next.waiter(), start));
  next.waits = more.waits = false;
  CHECK(queue.load().empty());
  CHECK(queue.models().empty());
}

TEST_CASE("waiting has an end, and a failure a reason") {
  wake_queue queue{{.wait_max = 10s}};
  outcome early, late, other;
  queue.add(a, early.waiter(), start);
  queue.add(a, late.waiter(), start + 5s);
  queue.expire(start + 9s);
  CHECK(early.failures.empty());
  queue.expire(start + 10s);
  CHECK(early.failures ==
        std::vector<std::string>{"The model did not wake within 10 seconds."});
  CHECK(late.failures.empty());
  queue.failed(a, {errc::unavailable, "no such file"});
  CHECK(late.failures == std::vector<std::string>{"no such file"});
  queue.add(b, other.waiter(), start);
  queue.close({errc::unavailable, "stopping"});
  CHECK(other.failures == std::vector<std::string>{"stopping"});
  CHECK(early.failures.size() == 1);
}
