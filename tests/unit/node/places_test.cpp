#include "node/admin_client.hpp"
#include "node/node_facts.hpp"
#include "node/state_directory.hpp"

#include <catch2/catch.hpp>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <unistd.h>

using namespace troupe;
namespace fs = std::filesystem;

namespace {

struct folder {
  fs::path path;

  folder() {
    std::string name = (fs::temp_directory_path() / "troupe-node-XXXXXX");
    REQUIRE(mkdtemp(name.data()) != nullptr);
    path = name;
  }

  ~folder() {
    fs::remove_all(path);
  }
};

} // namespace

TEST_CASE("places of admin listeners are read as people write them") {
  struct row {
    const char* text;
    const char* host;
    int port;
  };
  auto good = GENERATE(row{"127.0.0.1:8265", "127.0.0.1", 8265},
                       row{"localhost:1", "localhost", 1},
                       row{"head-1.example:8265", "head-1.example", 8265},
                       row{"http://10.0.0.1:8265", "10.0.0.1", 8265},
                       row{"http://localhost:8265/", "localhost", 8265},
                       row{"[::1]:80", "::1", 80});
  auto place = node::parse_place(good.text);
  REQUIRE(place.has_value());
  CHECK(place->host == good.host);
  CHECK(place->port == good.port);
  for (std::string bad :
       {"", ":", ":1", "a/b:1", "a b:1", "127.0.0.1", "127.0.0.1:0",
        "127.0.0.1:65536", "127.0.0.1:1x", "https://1.1.1.1:1", "http://"}) {
    INFO(bad);
    CHECK_FALSE(node::parse_place(bad).has_value());
  }
}

TEST_CASE("nobody at a place is an error that names it") {
  auto answer = node::ask_admin({"127.0.0.1", 1}, "GET", "/", "",
                                std::chrono::seconds{5});
  REQUIRE_FALSE(answer.has_value());
  CHECK(answer.error().message.find("127.0.0.1:1") != std::string::npos);
}

TEST_CASE("a host that there is not is an error that names it") {
  // The top-level domain "invalid" has no hosts (RFC 2606).
  auto answer = node::ask_admin({"nobody.invalid", 1}, "GET", "/", "",
                                std::chrono::seconds{30});
  REQUIRE_FALSE(answer.has_value());
  CHECK(answer.error().message.find("nobody.invalid") != std::string::npos);
}

TEST_CASE("names in paths are encoded") {
  CHECK(node::encoded("a-b.c_~1") == "a-b.c_~1");
  CHECK(node::encoded("a/b c%\xC3\xA4") == "a%2Fb%20c%25%C3%A4");
}

TEST_CASE("the reason of a refusal is what its body says") {
  CHECK(node::reason_of({400, R"({"error":{"message":"no"}})"}) == "no");
  CHECK(node::reason_of({500, "x"}) == "the answer was 500");
}

TEST_CASE("a node's facts are read as they were written") {
  folder here;
  CHECK(node::read_facts(here.path).error().code == errc::not_found);
  node::node_facts facts;
  facts.pid = 7;
  facts.node = "a \"node\"";
  facts.role = "head";
  facts.address = "127.0.0.1";
  facts.http_host = "::1";
  facts.admin_host = "127.0.0.1";
  facts.http_port = 65'535;
  facts.admin_port = 1;
  facts.join_port = 2;
  facts.cluster_port = 3;
  REQUIRE(node::write_facts(here.path, facts).has_value());
  auto read = node::read_facts(here.path);
  REQUIRE(read.has_value());
  CHECK(*read == facts);
  CHECK((fs::status(here.path / "node.json").permissions() &
         (fs::perms::group_all | fs::perms::others_all)) == fs::perms::none);
  std::ofstream{here.path / "node.json"} << "{";
  CHECK(node::read_facts(here.path).error().code == errc::corrupt);
  node::remove_facts(here.path);
  CHECK_FALSE(fs::exists(here.path / "node.json"));
}

TEST_CASE("a state directory is private and one process's at a time") {
  folder here;
  auto state = here.path / "deep" / "state";
  REQUIRE(node::make_state_dir(state).has_value());
  CHECK((fs::status(state).permissions() & fs::perms::all) ==
        fs::perms::owner_all);
  std::ofstream{here.path / "file"} << "x";
  CHECK_FALSE(node::make_state_dir(here.path / "file").has_value());
  auto first = node::state_lock::take(state);
  REQUIRE(first.has_value());
  auto second = node::state_lock::take(state);
  REQUIRE_FALSE(second.has_value());
  CHECK(second.error().message.find("pid " + std::to_string(::getpid())) !=
        std::string::npos);
  first->reset();
  CHECK(node::state_lock::take(state).has_value());
}
