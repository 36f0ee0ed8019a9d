#include "engine/weights/gguf.hpp"

#include "engine/weights/gguf_parser.hpp"
#include "engine/weights/mapped_file.hpp"
#include "engine/weights/split_files.hpp"
#include "engine/weights/tree_hash.hpp"

#include <fmt/format.h>
#include <iterator>
#include <optional>
#include <utility>

namespace troupe::weights {

namespace {

/// Every file stays open; a process has 1024 descriptors by default.
constexpr std::uint32_t split_files_max = 512;

/// A file and what is in it.
struct parsed_file {
  std::string name;
  gguf_contents contents;

  error corrupt(const std::string& what) const {
    return {errc::corrupt, name + ": " + what};
  }

  /// Fails unless metadata `key` is the number `wanted`.
  result<void> expect(std::string_view key, std::uint64_t wanted) const {
    auto found = contents.metadata.find(key);
    if (found == contents.metadata.end())
      return corrupt(fmt::format("one of several files, but without metadata "
                                 "'{}'",
                                 key));
    if (auto seen = number(found->second); seen != wanted)
      return corrupt(
          seen ? fmt::format("metadata '{}' is {}, not {}", key, *seen, wanted)
               : fmt::format("metadata '{}' is not a number", key));
    return {};
  }

