#include "bench/policies/load.hpp"

#include "engine/codec/block_name.hpp"
#include "router/policy/replica_snapshot.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <list>
#include <random>
#include <simdjson.h>
#include <sstream>
#include <string>
#include <unordered_map>
#include <unordered_set>

namespace troupe::bench {

namespace {

constexpr std::uint32_t mooncake_block = 512;

std::uint32_t scaled(std::uint64_t tokens, const trace_scale& by) {
  auto out = std::llround(static_cast<double>(tokens) / by.divisor);
  return static_cast<std::uint32_t>(std::max<long long>(out, 1));
}

/// A number that no trace has, for a prompt that is like no other.
std::uint64_t own_block(std::size_t request, std::uint64_t seed) {
  return router::mixed(seed ^ router::mixed(request)) | std::uint64_t{1} << 63;
}

double uniform(std::mt19937_64& random) {
  return static_cast<double>(random() >> 11) * 0x1p-53;
}

double rate_at(const std::vector<rate_step>& steps, bool linear, double at) {
  double out = 0;
  for (std::size_t i = 0; i < steps.size(); ++i) {
    if (steps[i].from_s > at)
      break;
    out = steps[i].per_second;
    if (linear && i + 1 < steps.size()) {
      auto share =
          (at - steps[i].from_s) / (steps[i + 1].from_s - steps[i].from_s);
      out += std::min(share, 1.) * (steps[i + 1].per_second - out);
    }
  }
  return out;
}

/// "2023-11-16 18:15:46.6805900" on one day.
double seconds_of(const std::string& time) {
  int hour = 0, minute = 0;
  double second = 0;
  auto clock = time.find(' ');
  if (clock == std::string::npos ||
      std::sscanf(time.c_str() + clock, "%d:%d:%lf", &hour, &minute, &second) !=
          3)
    return 0;
  return 3600. * hour + 60. * minute + second;
}

/// What is on one stamp, until the next one; what is on the last one stays.
void spread_stamps(std::vector<arrival>& all) {
  for (std::size_t begin = 0, end = 0; begin < all.size(); begin = end) {
    auto stamp = all[begin].at_s;
    while (end < all.size() && all[end].at_s == stamp)
      ++end;
    if (end == all.size())
      return;
    auto pause = (all[end].at_s - stamp) / static_cast<double>(end - begin);
    for (auto i = begin; i < end; ++i)
      all[i].at_s += pause * static_cast<double>(i - begin);
  }
}

} // namespace

result<load> read_mooncake(const std::filesystem::path& path,
                           const trace_scale& by) {
  load out;
  simdjson::dom::parser parser;
  simdjson::dom::document_stream lines;
  auto text = simdjson::padded_string::load(path.string());
  if (text.error())
    return error{errc::not_found, "cannot read " + path.string()};
  if (parser.parse_many(text.value()).get(lines))
    return error{errc::invalid_argument, path.string() + " is no JSON lines"};
  for (auto line : lines) {
    arrival one;
    std::uint64_t ms = 0, prompt = 0, output = 0;
    simdjson::dom::array ids;
    if (line["timestamp"].get(ms) || line["input_length"].get(prompt) ||
        line["output_length"].get(output) || line["hash_ids"].get(ids))
      return error{errc::invalid_argument, path.string() + ": a line lacks"};
    one.at_s = static_cast<double>(ms) / 1000;
    if (one.at_s > by.seconds_max)
      break;
    one.prompt_tokens = std::min(scaled(prompt, by), by.tokens_max);
    one.output_tokens = scaled(output, by);
    one.block_tokens = scaled(mooncake_block, by);
    for (auto id : ids) {
      std::uint64_t number = 0;
      if (id.get(number))
        return error{errc::invalid_argument, path.string() + ": a block's id"};
      one.blocks.push_back(number);
    }
    out.arrivals.push_back(std::move(one));
  }
  std::stable_sort(out.arrivals.begin(), out.arrivals.end(),
                   [](auto& a, auto& b) { return a.at_s < b.at_s; });
  if (by.spread)
    spread_stamps(out.arrivals);
  out.seconds = out.arrivals.empty() ? 0 : out.arrivals.back().at_s;
  return out;
}

result<load> read_azure(const std::filesystem::path& path,
                        const trace_scale& by) {
  std::ifstream in{path};
  if (!in)
    return error{errc::not_found, "cannot read " + path.string()};
  load out;
  std::string line;
  std::getline(in, line); // the names of the columns
  double begin = -1;
  while (std::getline(in, line)) {
    std::istringstream fields{line};
    std::string time, prompt, output;
    if (!std::getline(fields, time, ',') ||
        !std::getline(fields, prompt, ',') || !std::getline(fields, output))
      return error{errc::invalid_argument, path.string() + ": a line lacks"};
    arrival one;
    one.at_s = seconds_of(time);
    if (begin < 0)
      begin = one.at_s;
    one.at_s = std::max(one.at_s - begin, 0.);
    if (one.at_s > by.seconds_max)
      break;
    one.prompt_tokens = std::min(
        scaled(std::strtoull(prompt.c_str(), nullptr, 10), by), by.tokens_max);
    one.output_tokens = scaled(std::strtoull(output.c_str(), nullptr, 10), by);
    one.block_tokens = one.prompt_tokens;
    one.blocks = {own_block(out.arrivals.size(), 1)};
    out.arrivals.push_back(std::move(one));
  }
  std::stable_sort(out.arrivals.begin(), out.arrivals.end(),
                   [](auto& a, auto& b) { return a.at_s < b.at_s; });
  out.seconds = out.arrivals.empty() ? 0 : out.arrivals.back().at_s;
  return out;
}

load poisson_load(const std::vector<rate_step>& steps, bool linear,
                  double seconds, const load& like, std::uint64_t seed) {
  std::mt19937_64 random{seed};
  double highest = 0;
  for (const auto& one : steps)
    highest = std::max(highest, one.per_second);
  load out;
  out.seconds = seconds;
  double at = 0;
  while (highest > 0) {
    at -= std::log(1 - uniform(random)) / highest;
    if (at >= seconds)
      break;
    auto place = random() % like.arrivals.size();
    if (uniform(random) * highest > rate_at(steps, linear, at))
      continue; // thinned to the rate of this time
    auto one = like.arrivals[place];
    one.at_s = at;
    one.block_tokens = one.prompt_tokens;
    one.blocks = {own_block(out.arrivals.size(), seed)};
    out.arrivals.push_back(std::move(one));
  }
  return out;
}

std::vector<token_id> prompt_of(const arrival& from) {
  std::vector<token_id> out(from.prompt_tokens);
  for (std::uint32_t i = 0; i < from.prompt_tokens; ++i) {
    auto place =
        std::min<std::size_t>(i / from.block_tokens, from.blocks.size() - 1);
    auto offset = i - place * from.block_tokens;
    auto number = router::mixed(router::mixed(from.blocks[place]) + offset);
    out[i] = static_cast<token_id>(number % prompt_vocabulary);
  }
  return out;
}

std::vector<std::uint32_t> ideal_hits(const load& of,
                                      std::uint32_t block_size) {
  std::vector<std::uint32_t> out;
  std::unordered_set<codec::block_name> known;
  for (const auto& one : of.arrivals) {
    auto names = codec::block_names(prompt_of(one), block_size);
    std::uint32_t hit = 0;
    while (hit < names.size() && known.contains(names[hit]))
      ++hit;
    known.insert(names.begin(), names.end());
    out.push_back(hit * block_size);
  }
  return out;
}

std::vector<std::uint32_t> pooled_hits(const load& of, std::uint32_t block_size,
                                       std::uint64_t tokens) {
  std::list<codec::block_name> used; // the last first
  std::unordered_map<codec::block_name, std::list<codec::block_name>::iterator>
      known;
  std::vector<std::uint32_t> out;
  for (const auto& one : of.arrivals) {
    auto names = codec::block_names(prompt_of(one), block_size);
    std::uint32_t hit = 0;
    while (hit < names.size() && known.contains(names[hit]))
      ++hit;
    // The end of a prompt goes before its beginning.
    for (auto name = names.rbegin(); name != names.rend(); ++name) {
      if (auto before = known.find(*name); before != known.end())
        used.erase(before->second);
      used.push_front(*name);
      known[*name] = used.begin();
    }
    while (known.size() * block_size > tokens) {
      known.erase(used.back());
      used.pop_back();
    }
    out.push_back(hit * block_size);
  }
  return out;
}

double repeated_blocks(const load& of) {
  std::unordered_set<std::uint64_t> known;
  std::uint64_t all = 0, repeated = 0;
  for (const auto& one : of.arrivals)
    for (auto block : one.blocks) {
      ++all;
      repeated += known.insert(block).second ? 0 : 1;
    }
  return all == 0 ? 0
                  : static_cast<double>(repeated) / static_cast<double>(all);
}

} // namespace troupe::bench
