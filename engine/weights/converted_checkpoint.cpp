#include "engine/weights/converted_checkpoint.hpp"

#include "engine/weights/quantise.hpp"
#include "engine/weights/tree_hash.hpp"

#include <algorithm>
#include <fmt/format.h>
#include <iterator>
#include <map>
#include <string_view>

namespace troupe::weights {

namespace {

using ops::element_type;

element_type type_of(matrix_form form) {
  switch (form) {
  case matrix_form::f32:
    return element_type::f32;
  case matrix_form::f16:
    return element_type::f16;
  case matrix_form::bf16:
    return element_type::bf16;
  case matrix_form::q4_0:
    return element_type::q4_0;
  default:
    return element_type::q8_0;
  }
}

/// Tables of embeddings and output layers, which get eight bits instead of
/// four, and stay as they are beside e4m3.
constexpr std::string_view finer[] = {
    "token_embd.weight", "position_embd.weight", "token_types.weight",
    "output.weight", "cls.output.weight"};

bool is_finer(const tensor& one) {
  return std::ranges::find(finer, one.name) != std::end(finer);
}

/// Whether it changes by any form.
bool is_changed(const tensor& one) {
  return is_float(one.type) && one.shape.size() > 1 &&
         one.name.find("ffn_gate_inp") == std::string::npos;
}

/// The type that a tensor has in the form.
element_type type_in(matrix_form form, const tensor& one) {
  if (!is_changed(one) || form == matrix_form::e4m3)
    return one.type;
  if (form == matrix_form::f32 && one.type != element_type::bf16)
    return one.type;
  auto type = type_of(form);
  if (type == element_type::q4_0 && is_finer(one))
    type = element_type::q8_0;
  return one.shape[0] % ops::layout_of(type).elements == 0 ? type : one.type;
}

class converted_checkpoint final : public checkpoint {
public:
  converted_checkpoint(std::unique_ptr<checkpoint> inner, matrix_form form)
      : inner_(std::move(inner)), form_(form) {
    tensors_.assign(inner_->tensors().begin(), inner_->tensors().end());
    for (std::size_t i = 0; i < tensors_.size(); ++i) {
      auto& one = tensors_[i];
      index_.emplace(one.name, i);
      one.as_e4m3 =
          form == matrix_form::e4m3 && is_changed(one) && !is_finer(one);
      auto type = type_in(form, one);
      if (type != one.type)
        one.bytes = {};
      one.type = type;
    }
  }

  const metadata_value* find(std::string_view key) const override {
    return inner_->find(key);
  }

  const tensor* find_tensor(std::string_view name) const override {
    auto found = index_.find(name);
    return found == index_.end() ? nullptr : &tensors_[found->second];
  }

  std::span<const tensor> tensors() const override {
    return tensors_;
  }

  result<tensor_data> read(const tensor& one) const override {
    const auto& from =
        inner_->tensors()[static_cast<std::size_t>(&one - tensors_.data())];
    auto elements = inner_->read(from);
    if (!elements || from.type == one.type)
      return elements;
    std::vector<std::byte> out(one.byte_size());
    auto done = convert(from.type, elements->bytes(), one.type, out);
    if (!done)
      return error{done.error().code,
                   fmt::format("{}: tensor '{}': {}", name(), one.name,
                               done.error().message)};
    return tensor_data{std::move(out)};
  }

  const std::string& name() const override {
    return inner_->name();
  }

  std::string content_hash(int threads) const override {
    auto all = fmt::format("{}/{}", inner_->content_hash(threads),
                           static_cast<int>(form_));
    return tree_hash(std::as_bytes(std::span{all}), 1);
  }

  bool changed() const override {
    return inner_->changed();
  }

private:
  std::unique_ptr<checkpoint> inner_;
  matrix_form form_;
  std::vector<tensor> tensors_; ///< in the inner one's order
  std::map<std::string, std::size_t, std::less<>> index_;
};

} // namespace

std::unique_ptr<checkpoint> convert_matrices(std::unique_ptr<checkpoint> inner,
                                             matrix_form form) {
  const auto changes = [&](const tensor& one) {
    return form == matrix_form::e4m3 || type_in(form, one) != one.type;
  };
  if (form == matrix_form::as_stored ||
      std::ranges::none_of(inner->tensors(), changes))
    return inner;
  return std::make_unique<converted_checkpoint>(std::move(inner), form);
}

} // namespace troupe::weights
