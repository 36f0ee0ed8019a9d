#include "engine/weights/download/bucket_origin.hpp"
#include "engine/weights/download/hub_origin.hpp"

#include <catch2/catch.hpp>

using namespace troupe;
using namespace troupe::download;
using by = content_check::kind;

namespace {

const std::string commit(40, 'a');

std::string hub_answer(const std::string& siblings) {
  return R"({"sha":")" + commit + R"(","siblings":[)" + siblings + "]}";
}

std::string page(const std::string& content) {
  return "<?xml version=\"1.0\"?><ListBucketResult xmlns=\"x\">" + content +
         "</ListBucketResult>";
}

std::string object(const std::string& key, const std::string& size = "5") {
  return "<Contents><Key>" + key + "</Key><ETag>&quot;e&quot;</ETag><Size>" +
         size + "</Size></Contents>";
}

} // namespace

TEST_CASE("a hub's list says sizes and hashes") {
  std::string sha1(40, 'b');
  std::string sha256(64, 'c');
  auto out = read_hub_listing(
      hub_answer(R"({"rfilename":"config.json","size":7,"blobId":")" + sha1 +
                 R"("},{"rfilename":"m.gguf","size":9,"blobId":")" + sha1 +
                 R"(","lfs":{"size":9,"sha256":")" + sha256 +
                 R"(","pointerSize":1}},{"rfilename":"plain"})"));
  REQUIRE(out.has_value());
  CHECK(out->version == commit);
  REQUIRE(out->files.size() == 3);
  CHECK(out->files[0] ==
        remote_file{"config.json", 7, sha1, {by::git_blob, sha1}, ""});
  CHECK(out->files[1] ==
        remote_file{"m.gguf", 9, sha256, {by::sha256, sha256}, ""});
  CHECK(out->files[2].blob.empty());
}

TEST_CASE("a hub's list that lies is refused") {
  for (const auto& text :
       {std::string{""}, std::string{"[]"}, std::string{"{}"},
        std::string{R"({"sha":"x","siblings":[]})"},
        hub_answer(R"({"rfilename":"../x"})"),
        hub_answer(R"({"rfilename":"/etc/passwd"})"),
        hub_answer(R"({"rfilename":"a\u0000b"})"), hub_answer("{}"),
        hub_answer("1"),
        hub_answer(R"({"rfilename":"m","size":99999999999999})")}) {
    INFO(text);
    auto out = read_hub_listing(text);
    REQUIRE_FALSE(out.has_value());
    CHECK_FALSE(out.error().message.empty());
  }
  std::string many;
  for (int i = 0; i <= 10'000; ++i)
    many += (many.empty() ? "" : ",") + std::string{R"({"rfilename":"a"})"};
  CHECK(read_hub_listing(hub_answer(many)).error().code == errc::limit);
  // A hash that is none may not become the name of a file.
  auto odd = read_hub_listing(
      hub_answer(R"({"rfilename":"m","size":1,"blobId":"../../x"})"));
  REQUIRE(odd.has_value());
  CHECK(odd->files[0].blob.empty());
}

TEST_CASE("a bucket's list is read page by page") {
  auto out = read_bucket_page(
      page("<IsTruncated>true</IsTruncated>" + object("a&amp;b/&#x41;ä") +
           object("c", "0") +
           "<NextContinuationToken>t=&lt;</NextContinuationToken>"));
  REQUIRE(out.has_value());
  REQUIRE(out->objects.size() == 2);
  CHECK(out->objects[0].key == "a&b/Aä");
  CHECK(out->objects[0].etag == "\"e\"");
  CHECK(out->objects[0].size == 5);
  CHECK(out->next == "t=<");
  CHECK(read_bucket_page(page(""))->objects.empty());
}

TEST_CASE("a bucket's list that is none is refused") {
  for (const auto& text :
       {std::string{}, std::string{"<Error/>"},
        std::string{"<ListBucketResult>"}, page(object("")),
        page(object("a", "x")), page(object("a", "-1")), page(object("a&b")),
        page(object("a&#0;")), page("<Contents><Key>a</Key></Contents>"),
        page("<IsTruncated>true</IsTruncated>")}) {
    INFO(text);
    CHECK_FALSE(read_bucket_page(text).has_value());
  }
}

TEST_CASE("folders of a bucket differ by prefix and endpoint") {
  fetch_settings one;
  fetch_settings other;
  other.s3.endpoint = "http://127.0.0.1:1";
  bucket_reference a{false, false, "b", "x", ""};
  bucket_reference b{false, false, "b", "y", ""};
  CHECK(bucket_folder(a, one) != bucket_folder(b, one));
  CHECK(bucket_folder(a, one) != bucket_folder(a, other));
  CHECK(bucket_folder(a, one).starts_with("s3--b--"));
}

TEST_CASE("a token is sent over TLS, and in the clear to loopback alone") {
  auto sends = [](const std::string& endpoint) {
    fetch_settings settings;
    settings.hub_endpoint = endpoint;
    settings.hub_token = "t";
    auto hub = make_hub_origin({"org/name", "main", ""}, settings);
    auto request = hub->request({commit, {}}, {"m", 5, "", {}, ""}, 0, 5);
    REQUIRE(request.has_value());
    CHECK(request->url == endpoint + "/org/name/resolve/" + commit + "/m");
    auto found = false;
    for (const auto& header : request->headers)
      if (header.value == "Bearer t") {
        found = true;
        CHECK(header.secret);
      }
    return found;
  };
  CHECK(sends("https://hub.example"));
  CHECK(sends("http://127.0.0.1:1"));
  CHECK(sends("http://localhost:1"));
  CHECK_FALSE(sends("http://hub.example"));
  CHECK_FALSE(sends("http://127.0.0.1.example"));
  CHECK_FALSE(sends("http://localhost.example"));
}
