#include "engine/weights/download/digest.hpp"
#include "engine/weights/download/fetch_settings.hpp"
#include "engine/weights/download/model_cache.hpp"
#include "engine/weights/download/partial_file.hpp"
#include "tests/actors/temporary_directory.hpp"

#include <catch2/catch.hpp>

#include <fstream>
#include <map>

using namespace troupe;
using namespace troupe::download;

namespace {

namespace fs = std::filesystem;

void put(const fs::path& path, const std::string& text) {
  fs::create_directories(path.parent_path());
  std::ofstream{path, std::ios::binary} << text;
}

std::string get(const fs::path& path) {
  std::ifstream file{path, std::ios::binary};
  return {std::istreambuf_iterator<char>{file}, {}};
}

remote_file file_named(const std::string& name, const std::string& content) {
  auto hash = sha256_hex(content);
  return {name, content.size(), hash, {content_check::kind::sha256, hash}, ""};
}

result<fetch_settings> settings_of(std::map<std::string, std::string> from) {
  from.emplace("HOME", "/home/x");
  return read_fetch_settings([&](const char* name) {
    auto found = from.find(name);
    return found == from.end() ? std::string{} : found->second;
  });
}

} // namespace

TEST_CASE("a file in the making goes on where it was") {
  test::temporary_directory folder;
  auto path = folder.path() / "x";
  const std::uint64_t size = (40u << 20) + 5;
  {
    auto file = partial_file::open(path, size);
    REQUIRE(file.has_value());
    REQUIRE(file->chunks() == 3);
    CHECK(file->end_of(2) == size);
    REQUIRE(file->append(1, "abc").has_value());
    REQUIRE(file->append(1, "de").has_value());
    REQUIRE(file->append(2, "xyz").has_value());
  }
  CHECK(partial_file::look(path, size) == 8);
  CHECK(partial_file::look(path, size + 1) == 0);
  {
    auto file = partial_file::open(path, size);
    REQUIRE(file.has_value());
    CHECK(file->done(0) == 0);
    CHECK(file->done(1) == 5);
    CHECK(file->bytes_done() == 8);
    REQUIRE(file->finish().has_value());
  }
  CHECK(fs::file_size(path) == size);
  CHECK(get(path).substr(16u << 20, 5) == "abcde");
}

TEST_CASE("a file in the making that is another one is begun anew") {
  test::temporary_directory folder;
  auto path = folder.path() / "x";
  put(path, std::string(1000, 'x'));
  auto file = partial_file::open(path, 100);
  REQUIRE(file.has_value());
  CHECK(file->bytes_done() == 0);
  CHECK_FALSE(file->append(0, std::string(101, 'y')).has_value());
  REQUIRE(file->append(0, std::string(100, 'y')).has_value());
  CHECK(file->is_done(0));
  CHECK(partial_file::open(path, 100)->bytes_done() == 100);
  CHECK(partial_file::open(path, 99)->bytes_done() == 0);
  auto nothing = partial_file::open(folder.path() / "empty", 0);
  REQUIRE(nothing.has_value());
  CHECK(nothing->chunks() == 0);
  fs::create_symlink("/etc/hostname", folder.path() / "link");
  CHECK_FALSE(partial_file::open(folder.path() / "link", 5).has_value());
}

TEST_CASE("contents are known by each kind of hash") {
  test::temporary_directory folder;
  auto path = folder.path() / "x";
  put(path, "hello\n");
  using by = content_check::kind;
  auto is = [&](by kind, const std::string& hex, std::uint64_t size = 6) {
    return check_content(path, size, {kind, hex},
                         [](std::uint64_t) { return true; });
  };
  CHECK(is(by::size_only, "").has_value());
  CHECK(is(by::sha256, sha256_hex("hello\n")).has_value());
  CHECK(
      is(by::git_blob, "ce013625030ba8dba906f756967f9e9ca394464a").has_value());
  CHECK(is(by::md5, "b1946ac92492d2347c6235b4d2611184").has_value());
  CHECK(is(by::sha256, sha256_hex("hello")).error().code == errc::corrupt);
  CHECK(is(by::sha256, sha256_hex("hello\n"), 7).error().code == errc::io);
  CHECK(check_content(path, 6, {by::sha256, sha256_hex("hello\n")},
                      [](std::uint64_t) { return false; })
            .error()
            .code == errc::cancelled);
}

TEST_CASE("the cache has the hub's own layout") {
  test::temporary_directory folder;
  model_cache cache{folder.path(), model_cache::hub_folder("org/name")};
  auto file = file_named("sub/config.json", "{}");
  const std::string version(40, 'a');
  REQUIRE(cache.make_directories(version).has_value());
  CHECK_FALSE(cache.has_blob(file));
  put(cache.blob(file), "{}");
  CHECK(cache.has_blob(file));
  REQUIRE(cache.link(version, file).has_value());
  REQUIRE(cache.link(version, file).has_value());
  REQUIRE(cache.set_ref("main", version).has_value());
  auto repository = folder.path() / "models--org--name";
  CHECK(get(repository / "snapshots" / version / "sub/config.json") == "{}");
  CHECK(fs::read_symlink(repository / "snapshots" / version /
                         "sub/config.json") == "../../../blobs/" + file.blob);
  CHECK(get(repository / "refs/main") == version);
  CHECK(cache.version_of("main") == version);
  CHECK(cache.version_of(version) == version);
  CHECK(cache.version_of("other").empty());
  CHECK(cache.names_in(version) == std::vector<std::string>{"sub/config.json"});
  CHECK(cache.check_entry(version, "sub/config.json").has_value());
}

