#pragma once

#include "engine/model/shard.hpp"
#include "engine/ops/backend.hpp"
#include "engine/weights/checkpoint.hpp"

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace troupe::model {

/// Called while loading: bytes of weights done and in all.
using load_progress =
    std::function<void(std::uint64_t done, std::uint64_t total)>;

/// Whether a loader reads the elements of the tensors or only their shapes.
enum class reading : std::uint8_t { elements, shapes };

/// Loads tensors into a backend, one after the other, and reports how far it
/// is. The configuration (model_config.hpp) was read from the same file: names,
/// shapes and the types of vectors are checked.
class weight_loader {
public:
  /// A tensor, and what `rank` takes of it.
  struct part {
    std::string name;
    tensor_cut cut = {};
  };

  /// `file` and `backend` outlive it.
  weight_loader(const weights::checkpoint& file, ops::backend& backend,
                reading what, load_progress progress, shard rank = {});

  /// Matrices that share an input, stacked.
  result<std::unique_ptr<ops::weight>> weight(const std::vector<part>& parts);

  /// The experts of tensors (gate, up, down) that hold the rows of one after
  /// the other.
  result<std::unique_ptr<ops::expert_weights>>
  experts(const std::vector<part>& parts, std::int64_t count);

  /// Vectors, one after the other.
  std::unique_ptr<ops::buffer> floats(const std::vector<part>& parts);

  /// A vector that no file has.
  std::unique_ptr<ops::buffer> zeros(std::size_t count);

  /// Bytes of all that was loaded, as the backend keeps it.
  std::uint64_t resident_bytes() const {
    return resident_bytes_;
  }

private:
  struct read_matrices {
    std::vector<ops::matrix_view> parts;
    std::vector<weights::tensor_data> elements; ///< what the parts view
    std::vector<std::vector<float>> scales;     ///< and this
    std::uint64_t bytes = 0;
  };

  std::unique_ptr<ops::buffer> upload(const std::vector<float>& values);
  const weights::tensor& find(const std::string& name) const;
  result<read_matrices> read_all(const std::vector<part>& parts) const;
  /// Of what the backend made of tensors: counts it, or says which they were.
  template <class Loaded>
  result<Loaded> counted(result<Loaded> loaded, const std::vector<part>& of);
  void advance(std::uint64_t bytes);

  const weights::checkpoint& file_;
  ops::backend& backend_;
  reading what_;
  load_progress progress_;
  shard rank_;
  std::uint64_t done_ = 0;
  std::uint64_t total_ = 0;
  std::uint64_t resident_bytes_ = 0;
};

} // namespace troupe::model
