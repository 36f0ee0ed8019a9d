#include "engine/weights/download/bucket_origin.hpp"

#include "engine/weights/download/bucket_keys.hpp"
#include "engine/weights/download/url.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <optional>

namespace troupe::download {

namespace {

constexpr std::size_t pages_max = 64;

/// The text between <NAME> and </NAME> from `at` on, which moves behind it.
std::optional<std::string_view>
element(std::string_view xml, std::string_view name, std::size_t& at) {
  auto open = fmt::format("<{}>", name);
  auto close = fmt::format("</{}>", name);
  auto begin = xml.find(open, at);
  if (begin == xml.npos)
    return std::nullopt;
  begin += open.size();
  auto end = xml.find(close, begin);
  if (end == xml.npos)
    return std::nullopt;
  at = end + close.size();
  return xml.substr(begin, end - begin);
}

std::optional<std::string_view> element(std::string_view xml,
                                        std::string_view name) {
  std::size_t at = 0;
  return element(xml, name, at);
}

/// The character that "&NAME;" stands for; empty if it is none of those that
/// have to be written so.
std::string entity(std::string_view name) {
  if (name == "amp")
    return "&";
  if (name == "lt")
    return "<";
  if (name == "gt")
    return ">";
  if (name == "quot")
    return "\"";
  if (name == "apos")
    return "'";
  if (!name.starts_with('#'))
    return {};
  auto is_hex = name.starts_with("#x");
  auto digits = name.substr(is_hex ? 2 : 1);
  std::uint32_t code = 0;
  auto [end, why] = std::from_chars(
      digits.data(), digits.data() + digits.size(), code, is_hex ? 16 : 10);
  return why == std::errc{} && end == digits.data() + digits.size() &&
                 code != 0 && code < 0x80
             ? std::string(1, static_cast<char>(code))
             : std::string{};
}

std::optional<std::string> decoded(std::string_view text) {
  std::string out;
  while (!text.empty()) {
    auto mark = std::min(text.find('&'), text.size());
    out += text.substr(0, mark);
    text.remove_prefix(mark);
    if (text.empty())
      break;
    auto end = text.find(';');
    if (end == text.npos)
      return std::nullopt;
    auto stands_for = entity(text.substr(1, end - 1));
    if (stands_for.empty())
      return std::nullopt;
    out += stands_for;
    text.remove_prefix(end + 1);
  }
  return out;
}

std::optional<bucket_page::object> read_object(std::string_view xml) {
  bucket_page::object out;
  auto key = decoded(element(xml, "Key").value_or(""));
  auto etag = decoded(element(xml, "ETag").value_or(""));
  auto size = element(xml, "Size").value_or("");
  if (!key || key->empty() || !etag || etag->empty())
    return std::nullopt;
  out.key = *key;
  out.etag = *etag;
  auto [end, why] =
      std::from_chars(size.data(), size.data() + size.size(), out.size);
  if (size.empty() || why != std::errc{} || end != size.data() + size.size())
    return std::nullopt;
  return out;
}

/// Something that goes into a request's header again.
bool is_header_value(std::string_view text) {
  return text.size() <= 1024 &&
         std::all_of(text.begin(), text.end(),
                     [](unsigned char c) { return c >= ' ' && c < 127; });
}

} // namespace

result<bucket_page> read_bucket_page(std::string_view xml) {
  if (xml.find("<ListBucketResult") == xml.npos ||
      xml.find("</ListBucketResult>") == xml.npos)
    return error{errc::corrupt, "the answer is no list of a bucket's objects"};
  bucket_page out;
  std::size_t at = 0;
  while (auto contents = element(xml, "Contents", at)) {
    auto object = read_object(*contents);
    if (!object || !is_header_value(object->etag))
      return error{errc::corrupt,
                   "the bucket lists an object without key, ETag or size"};
    if (out.objects.size() == listing_limits::files)
      return error{errc::limit, "too many objects below the prefix"};
    out.objects.push_back(std::move(*object));
  }
  if (element(xml, "IsTruncated") == std::string_view{"true"}) {
    auto next = decoded(element(xml, "NextContinuationToken").value_or(""));
    if (!next || next->empty())
      return error{errc::corrupt, "the bucket's list does not say how it goes "
                                  "on"};
    out.next = *next;
  }
  return out;
}

namespace {

/// Where the provider is, for a region.
std::string endpoint_of(const bucket_reference& of,
                        const fetch_settings& settings,
                        const std::string& region) {
  const auto& given = of.is_google ? settings.gs : settings.s3;
  if (!given.endpoint.empty())
    return given.endpoint;
  if (of.is_google)
    return "https://storage.googleapis.com";
  return fmt::format("https://s3.{}.amazonaws.com", region);
}

bool is_region(std::string_view text) {
  return !text.empty() && text.size() <= 32 &&
         text.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789-") ==
             text.npos;
}

class bucket_origin : public origin {
public:
  bucket_origin(const bucket_reference& reference,
                const fetch_settings& settings)
      : reference_(reference), settings_(settings),
        keys_(reference.is_google, settings) {
    region_ = reference.is_google ? settings.gs.region : settings.s3.region;
    if (!is_region(region_))
      region_ = "us-east-1";
  }

