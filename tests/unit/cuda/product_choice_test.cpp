#include "cuda/product_cache.hpp"

#include <catch2/catch.hpp>

#include <atomic>
#include <chrono>
#include <thread>

#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <unistd.h>

using namespace troupe;
using namespace troupe::cuda;
using ops::row_role;

namespace fs = std::filesystem;

namespace {

/// An algorithm that a test makes up.
struct made_up {
  double seconds = 1;      ///< for any number of rows
  std::int64_t from = -1;  ///< rows from which its sums have another order
  std::int64_t fails = -1; ///< rows that it cannot do
};

/// A library of made up algorithms; our own kernel takes a second.
class fake_trial final : public product_trial {
public:
  explicit fake_trial(std::vector<made_up> all) : all_(std::move(all)) {
    // nop
  }

  std::vector<product_algorithm> proposed() override {
    std::vector<product_algorithm> out;
    for (std::size_t i = 0; i < all_.size(); ++i)
      out.push_back({i});
    return out;
  }
  bool begin(const product_algorithm& which) override {
    ++begun;
    return of(which).fails != trial_rows_most;
  }
  bool same_rows(const product_algorithm& which, std::int64_t first,
                 std::int64_t rows) override {
    REQUIRE(first >= 0);
    REQUIRE(first + rows <= trial_rows_most);
    const auto& one = of(which);
    const bool other_order = one.from >= 0 && rows < one.from;
    return !other_order && one.fails != rows;
  }
  std::optional<double> seconds(const product_choice& which,
                                std::int64_t rows) override {
    if (!which)
      return 1;
    if (of(*which).fails == rows)
      return std::nullopt;
    return of(*which).seconds;
  }

  int begun = 0; ///< admissions looked at

private:
  const made_up& of(const product_algorithm& which) const {
    return all_.at(which[0]);
  }

