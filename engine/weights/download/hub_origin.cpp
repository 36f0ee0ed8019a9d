#include "engine/weights/download/hub_origin.hpp"

#include "engine/weights/download/url.hpp"

#include <fmt/format.h>
#include <simdjson.h>

#include <charconv>

namespace troupe::download {

namespace {

namespace dom = simdjson::dom;

std::string_view text_at(dom::element object, const char* key) {
  std::string_view out;
  return object[key].get(out) ? std::string_view{} : out;
}

/// The content's hash decides where it is kept, as the hub's own client has it.
void know_by(std::string_view hash, remote_file& out) {
  using by = content_check::kind;
  if (!is_hex(hash, 64) && !is_hex(hash, 40))
    return;
  out.blob = hash;
  out.check = {hash.size() == 64 ? by::sha256 : by::git_blob,
               std::string{hash}};
}

result<remote_file> read_file(dom::element entry) {
  remote_file out;
  out.name = text_at(entry, "rfilename");
  if (!is_safe_name(out.name))
    return error{errc::corrupt,
                 "the hub lists a file whose name is no plain relative path"};
  dom::element lfs;
  auto is_large = !entry["lfs"].get(lfs) && lfs.is_object();
  auto told = is_large ? lfs : entry;
  if (told["size"].get(out.size))
    return out; // a hub that says less: asked for by itself, if wanted
  if (out.size > listing_limits::file_bytes)
    return error{errc::limit, out.name + ": larger than 4 TiB"};
  know_by(text_at(told, is_large ? "sha256" : "blobId"), out);
  return out;
}

} // namespace

result<listing> read_hub_listing(std::string_view json) {
  dom::parser parser;
  dom::element root;
  dom::array files;
  if (parser.parse(json.data(), json.size()).get(root) ||
      root["siblings"].get(files))
    return error{errc::corrupt, "the hub's answer is no list of files"};
  listing out;
  out.version = text_at(root, "sha");
  if (!is_hex(out.version, 40))
    return error{errc::corrupt, "the hub's answer names no commit"};
  for (auto entry : files) {
    if (out.files.size() == listing_limits::files)
      return error{errc::limit, "the repository has too many files"};
    auto file = read_file(entry);
    if (!file)
      return file.error();
    out.files.push_back(std::move(*file));
  }
  return out;
}

namespace {

/// "W/"x"" and "x" are both x.
std::string_view bare_etag(std::string_view etag) {
  if (etag.starts_with("W/"))
    etag.remove_prefix(2);
  if (etag.size() >= 2 && etag.front() == '"' && etag.back() == '"')
    etag = etag.substr(1, etag.size() - 2);
  return etag;
}

class hub_origin : public origin {
public:
  hub_origin(const hub_reference& reference, const fetch_settings& settings)
      : reference_(reference), settings_(settings) {
    may_send_token_ = keeps_secrets(settings.hub_endpoint);
  }

  result<listing> list(http_session& session) override {
    auto request =
        ask(fmt::format("/api/models/{}/revision/{}?blobs=true", reference_.id,
                        percent_encode(reference_.revision, false)));
    request.body_bytes_max = listing_limits::answer_bytes;
    auto answer = send_with_retries(
        session, [&]() -> result<http_request> { return request; });
    if (!answer)
      return answer.error();
    if (answer->status != 200)
      return explain(*answer);
    return read_hub_listing(answer->body);
  }

  /// What the hub says of one file, not what a storage behind it says.
  result<void> complete(http_session& session, const listing& all,
                        remote_file& file) override {
    if (!file.blob.empty())
      return {};
    auto asked = ask(path_of(all, file));
    asked.method = "HEAD";
    asked.same_origin_only = true;
    auto answer = send_with_retries(
        session, [&]() -> result<http_request> { return asked; });
    if (!answer)
      return answer.error();
    if (answer->status / 100 != 2 && answer->status / 100 != 3)
      return explain(*answer);
    return read_head(*answer, all, file);
  }

  result<http_request> request(const listing& all, const remote_file& file,
                               std::uint64_t begin,
                               std::uint64_t end) override {
    auto out = ask(path_of(all, file));
    out.headers.push_back(
        {"Range", fmt::format("bytes={}-{}", begin, end - 1)});
    return out;
  }

  error explain(const http_response& answer) const override {
    auto said = answer.header("x-error-code");
    if (said == "RevisionNotFound")
      return {errc::not_found, "the hub has no such revision"};
    if (said == "EntryNotFound")
      return {errc::not_found, "the hub has no such file"};
    if (said == "GatedRepo" || answer.status == 403)
      return {errc::invalid_argument,
              fmt::format("access to it is restricted: accept its terms on its "
                          "page at {} and set HF_TOKEN to a token of that "
                          "account{}",
                          shown_url(settings_.hub_endpoint), about_token())};
    if (answer.status == 401 || answer.status == 404)
      return {errc::not_found, "the hub has no such repository, or it is "
                               "private: then set HF_TOKEN" +
                                   about_token()};
    return status_error(answer);
  }

private:
  std::string about_token() const {
    if (settings_.hub_token.empty())
      return " (none is set)";
    return may_send_token_ ? " (the one that is set does not do)"
                           : " (the one that is set is not sent, since the "
                             "endpoint is not https)";
  }

  http_request ask(const std::string& path) const {
    http_request out;
    out.url = settings_.hub_endpoint + path;
    out.redirects_max = settings_.limits.redirects;
    if (!settings_.hub_token.empty() && may_send_token_)
      out.headers.push_back(
          {"Authorization", "Bearer " + settings_.hub_token, true});
    // Sizes and ranges are of the file, not of a packed form.
    out.headers.push_back({"Accept-Encoding", "identity"});
    return out;
  }

  std::string path_of(const listing& all, const remote_file& file) const {
    return fmt::format("/{}/resolve/{}/{}", reference_.id, all.version,
                       percent_encode(file.name, true));
  }

  result<void> read_head(const http_response& head, const listing& all,
                         remote_file& file) const {
    auto commit = head.header("x-repo-commit");
    if (!commit.empty() && commit != all.version)
      return error{errc::corrupt, file.name + ": the hub answered with another "
                                              "commit's file"};
    auto linked = head.header("x-linked-etag");
    know_by(bare_etag(linked.empty() ? head.header("etag") : linked), file);
    auto size = head.header("x-linked-size");
    if (size.empty())
      size = head.header("content-length");
    auto [end, code] =
        std::from_chars(size.data(), size.data() + size.size(), file.size);
    if (size.empty() || code != std::errc{} || end != size.data() + size.size())
      return error{errc::corrupt,
                   file.name + ": the hub does not say its size"};
    if (file.size > listing_limits::file_bytes)
      return error{errc::limit, file.name + ": larger than 4 TiB"};
    if (file.blob.empty())
      return error{errc::corrupt,
                   file.name + ": the hub does not say its hash"};
    return {};
  }

  hub_reference reference_;
  fetch_settings settings_;
  bool may_send_token_ = false;
};

} // namespace

std::unique_ptr<origin> make_hub_origin(const hub_reference& reference,
                                        const fetch_settings& settings) {
  return std::make_unique<hub_origin>(reference, settings);
}

} // namespace troupe::download
