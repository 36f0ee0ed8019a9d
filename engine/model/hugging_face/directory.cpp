#include "engine/model/hugging_face/directory.hpp"

#include "engine/model/hugging_face/config_json.hpp"
#include "engine/model/hugging_face/module_names.hpp"
#include "engine/model/hugging_face/sentence_files.hpp"
#include "engine/weights/json_document.hpp"
#include "engine/weights/packed_matrix.hpp"
#include "engine/weights/safetensors.hpp"
#include "engine/weights/text_file.hpp"
#include "engine/weights/tree_hash.hpp"

#include <fmt/format.h>
#include <map>
#include <utility>

namespace troupe::model::hugging_face {

namespace {

using weights::made_tensor;
using weights::stored_tensor;
using weights::tensor;

class directory final : public weights::checkpoint {
public:
  directory(std::string name, model_json config, weights::safetensors_set files)
      : name_(std::move(name)), config_(std::move(config)),
        files_(std::move(files)) {
    // nop
  }

  const weights::metadata_value* find(std::string_view key) const override {
    auto found = config_.metadata.find(key);
    return found == config_.metadata.end() ? nullptr : &found->second;
  }

  const tensor* find_tensor(std::string_view name) const override {
    auto found = index_.find(name);
    return found == index_.end() ? nullptr : &tensors_[found->second];
  }

  std::span<const tensor> tensors() const override {
    return tensors_;
  }

  result<weights::tensor_data> read(const tensor& one) const override {
    const auto which = static_cast<std::size_t>(&one - &tensors_[0]);
    auto out = elements(one, writers_[which]);
    if (!out || !scales_[which])
      return out;
    auto scales = scales_[which]();
    if (!scales)
      return failed(scales.error());
    out->scales = std::move(*scales);
    return out;
  }

  const std::string& name() const override {
    return name_;
  }

  /// Over the files and over what config.json made of them.
  std::string content_hash(int threads) const override {
    auto all = files_.content_hash(threads) + description();
    return weights::tree_hash(std::as_bytes(std::span{all}), 1);
  }

  bool changed() const override {
    return files_.changed();
  }

  const weights::safetensors_set& files() const {
    return files_;
  }

  /// Puts a tensor in; false if its name is there already.
  bool add(std::string name, made_tensor made) {
    if (!index_.emplace(name, tensors_.size()).second)
      return false;
    made.out.name = std::move(name);
    tensors_.push_back(std::move(made.out));
    writers_.push_back(std::move(made.write));
    scales_.push_back(std::move(made.scales));
    return true;
  }

  /// Puts in a vector whose elements this object keeps.
  bool add(std::string name, const std::vector<float>& values) {
    auto bytes = std::as_bytes(std::span{values});
    vectors_.emplace_back(bytes.begin(), bytes.end());
    made_tensor made;
    made.out.shape = {static_cast<std::int64_t>(values.size())};
    made.out.bytes = vectors_.back();
    return add(std::move(name), std::move(made));
  }

private:
  result<weights::tensor_data>
  elements(const tensor& one, const weights::tensor_writer& write) const {
    if (!write)
      return weights::tensor_data{one.bytes};
    std::vector<std::byte> made(one.byte_size());
    if (auto done = write(made); !done)
      return failed(done.error());
    return weights::tensor_data{std::move(made)};
  }

  error failed(const error& why) const {
    return {why.code, name_ + ": " + why.message};
  }

  /// Everything that decides what is computed but the files themselves.
  std::string description() const {
    std::string out;
    for (const auto& [key, value] : config_.metadata)
      out += fmt::format("{}={};", key, spelled(value));
    for (const auto& one : tensors_)
      out += fmt::format("{}:{}:{};", one.name, static_cast<int>(one.type),
                         fmt::join(one.shape, ","));
    for (const auto& one : vectors_)
      out.append(reinterpret_cast<const char*>(one.data()), one.size());
    return out;
  }

  static std::string spelled(const weights::metadata_value& value) {
    if (auto* real = std::get_if<double>(&value))
      return fmt::format("{:a}", *real);
    if (auto* whole = std::get_if<std::int64_t>(&value))
      return fmt::format("{}", *whole);
    if (auto* flag = std::get_if<bool>(&value))
      return fmt::format("{}", *flag);
    if (auto* flags = std::get_if<std::vector<bool>>(&value)) {
      std::string out;
      for (bool one : *flags)
        out += one ? '1' : '0';
      return out;
    }
    if (auto* list = std::get_if<std::vector<std::int64_t>>(&value))
      return fmt::format("{}", fmt::join(*list, ","));
    return std::get<std::string>(value); // config_json makes no others
  }

