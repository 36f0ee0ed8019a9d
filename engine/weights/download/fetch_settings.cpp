#include "engine/weights/download/fetch_settings.hpp"

#include "engine/weights/download/url.hpp"

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <fstream>
#include <system_error>

namespace troupe::download {

namespace {

namespace fs = std::filesystem;

constexpr std::size_t secret_bytes_max = 8192;

std::string first_of(const environment& of,
                     std::initializer_list<const char*> names) {
  for (const auto* name : names)
    if (auto value = of(name); !value.empty())
      return value;
  return {};
}

/// What the hub's own client takes for true.
bool is_true(std::string value) {
  for (char& c : value)
    c = c >= 'a' && c <= 'z' ? static_cast<char>(c - 32) : c;
  return value == "1" || value == "TRUE" || value == "YES" || value == "ON";
}

/// The first line of a small file; empty if there is none.
std::string line_of(const fs::path& path) {
  std::string out(secret_bytes_max, '\0');
  std::ifstream file{path, std::ios::binary};
  file.read(out.data(), static_cast<std::streamsize>(out.size()));
  out.resize(
      static_cast<std::size_t>(std::max<std::streamsize>(file.gcount(), 0)));
  return out.substr(0, std::min(out.find_first_of("\r\n"), out.size()));
}

/// A header's value: nothing in it may end the line.
result<void> check_secret(const char* name, const std::string& value) {
  auto bad = [](unsigned char c) { return c <= ' ' || c >= 127; };
  if (value.size() > secret_bytes_max ||
      std::any_of(value.begin(), value.end(), bad))
    return error{errc::invalid_argument,
                 std::string{name} + ": holds what no secret may (spaces, "
                                     "control characters, or too much)"};
  return {};
}

result<void> check_endpoint(const char* name, std::string& url) {
  if (url.empty())
    return {};
  auto parts = parse_url(url);
  if (!parts || parts->has_user || parts->has_query || parts->has_fragment)
    return error{errc::invalid_argument,
                 std::string{name} + ": must be a URL, http:// or https://, "
                                     "without user, password and query"};
  while (url.ends_with('/'))
    url.pop_back();
  return {};
}

void read_hub(const environment& of, fetch_settings& out) {
  if (auto given = of("HF_ENDPOINT"); !given.empty())
    out.hub_endpoint = given;
  auto cache = first_of(of, {"XDG_CACHE_HOME"});
  fs::path home = of("HOME");
  fs::path caches = cache.empty() ? home / ".cache" : fs::path{cache};
  auto hf_home = of("HF_HOME");
  fs::path hub_home =
      hf_home.empty() ? caches / "huggingface" : fs::path{hf_home};
  auto hub_cache = first_of(of, {"HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"});
  out.hub_cache = hub_cache.empty() ? hub_home / "hub" : fs::path{hub_cache};
  auto own = of("TROUPE_CACHE");
  out.bucket_cache =
      (own.empty() ? caches / "troupe" : fs::path{own}) / "models";
  out.hub_token = first_of(of, {"HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"});
  auto file = of("HF_TOKEN_PATH");
  if (out.hub_token.empty())
    out.hub_token = line_of(file.empty() ? hub_home / "token" : fs::path{file});
  out.offline = is_true(of("HF_HUB_OFFLINE"));
}

void read_buckets(const environment& of, fetch_settings& out) {
  out.s3 = {first_of(of, {"AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"}),
            first_of(of, {"AWS_REGION", "AWS_DEFAULT_REGION"}),
            of("AWS_ACCESS_KEY_ID"), of("AWS_SECRET_ACCESS_KEY"),
            of("AWS_SESSION_TOKEN")};
  out.gs = {of("STORAGE_EMULATOR_HOST"),
            "auto",
            of("GS_ACCESS_KEY_ID"),
            of("GS_SECRET_ACCESS_KEY"),
            {}};
  auto& instance = out.instance;
  if (!is_true(of("AWS_EC2_METADATA_DISABLED"))) {
    auto given = of("AWS_EC2_METADATA_SERVICE_ENDPOINT");
    instance.metadata_endpoint =
        given.empty() ? "http://169.254.169.254" : given;
  }
  auto google = of("GCE_METADATA_HOST");
  instance.google_endpoint =
      "http://" + (google.empty() ? "169.254.169.254" : google);
  instance.container_url = of("AWS_CONTAINER_CREDENTIALS_FULL_URI");
  if (auto path = of("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI");
      path.starts_with('/'))
    instance.container_url = "http://169.254.170.2" + path;
  instance.container_token = of("AWS_CONTAINER_AUTHORIZATION_TOKEN");
  instance.container_token_file = of("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE");
}

result<void> read_stall(const environment& of, fetch_settings& out) {
  auto text = of("TROUPE_DOWNLOAD_STALL_S");
  if (text.empty())
    return {};
  unsigned seconds = 0;
  auto [end, code] =
      std::from_chars(text.data(), text.data() + text.size(), seconds);
  if (code != std::errc{} || end != text.data() + text.size() || seconds < 1 ||
      seconds > 86'400)
    return error{errc::invalid_argument,
                 "TROUPE_DOWNLOAD_STALL_S: must be 1 to 86400"};
  out.limits.stall_max = std::chrono::seconds{seconds};
  return {};
}

result<void> check(fetch_settings& out) {
  struct named {
    const char* name;
    std::string* value;
  };
  for (const auto& [name, value] :
       {named{"HF_ENDPOINT", &out.hub_endpoint},
        named{"AWS_ENDPOINT_URL", &out.s3.endpoint},
        named{"STORAGE_EMULATOR_HOST", &out.gs.endpoint},
        named{"AWS_EC2_METADATA_SERVICE_ENDPOINT",
              &out.instance.metadata_endpoint},
        named{"GCE_METADATA_HOST", &out.instance.google_endpoint}})
    if (auto fine = check_endpoint(name, *value); !fine)
      return fine;
  for (const auto& [name, value] :
       {named{"HF_TOKEN", &out.hub_token},
        named{"AWS_ACCESS_KEY_ID", &out.s3.key_id},
        named{"AWS_SECRET_ACCESS_KEY", &out.s3.key_secret},
        named{"AWS_SESSION_TOKEN", &out.s3.key_token},
        named{"AWS_REGION", &out.s3.region},
        named{"GS_ACCESS_KEY_ID", &out.gs.key_id},
        named{"GS_SECRET_ACCESS_KEY", &out.gs.key_secret},
        named{"AWS_CONTAINER_AUTHORIZATION_TOKEN",
              &out.instance.container_token}})
    if (auto fine = check_secret(name, *value); !fine)
      return fine;
  return {};
}

} // namespace

std::string process_environment(const char* name) {
  const char* value = std::getenv(name);
  return value ? value : "";
}

result<fetch_settings> read_fetch_settings(const environment& of) {
  fetch_settings out;
  read_hub(of, out);
  read_buckets(of, out);
  out.ca_file = of("SSL_CERT_FILE");
  if (auto fine = read_stall(of, out); !fine)
    return fine.error();
  if (auto fine = check(out); !fine)
    return fine.error();
  return out;
}

} // namespace troupe::download
