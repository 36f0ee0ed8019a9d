#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
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
    next_epoch();
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
  // Who used a word last: 25 bits of epoch, 1 whether all were atomic, 6 of the
  // warp. Apart from it the instruction, which is looked at after a conflict
  // alone.
  struct users {
    std::vector<std::uint32_t> wrote, read;
    std::vector<std::uint32_t> wrote_at, read_at;
    explicit users(std::size_t count)
        : wrote(count), read(count), wrote_at(count), read_at(count) {
      // nop
    }
  };
  static constexpr std::uint32_t epochs = std::uint32_t{1} << 25;

  void next_epoch();
  void use_run(users& of, access how, std::size_t first, std::size_t count,
               unsigned unit, unsigned warp, std::uint32_t instruction);
  void use_one(users& of, access how, std::size_t index, unsigned unit,
               unsigned warp, std::uint32_t instruction);
  void use_split(access how, std::size_t offset, std::size_t bytes,
                 unsigned warp, std::uint32_t instruction);

  std::size_t size_;
  std::vector<std::byte> data_;
  std::vector<std::uint8_t> written_; ///< by byte: 0 or 1
  users words_;
  std::optional<users> bytes_; ///< of words that are split
  /// In the epoch of this number a word's bytes are told apart.
  std::vector<std::uint32_t> split_;
  /// By word: 0, or the instruction + 1 whose copy will write it.
  std::vector<std::uint32_t> pending_;
  std::size_t pending_count_ = 0;
  bool has_split_ = false; ///< in this epoch
  std::uint32_t epoch_ = 1;
};

} // namespace troupe::ptx
