// Computes models on a GPU and compares with what transformers gave:
//
//   check_families FOLDER [--emulated] [--tokens N] [--fp8-weights] [--fp8-kv]
//
// FOLDER holds NAME.ref files (README.md), each beside NAME/, as
// make_random_families.py makes them. Logits may differ by the rounding of keys
// and values to f16 and, where a library makes products, of rows to bf16; the
// best token has to be the same wherever its margin is twice that. Each
// sequence is then computed again in pieces beside another one, with the same
// bits. With --fp8-... the references are of models that were rounded so, by
// PyTorch. Prints JSON, a line per model; the exit status is 0 if all of them,
// and at least one, are right. The emulator is slow: with N it computes the
// first of each sequence alone.

#include "cuda/emulated_backend.hpp"
#include "engine/model/decoder.hpp"
#include "engine/model/open_checkpoint.hpp"
#include "engine/ops/cuda_module.hpp"
#include "engine/weights/converted_checkpoint.hpp"
#include "tests/unit/model/reference_file.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <filesystem>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

using namespace troupe;
namespace fs = std::filesystem;

namespace {

constexpr std::int32_t tokens_max = 128; ///< of a sequence
constexpr model::decoder_limits limits{
    2 * tokens_max, 2 * tokens_max, 16, 2 * tokens_max / 16, 2, tokens_max};

/// How models are computed, and how much of each sequence.
struct settings {
  fs::path folder;
  bool is_emulated = false;
  bool has_fp8_weights = false;
  bool has_fp8_kv = false;
  std::size_t tokens = tokens_max;

  double tolerance(bool has_roles) const {
    if (has_fp8_kv)
      return 0.5; // what is near the middle of two codes may turn over
    return has_roles ? 0.25 : 0.05;
  }
};

/// Choices of products are kept beside the models: many have the same shapes.
std::unique_ptr<ops::backend> make_backend(const settings& how) {
  const auto kv = how.has_fp8_kv ? ops::kv_type::e4m3 : ops::kv_type::f16;
  if (how.is_emulated)
    return cuda::make_emulated_backend({}, {}, kv);
  auto device = ops::open_cuda(
      {.number = 0, .cache_folder = how.folder / "choices", .kv = kv});
  if (!device)
    throw std::runtime_error{device.error().message};
  return std::move(device->backend);
}

/// `count` tokens of a sequence from the one at `first` on; what is before has
/// been computed.
struct portion {
  const std::vector<token_id>* ids;
  std::size_t first;
  std::size_t count;
};

/// [position][vocabulary].
using logits_list = std::vector<std::vector<float>>;

class loaded_model {
public:
  /// For sequences of so many tokens.
  loaded_model(const fs::path& folder, std::size_t tokens, const settings& how)
      : backend_(make_backend(how)) {
    file_ = weights::convert_matrices(taken(model::open_checkpoint(folder)),
                                      how.has_fp8_weights
                                          ? weights::matrix_form::e4m3
                                          : weights::matrix_form::as_stored);
    config_ = taken(
        model::read_model_config(*file_, static_cast<std::int32_t>(tokens)));
    decoder_ =
        taken(model::decoder::make(*file_, config_, *backend_, limits, {}));
  }

  bool has_roles() const {
    return backend_->has_roles();
  }

  /// All portions in one step; the logits of their rows, one after the other.
  /// The first has the odd blocks of the store, the other the even ones.
  logits_list compute(const std::vector<portion>& portions,
                      ops::row_role role) {
    engine::step_plan plan;
    for (std::size_t i = 0; i < portions.size(); ++i) {
      const auto& one = portions[i];
      const auto sequence = static_cast<std::int32_t>(i);
      auto& table = plan.tables.emplace_back();
      for (auto block = limits.kv_blocks; block > 0; block -= 2)
        table.push_back(block - 1 - sequence);
      for (auto at = one.first; at < one.first + one.count; ++at) {
        plan.logit_rows.push_back(
            static_cast<std::int32_t>(plan.tokens.size()));
        plan.tokens.push_back((*one.ids)[at]);
        plan.positions.push_back(static_cast<std::int32_t>(at));
        plan.sequences.push_back(sequence);
      }
    }
    if (has_roles() && role == ops::row_role::prompt)
      plan.prompt_rows = static_cast<std::int32_t>(plan.tokens.size());
    decoder_->submit(plan);
    const auto logits = decoder_->collect();
    const auto width = static_cast<std::size_t>(decoder_->vocabulary());
    logits_list out;
    for (auto row = logits.begin(); row != logits.end(); row += width)
      out.emplace_back(row, row + width);
    return out;
  }

private:
  template <class T>
  static T taken(result<T> value) {
    if (!value)
      throw std::runtime_error{value.error().message};
    return std::move(*value);
  }