  result<listing> list(http_session& session) override {
    listing out;
    std::string next;
    for (std::size_t page = 0; page < pages_max; ++page) {
      auto got = list_page(session, next);
      if (!got)
        return got.error();
      if (auto added = add(*got, out); !added)
        return added.error();
      next = got->next;
      if (next.empty())
        return finish(std::move(out));
    }
    return too_many();
  }

  /// The ETag is the content's MD5 unless it was put in parts or is encrypted
  /// by a key of the customer's; only the object's head says the latter.
  result<void> complete(http_session& session, const listing&,
                        remote_file& file) override {
    if (file.check.by != content_check::kind::md5)
      return {};
    auto answer = send_with_retries(
        session, [&] { return ask("HEAD", path_of(file), "", {}); });
    if (!answer)
      return answer.error();
    if (answer->status != 200)
      return explain(*answer);
    auto encryption = answer->header("x-amz-server-side-encryption");
    if (encryption.starts_with("aws:kms") ||
        !answer->header("x-amz-server-side-encryption-customer-algorithm")
             .empty())
      file.check = {};
    return {};
  }

  result<http_request> request(const listing&, const remote_file& file,
                               std::uint64_t begin,
                               std::uint64_t end) override {
    return ask("GET", path_of(file), "",
               {{"If-Match", file.etag},
                {"Range", fmt::format("bytes={}-{}", begin, end - 1)}});
  }

  error explain(const http_response& answer) const override {
    auto code = element(answer.body, "Code").value_or("");
    auto said = code.empty() || code.size() > 64 || !is_header_value(code)
                    ? std::string{}
                    : fmt::format(" ({})", code);
    if (answer.status == 401 || answer.status == 403)
      return {errc::invalid_argument,
              fmt::format("access is denied{}: {}", said,
                          reference_.anonymous
                              ? "it is asked for anonymously"
                              : "docs/models.md says where keys are looked "
                                "for")};
    if (answer.status == 404)
      return {errc::not_found, fmt::format("no such bucket or object{}", said)};
    if (answer.status == 412)
      return {errc::io, "it changed while it was fetched; try again"};
    auto out = status_error(answer);
    out.message += said;
    return out;
  }

private:
  result<http_request> ask(const std::string& method, const std::string& path,
                           const std::string& query,
                           std::vector<http_header> headers) {
    http_request out;
    out.method = method;
    out.url = endpoint_of(reference_, settings_, region_) + "/" +
              reference_.bucket + path + (query.empty() ? "" : "?") + query;
    out.headers = std::move(headers);
    out.headers.push_back({"Accept-Encoding", "identity"});
    if (reference_.anonymous)
      return out;
    auto key = keys_.get();
    if (!key)
      return key.error();
    if (!key->bearer.empty() && keeps_secrets(out.url))
      out.headers.push_back({"Authorization", "Bearer " + key->bearer, true});
    else if (!key->id.empty())
      sign_request(*key, region_, signing_time(), out);
    return out;
  }