  std::string name_;
  model_json config_;
  weights::safetensors_set files_;
  std::vector<tensor> tensors_;
  std::vector<weights::tensor_writer> writers_; ///< one per tensor
  std::vector<weights::scale_maker> scales_;    ///< also
  std::map<std::string, std::size_t, std::less<>> index_;
  std::vector<std::vector<std::byte>> vectors_;
};

/// The tensors of one module by the last part of their names.
using module_parts = std::map<std::string, const stored_tensor*, std::less<>>;

/// A module under GGUF's name; several parts if it is a stack.
struct module_group {
  change how = change::none;
  std::map<std::int64_t, module_parts> parts; ///< by their place in the stack
};

/// Fills a directory with tensors.
class translator {
public:
  translator(const model_json& config, const weights::safetensors_set& files,
             e4m3_matrices how, directory& out)
      : config_(config), files_(files), how_(how), out_(out) {
    // nop
  }

  result<void> run() {
    for (const auto& one : files_.tensors())
      if (auto done = sort_in(one); !done)
        return done;
    if (auto done = output(); !done)
      return done;
    for (const auto& [name, one] : modules_)
      if (auto done = add_module(name, one); !done)
        return done;
    for (const auto& [name, values] : config_.vectors)
      out_.add(name, values);
    return {};
  }

private:
  static error refuse(const stored_tensor& one, std::string_view what,
                      errc code = errc::unsupported) {
    return {code, fmt::format("tensor '{}' {}", one.name, what)};
  }

  result<void> sort_in(const stored_tensor& one) {
    auto dot = one.name.rfind('.');
    auto name = dot == std::string::npos
                    ? std::nullopt
                    : name_module(*config_.of, one.name.substr(0, dot));
    if (!name)
      return refuse(one, fmt::format("has no meaning in the family '{}': not "
                                     "supported yet",
                                     config_.of->model_type));
    if (name->to.empty())
      return {};
    auto& into = modules_[name->to];
    into.how = name->how;
    if (!into.parts[name->in_stack]
             .emplace(one.name.substr(dot + 1), &one)
             .second)
      return refuse(one, "is there under another name too", errc::corrupt);
    return {};
  }

  /// A tied output layer is the embedding, whatever the file has beside it.
  result<void> output() {
    if (config_.tied)
      modules_.erase("output");
    else if (!modules_.contains("output"))
      return error{errc::corrupt, "no output layer (lm_head), although "
                                  "config.json ties it to nothing"};
    return {};
  }

  result<void> add_module(const std::string& name, const module_group& one) {
    if (one.parts.contains(-1) && one.parts.size() == 1)
      return add_parts(name, one.how, one.parts.at(-1));
    std::vector<made_tensor> stacked;
    for (const auto& [place, parts] : one.parts) {
      if (place != static_cast<std::int64_t>(stacked.size()))
        return error{errc::corrupt,
                     fmt::format("'{}': part {} of the stack is missing", name,
                                 stacked.size())};
      auto left = parts;
      auto made = weight_of(name, left);
      if (!made)
        return made.error();
      if (!left.empty())
        return refuse(*left.begin()->second, "is not supported in a stack");
      stacked.push_back(std::move(*made));
    }
    auto made = weights::stack(std::move(stacked));
    if (!made)
      return error{made.error().code, name + ": " + made.error().message};
    out_.add(name + ".weight", std::move(*made));
    return {};
  }

  result<void> add_parts(const std::string& name, change how,
                         module_parts parts) {
    for (std::string suffix : {"weight", "bias"}) {
      auto found = parts.find(suffix);
      if (found == parts.end() || found->second->shape.size() != 1)
        continue;
      auto done = add_vector(name + "." + suffix, how, *found->second);
      if (!done)
        return done;
      parts.erase(found);
    }
    if (parts.empty())
      return {};
    auto made = weight_of(name, parts);
    if (!made)
      return made.error();
    if (!parts.empty())
      return refuse(*parts.begin()->second, "is not supported");
    if (how == change::cut && !cut_front(*made))
      return error{errc::corrupt, name + ": has no rows after the padding's"};
    out_.add(name + ".weight", std::move(*made));
    return {};
  }