TEST_CASE("the cache remembers what was offered") {
  test::temporary_directory folder;
  model_cache cache{folder.path(), model_cache::hub_folder("org/name")};
  const std::string version(40, 'a');
  CHECK(cache.offer_of(version).empty());
  REQUIRE(cache.set_offer(version, {"a.json", "sub/b.json"}).has_value());
  CHECK(cache.offer_of(version) == name_list{"a.json", "sub/b.json"});
  put(folder.path() / "models--org--name/.troupe" / version, "a\n../b\n");
  CHECK(cache.offer_of(version).empty());
}

TEST_CASE("a link that leaves the cache is refused") {
  test::temporary_directory folder;
  auto root = folder.path() / "cache";
  model_cache cache{root, "models--a"};
  const std::string version(40, 'a');
  REQUIRE(cache.make_directories(version).has_value());
  put(folder.path() / "outside", "x");
  fs::create_symlink(folder.path() / "outside",
                     cache.snapshot(version) / "config.json");
  auto refused = cache.check_entry(version, "config.json");
  REQUIRE_FALSE(refused.has_value());
  CHECK(refused.error().message.find("leads out of the cache") !=
        std::string::npos);
  CHECK_FALSE(cache.check_entry(version, "nothing").has_value());
  put(root / "models--a/refs/evil", "../../../x");
  CHECK(cache.version_of("evil").empty());
  // Somebody's link in the place of a blob is not a blob.
  auto file = file_named("f", "x");
  fs::create_symlink(folder.path() / "outside", cache.blob(file));
  CHECK_FALSE(cache.has_blob(file));
}

TEST_CASE("a lock is held once") {
  test::temporary_directory folder;
  auto path = folder.path() / "lock";
  auto one = file_lock::try_take(path);
  REQUIRE(one.has_value());
  REQUIRE(one->has_value());
  CHECK_FALSE(file_lock::try_take(path)->has_value());
  one->reset();
  CHECK(file_lock::try_take(path)->has_value());
}

TEST_CASE("settings come from the variables that others use too") {
  auto out = settings_of({});
  REQUIRE(out.has_value());
  CHECK(out->hub_endpoint == "https://huggingface.co");
  CHECK(out->hub_cache == "/home/x/.cache/huggingface/hub");
  CHECK(out->bucket_cache == "/home/x/.cache/troupe/models");
  CHECK_FALSE(out->offline);
  out = settings_of({{"HF_HOME", "/h"},
                     {"HF_ENDPOINT", "http://127.0.0.1:1/"},
                     {"HUGGING_FACE_HUB_TOKEN", "t"},
                     {"HF_HUB_OFFLINE", "yes"},
                     {"TROUPE_CACHE", "/c"},
                     {"AWS_DEFAULT_REGION", "eu-west-1"},
                     {"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/v2/x"},
                     {"TROUPE_DOWNLOAD_STALL_S", "2"}});
  REQUIRE(out.has_value());
  CHECK(out->hub_cache == "/h/hub");
  CHECK(out->hub_endpoint == "http://127.0.0.1:1");
  CHECK(out->hub_token == "t");
  CHECK(out->offline);
  CHECK(out->bucket_cache == "/c/models");
  CHECK(out->s3.region == "eu-west-1");
  CHECK(out->instance.container_url == "http://169.254.170.2/v2/x");
  CHECK(out->limits.stall_max == std::chrono::seconds{2});
}

TEST_CASE("a token may stand in the hub's own file") {
  test::temporary_directory folder;
  put(folder.path() / "token", "from-file\n");
  CHECK(settings_of({{"HF_HOME", folder.path()}})->hub_token == "from-file");
  CHECK(
      settings_of({{"HF_HOME", folder.path()}, {"HF_TOKEN", "t"}})->hub_token ==
      "t");
}

TEST_CASE("settings that cannot be are refused by name, without the value") {
  for (const auto& [name, value] : std::map<std::string, std::string>{
           {"HF_ENDPOINT", "ftp://canary"},
           {"HF_TOKEN", "canary\r\nX: y"},
           {"AWS_ENDPOINT_URL", "https://user:canary@host"},
           {"AWS_SECRET_ACCESS_KEY", "can ary"},
           {"TROUPE_DOWNLOAD_STALL_S", "0"}}) {
    INFO(name);
    auto out = settings_of({{name, value}});
    REQUIRE_FALSE(out.has_value());
    CHECK(out.error().message.find(name) != std::string::npos);
    CHECK(out.error().message.find("canary") == std::string::npos);
  }
}
