#include "actors/node_agent/gpu_name.hpp"

#include <vector>

namespace troupe::node_agent {

namespace {

constexpr std::size_t name_length_max = 40;

bool is_name_character(char c) {
  return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') ||
         (c >= '0' && c <= '9');
}

/// What stands between blanks, dashes and the like, without the words that say
/// who made it and for whom.
std::vector<std::string> telling_words(std::string_view name) {
  std::vector<std::string> out;
  std::string word;
  auto finish = [&] {
    if (!word.empty() && word != "NVIDIA" && word != "Tesla" &&
        word != "GeForce" && word != "Quadro")
      out.push_back(word);
    word.clear();
  };
  for (char c : name) {
    if (is_name_character(c))
      word += c;
    else
      finish();
  }
  finish();
  return out;
}

} // namespace

std::string accelerator_type_of(std::string_view driver_name) {
  auto words = telling_words(driver_name);
  if (words.empty())
    return {};
  auto out = words[0];
  // "RTX" and "RTX PRO" alone name no type.
  for (std::size_t i = 1;
       i < words.size() && (words[i - 1] == "RTX" || words[i - 1] == "PRO");
       ++i)
    out += "-" + words[i];
  if (out == "A100")
    for (const auto& word : words)
      if (word == "40GB" || word == "80GB")
        out += "-" + word.substr(0, 3);
  return out.size() <= name_length_max ? out : std::string{};
}

std::string accelerator_family_of(std::string_view accelerator_type) {
  return accelerator_type.starts_with("A100-") ? "A100" : "";
}

} // namespace troupe::node_agent
