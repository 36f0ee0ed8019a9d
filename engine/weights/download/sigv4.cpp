#include "engine/weights/download/sigv4.hpp"

#include "engine/weights/download/digest.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <ctime>
#include <map>

namespace troupe::download {

namespace {

constexpr std::string_view service = "s3";

struct url_split {
  std::string host; ///< with a port that is not the scheme's own
  std::string path;
  std::string query;
};

/// Nothing is decoded: what is signed is what is sent.
url_split split(const std::string& url) {
  url_split out;
  auto begin = url.find("://") + 3;
  auto slash = std::min(url.find_first_of("/?", begin), url.size());
  auto mark = std::min(url.find('?', slash), url.size());
  out.host = url.substr(begin, slash - begin);
  out.path =
      slash == mark ? std::string(1, '/') : url.substr(slash, mark - slash);
  if (mark < url.size())
    out.query = url.substr(mark + 1);
  return out;
}

std::string lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(), [](char c) {
    return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
  });
  return text;
}

std::string canonical_headers(const std::map<std::string, std::string>& headers,
                              std::string& names) {
  std::string out;
  for (const auto& [name, value] : headers) {
    out += fmt::format("{}:{}\n", name, value);
    if (!names.empty())
      names += ';';
    names += name;
  }
  return out;
}

} // namespace

void sign_request(const access_key& key, const std::string& region,
                  const std::string& time, http_request& request) {
  const auto nothing = sha256_hex("");
  request.headers.push_back({"x-amz-content-sha256", nothing});
  request.headers.push_back({"x-amz-date", time});
  if (!key.token.empty())
    request.headers.push_back({"x-amz-security-token", key.token, true});
  auto url = split(request.url);
  std::map<std::string, std::string> headers{{"host", url.host}};
  for (const auto& header : request.headers)
    if (auto name = lower(header.name);
        name == "range" || name.starts_with("x-amz-"))
      headers[name] = header.value;
  std::string names;
  auto block = canonical_headers(headers, names);
  auto canonical = fmt::format("{}\n{}\n{}\n{}\n{}\n{}", request.method,
                               url.path, url.query, block, names, nothing);
  auto date = time.substr(0, 8);
  auto scope = fmt::format("{}/{}/{}/aws4_request", date, region, service);
  auto to_sign = fmt::format("AWS4-HMAC-SHA256\n{}\n{}\n{}", time, scope,
                             sha256_hex(canonical));
  auto signing_key = fmt::format("AWS4{}", key.secret);
  for (std::string_view step :
       {std::string_view{date}, std::string_view{region}, service,
        std::string_view{"aws4_request"}})
    signing_key = hmac_sha256(signing_key, step);
  request.headers.push_back(
      {"Authorization",
       fmt::format("AWS4-HMAC-SHA256 Credential={}/{},SignedHeaders={},"
                   "Signature={}",
                   key.id, scope, names,
                   to_hex(hmac_sha256(signing_key, to_sign))),
       true});
}

std::string signing_time() {
  auto now = std::time(nullptr);
  std::tm utc{};
  ::gmtime_r(&now, &utc);
  std::array<char, 20> out{};
  std::strftime(out.data(), out.size(), "%Y%m%dT%H%M%SZ", &utc);
  return out.data();
}

} // namespace troupe::download
