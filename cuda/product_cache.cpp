#include "cuda/product_cache.hpp"

#include <cctype>
#include <charconv>
#include <cstdio>
#include <fcntl.h>
#include <fstream>
#include <iterator>
#include <optional>
#include <sstream>
#include <sys/file.h>
#include <system_error>
#include <unistd.h>
#include <vector>

namespace troupe::cuda {

namespace {

namespace fs = std::filesystem;

constexpr std::string_view first_line = "troupe-products 3";
constexpr std::string_view own = "own";
constexpr std::size_t digits = 16; // of a word

/// FNV-1a: against accidents, not against people.
std::uint64_t sum_of(std::string_view text) {
  std::uint64_t sum = 0xcbf29ce484222325ull;
  for (const char c : text)
    sum = (sum ^ static_cast<unsigned char>(c)) * 0x100000001b3ull;
  return sum;
}

std::string hex(std::uint64_t word) {
  char out[digits + 1];
  std::snprintf(out, sizeof out, "%016llx",
                static_cast<unsigned long long>(word));
  return out;
}

template <class T>
std::optional<T> number(std::string_view text, int base) {
  T out{};
  const auto* end = text.data() + text.size();
  auto [at, failed] = std::from_chars(text.data(), end, out, base);
  if (failed != std::errc{} || at != end)
    return std::nullopt;
  return out;
}

using ops::library_kind;
using ops::row_role;

constexpr library_kind kinds[] = {library_kind::bf16, library_kind::f16,
                                  library_kind::e4m3, library_kind::block_e4m3};
constexpr row_role roles[] = {row_role::prompt, row_role::output};

std::string_view name_of(library_kind kind) {
  constexpr std::string_view names[] = {"bf16", "f16", "e4m3", "block_e4m3"};
  return names[static_cast<std::size_t>(kind)];
}

std::string_view name_of(row_role role) {
  return role == row_role::prompt ? "prompt" : "output";
}

/// Which of `all` is called so.
template <class T, std::size_t N>
std::optional<T> named(std::string_view name, const T (&all)[N]) {
  for (const auto one : all)
    if (name_of(one) == name)
      return one;
  return std::nullopt;
}

std::vector<std::string_view> split(std::string_view text, char at) {
  std::vector<std::string_view> out;
  for (;;) {
    const auto end = text.find(at);
    out.push_back(text.substr(0, end));
    if (end == text.npos)
      return out;
    text.remove_prefix(end + 1);
  }
}

std::optional<product_choice> choice_of(std::string_view text) {
  if (text == own)
    return product_choice{};
  product_algorithm out{};
  if (text.size() != out.size() * digits)
    return std::nullopt;
  for (std::size_t i = 0; i < out.size(); ++i) {
    const auto word =
        number<std::uint64_t>(text.substr(i * digits, digits), 16);
    if (!word)
      return std::nullopt;
    out[i] = *word;
  }
  return product_choice{out};
}

/// "rows:chosen/fastest".
std::optional<product_time> time_of(std::string_view text) {
  const auto colon = text.find(':');
  const auto slash = text.find('/');
  if (colon == text.npos || slash == text.npos || slash < colon)
    return std::nullopt;
  const auto rows = number<std::int64_t>(text.substr(0, colon), 10);
  const auto chosen =
      number<std::int64_t>(text.substr(colon + 1, slash - colon - 1), 10);
  const auto fastest = number<std::int64_t>(text.substr(slash + 1), 10);
  if (!rows || !chosen || !fastest)
    return std::nullopt;
  return product_time{*rows, *chosen, *fastest};
}

/// A line of a choice into `to`; false if it is none.
bool take_line(std::string_view line, product_choices& to) {
  const auto words = split(line, ' ');
  constexpr std::size_t times_from = 5;
  if (words.size() < times_from)
    return false;
  const auto outputs = number<std::int64_t>(words[0], 10);
  const auto cols = number<std::int64_t>(words[1], 10);
  const auto kind = named(words[2], kinds);
  const auto role = named(words[3], roles);
  const auto choice = choice_of(words[4]);
  if (!outputs || !cols || !kind || !role || !choice)
    return false;
  chosen_product read{*choice, {}};
  for (auto i = times_from; i < words.size(); ++i) {
    const auto time = time_of(words[i]);
    if (!time)
      return false;
    read.times.push_back(*time);
  }
  return to.try_emplace({{*outputs, *cols, *kind}, *role}, read).second;
}

/// A file's name of what has spaces and commas.
std::string file_name(const std::string& device) {
  std::string out = "products-";
  for (const char c : device)
    out += std::isalnum(static_cast<unsigned char>(c)) ? c : '-';
  return out + ".txt";
}

} // namespace

std::string write_choices(const std::string& device,
                          const product_choices& choices) {
  std::ostringstream out;
  out << first_line << "\ndevice " << device << '\n';
  for (const auto& [of, choice] : choices) {
    const auto& [shape, role] = of;
    out << shape.outputs << ' ' << shape.cols << ' ' << name_of(shape.kind)
        << ' ' << name_of(role) << ' ';
    if (!choice.what)
      out << own;
    else
      for (const auto word : *choice.what)
        out << hex(word);
    for (const auto& time : choice.times)
      out << ' ' << time.rows << ':' << time.chosen_ns << '/'
          << time.fastest_ns;
    out << '\n';
  }
  const auto text = out.str();
  return text + "sum " + hex(sum_of(text)) + '\n';
}

product_choices read_choices(std::string_view text, const std::string& device) {
  const auto last = text.rfind("sum ");
  if (last == text.npos ||
      text.substr(last) != "sum " + hex(sum_of(text.substr(0, last))) + '\n')
    return {};
  const auto lines = split(text.substr(0, last), '\n');
  if (lines.size() < 3 || lines[0] != first_line ||
      lines[1] != "device " + device || !lines.back().empty())
    return {};
  product_choices out;
  for (std::size_t i = 2; i + 1 < lines.size(); ++i)
    if (!take_line(lines[i], out))
      return {};
  return out;
}

product_cache::product_cache(const fs::path& folder, std::string device)
    : device_(std::move(device)) {
  if (folder.empty())
    return;
  path_ = folder / file_name(device_);
  choices_ = read();
}

product_cache::~product_cache() {
  unlock();
}

product_choices product_cache::read() const {
  std::ifstream in{path_, std::ios::binary};
  const std::string text{std::istreambuf_iterator<char>{in}, {}};
  return read_choices(text, device_);
}

// Where that is not possible each searches for itself.
void product_cache::lock() {
  if (lock_ >= 0 || path_.empty())
    return;
  std::error_code ignored;
  fs::create_directories(path_.parent_path(), ignored);
  auto path = path_;
  path += ".lock";
  lock_ = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (lock_ < 0)
    return;
  while (::flock(lock_, LOCK_EX) != 0 && errno == EINTR) {
  }
  for (const auto& [of, choice] : read())
    choices_.insert_or_assign(of, choice);
}

void product_cache::unlock() {
  if (lock_ >= 0)
    ::close(std::exchange(lock_, -1));
}

const chosen_product* product_cache::find(const product_shape& shape,
                                          ops::row_role role) const {
  const auto found = choices_.find({shape, role});
  return found == choices_.end() ? nullptr : &found->second;
}

void product_cache::add(const product_shape& shape, ops::row_role role,
                        const chosen_product& choice) {
  choices_.insert_or_assign({shape, role}, choice);
  changed_ = true;
}

void product_cache::save() {
  write();
  unlock();
}

void product_cache::write() {
  if (!changed_ || path_.empty())
    return;
  std::error_code failed;
  fs::create_directories(path_.parent_path(), failed);
  auto part = path_;
  part += "." + std::to_string(::getpid());
  {
    std::ofstream out{part, std::ios::binary};
    out << write_choices(device_, choices_);
    if (!out.flush())
      failed = std::make_error_code(std::errc::io_error);
  }
  if (!failed)
    fs::rename(part, path_, failed);
  if (failed)
    fs::remove(part, failed);
  else
    changed_ = false;
}

} // namespace troupe::cuda
