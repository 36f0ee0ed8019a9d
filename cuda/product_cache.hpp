#pragma once

#include "cuda/product_choice.hpp"

#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <utility>

namespace troupe::cuda {

/// What was chosen for each shape and role.
using product_choices =
    std::map<std::pair<product_shape, ops::row_role>, chosen_product>;

/// As text: a line that says what it is, one with the device and its library,
/// a line per choice with its times, and a sum of all before it. `device` has
/// no line break.
std::string write_choices(const std::string& device,
                          const product_choices& choices);

/// Nothing if the text is of another device or library, or was changed or cut:
/// then there is to be searched again.
product_choices read_choices(std::string_view text, const std::string& device);

/// The choices of one device, in a file. What cannot be read is not there, and
/// what cannot be written is searched for by the next process again.
class product_cache {
public:
  /// Without a folder nothing is kept.
  product_cache(const std::filesystem::path& folder, std::string device);

  /// Null if there is no choice yet.
  const chosen_product* find(const product_shape& shape,
                             ops::row_role role) const;

  void add(const product_shape& shape, ops::row_role role,
           const chosen_product& choice);

  /// From now on to `save` the file is this process's alone, as far as others
  /// keep to it; what they have added counts. So processes that start together
  /// do not search at once, and choose the same.
  void lock();

  /// Writes the file anew if something was added: as a whole, or not at all.
  void save();

  ~product_cache();
  product_cache(const product_cache&) = delete;
  product_cache& operator=(const product_cache&) = delete;

private:
  product_choices read() const;
  void write();
  void unlock();

  std::filesystem::path path_;
  std::string device_;
  product_choices choices_;
  bool changed_ = false;
  int lock_ = -1; ///< file descriptor
};

} // namespace troupe::cuda
