#include "tests/interpreted_gpu/counts.hpp"

#include <cstdio>
#include <cstdlib>
#include <cxxabi.h>
#include <map>
#include <mutex>

namespace troupe::interpreted {

namespace {

struct kernel_counts {
  std::uint64_t launches = 0, blocks = 0, warps = 0;
  ptx::work_done done;
};

struct all_counts {
  std::mutex mutex;
  std::map<std::string, kernel_counts> of;
};

all_counts& all() {
  static auto* made = new all_counts;
  return *made;
}

std::string readable(const std::string& name) {
  int status = 0;
  char* out = abi::__cxa_demangle(name.c_str(), nullptr, nullptr, &status);
  std::string text = out != nullptr ? out : name;
  std::free(out);
  return text;
}

void write_all() {
  auto* file = std::fopen(std::getenv("INTERPRETED_GPU_COUNTS"), "a");
  if (file == nullptr)
    return;
  std::lock_guard guard{all().mutex};
  const auto number = [&](const char* name, std::uint64_t x) {
    std::fprintf(file, ", \"%s\": %llu", name,
                 static_cast<unsigned long long>(x));
  };
  for (const auto& [name, counts] : all().of) {
    std::fprintf(file, "{\"kernel\": \"%s\"", readable(name).c_str());
    number("launches", counts.launches);
    number("blocks", counts.blocks);
    number("warps", counts.warps);
    number("instructions", counts.done.instructions);
    number("lane_instructions", counts.done.lane_instructions);
    number("products", counts.done.products);
    number("loaded_sectors", counts.done.loaded.paid);
    number("loaded_sectors_least", counts.done.loaded.least);
    number("stored_sectors", counts.done.stored.paid);
    number("stored_sectors_least", counts.done.stored.least);
    number("shared_turns", counts.done.shared.paid);
    number("shared_turns_least", counts.done.shared.least);
    std::fputs("}\n", file);
  }
  std::fclose(file);
}

} // namespace

bool counts_are_wanted() {
  static const bool wanted = [] {
    const bool is_set = std::getenv("INTERPRETED_GPU_COUNTS") != nullptr;
    if (is_set)
      std::atexit(write_all);
    return is_set;
  }();
  return wanted;
}

void count(const std::string& kernel, const ptx::launch& how,
           const ptx::work_done& done) {
  constexpr std::uint64_t lanes = 32;
  const auto product = [](const unsigned(&x)[3]) {
    return std::uint64_t{x[0]} * x[1] * x[2];
  };
  std::lock_guard guard{all().mutex};
  auto& to = all().of[kernel];
  ++to.launches;
  to.blocks += product(how.blocks);
  to.warps +=
      product(how.blocks) * ((product(how.threads) + lanes - 1) / lanes);
  to.done += done;
}

} // namespace troupe::interpreted
