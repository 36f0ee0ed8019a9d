#include "engine/weights/download/bucket_keys.hpp"

#include "engine/weights/download/model_reference.hpp"
#include "engine/weights/download/url.hpp"

#include <simdjson.h>

#include <algorithm>
#include <ctime>
#include <fstream>

namespace troupe::download {

namespace {

using clock = std::chrono::system_clock;
namespace dom = simdjson::dom;

/// Asked for again so long before they run out.
constexpr std::chrono::minutes margin{5};

/// A metadata service is next door or not there.
transfer_limits near_limits() {
  transfer_limits out;
  out.connect_max = milliseconds{1000};
  out.answer_max = milliseconds{3000};
  return out;
}

std::string text_at(dom::element object, const char* key) {
  std::string_view out;
  return object[key].get(out) ? std::string{} : std::string{out};
}

/// Keys are asked for again after so long, whatever they say.
constexpr std::chrono::hours good_max{24};

/// "2030-01-02T03:04:05Z", `good_max` from now at most; the past if it is no
/// such text.
clock::time_point read_time(const std::string& text) {
  std::tm utc{};
  if (!::strptime(text.c_str(), "%Y-%m-%dT%H:%M:%S", &utc))
    return {};
  // A year that the clock's type does not hold must not wrap around.
  auto latest = clock::now() + good_max;
  return clock::from_time_t(
      std::clamp<std::time_t>(::timegm(&utc), 0, clock::to_time_t(latest)));
}

/// Values that become headers must not end a line.
bool is_plain(const std::string& text) {
  return std::all_of(text.begin(), text.end(),
                     [](unsigned char c) { return c > ' ' && c < 127; });
}

http_request request_to(std::string url,
                        std::vector<http_header> headers = {}) {
  http_request out;
  out.url = std::move(url);
  out.headers = std::move(headers);
  return out;
}

/// The body of an answer 200; empty if there is none.
std::string body_of(http_session& session, const http_request& request) {
  auto answer = session.send(request);
  return answer && answer->status == 200 ? answer->body : std::string{};
}

/// A container's keys come over TLS or from this machine's surroundings.
bool may_ask(const std::string& url) {
  auto parts = parse_url(url);
  return parts && !parts->has_user &&
         (parts->scheme == "https" || parts->is_loopback() ||
          parts->host == "169.254.170.2" || parts->host == "169.254.170.23");
}

} // namespace

bucket_keys::bucket_keys(bool is_google, const fetch_settings& settings)
    : is_google_(is_google), settings_(settings) {
  // nop
}

result<access_key> bucket_keys::get() {
  std::lock_guard guard{mutex_};
  if (is_known_ && clock::now() < good_until_)
    return key_;
  http_session session{near_limits(), settings_.ca_file, [] { return false; }};
  good_until_ = clock::time_point::max();
  auto found = find(session);
  if (!found)
    return found;
  if (!is_plain(found->id) || !is_plain(found->token) ||
      !is_plain(found->bearer))
    return error{errc::corrupt, "the keys that this machine was given are "
                                "malformed"};
  key_ = *found;
  is_known_ = true;
  return key_;
}

result<access_key> bucket_keys::find(http_session& session) {
  const auto& given = is_google_ ? settings_.gs : settings_.s3;
  if (!given.key_id.empty() && !given.key_secret.empty())
    return access_key{given.key_id, given.key_secret, given.key_token, {}};
  if (is_google_)
    return of_google(session);
  if (!settings_.instance.container_url.empty())
    return of_container(session);
  return of_amazon(session);
}

result<access_key> bucket_keys::read_amazon(std::string_view json) {
  dom::parser parser;
  dom::element root;
  if (parser.parse(json.data(), json.size()).get(root))
    return error{errc::corrupt, "the keys that this machine was given cannot "
                                "be read"};
  access_key out{text_at(root, "AccessKeyId"),
                 text_at(root, "SecretAccessKey"),
                 text_at(root, "Token"),
                 {}};
  if (out.id.empty() || out.secret.empty())
    return error{errc::corrupt, "no keys in what this machine was given"};
  if (auto end = text_at(root, "Expiration"); !end.empty())
    good_until_ = read_time(end) - margin;
  return out;
}

result<access_key> bucket_keys::of_container(http_session& session) {
  const auto& from = settings_.instance;
  if (!may_ask(from.container_url))
    return error{errc::invalid_argument,
                 "AWS_CONTAINER_CREDENTIALS_FULL_URI: must be https://, or an "
                 "address of this machine"};
  auto token = from.container_token;
  if (token.empty() && !from.container_token_file.empty()) {
    std::ifstream file{from.container_token_file};
    std::getline(file, token);
  }
  if (!is_plain(token))
    return error{errc::invalid_argument,
                 "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE: holds no token"};
  std::vector<http_header> headers;
  if (!token.empty())
    headers.push_back({"Authorization", token, true});
  auto body = body_of(session, request_to(from.container_url, headers));
  if (body.empty())
    return error{errc::unavailable, "the container's keys cannot be had from " +
                                        shown_url(from.container_url)};
  return read_amazon(body);
}

result<access_key> bucket_keys::of_amazon(http_session& session) {
  const auto& base = settings_.instance.metadata_endpoint;
  if (base.empty())
    return access_key{};
  auto ask = request_to(base + "/latest/api/token",
                        {{"X-aws-ec2-metadata-token-ttl-seconds", "21600"}});
  ask.method = "PUT";
  auto token = body_of(session, ask);
  if (token.empty() || !is_plain(token))
    return access_key{};
  const std::vector<http_header> headers{
      {"X-aws-ec2-metadata-token", token, true}};
  const auto where = base + "/latest/meta-data/iam/security-credentials/";
  auto role = body_of(session, request_to(where, headers));
  role = role.substr(0, std::min(role.find('\n'), role.size()));
  if (!is_safe_name(role))
    return access_key{};
  auto keys = body_of(session,
                      request_to(where + percent_encode(role, false), headers));
  return keys.empty() ? access_key{} : read_amazon(keys);
}

result<access_key> bucket_keys::of_google(http_session& session) {
  const auto& base = settings_.instance.google_endpoint;
  auto json =
      body_of(session, request_to(base + "/computeMetadata/v1/instance/"
                                         "service-accounts/default/token",
                                  {{"Metadata-Flavor", "Google"}}));
  dom::parser parser;
  dom::element root;
  std::int64_t seconds = 0;
  if (json.empty() || parser.parse(json).get(root) ||
      root["expires_in"].get(seconds))
    return access_key{};
  constexpr std::int64_t most = std::chrono::seconds{good_max}.count();
  good_until_ =
      clock::now() +
      std::chrono::seconds{std::clamp<std::int64_t>(seconds, 0, most)} - margin;
  return access_key{{}, {}, {}, text_at(root, "access_token")};
}

} // namespace troupe::download
