#include "engine/weights/download/model_reference.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace troupe::download {

namespace {

constexpr std::size_t text_bytes_max = 2048;
constexpr std::size_t id_bytes_max = 96;
constexpr std::size_t revision_bytes_max = 255;
constexpr std::size_t name_bytes_max = 1024;
constexpr std::size_t part_bytes_max = 255;

bool is_letter_or_digit(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
         (c >= '0' && c <= '9');
}

/// Only letters, digits and what `others` holds.
bool consists_of(std::string_view text, std::string_view others) {
  return std::all_of(text.begin(), text.end(), [&](char c) {
    return is_letter_or_digit(c) || others.find(c) != others.npos;
  });
}

/// One half of a hub id.
bool is_hub_name(std::string_view part) {
  auto at_an_end = [](char c) { return c == '-' || c == '.'; };
  return !part.empty() && consists_of(part, "-_.") &&
         !at_an_end(part.front()) && !at_an_end(part.back()) &&
         part.find("--") == part.npos && part.find("..") == part.npos &&
         !part.ends_with(".git");
}

bool is_hub_id(std::string_view id) {
  auto slash = id.find('/');
  if (id.empty() || id.size() > id_bytes_max)
    return false;
  if (slash == id.npos)
    return is_hub_name(id);
  return is_hub_name(id.substr(0, slash)) && is_hub_name(id.substr(slash + 1));
}

bool is_revision(std::string_view revision) {
  return revision.size() <= revision_bytes_max &&
         consists_of(revision, "-_./") && is_safe_name(revision);
}

/// S3's rule; Google's names fit it but for underscores.
bool is_bucket(std::string_view name) {
  return name.size() >= 3 && name.size() <= 63 && consists_of(name, "-_.") &&
         is_letter_or_digit(name.front()) && is_letter_or_digit(name.back()) &&
         name.find("..") == name.npos;
}

error wrong(std::string_view text, std::string_view why) {
  return {errc::invalid_argument, fmt::format("\"{}\": {}", text, why)};
}

/// Cuts ":file" off the end of `text`.
result<std::string> take_file(std::string_view whole, std::string_view& text) {
  auto colon = text.rfind(':');
  if (colon == text.npos)
    return std::string{};
  std::string file{text.substr(colon + 1)};
  text = text.substr(0, colon);
  if (!is_safe_name(file))
    return wrong(whole, "what stands behind the colon is no name of a file");
  return file;
}

result<model_reference> read_hub(std::string_view whole) {
  hub_reference out;
  auto text = whole;
  auto file = take_file(whole, text);
  if (!file)
    return file.error();
  out.file = *file;
  if (auto at = text.find('@'); at != text.npos) {
    out.revision = text.substr(at + 1);
    text = text.substr(0, at);
    if (!is_revision(out.revision))
      return wrong(whole, "what stands behind @ is no revision");
  }
  if (!is_hub_id(text))
    return wrong(whole, "neither a path nor a model of a hub (org/name)");
  out.id = text;
  return out;
}

result<model_reference> read_bucket(std::string_view whole,
                                    std::string_view text, bool is_google) {
  bucket_reference out;
  out.is_google = is_google;
  constexpr std::string_view anonymous = "anonymous@";
  if (text.starts_with(anonymous)) {
    out.anonymous = true;
    text.remove_prefix(anonymous.size());
  }
  // Not shown: it may be a secret.
  if (text.substr(0, text.find('/')).find('@') != text.npos)
    return error{errc::invalid_argument,
                 "a bucket's keys do not stand in front of its name; "
                 "docs/models.md says where they are looked for"};
  auto file = take_file(whole, text);
  if (!file)
    return file.error();
  out.file = *file;
  auto slash = std::min(text.find('/'), text.size());
  out.bucket = text.substr(0, slash);
  auto prefix = text.substr(std::min(slash + 1, text.size()));
  while (prefix.ends_with('/'))
    prefix.remove_suffix(1);
  if (prefix.ends_with(".gguf") && out.file.empty()) {
    auto last = prefix.rfind('/');
    out.file = prefix.substr(last == prefix.npos ? 0 : last + 1);
    prefix = prefix.substr(0, last == prefix.npos ? 0 : last);
  }
  out.prefix = prefix;
  if (!is_bucket(out.bucket))
    return wrong(whole, "no valid name of a bucket");
  for (const auto& part : {out.prefix, out.file})
    if (!part.empty() && !is_safe_name(part))
      return wrong(whole, "no valid prefix");
  return out;
}

bool is_path(std::string_view text) {
  return text.starts_with('/') || text.starts_with('.') ||
         text.starts_with('~') ||
         (text.ends_with(".gguf") && text.find(':') == text.npos);
}

} // namespace

bool is_safe_name(std::string_view name) {
  auto bad = [](unsigned char c) { return c < ' ' || c == 127 || c == '\\'; };
  if (name.empty() || name.size() > name_bytes_max ||
      std::any_of(name.begin(), name.end(), bad))
    return false;
  for (std::size_t at = 0; at <= name.size();) {
    auto end = std::min(name.find('/', at), name.size());
    auto part = name.substr(at, end - at);
    if (part.empty() || part == "." || part == ".." ||
        part.size() > part_bytes_max)
      return false;
    at = end + 1;
  }
  return true;
}

result<model_reference> parse_model_reference(std::string_view text) {
  if (text.empty() || text.size() > text_bytes_max ||
      text.find('\0') != text.npos)
    return error{errc::invalid_argument,
                 "a model's source is a text of 1 to 2048 bytes"};
  if (auto end = text.find("://"); end != text.npos) {
    auto scheme = text.substr(0, end);
    if (scheme == "s3" || scheme == "gs")
      return read_bucket(text, text.substr(end + 3), scheme == "gs");
    return error{errc::unsupported,
                 fmt::format("{}:// sources: not supported; give a path, a "
                             "model of a hub (org/name), s3:// or gs://",
                             scheme)};
  }
  if (is_path(text))
    return std::filesystem::path{text};
  return read_hub(text);
}

namespace {

std::string text_of(const std::filesystem::path& path) {
  return path.string();
}

std::string behind_colon(const std::string& file) {
  return file.empty() ? file : ":" + file;
}

std::string text_of(const hub_reference& x) {
  auto looks_like_path = x.id.ends_with(".gguf") && x.file.empty();
  auto is_plain = x.revision == "main" && !looks_like_path;
  return x.id + (is_plain ? "" : "@" + x.revision) + behind_colon(x.file);
}

std::string text_of(const bucket_reference& x) {
  // An "@" before the first slash would be taken for keys.
  auto has_slash = !x.prefix.empty() || x.file.find('@') != x.file.npos;
  return fmt::format("{}://{}{}{}{}{}", x.is_google ? "gs" : "s3",
                     x.anonymous ? "anonymous@" : "", x.bucket,
                     has_slash ? "/" : "", x.prefix, behind_colon(x.file));
}

} // namespace

std::string to_string(const model_reference& reference) {
  return std::visit([](const auto& x) { return text_of(x); }, reference);
}

} // namespace troupe::download