  std::string path_of(const remote_file& file) const {
    auto key = reference_.prefix.empty() ? file.name
                                         : reference_.prefix + "/" + file.name;
    return "/" + percent_encode(key, true);
  }

  std::string list_query(const std::string& next) const {
    std::string out;
    if (!next.empty())
      out += "continuation-token=" + percent_encode(next, false) + "&";
    out += "list-type=2&prefix=";
    if (!reference_.prefix.empty())
      out += percent_encode(reference_.prefix + "/", false);
    return out;
  }

  result<bucket_page> list_page(http_session& session,
                                const std::string& next) {
    auto make = [&]() -> result<http_request> {
      auto out = ask("GET", "", list_query(next), {});
      if (out)
        out->body_bytes_max = listing_limits::answer_bytes;
      return out;
    };
    auto answer = send_with_retries(session, make);
    if (answer && answer->status != 200 && learn_region(*answer))
      answer = send_with_retries(session, make);
    if (!answer)
      return answer.error();
    if (answer->status != 200)
      return explain(*answer);
    return read_bucket_page(answer->body);
  }

  /// A bucket of another region says which.
  bool learn_region(const http_response& answer) {
    auto region = answer.header("x-amz-bucket-region");
    if (reference_.is_google || !is_region(region) || region == region_)
      return false;
    region_ = region;
    return true;
  }

  result<void> add(const bucket_page& page, listing& to) const {
    auto prefix = reference_.prefix.empty() ? "" : reference_.prefix + "/";
    for (const auto& object : page.objects) {
      if (!object.key.starts_with(prefix) || object.key.ends_with('/'))
        continue; // what stands for a folder
      remote_file file;
      file.name = object.key.substr(prefix.size());
      if (!is_safe_name(file.name))
        return error{errc::corrupt, "it holds an object whose name is no plain "
                                    "relative path"};
      if (object.size > listing_limits::file_bytes)
        return error{errc::limit, file.name + ": larger than 4 TiB"};
      if (to.files.size() == listing_limits::files)
        return too_many();
      file.size = object.size;
      file.etag = object.etag;
      file.blob = sha256_hex(
          fmt::format("{}\n{}\n{}", file.name, object.etag, object.size));
      auto bare = std::string_view{object.etag};
      if (bare.size() == 34 && is_hex(bare.substr(1, 32), 32))
        file.check = {content_check::kind::md5,
                      std::string{bare.substr(1, 32)}};
      to.files.push_back(std::move(file));
    }
    return {};
  }

  error too_many() const {
    return {errc::limit, "too many objects below the prefix"};
  }

  result<listing> finish(listing all) const {
    if (all.files.empty())
      return error{errc::not_found, "nothing is there"};
    std::string whole;
    for (const auto& file : all.files)
      whole += file.blob;
    all.version = sha256_hex(whole);
    return all;
  }

  bucket_reference reference_;
  fetch_settings settings_;
  bucket_keys keys_;
  std::string region_; ///< settled by the first page of the list
};

} // namespace

std::unique_ptr<origin> make_bucket_origin(const bucket_reference& reference,
                                           const fetch_settings& settings) {
  return std::make_unique<bucket_origin>(reference, settings);
}

std::string bucket_folder(const bucket_reference& of,
                          const fetch_settings& settings) {
  const auto& given = of.is_google ? settings.gs : settings.s3;
  auto where = sha256_hex(given.endpoint + "\n" + of.prefix).substr(0, 16);
  return fmt::format("{}--{}--{}", of.is_google ? "gs" : "s3", of.bucket,
                     where);
}

} // namespace troupe::download