  /// Drops the rows of positions that mean nothing; false if none is left.
  bool cut_front(made_tensor& made) const {
    auto& rows = made.out.shape.back();
    const auto bytes = made.out.byte_size() / static_cast<std::uint64_t>(rows);
    if (made.write || rows <= config_.unused_positions)
      return false;
    rows -= config_.unused_positions;
    made.out.bytes = made.out.bytes.subspan(
        bytes * static_cast<std::uint64_t>(config_.unused_positions));
    return true;
  }

  /// The matrix of a module. Takes what it read out of `parts`.
  result<made_tensor> weight_of(const std::string& name, module_parts& parts) {
    auto take = [&](std::string_view suffix) -> const stored_tensor* {
      auto found = parts.find(suffix);
      return found == parts.end() ? nullptr : parts.extract(found).mapped();
    };
    if (config_.quantised.how == packing::scaled)
      if (auto* scales = scale_in(parts)) {
        parts.erase("input_scale"); // see read_quantization_config
        return scaled(name, take("weight"), *scales);
      }
    if (auto* words = take("qweight"))
      return packed({words, take("qzeros"), take("scales"), take("g_idx")});
    auto* plain = take("weight");
    return plain ? weights::stored_matrix(*plain)
                 : refuse(*parts.begin()->second, "is not supported");
  }

  static const stored_tensor* scale_in(module_parts& parts) {
    for (auto suffix : {"weight_scale", "weight_scale_inv"})
      if (auto found = parts.find(suffix); found != parts.end())
        return parts.extract(found).mapped();
    return nullptr;
  }

  result<made_tensor> scaled(const std::string& name,
                             const stored_tensor* matrix,
                             const stored_tensor& scales) {
    if (!matrix)
      return refuse(scales, "scales nothing", errc::corrupt);
    if (matrix->type == weights::stored_type::i8)
      return weights::int8_matrix(*matrix, scales);
    const auto block = config_.quantised.block;
    const bool can_stay = block == 0 || block == ops::scale_cols;
    if (how_ == e4m3_matrices::kept && can_stay && !is_looked_up(name))
      return weights::e4m3_matrix(*matrix, scales, block);
    return weights::fp8_matrix(*matrix, scales, block);
  }

  static bool is_looked_up(std::string_view name) {
    return name == "token_embd" || name == "position_embd" ||
           name == "token_types";
  }

  result<made_tensor> packed(const weights::int4_parts& parts) {
    if (!parts.zeros || !parts.scales)
      return refuse(*parts.weights, "has no qzeros or no scales beside it",
                    errc::corrupt);
    switch (config_.quantised.how) {
    case packing::awq:
      return weights::int4_matrix(parts, weights::int4_packing::awq);
    case packing::gptq:
      return weights::int4_matrix(parts, weights::int4_packing::gptq);
    case packing::gptq_v2:
      return weights::int4_matrix(parts, weights::int4_packing::gptq_v2);
    default:
      return refuse(*parts.weights, "is packed, config.json says nothing of "
                                    "it");
    }
  }

  result<void> add_vector(std::string name, change how,
                          const stored_tensor& stored) {
    auto values = weights::floats_of(stored);
    if (!values)
      return values.error();
    if (how == change::plus_one)
      for (auto& value : *values)
        value += 1;
    out_.add(std::move(name), *values);
    return {};
  }

  const model_json& config_;
  const weights::safetensors_set& files_;
  e4m3_matrices how_;
  directory& out_;
  std::map<std::string, module_group> modules_;
};

} // namespace

result<std::unique_ptr<weights::checkpoint>>
open_directory(const std::filesystem::path& path, e4m3_matrices how) {
  // "model/" and "." have no file name.
  const auto name = std::filesystem::absolute(path / "")
                        .parent_path()
                        .lexically_normal()
                        .filename()
                        .string();
  auto failed = [&](const error& why) {
    return error{why.code, name + ": " + why.message};
  };
  auto text = weights::read_text_file(path / "config.json",
                                      weights::json_document::bytes_max);
  if (!text)
    return failed(text.error());
  auto config = read_config_json(*text);
  if (!config)
    return failed(config.error());
  if (auto done = read_sentence_files(path, *config); !done)
    return failed(done.error());
  auto files = weights::safetensors_set::open(path);
  if (!files)
    return failed(files.error());
  auto out = std::make_unique<directory>(name, *config, std::move(*files));
  auto done = translator{*config, out->files(), how, *out}.run();
  if (!done)
    return failed(done.error());
  return std::unique_ptr<weights::checkpoint>{std::move(out)};
}

} // namespace troupe::model::hugging_face
