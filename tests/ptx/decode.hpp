#pragma once

#include "tests/ptx/instruction.hpp"
#include "tests/ptx/text.hpp"

#include <array>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <unordered_map>
#include <vector>

namespace troupe::ptx {

/// .b32, .s16, .f32, ...
struct type {
  enum class kind : std::uint8_t {
    bits,
    natural,
    integer,
    real,  ///< f16, f32, f64
    brain, ///< bf16
    e4m3,
    e5m2,
    predicate,
  };
  kind what = kind::bits;
  unsigned bytes = 0; ///< of one; 0: a predicate
  bool is_pair = false;

  bool is(kind k, unsigned n) const {
    return what == k && bytes == n && !is_pair;
  }
  bool is_integer() const {
    return what <= kind::integer;
  }
  /// Of the whole.
  unsigned size() const {
    return is_pair ? 2 * bytes : bytes;
  }
};

/// Nothing if the word ("f16x2") is none.
std::optional<type> type_of(std::string_view word);

struct operand {
  enum class kind : std::uint8_t {
    reg,
    number,
    symbol,
    address, ///< parts[0], and an offset
    vector,  ///< parts
    pair,    ///< parts: p|q
    list,    ///< parts, in parentheses
    sink,    ///< "_"
  };
  kind what = kind::number;
  std::size_t at = 0;
  std::string_view name;
  bool is_not = false;   ///< !p
  bool is_fixed = false; ///< a register that is only read, as %tid.x
  std::uint32_t slot = 0;
  unsigned bytes = 0; ///< of a register; 0: a predicate
  std::uint64_t number = 0;
  std::int64_t offset = 0;
  std::vector<operand> parts;
};

/// What follows an instruction's name, to be taken one after the other.
class suffixes {
public:
  explicit suffixes(std::string_view dotted);

  bool take(std::string_view word);
  /// Which of them is next; nothing if none is.
  template <class Table>
  auto take_one(const Table& table)
      -> std::optional<std::remove_cvref_t<decltype(table.begin()->second)>> {
    if (next_ < words_.size())
      for (const auto& [word, value] : table)
        if (word == words_[next_]) {
          ++next_;
          return value;
        }
    return std::nullopt;
  }
  std::optional<type> take_type();
  /// Empty at the end.
  std::string_view next() const {
    return next_ < words_.size() ? words_[next_] : std::string_view{};
  }

private:
  std::vector<std::string_view> words_;
  std::size_t next_ = 0;
};

class decoder;

struct statement {
  std::string_view name;
  suffixes parts{""};
  std::vector<operand> operands;
  instruction out;
  decoder& in;

  [[noreturn]] void fail(const std::string& what) const;
  /// There have to be as many operands.
  void has(std::size_t operands_least, std::size_t operands_most) const;
  void has(std::size_t operands) const {
    has(operands, operands);
  }
  type expect_type();

  /// The slot of a register or of a number, of so many bytes.
  std::uint32_t source(std::size_t number, unsigned bytes);
  std::uint32_t source(const operand& which, unsigned bytes);
  /// Of no bytes: a predicate.
  std::uint32_t destination(std::size_t number, unsigned bytes);
  std::uint32_t destination(const operand& which, unsigned bytes);
  /// Of a predicate that is not negated.
  std::uint32_t predicate(const operand& which);
  /// Fills in what `out` says of an address, r[slot] its register.
  void address(const operand& which, std::size_t slot);
  std::uint32_t number(std::uint64_t bits, unsigned bytes);
  /// That is written here.
  std::uint64_t immediate(std::size_t which) const;
};

/// Where a name of the program or of a body stands.
struct place {
  space where;
  std::uint64_t address; ///< in that space
};

/// Reads one body.
class decoder {
public:
  using places = std::map<std::string_view, place, std::less<>>;
  /// The address of what follows a body's own shared memory.
  static constexpr std::uint64_t dynamic_shared = ~std::uint64_t{0};

  /// `global`: the program's names. `shared_bytes`: those that the body's own
  /// variables take are added. The body is what the scanner has until "}".
  decoder(std::string_view text, scanner& from, const places& global,
          const places& parameters, std::size_t& shared_bytes,
          decoded_body& out);

  void run();

  std::uint32_t constant_slot(std::uint64_t bits, unsigned bytes);
  const place* find(std::string_view name);
  [[noreturn]] void fail(std::size_t at, const std::string& what) const;

private:
  friend struct statement;
  struct reg {
    std::uint32_t slot;
    unsigned bytes;
  };
  struct family {
    std::uint32_t first;
    std::uint32_t count;
    unsigned bytes;
  };
  struct scope {
    std::unordered_map<std::string_view, reg> registers;
    std::unordered_map<std::string_view, family> families;
    places variables;
  };

  void read_scope();
  void read_registers();
  void read_variable(space where);
  void read_statement();
  operand read_operand();
  operand read_simple_operand();
  std::optional<reg> find_register(std::string_view name) const;
  std::optional<std::uint32_t> find_special(std::string_view name);
  std::uint32_t new_slots(unsigned bytes, std::uint32_t count);

  std::string_view text_;
  scanner& from_;
  const places& global_;
  const places& parameters_;
  std::size_t& shared_bytes_;
  place dynamic_{space::shared, 0}; ///< 0: nobody asked for it
  decoded_body& out_;
  std::vector<scope> scopes_;
  std::unordered_map<std::string_view, std::uint32_t> labels_;
  struct jump {
    std::uint32_t from;
    std::string_view to;
    std::size_t at;
  };
  std::vector<jump> jumps_;
  std::map<std::pair<std::uint64_t, unsigned>, std::uint32_t> constants_;
  std::map<special, std::uint32_t> specials_;
};

// Each fills in `out` if the instruction is one of its kind.
bool decode_arithmetic(statement& s);
bool decode_conversion(statement& s);
bool decode_access(statement& s);
bool decode_warp_operation(statement& s);
bool decode_flow(statement& s);

} // namespace troupe::ptx
