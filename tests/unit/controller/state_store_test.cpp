#include "actors/controller/state_store.hpp"

#include <catch2/catch.hpp>
#include <cstdlib>
#include <fstream>
#include <sqlite3.h>
#include <sys/stat.h>

using namespace troupe;
using controller::state_store;
namespace fs = std::filesystem;

namespace {

struct folder {
  fs::path path;

  folder() {
    std::string name = (fs::temp_directory_path() / "troupe-store-XXXXXX");
    REQUIRE(mkdtemp(name.data()) != nullptr);
    path = name;
  }

  ~folder() {
    fs::remove_all(path);
  }
};

} // namespace

TEST_CASE("what was stored is there after opening again") {
  folder here;
  {
    auto store = state_store::open(here.path / "state.db");
    REQUIRE(store.has_value());
    CHECK_FALSE((*store)->latest()->has_value());
    CHECK(*(*store)->save(codec::bytes{1, 2, 3}) == 1);
    CHECK(*(*store)->save(codec::bytes{4}) == 2);
  }
  auto store = state_store::open(here.path / "state.db");
  REQUIRE(store.has_value());
  auto newest = (*store)->latest();
  REQUIRE(newest.has_value());
  REQUIRE(newest->has_value());
  CHECK((*newest)->version == 2);
  CHECK((*newest)->record == codec::bytes{4});
}

TEST_CASE("an equal deployment keeps its version") {
  folder here;
  auto store = state_store::open(here.path / "state.db");
  REQUIRE(store.has_value());
  CHECK(*(*store)->save(codec::bytes{1}) == 1);
  CHECK(*(*store)->save(codec::bytes{1}) == 1);
  CHECK(*(*store)->save(codec::bytes{2}) == 2);
}

TEST_CASE("only the owner can read the store") {
  folder here;
  auto store = state_store::open(here.path / "state.db");
  REQUIRE(store.has_value());
  REQUIRE((*store)->save(codec::bytes{1}).has_value());
  for (const auto& entry : fs::directory_iterator{here.path}) {
    struct stat info {};
    REQUIRE(stat(entry.path().c_str(), &info) == 0);
    CHECK((info.st_mode & 0077) == 0);
  }
}

TEST_CASE("a second process is refused, as is a file that is no store") {
  folder here;
  auto first = state_store::open(here.path / "state.db");
  REQUIRE(first.has_value());
  auto second = state_store::open(here.path / "state.db");
  REQUIRE_FALSE(second.has_value());
  CHECK(second.error().message.find("another process") != std::string::npos);
  std::ofstream{here.path / "other.db"} << std::string(5000, 'x');
  CHECK_FALSE(state_store::open(here.path / "other.db").has_value());
  CHECK_FALSE(state_store::open(here.path / "none" / "state.db").has_value());
}

TEST_CASE("every start of a head has a higher epoch") {
  folder here;
  for (std::uint64_t epoch = 1; epoch <= 3; ++epoch) {
    auto store = state_store::open(here.path / "state.db");
    REQUIRE(store.has_value());
    CHECK(*(*store)->next_epoch() == epoch);
  }
}

TEST_CASE("the nodes that were remembered last are there after opening again") {
  folder here;
  {
    auto store = state_store::open(here.path / "state.db");
    REQUIRE(store.has_value());
    CHECK((*store)->remembered_nodes()->empty());
    REQUIRE((*store)->remember_nodes({"x", "y"}).has_value());
    REQUIRE((*store)->remember_nodes({"head", "a'b", "a'b"}).has_value());
  }
  auto store = state_store::open(here.path / "state.db");
  REQUIRE(store.has_value());
  CHECK(*(*store)->remembered_nodes() ==
        std::vector<std::string>{"a'b", "head"});
}

TEST_CASE("the targets that were remembered last are there after opening "
          "again") {
  folder here;
  const std::vector<controller::scale_target> targets{{"a'p", "m", 3},
                                                      {"app", "m", 0}};
  {
    auto store = state_store::open(here.path / "state.db");
    REQUIRE(store.has_value());
    CHECK((*store)->remembered_targets()->empty());
    REQUIRE((*store)->remember_targets({{"x", "y", 1}}).has_value());
    REQUIRE((*store)->remember_targets(targets).has_value());
  }
  auto store = state_store::open(here.path / "state.db");
  REQUIRE(store.has_value());
  CHECK(*(*store)->remembered_targets() == targets);
}

