#include "engine/weights/split_files.hpp"

#include <charconv>
#include <fmt/format.h>
#include <string>
#include <string_view>

namespace troupe::weights {

namespace {

constexpr std::string_view form = "-00000-of-00000.gguf";

/// Five digits.
std::optional<std::uint32_t> number_in(std::string_view text) {
  std::uint32_t number = 0;
  auto [end, error] =
      std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc{} || end != text.data() + text.size())
    return std::nullopt;
  return number;
}

} // namespace

std::optional<split_place> split_place_of(const std::filesystem::path& path) {
  const auto name = path.filename().string();
  if (name.size() <= form.size())
    return std::nullopt;
  const auto end = std::string_view{name}.substr(name.size() - form.size());
  auto number = number_in(end.substr(1, 5));
  auto count = number_in(end.substr(10, 5));
  if (end[0] != '-' || end.substr(6, 4) != "-of-" ||
      end.substr(15) != ".gguf" || !number || !count || *number < 1 ||
      *number > *count)
    return std::nullopt;
  return split_place{*number, *count};
}

std::filesystem::path split_file(const std::filesystem::path& one,
                                 std::uint32_t number) {
  auto name = one.filename().string();
  name.replace(name.size() - form.size() + 1, 5, fmt::format("{:05}", number));
  return one.parent_path() / name;
}

std::filesystem::path first_split_file(const std::filesystem::path& path) {
  return split_place_of(path) ? split_file(path, 1) : path;
}

} // namespace troupe::weights