  std::unique_ptr<ops::backend> backend_;
  std::unique_ptr<weights::checkpoint> file_;
  model::model_config config_;
  std::unique_ptr<model::decoder> decoder_;
};

/// What was seen of a model.
struct findings {
  std::size_t positions = 0;
  double worst = 0; ///< difference of logits
  double sum = 0;
  std::size_t compared = 0; ///< logits
  std::size_t other_tokens = 0;
  double widest_margin_lost = 0;
  std::size_t other_bits = 0; ///< positions
  bool has_roles = false;
};

void compare(const logits_list& got, const test::reference_sequence& expected,
             std::size_t top_k, findings& out) {
  for (std::size_t i = 0; i < got.size(); ++i) {
    const auto* best = &expected.best[i * top_k];
    const auto* logits = &expected.logits[i * top_k];
    for (std::size_t k = 0; k < top_k; ++k) {
      const double apart =
          std::abs(got[i][static_cast<std::size_t>(best[k])] - logits[k]);
      out.worst = std::isnan(apart) ? INFINITY : std::max(out.worst, apart);
      out.sum += apart;
    }
    out.compared += top_k;
    const auto most = std::max_element(got[i].begin(), got[i].end());
    if (most - got[i].begin() == best[0])
      continue;
    ++out.other_tokens;
    out.widest_margin_lost = std::max(
        out.widest_margin_lost, static_cast<double>(logits[0] - logits[1]));
  }
  out.positions += got.size();
}

/// The sequence again, in pieces, after and beside another.
logits_list in_company(loaded_model& model, const std::vector<token_id>& ids,
                       const std::vector<token_id>& other, ops::row_role role) {
  logits_list out;
  std::size_t at = 0, at_other = 0;
  // Tokens of both in each step, as long as there are some.
  constexpr std::size_t steps[][2] = {{0, 3}, {6, 1}, {1, 1}, {9, 2}, {1, 0}};
  auto step = [&](std::size_t mine, std::size_t others) {
    mine = std::min(mine, ids.size() - at);
    others = std::min(others, other.size() - at_other);
    auto logits =
        model.compute({{&ids, at, mine}, {&other, at_other, others}}, role);
    out.insert(out.end(), logits.begin(),
               logits.begin() + static_cast<std::ptrdiff_t>(mine));
    at += mine;
    at_other += others;
  };
  for (auto [mine, others] : steps)
    step(mine, others);
  step(ids.size(), 1);
  return out;
}

/// Each sequence by a model that is loaded for its length: some have another
/// rope for long ones.
findings look_at(const fs::path& folder, const test::reference_file& reference,
                 const settings& how) {
  findings out;
  const auto first_of = [&](const auto& sequence) {
    auto ids = sequence.ids;
    ids.resize(std::min(ids.size(), how.tokens));
    return ids;
  };
  for (std::size_t i = 0; i < reference.sequences.size(); ++i) {
    const auto& one = reference.sequences[i];
    loaded_model model{folder, one.ids.size(), how};
    out.has_roles = model.has_roles();
    const auto ids = first_of(one);
    const auto other =
        first_of(reference.sequences[(i + 1) % reference.sequences.size()]);
    for (auto role : {ops::row_role::prompt, ops::row_role::output}) {
      if (!out.has_roles && role == ops::row_role::prompt)
        continue;
      const auto whole = model.compute({{&ids, 0, ids.size()}}, role);
      compare(whole, one, reference.top_k, out);
      const auto again = in_company(model, ids, other, role);
      for (std::size_t at = 0; at < whole.size(); ++at)
        out.other_bits += std::memcmp(whole[at].data(), again[at].data(),
                                      whole[at].size() * sizeof(float)) != 0;
    }
  }
  return out;
}

/// Prints the line of a model; whether it is right.
bool check(const fs::path& folder, const settings& how) {
  const auto name = folder.filename().string();
  try {
    auto file = folder;
    const auto reference =
        test::reference_reader{file.replace_extension(".ref")}.run();
    const auto seen = look_at(folder, reference, how);
    const double tolerance = how.tolerance(seen.has_roles);
    const bool right = seen.worst < tolerance &&
                       seen.widest_margin_lost < 2 * tolerance &&
                       seen.other_bits == 0;
    std::printf("{\"model\": \"%s\", \"right\": %s, \"positions\": %zu, "
                "\"worst\": %.6f, \"mean\": %.6f, \"tolerance\": %g, "
                "\"other_tokens\": %zu, \"widest_margin_lost\": %.6f, "
                "\"other_bits\": %zu, \"roles\": %s}\n",
                name.c_str(), right ? "true" : "false", seen.positions,
                seen.worst, seen.sum / static_cast<double>(seen.compared),
                tolerance, seen.other_tokens, seen.widest_margin_lost,
                seen.other_bits, seen.has_roles ? "true" : "false");
    return right;
  } catch (const std::exception& why) {
    std::printf("{\"model\": \"%s\", \"right\": false}\n", name.c_str());
    std::fprintf(stderr, "%s: %s\n", name.c_str(), why.what());
    return false;
  }
}

/// Nothing if they cannot be understood.
std::optional<settings> read_arguments(int argc, char** argv) {
  settings out;
  for (int i = 1; i < argc; ++i) {
    const std::string_view word = argv[i];
    if (word == "--emulated")
      out.is_emulated = true;
    else if (word == "--fp8-weights")
      out.has_fp8_weights = true;
    else if (word == "--fp8-kv")
      out.has_fp8_kv = true;
    else if (word == "--tokens" && i + 1 < argc)
      out.tokens = std::strtoul(argv[++i], nullptr, 10);
    else if (out.folder.empty() && !word.starts_with("-"))
      out.folder = word;
    else
      return std::nullopt;
  }
  if (out.folder.empty() || out.tokens == 0)
    return std::nullopt;
  return out;
}

} // namespace

int main(int argc, char** argv) {
  const auto how = read_arguments(argc, argv);
  if (!how) {
    std::fprintf(stderr, "usage: check_families FOLDER [--emulated] "
                         "[--tokens N] [--fp8-weights] [--fp8-kv]\n");
    return 2;
  }
  std::vector<fs::path> folders;
  std::error_code failed;
  for (const auto& one : fs::directory_iterator{how->folder, failed})
    if (one.path().extension() == ".ref")
      folders.push_back(fs::path{one.path()}.replace_extension());
  std::sort(folders.begin(), folders.end());
  std::size_t wrong = 0;
  for (const auto& one : folders) {
    wrong += check(one, *how) ? 0 : 1;
    std::fflush(stdout);
  }
  std::fprintf(stderr, "%zu of %zu models are right\n", folders.size() - wrong,
               folders.size());
  return wrong == 0 && !folders.empty() ? 0 : 1;
}
