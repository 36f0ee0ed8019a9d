#include "router/request_guard.hpp"
#include "router/tenants.hpp"

#include <catch2/catch.hpp>

using namespace troupe;
using namespace troupe::router;

namespace {

http::request with(http::header_list headers) {
  http::request request;
  request.headers = std::move(headers);
  return request;
}

} // namespace

TEST_CASE("without configured keys any key and none is taken") {
  tenants anybody;
  CHECK(anybody.find(with({})));
  CHECK(anybody.find(with({{"Authorization", "Bearer whatever"}})));
}

TEST_CASE("with keys only one Authorization field with one of them is taken") {
  api_keys keys{{"first", "second"}};
  CHECK(keys.find(with({{"Authorization", "Bearer second"}})) == 1u);
  CHECK(keys.find(with({{"authorization", "bearer first "}})) == 0u);
  CHECK(!keys.find(with({})));
  CHECK(!keys.find(with({{"Authorization", "Bearer third"}})));
  CHECK(!keys.find(with({{"Authorization", "Bearer "}})));
  CHECK(!keys.find(with({{"Authorization", "Bearer firs"}})));
  CHECK(!keys.find(with({{"Authorization", "Bearer first2"}})));
  CHECK(!keys.find(with({{"Authorization", "Basic first"}})));
  CHECK(!keys.find(with({{"Authorization", "first"}})));
  CHECK(!keys.find(with({{"Authorization", std::string(1 << 20, 'x')}})));
  CHECK(!keys.find(with(
      {{"authorization", "Bearer first"}, {"Authorization", "Bearer first"}})));
}

TEST_CASE("a request id of visible ASCII is kept, any other replaced") {
  CHECK(request_id_of(with({{"X-Request-Id", "my-id_1"}})) == "my-id_1");
  for (auto bad :
       {std::string{"two words"}, std::string{""}, std::string(129, 'a'),
        std::string{"caf\xc3\xa9"}, std::string{"a\tb"}}) {
    auto id = request_id_of(with({{"x-request-id", bad}}));
    CHECK(id != bad);
    CHECK(id.size() == 36);
  }
  CHECK(request_id_of(with({})) != request_id_of(with({})));
}

TEST_CASE("an origin must be the host") {
  CHECK(same_origin(with({{"Host", "a:1"}})));
  CHECK(same_origin(with({{"Host", "a:1"}, {"Origin", "http://a:1"}})));
  CHECK(!same_origin(with({{"Host", "a:1"}, {"Origin", "http://b:1"}})));
  CHECK(!same_origin(with({{"Host", "a:1"}, {"Origin", "http://a:2"}})));
  CHECK(!same_origin(with({{"Host", "a:1"}, {"Origin", "null"}})));
}

TEST_CASE("only numeric hosts and localhost are local names") {
  for (auto host :
       {"127.0.0.1:8265", "127.0.0.1", "localhost:1", "[::1]:80", "LOCALHOST"})
    CHECK(is_local_name(host));
  for (auto host : {"evil.example:8265", "", "localhost.evil.example", "[",
                    "[]", "127.0.0.1.evil.example"})
    CHECK(!is_local_name(host));
}

TEST_CASE("JSON is application/json, with or without parameters") {
  CHECK(is_json(with({{"Content-Type", "application/json"}})));
  CHECK(is_json(with({{"Content-Type", "Application/JSON; charset=utf-8"}})));
  CHECK(!is_json(with({{"Content-Type", "text/plain"}})));
  CHECK(!is_json(with({{"Content-Type", "application/jsonx"}})));
  CHECK(!is_json(with({})));
}