TEST_CASE("the nodes that were asked for are there after opening again") {
  folder here;
  const std::vector<protocol::asked_node> nodes{{"a'b-1-1", "a'b"},
                                                {"small-1-2", "small"}};
  {
    auto store = state_store::open(here.path / "state.db");
    REQUIRE(store.has_value());
    CHECK((*store)->asked_nodes()->empty());
    REQUIRE((*store)->remember_asked({{"x-1-1", "x"}}).has_value());
    REQUIRE((*store)->remember_asked(nodes).has_value());
  }
  auto store = state_store::open(here.path / "state.db");
  REQUIRE(store.has_value());
  CHECK(*(*store)->asked_nodes() == nodes);
}

TEST_CASE("a store of version 3 keeps what it has") {
  folder here;
  auto file = here.path / "state.db";
  {
    sqlite3* db = nullptr;
    REQUIRE(sqlite3_open(file.c_str(), &db) == SQLITE_OK);
    auto done = sqlite3_exec(
        db,
        "CREATE TABLE deployments(version INTEGER PRIMARY KEY AUTOINCREMENT,"
        " record BLOB NOT NULL);"
        "CREATE TABLE head(only INTEGER PRIMARY KEY CHECK(only = 1),"
        " epoch INTEGER NOT NULL);"
        "CREATE TABLE nodes(name TEXT PRIMARY KEY NOT NULL);"
        "CREATE TABLE targets(application TEXT NOT NULL, model TEXT NOT NULL,"
        " replicas INTEGER NOT NULL, PRIMARY KEY(application, model));"
        "INSERT INTO deployments(record) VALUES(x'07');"
        "INSERT INTO head VALUES(1, 6); INSERT INTO nodes VALUES('w');"
        "INSERT INTO targets VALUES('a', 'm', 3); PRAGMA user_version=3;",
        nullptr, nullptr, nullptr);
    sqlite3_close(db);
    REQUIRE(done == SQLITE_OK);
  }
  for (int i = 0; i < 2; ++i) {
    auto store = state_store::open(file);
    REQUIRE(store.has_value());
    CHECK((*(*store)->latest())->record == codec::bytes{7});
    CHECK(*(*store)->remembered_nodes() == std::vector<std::string>{"w"});
    CHECK(*(*store)->remembered_targets() ==
          std::vector<controller::scale_target>{{"a", "m", 3}});
    CHECK((*store)->asked_nodes()->size() == static_cast<std::size_t>(i));
    REQUIRE((*store)->remember_asked({{"n", "t"}}).has_value());
    CHECK(*(*store)->next_epoch() == static_cast<std::uint64_t>(7 + i));
  }
}

TEST_CASE("a store of version 1 is taken over, a newer one refused") {
  folder here;
  auto file = here.path / "state.db";
  auto run = [&](const char* sql) {
    sqlite3* db = nullptr;
    REQUIRE(sqlite3_open(file.c_str(), &db) == SQLITE_OK);
    auto done = sqlite3_exec(db, sql, nullptr, nullptr, nullptr);
    sqlite3_close(db);
    REQUIRE(done == SQLITE_OK);
  };
  run("CREATE TABLE deployments(version INTEGER PRIMARY KEY AUTOINCREMENT,"
      " record BLOB NOT NULL); INSERT INTO deployments(record) VALUES(x'01');"
      "PRAGMA user_version=1;");
  {
    auto store = state_store::open(file);
    REQUIRE(store.has_value());
    CHECK_FALSE((*store)->latest()->has_value());
    CHECK(*(*store)->save(codec::bytes{2}) == 2);
    CHECK(*(*store)->next_epoch() == 1);
  }
  {
    auto store = state_store::open(file);
    REQUIRE(store.has_value());
    CHECK((*(*store)->latest())->version == 2);
  }
  run("PRAGMA user_version=5;");
  auto store = state_store::open(file);
  REQUIRE_FALSE(store.has_value());
  CHECK(store.error().message.find("newer version") != std::string::npos);
}
