#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace troupe::ptx {

/// The shared memory of one block after the other, and who used it since the
/// block's last barrier. Offsets begin at 0; an access is to 1, 2, or a
/// multiple of 4 bytes and lies at a multiple of its size (of 4 at most).
class shared_memory {
public:
  enum class access : std::uint8_t { read, write, atomic };

  /// Why an access is wrong.
  struct conflict {
    enum class kind : std::uint8_t { race, unwritten, pending };
    kind what;
    std::size_t offset;
    /// Of the other.
    access how = access::read;
    unsigned warp = 0; ///< many: of several
    std::uint32_t instruction = 0;
  };
  static constexpr unsigned many = 63; ///< more than a block has warps

  explicit shared_memory(std::size_t bytes);

  std::byte* data() {
    return data_.data();
  }
  std::size_t size() const {
    return size_;
  }

  /// Nothing is written then.
  void begin_block();
  void pass_barrier() {
    ++epoch_;
  }

  /// Of this warp and instruction. Throws conflict.
  void use(access how, std::size_t offset, std::size_t bytes, unsigned warp,
           std::uint32_t instruction);

  /// Nobody may touch these words until `end_copy`.
  void begin_copy(std::size_t offset, std::size_t bytes, unsigned warp,
                  std::uint32_t instruction);
  void end_copy(std::size_t offset, std::size_t bytes, unsigned warp,
                std::uint32_t instruction);

private:
  /// Epoch, warp and instruction of the last that wrote, and of those that
  /// read: `tag_of`.
  struct users {
    std::uint64_t wrote = 0, read = 0;
  };
  struct word {
    users all;
    /// In the epoch of this number its bytes are told apart.
    std::uint32_t split = 0;
    /// 0, or the instruction + 1 whose copy will write it.
    std::uint32_t pending = 0;
  };

  std::uint64_t tag_of(unsigned warp, std::uint32_t instruction) const {
    return std::uint64_t{epoch_} << 32 | std::uint64_t{warp} << 25 |
           instruction;
  }
  void use(users& of, access how, std::size_t offset, std::uint64_t tag);
  void use_word(access how, std::size_t index, std::uint64_t tag);
  void use_bytes(access how, std::size_t offset, std::size_t bytes,
                 std::uint64_t tag);
  void check_written(std::size_t offset, std::size_t bytes) const;

  std::size_t size_;
  std::vector<std::byte> data_;
  std::vector<std::uint8_t> written_; ///< by byte: 0 or 1
  std::vector<word> words_;
  std::vector<users> bytes_; ///< of words that are split
  std::uint32_t epoch_ = 1;
};

} // namespace troupe::ptx