  std::vector<made_up> all_;
};

/// -1: our own.
int chosen(std::vector<made_up> all, row_role role = row_role::prompt) {
  fake_trial trial{std::move(all)};
  std::map<product_algorithm, bool> kept;
  const auto out = choose_product(trial, role, kept).what;
  return out ? static_cast<int>((*out)[0]) : -1;
}

struct folder {
  fs::path path = fs::temp_directory_path() /
                  ("troupe-products-" + std::to_string(::getpid()));
  folder() {
    fs::remove_all(path);
  }
  ~folder() {
    fs::remove_all(path);
  }
};

product_choices some_choices() {
  product_choices out;
  out[{{4096, 1024}, row_role::prompt}] = {
      product_algorithm{1, 2, 3, ~std::uint64_t{0}, 5, 6, 7, 8},
      {{64, 12'345, 12'000}, {2048, 99'999'999'999, 1}}};
  out[{{4096, 1024}, row_role::output}] = {{}, {{1, 7, 7}}};
  out[{{151'936, 896}, row_role::prompt}] = {product_algorithm{9}, {}};
  for (auto kind : {ops::library_kind::f16, ops::library_kind::e4m3,
                    ops::library_kind::block_e4m3})
    out[{{4096, 1024, kind}, row_role::prompt}] = {
        product_algorithm{7, static_cast<std::uint64_t>(kind)}, {}};
  return out;
}

const std::string device = "A GPU, sm90-cuda13, cublasLt 130100";

std::string text_of(const fs::path& path) {
  std::ifstream in{path, std::ios::binary};
  return {std::istreambuf_iterator<char>{in}, {}};
}

} // namespace

TEST_CASE("the fastest algorithm that keeps rows is taken") {
  CHECK(chosen({}) == -1);
  CHECK(chosen({{2}, {1.5}}) == -1);
  CHECK(chosen({{.5}, {.3}, {.4}}) == 1);
  // It has to be faster than what stands before it by more than noise.
  CHECK(chosen({{.97}}) == -1);
  CHECK(chosen({{.41}, {.40}}) == 0);
}

TEST_CASE("an algorithm whose rows depend on their company is never taken") {
  for (auto rows : trial_rows)
    if (rows > 1) {
      INFO("another order from " << rows << " rows on");
      CHECK(chosen({{.1, rows}}) == -1);
      CHECK(chosen({{.1, rows}, {.5}}) == 1);
      CHECK(chosen({{.1, rows}, {.5}}, row_role::output) == 1);
    }
  CHECK(chosen({{.41, 17}, {.40}}) == 1); // nor when it is near the best
}

TEST_CASE("an algorithm that cannot do some number of rows is never taken") {
  for (auto rows : trial_rows)
    CHECK(chosen({{.1, -1, rows}, {.5}}) == 1);
  CHECK(chosen({{.1, -1, 128}, {.5}}, row_role::output) == 1);
}

TEST_CASE("no more algorithms are looked at than it takes") {
  fake_trial trial{{{.9}, {.2}, {.5}, {.3}}};
  std::map<product_algorithm, bool> kept;
  choose_product(trial, row_role::prompt, kept);
  CHECK(trial.begun == 1);
  choose_product(trial, row_role::output, kept);
  CHECK(trial.begun == 1);
}

TEST_CASE("what keeping rows costs is known for each number of rows") {
  // The second is fast and does not keep rows; the third cannot do one number.
  fake_trial trial{{{.5}, {.2, 17}, {.1, -1, 128}}};
  std::map<product_algorithm, bool> kept;
  const auto prompt = choose_product(trial, row_role::prompt, kept);
  CHECK((prompt.what == product_algorithm{2}));
  CHECK((prompt.times ==
         std::vector<product_time>{{64, 100'000'000, 100'000'000},
                                   {256, 100'000'000, 100'000'000},
                                   {2048, 100'000'000, 100'000'000}}));
  const auto output = choose_product(trial, row_role::output, kept);
  CHECK((output.what == product_algorithm{0}));
  CHECK((output.times ==
         std::vector<product_time>{{1, 500'000'000, 100'000'000},
                                   {8, 500'000'000, 100'000'000},
                                   {32, 500'000'000, 100'000'000},
                                   {128, 500'000'000, 200'000'000}}));
}

TEST_CASE("what was chosen is read as it was written") {
  const auto all = some_choices();
  const auto text = write_choices(device, all);
  CHECK((read_choices(text, device) == all));
  // bench/gpu_engine.py reads these lines too.
  CHECK(text.find("\n4096 1024 bf16 output own 1:7/7\n") != text.npos);
  CHECK(text.find(" 64:12345/12000 2048:99999999999/1\n") != text.npos);
  CHECK(read_choices(text, "A GPU, sm90-cuda13, cublasLt 130200").empty());
  CHECK((read_choices(write_choices(device, {}), device).empty()));
}

TEST_CASE("a file that was changed or cut says nothing") {
  const auto text = write_choices(device, some_choices());
  for (std::size_t i = 0; i < text.size(); ++i) {
    auto changed = text;
    changed[i] = changed[i] == '1' ? '2' : '1';
    CHECK(read_choices(changed, device).empty());
    CHECK(read_choices(std::string_view{text}.substr(0, i), device).empty());
  }
  CHECK(read_choices(text + "x", device).empty());
}

TEST_CASE("processes that start together choose one after the other, and lose "
          "nothing of each other's") {
  folder here;
  product_cache one{here.path, device};
  product_cache two{here.path, device};
  one.lock();
  std::atomic<bool> has_lock = false;
  std::thread other{[&] {
    two.lock();
    has_lock = true;
  }};
  one.add({1, 2}, row_role::prompt, {});
  std::this_thread::sleep_for(std::chrono::milliseconds{50});
  CHECK_FALSE(has_lock);
  one.save();
  other.join();
  CHECK(two.find({1, 2}, row_role::prompt) != nullptr);
  two.add({3, 4}, row_role::prompt, {});
  two.save();
  product_cache both{here.path, device};
  CHECK(both.find({1, 2}, row_role::prompt) != nullptr);
  CHECK(both.find({3, 4}, row_role::prompt) != nullptr);
}

TEST_CASE(
    "choices are kept in a file per device; a broken one is written anew") {
  folder here;
  const auto all = some_choices();
  {
    product_cache cache{here.path, device};
    CHECK(cache.find({4096, 1024}, row_role::prompt) == nullptr);
    for (const auto& [of, choice] : all)
      cache.add(of.first, of.second, choice);
    cache.save();
  }
  REQUIRE(std::distance(fs::directory_iterator{here.path}, {}) == 1);
  const auto file = fs::directory_iterator {
    here.path
    } -> path();
  {
    product_cache cache{here.path, device};
    for (const auto& [of, choice] : all) {
      const auto* found = cache.find(of.first, of.second);
      REQUIRE(found != nullptr);
      CHECK((*found == choice));
    }
    CHECK(cache.find({1, 2}, row_role::prompt) == nullptr);
  }
  CHECK(product_cache(here.path, "another")
            .find({4096, 1024}, row_role::prompt) == nullptr);
  std::ofstream{file, std::ios::app} << "garbage";
  {
    product_cache cache{here.path, device};
    CHECK(cache.find({4096, 1024}, row_role::prompt) == nullptr);
    cache.add({1, 2}, row_role::output, {});
    cache.save();
  }
  const auto text = text_of(file);
  CHECK(read_choices(text, device).size() == 1);
  // Nothing is written where nothing can be, and nothing is thrown.
  product_cache nowhere{"/proc/no/such/folder", device};
  nowhere.add({1, 2}, row_role::output, {});
  nowhere.save();
  CHECK(nowhere.find({1, 2}, row_role::output) != nullptr);
  product_cache none{{}, device};
  none.add({1, 2}, row_role::output, {});
  none.save();
}
