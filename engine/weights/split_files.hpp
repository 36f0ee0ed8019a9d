#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>

namespace troupe::weights {

/// The place of a file among those of a model that is split over several.
struct split_place {
  std::uint32_t number; ///< from 1 to count
  std::uint32_t count;
};

/// What the name says: NAME-00002-of-00003.gguf. Nothing if it is another name
/// or one that cannot be.
std::optional<split_place> split_place_of(const std::filesystem::path&);

/// The path of file `number` (up to 99999) beside one that has a place.
std::filesystem::path split_file(const std::filesystem::path& one,
                                 std::uint32_t number);

/// The first file of the model that a path is part of: itself if it has no
/// place.
std::filesystem::path first_split_file(const std::filesystem::path&);

} // namespace troupe::weights
