#include "tests/ptx/decode.hpp"
#include "tests/ptx/known_memory.hpp"

#include <algorithm>
#include <cstring>
#include <mutex>

namespace troupe::ptx {

namespace {

std::uint64_t rounded_up(std::uint64_t x, std::uint64_t to) {
  return (x + to - 1) / to * to;
}

struct entry {
  kernel of;
  decoder::places parameters;
  std::size_t body = 0; ///< where it begins
  std::once_flag once;
};

/// Memory of one variable.
struct variable {
  std::string_view name;
  std::size_t bytes = 0;
  std::size_t align = 1;
  std::size_t offset = 0; ///< among all
  /// Of its first bytes.
  std::vector<std::byte> first;
  struct reference {
    std::size_t offset; ///< in it
    std::string_view to;
    std::int64_t beyond;
    std::size_t at;
  };
  std::vector<reference> references;
};

} // namespace

struct program::contents {
  std::string text;
  std::vector<std::unique_ptr<entry>> entries;
  std::unordered_map<std::string_view, entry*> by_name;
  decoder::places names; ///< of variables
  std::vector<variable> variables;
  std::unique_ptr<std::byte[]> memory;
  std::vector<range> ranges;
};

namespace {

/// Reads what is around the bodies.
class program_reader {
public:
  explicit program_reader(program::contents& out)
      : out_(out), from_(out.text, 0, out.text.size()) {
    // nop
  }

  void run() {
    while (from_.peek().what != token::kind::end)
      read_one();
    place_variables();
  }

private:
  void read_one() {
    const auto what = from_.take();
    if (what == ".version") {
      from_.take(); // 9.0
    } else if (what == ".target") {
      do
        from_.take();
      while (from_.take(","));
    } else if (what == ".address_size") {
      if (from_.take().text != "64")
        from_.fail("addresses have 64 bits");
    } else if (what == ".visible" || what == ".weak") {
      // Whom it is shown to does not matter here.
    } else if (what == ".extern") {
      from_.expect(".shared");
      read_variable(space::shared);
    } else if (what == ".entry") {
      read_entry();
    } else if (what == ".global" || what == ".const") {
      read_variable(space::global);
    } else {
      from_.fail_at(what.at, "'" + std::string{what.text} + "' is not known");
    }
  }

  std::uint64_t read_number() {
    const auto what = from_.take();
    try {
      return number_of(what.text);
    } catch (const std::invalid_argument&) {
      from_.fail_at(what.at, "there should be a number");
    }
  }

  type read_type() {
    const auto of = from_.take();
    const auto what =
        of.text.starts_with('.') ? type_of(of.text.substr(1)) : std::nullopt;
    if (!what || what->bytes == 0)
      from_.fail_at(of.at, "there should be a type");
    return *what;
  }

  void read_entry() {
    auto one = std::make_unique<entry>();
    one->of.name = from_.expect_word().text;
    if (from_.take("(") && !from_.take(")")) {
      do
        read_parameter(*one);
      while (from_.take(","));
      from_.expect(")");
    }
    while (from_.peek().text != "{")
      read_limit(one->of);
    from_.expect("{");
    one->body = from_.at();
    from_.skip_block();
    auto* const known = one.get();
    out_.entries.push_back(std::move(one));
    if (!out_.by_name.emplace(known->of.name, known).second)
      from_.fail("there are two entries " + known->of.name);
  }

  void read_parameter(entry& one) {
    from_.expect(".param");
    std::uint64_t align = 1;
    if (from_.take(".align"))
      align = read_number();
    const auto what = read_type();
    const auto name = from_.expect_word();
    std::uint64_t bytes = what.size();
    align = std::max<std::uint64_t>(align, bytes);
    if (from_.take("[")) {
      bytes *= read_number();
      from_.expect("]");
    }
    const auto at = rounded_up(one.of.parameter_bytes, align);
    one.of.parameters.push_back({at, bytes});
    one.of.parameter_bytes = at + bytes;
    one.parameters[name.text] = {space::parameter, window_begin + at};
  }

  void read_limit(kernel& of) {
    const auto what = from_.expect_word();
    if (what == ".maxntid" || what == ".reqntid") {
      of.threads_most = 1;
      do
        of.threads_most *= static_cast<unsigned>(read_number());
      while (from_.take(","));
    } else if (what == ".minnctapersm" || what == ".maxnreg") {
      read_number();
    } else {
      from_.fail_at(what.at, "'" + std::string{what.text} + "' is not known");
    }
  }

