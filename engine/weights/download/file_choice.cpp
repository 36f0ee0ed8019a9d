#include "engine/weights/download/file_choice.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <map>
#include <set>
#include <string_view>

namespace troupe::download {

namespace {

constexpr std::size_t listed_max = 12;

using name_list = std::vector<std::string>;

bool is_at_top(std::string_view name) {
  return name.find('/') == name.npos;
}

/// "1_Pooling/config.json": a module of sentence-transformers.
bool is_in_module(std::string_view name) {
  auto slash = name.find('/');
  return slash != name.npos && name.rfind('/') == slash &&
         std::isdigit(static_cast<unsigned char>(name.front())) &&
         name.find('_') < slash;
}

bool is_configuration(std::string_view name) {
  if (!is_at_top(name) && !is_in_module(name))
    return false;
  return name.ends_with(".json") || name.ends_with(".jinja") ||
         name.ends_with("vocab.txt") || name.ends_with("merges.txt") ||
         name.ends_with("tokenizer.model") || name.ends_with("spiece.model");
}

/// A file in parts: "NAME-00002-of-00005.EXTENSION".
struct part_name {
  std::string whole; ///< "NAME.EXTENSION"
  unsigned index = 0;
  unsigned count = 0; ///< 0 = it is no part
};

bool all_digits(std::string_view text) {
  return !text.empty() &&
         std::all_of(text.begin(), text.end(),
                     [](unsigned char c) { return std::isdigit(c); });
}

part_name read_part(const std::string& name) {
  part_name out{name, 0, 0};
  auto dot = name.rfind('.');
  constexpr std::size_t digits = 5;
  constexpr std::string_view of = "-of-";
  constexpr auto tail = 1 + digits + of.size() + digits;
  if (dot == name.npos || dot <= tail)
    return out;
  std::string_view end{name.data() + dot - tail, tail};
  auto index = end.substr(1, digits);
  auto count = end.substr(1 + digits + of.size());
  if (end.front() != '-' || end.substr(1 + digits, of.size()) != of ||
      !all_digits(index) || !all_digits(count))
    return out;
  out.whole = name.substr(0, dot - tail) + name.substr(dot);
  out.index = static_cast<unsigned>(std::stoul(std::string{index}));
  out.count = static_cast<unsigned>(std::stoul(std::string{count}));
  return out;
}

/// Files by what they are a part of.
using groups = std::map<std::string, name_list>;

groups group(const name_list& names) {
  groups out;
  for (const auto& name : names)
    out[read_part(name).whole].push_back(name);
  for (auto& [whole, parts] : out)
    std::sort(parts.begin(), parts.end());
  return out;
}

result<void> check_parts(const name_list& names) {
  std::map<std::string, std::set<unsigned>> seen;
  std::map<std::string, unsigned> counts;
  for (const auto& name : names)
    if (auto part = read_part(name); part.count != 0) {
      seen[part.whole].insert(part.index);
      counts[part.whole] = std::max(counts[part.whole], part.count);
    }
  for (const auto& [whole, count] : counts)
    if (seen[whole].size() != count || *seen[whole].begin() != 1 ||
        *seen[whole].rbegin() != count)
      return error{errc::not_found,
                   fmt::format("{}: {} of its {} parts are there", whole,
                               seen[whole].size(), count)};
  return {};
}

name_list ending_with(const name_list& names, std::string_view end) {
  name_list out;
  std::copy_if(names.begin(), names.end(), std::back_inserter(out),
               [&](const auto& name) { return name.ends_with(end); });
  return out;
}

name_list configuration(const name_list& names) {
  name_list out;
  std::copy_if(names.begin(), names.end(), std::back_inserter(out),
               is_configuration);
  return out;
}

/// Weights of the library's own layout, else whatever stands at the top.
name_list safetensors(const name_list& names) {
  auto all = ending_with(names, ".safetensors");
  std::erase_if(all, [](const auto& name) { return !is_at_top(name); });
  auto usual = all;
  std::erase_if(usual, [](const auto& name) {
    return read_part(name).whole != "model.safetensors";
  });
  auto is_whole = [](const auto& name) { return name == "model.safetensors"; };
  if (auto one = std::find_if(usual.begin(), usual.end(), is_whole);
      one != usual.end())
    return {*one};
  return usual.empty() ? all : usual;
}

std::string lower(std::string_view text) {
  std::string out{text};
  std::transform(out.begin(), out.end(), out.begin(), [](unsigned char c) {
    return static_cast<char>(std::tolower(c));
  });
  return out;
}

/// True if `part` stands in `name` between separators. An underscore ends none:
/// "Q4" is not "Q4_0".
bool has_part(const std::string& name, const std::string& part) {
  auto ends = [](char c) { return c == '-' || c == '.' || c == '/'; };
  auto begins = [&](char c) { return ends(c) || c == '_'; };
  auto all = lower(name);
  auto wanted = lower(part);
  for (auto at = all.find(wanted); at != all.npos;
       at = all.find(wanted, at + 1)) {
    auto end = at + wanted.size();
    if ((at == 0 || begins(all[at - 1])) &&
        (end == all.size() || ends(all[end])))
      return true;
  }
  return false;
}

std::string listed(const groups& all) {
  std::string out;
  std::size_t count = 0;
  for (const auto& [whole, parts] : all) {
    if (count == listed_max)
      return out + fmt::format(" and {} more", all.size() - count);
    out += (count++ == 0 ? "" : ", ") + whole;
  }
  return out;
}

/// The groups that `file` means.
groups matching(const groups& all, const std::string& file) {
  groups out;
  for (const auto& [whole, parts] : all)
    if (whole == file || std::count(parts.begin(), parts.end(), file) != 0)
      return {{whole, parts}};
  for (const auto& [whole, parts] : all)
    if (has_part(whole, file))
      out.emplace(whole, parts);
  return out;
}

result<file_choice> choose_gguf(const name_list& names,
                                const std::string& file) {
  auto all = group(ending_with(names, ".gguf"));
  auto fitting = file.empty() ? all : matching(all, file);
  if (fitting.empty())
    return error{errc::not_found,
                 fmt::format("no .gguf file matches \"{}\"; there {}: {}", file,
                             all.size() == 1 ? "is" : "are",
                             all.empty() ? "none" : listed(all))};
  if (fitting.size() > 1)
    return error{errc::invalid_argument,
                 fmt::format("{} .gguf files; choose one by :NAME behind the "
                             "model, or a part of it such as :Q4_K_M: {}",
                             fitting.size(), listed(fitting))};
  file_choice out;
  out.names = fitting.begin()->second;
  out.entry = out.names.front();
  if (auto fine = check_parts(out.names); !fine)
    return fine.error();
  return out;
}

result<file_choice> choose_tokenizer(const name_list& names) {
  auto found = configuration(names);
  if (std::count(found.begin(), found.end(), "tokenizer.json") == 0)
    return error{errc::not_found, "no tokenizer.json in it"};
  return file_choice{std::move(found), {}};
}

error no_weights(const name_list& names) {
  for (const auto& name : names)
    if (name.ends_with(".bin") || name.ends_with(".pt") ||
        name.ends_with(".pth"))
      return {errc::unsupported,
              fmt::format("{}: pickled weights are not loaded; it holds no "
                          ".safetensors and no .gguf file",
                          name)};
  return {errc::not_found, "no .safetensors and no .gguf file in it"};
}

} // namespace

result<file_choice> choose_files(const name_list& names,
                                 const std::string& file, wanted what) {
  if (what == wanted::tokenizer)
    return choose_tokenizer(names);
  auto weights = safetensors(names);
  auto has_gguf = !ending_with(names, ".gguf").empty();
  if (!file.empty() || (weights.empty() && has_gguf))
    return choose_gguf(names, file);
  if (weights.empty())
    return no_weights(names);
  if (auto fine = check_parts(weights); !fine)
    return fine.error();
  file_choice out{configuration(names), {}};
  if (std::count(out.names.begin(), out.names.end(), "config.json") == 0)
    return error{errc::not_found, "no config.json in it"};
  out.names.insert(out.names.end(), weights.begin(), weights.end());
  return out;
}

} // namespace troupe::download
