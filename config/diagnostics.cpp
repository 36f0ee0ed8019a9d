#include "config/diagnostics.hpp"

#include <algorithm>
#include <fmt/format.h>
#include <numeric>
#include <tuple>

namespace troupe::config {

void diagnostics::add(diagnostic finding) {
  if (finding.what == diagnostic::kind::error)
    ++errors_;
  if (all_.size() < findings_max)
    all_.push_back(std::move(finding));
}

void diagnostics::error(position where, std::string path, std::string message) {
  add({diagnostic::kind::error, std::move(where), std::move(path),
       std::move(message)});
}

void diagnostics::note(position where, std::string path, std::string message) {
  add({diagnostic::kind::note, std::move(where), std::move(path),
       std::move(message)});
}

void diagnostics::sort() {
  std::stable_sort(all_.begin(), all_.end(), [](const auto& a, const auto& b) {
    return std::tie(a.where.file, a.where.line, a.where.column) <
           std::tie(b.where.file, b.where.line, b.where.column);
  });
}

std::string to_string(const position& where) {
  return where.line > 0
             ? fmt::format("{}:{}:{}", where.file, where.line, where.column)
             : where.file;
}

std::string to_string(const diagnostic& finding) {
  auto out = to_string(finding.where) + ": ";
  if (finding.what == diagnostic::kind::note)
    out += "note: ";
  if (!finding.path.empty())
    out += finding.path + ": ";
  return out + finding.message;
}

namespace {

/// Levenshtein's distance, by rows.
std::size_t edits(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 1; i <= a.size(); ++i) {
    auto diagonal = row[0];
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      auto change = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({change, row[j] + 1, row[j - 1] + 1});
    }
  }
  return row[b.size()];
}

} // namespace

std::string_view nearest(std::string_view word,
                         const std::vector<std::string_view>& candidates) {
  constexpr std::size_t word_max = 100; // longer ones are no typing errors
  if (word.size() > word_max)
    return {};
  std::size_t best = word.size() <= 4 ? 1 : 2;
  std::string_view found;
  for (auto candidate : candidates) {
    auto distance = edits(word, candidate);
    if (distance < best || (distance == best && found.empty())) {
      best = distance;
      found = candidate;
    }
  }
  return found;
}

} // namespace troupe::config