  void read_variable(space where) {
    variable one;
    if (from_.take(".align"))
      one.align = read_number();
    const auto what = read_type();
    one.align = std::max<std::size_t>(one.align, what.size());
    one.name = from_.expect_word().text;
    bool is_known = true;
    one.bytes = what.size();
    while (from_.take("[")) {
      if (from_.take("]")) {
        is_known = false;
        continue;
      }
      one.bytes *= read_number();
      from_.expect("]");
    }
    if (where == space::shared) {
      from_.expect(";");
      out_.names[one.name] = {space::shared, decoder::dynamic_shared};
      return;
    }
    if (!is_known)
      from_.fail("how many numbers it has is not known");
    if (from_.take("="))
      read_first(one, what);
    from_.expect(";");
    if (one.first.size() > one.bytes)
      from_.fail("there are more values than it holds");
    out_.variables.push_back(std::move(one));
  }

  void read_first(variable& one, const type& what) {
    if (from_.take("{")) {
      do
        read_first(one, what);
      while (from_.take(","));
      from_.expect("}");
      return;
    }
    std::uint64_t bits = 0;
    const auto at = from_.at();
    if (from_.peek().what == token::kind::word) {
      if (what.bytes != 8)
        from_.fail("an address does not fit");
      const bool is_generic = from_.take("generic");
      if (is_generic)
        from_.expect("(");
      const auto to = from_.expect_word();
      std::int64_t beyond = 0;
      if (is_generic)
        from_.expect(")");
      if (from_.take("+"))
        beyond = static_cast<std::int64_t>(read_number());
      one.references.push_back({one.first.size(), to.text, beyond, at});
    } else {
      const bool is_negative = from_.take("-");
      bits = read_number();
      if (is_negative)
        bits = ~bits + 1;
    }
    const auto* const bytes = reinterpret_cast<const std::byte*>(&bits);
    one.first.insert(one.first.end(), bytes, bytes + what.size());
  }

  void place_variables() {
    std::size_t all = 0;
    constexpr std::size_t apart = 64;
    for (auto& one : out_.variables) {
      one.offset = rounded_up(all, std::max(one.align, apart));
      all = one.offset + one.bytes + 1;
    }
    constexpr std::size_t align = 256;
    out_.memory = std::make_unique<std::byte[]>(all + align);
    auto* const begin = reinterpret_cast<std::byte*>(
        rounded_up(reinterpret_cast<std::uintptr_t>(out_.memory.get()), align));
    for (auto& one : out_.variables) {
      auto* const at = begin + one.offset;
      if (!one.first.empty())
        std::memcpy(at, one.first.data(), one.first.size());
      const auto address = reinterpret_cast<std::uintptr_t>(at);
      out_.ranges.push_back({address, address + one.bytes});
      out_.names[one.name] = {space::global, address};
    }
    for (const auto& one : out_.variables)
      for (const auto& to : one.references) {
        const auto there = out_.names.find(to.to);
        if (there == out_.names.end() || there->second.where != space::global)
          from_.fail_at(to.at, "no variable is named so");
        const auto address =
            there->second.address + static_cast<std::uint64_t>(to.beyond);
        std::memcpy(begin + one.offset + to.offset, &address, sizeof address);
      }
  }

  program::contents& out_;
  scanner from_;
};

} // namespace

program::program(std::unique_ptr<contents> all) : all_(std::move(all)) {
  // nop
}
program::program(program&& other) noexcept = default;
program& program::operator=(program&& other) noexcept = default;
program::~program() = default;

program program::parse(std::string text) {
  auto all = std::make_unique<contents>();
  all->text = std::move(text);
  program_reader{*all}.run();
  return program{std::move(all)};
}

const kernel* program::find(std::string_view name) const {
  const auto known = all_->by_name.find(name);
  if (known == all_->by_name.end())
    return nullptr;
  auto& one = *known->second;
  std::call_once(one.once, [&] {
    auto body = std::make_shared<decoded_body>();
    body->text = all_->text;
    body->variables = &all_->ranges;
    scanner from{all_->text, one.body, all_->text.size()};
    std::size_t shared_bytes = 0;
    decoder{all_->text, from, all_->names, one.parameters, shared_bytes, *body}
        .run();
    one.of.shared_bytes = shared_bytes;
    one.of.body = std::move(body);
  });
  return &one.of;
}

std::vector<std::string> program::names() const {
  std::vector<std::string> out;
  for (const auto& one : all_->entries)
    out.push_back(one->of.name);
  return out;
}

} // namespace troupe::ptx