  static std::optional<std::uint64_t> number(const metadata_value& value) {
    if (auto* found = std::get_if<std::uint64_t>(&value))
      return *found;
    if (auto* found = std::get_if<std::int64_t>(&value); found && *found >= 0)
      return static_cast<std::uint64_t>(*found);
    return std::nullopt;
  }
};

/// A file by itself must not be one of several.
result<void> check_whole(const parsed_file& file) {
  auto found = file.contents.metadata.find("split.count");
  if (found == file.contents.metadata.end())
    return {};
  auto count = parsed_file::number(found->second);
  if (!count)
    return file.corrupt("metadata 'split.count' is not a number");
  if (*count <= 1)
    return {};
  return error{errc::invalid_argument,
               fmt::format("{}: one of {} files of a model; their names must "
                           "end in -00001-of-{:05}.gguf and so on",
                           file.name, *count, *count)};
}

/// The numbers that every file of a split model has.
result<void> check_place(const parsed_file& file, std::size_t index,
                         std::size_t count, std::size_t tensors) {
  if (auto fine = file.expect("split.no", index); !fine)
    return fine;
  if (auto fine = file.expect("split.count", count); !fine)
    return fine;
  return file.expect("split.tensors.count", tensors);
}

bool of_one_file(std::string_view key) {
  return key.starts_with("split.") || key == "general.alignment";
}

/// Later files may repeat metadata of the first, but neither change nor add.
result<void> check_metadata(const parsed_file& file, const parsed_file& first) {
  for (const auto& [key, value] : file.contents.metadata) {
    if (of_one_file(key))
      continue;
    auto known = first.contents.metadata.find(key);
    if (known == first.contents.metadata.end())
      return file.corrupt(
          fmt::format("metadata '{}' is not in {}", key, first.name));
    if (known->second != value)
      return file.corrupt(
          fmt::format("metadata '{}' differs from {}", key, first.name));
  }
  return {};
}

/// Moves the tensors of `from` into `to`.
result<void> add_tensors(parsed_file& from, gguf_contents& to) {
  for (auto& one : from.contents.tensors) {
    if (!to.tensor_index.emplace(one.name, to.tensors.size()).second)
      return from.corrupt(
          fmt::format("tensor '{}' is in a file before it too", one.name));
    to.tensors.push_back(std::move(one));
  }
  return {};
}

/// Makes one of all files of a model.
result<gguf_contents> join(std::vector<parsed_file> files) {
  if (files.size() == 1) {
    if (auto whole = check_whole(files[0]); !whole)
      return whole.error();
    return std::move(files[0].contents);
  }
  std::size_t tensors = 0;
  for (const auto& file : files)
    tensors += file.contents.tensors.size();
  gguf_contents out;
  for (std::size_t i = 0; i < files.size(); ++i) {
    if (auto fine = check_place(files[i], i, files.size(), tensors); !fine)
      return fine.error();
    if (auto fine = check_metadata(files[i], files[0]); !fine)
      return fine.error();
    if (auto fine = add_tensors(files[i], out); !fine)
      return fine.error();
  }
  out.metadata = std::move(files[0].contents.metadata);
  return out;
}

/// The files of the model that `path` is one of.
result<std::vector<std::filesystem::path>>
files_of(const std::filesystem::path& path) {
  auto place = split_place_of(path);
  if (!place || place->count == 1)
    return std::vector{path};
  if (place->count > split_files_max)
    return error{errc::limit,
                 fmt::format("{}: more than {} files of one model",
                             path.filename().string(), split_files_max)};
  std::vector<std::filesystem::path> out;
  for (std::uint32_t number = 1; number <= place->count; ++number)
    out.push_back(split_file(path, number));
  return out;
}

} // namespace

struct gguf_file::state {
  std::vector<mapped_file> mappings; ///< empty if parsed from memory
  std::vector<gguf_bytes> files;
  gguf_contents contents;
};

gguf_file::gguf_file() : state_(std::make_unique<state>()) {
  // nop
}

gguf_file::~gguf_file() = default;

result<std::unique_ptr<gguf_file>>
gguf_file::open(const std::filesystem::path& path) {
  auto paths = files_of(path);
  if (!paths)
    return paths.error();
  std::vector<mapped_file> mappings;
  std::vector<gguf_bytes> files;
  for (const auto& one : *paths) {
    auto mapping = mapped_file::open(one);
    if (!mapping)
      return mapping.error();
    files.push_back({mapping->bytes(), one.filename().string()});
    mappings.push_back(std::move(*mapping));
  }
  auto file = parse(std::move(files));
  if (file)
    (*file)->state_->mappings = std::move(mappings);
  return file;
}

result<std::unique_ptr<gguf_file>>
gguf_file::parse(std::vector<gguf_bytes> files) {
  if (files.empty())
    return error{errc::invalid_argument, "a model without a file"};
  std::size_t overhead_bytes = 0;
  std::vector<parsed_file> parsed;
  for (const auto& one : files) {
    auto contents = parse_gguf(one.data, overhead_bytes);
    if (!contents)
      return error{contents.error().code,
                   one.name + ": " + contents.error().message};
    parsed.push_back({one.name, std::move(*contents)});
  }
  auto contents = join(std::move(parsed));
  if (!contents)
    return contents.error();
  std::unique_ptr<gguf_file> file{new gguf_file};
  file->state_->files = std::move(files);
  file->state_->contents = std::move(*contents);
  return file;
}

result<std::unique_ptr<gguf_file>>
gguf_file::parse(std::span<const std::byte> data, std::string name) {
  return parse({{data, std::move(name)}});
}

const metadata_value* gguf_file::find(std::string_view key) const {
  const auto& metadata = state_->contents.metadata;
  auto found = metadata.find(key);
  return found == metadata.end() ? nullptr : &found->second;
}

const tensor* gguf_file::find_tensor(std::string_view name) const {
  const auto& contents = state_->contents;
  auto found = contents.tensor_index.find(name);
  return found == contents.tensor_index.end()
             ? nullptr
             : &contents.tensors[found->second];
}

std::span<const tensor> gguf_file::tensors() const {
  return state_->contents.tensors;
}

const std::string& gguf_file::name() const {
  return state_->files.front().name;
}

std::string gguf_file::content_hash(int threads) const {
  std::string hashes;
  for (const auto& one : state_->files)
    hashes += tree_hash(one.data, threads);
  if (state_->files.size() == 1)
    return hashes;
  return tree_hash(std::as_bytes(std::span{hashes}), 1);
}

bool gguf_file::changed() const {
  for (const auto& one : state_->mappings)
    if (one.changed())
      return true;
  return false;
}

} // namespace troupe::weights
