#include "tests/ptx/decode.hpp"

#include <algorithm>
#include <charconv>

namespace troupe::ptx {

namespace {

using kind = type::kind;

constexpr std::pair<std::string_view, type> types[] = {
    {"b8", {kind::bits, 1}},           {"b16", {kind::bits, 2}},
    {"b32", {kind::bits, 4}},          {"b64", {kind::bits, 8}},
    {"u8", {kind::natural, 1}},        {"u16", {kind::natural, 2}},
    {"u32", {kind::natural, 4}},       {"u64", {kind::natural, 8}},
    {"s8", {kind::integer, 1}},        {"s16", {kind::integer, 2}},
    {"s32", {kind::integer, 4}},       {"s64", {kind::integer, 8}},
    {"f16", {kind::real, 2}},          {"f32", {kind::real, 4}},
    {"f64", {kind::real, 8}},          {"f16x2", {kind::real, 2, true}},
    {"bf16", {kind::brain, 2}},        {"bf16x2", {kind::brain, 2, true}},
    {"e4m3x2", {kind::e4m3, 1, true}}, {"e5m2x2", {kind::e5m2, 1, true}},
    {"pred", {kind::predicate, 0}},
};

constexpr std::pair<std::string_view, special> special_names[] = {
    {"%tid.x", special::tid_x},
    {"%tid.y", special::tid_y},
    {"%tid.z", special::tid_z},
    {"%ntid.x", special::ntid_x},
    {"%ntid.y", special::ntid_y},
    {"%ntid.z", special::ntid_z},
    {"%ctaid.x", special::ctaid_x},
    {"%ctaid.y", special::ctaid_y},
    {"%ctaid.z", special::ctaid_z},
    {"%nctaid.x", special::nctaid_x},
    {"%nctaid.y", special::nctaid_y},
    {"%nctaid.z", special::nctaid_z},
    {"%laneid", special::laneid},
    {"%warpid", special::warpid},
    {"%nwarpid", special::nwarpid},
    {"%lanemask_eq", special::lanemask_eq},
    {"%lanemask_lt", special::lanemask_lt},
    {"%lanemask_le", special::lanemask_le},
    {"%lanemask_gt", special::lanemask_gt},
    {"%lanemask_ge", special::lanemask_ge},
    {"%dynamic_smem_size", special::dynamic_smem_size},
    {"%total_smem_size", special::total_smem_size},
};

std::uint64_t rounded_up(std::uint64_t x, std::uint64_t to) {
  return (x + to - 1) / to * to;
}

} // namespace

std::optional<type> type_of(std::string_view word) {
  for (const auto& [name, out] : types)
    if (name == word)
      return out;
  return std::nullopt;
}

// -- suffixes -----------------------------------------------------------------

suffixes::suffixes(std::string_view dotted) {
  while (!dotted.empty()) {
    const auto end = std::min(dotted.find('.'), dotted.size());
    words_.push_back(dotted.substr(0, end));
    dotted.remove_prefix(std::min(end + 1, dotted.size()));
  }
}

bool suffixes::take(std::string_view word) {
  if (next() != word)
    return false;
  ++next_;
  return true;
}

std::optional<type> suffixes::take_type() {
  auto out = type_of(next());
  if (out)
    ++next_;
  return out;
}

// -- statement ----------------------------------------------------------------

void statement::fail(const std::string& what) const {
  in.fail(out.at, what);
}

void statement::has(std::size_t operands_least,
                    std::size_t operands_most) const {
  if (operands.size() < operands_least || operands.size() > operands_most)
    fail("it has " + std::to_string(operands.size()) + " operands");
}

type statement::expect_type() {
  auto what = parts.take_type();
  if (!what)
    fail("there should be a type instead of '." + std::string{parts.next()} +
         "'");
  return *what;
}

std::uint32_t statement::number(std::uint64_t bits, unsigned bytes) {
  return in.constant_slot(bits, bytes);
}

std::uint32_t statement::source(std::size_t which, unsigned bytes) {
  return source(operands.at(which), bytes);
}

std::uint32_t statement::source(const operand& which, unsigned bytes) {
  switch (which.what) {
  case operand::kind::reg:
    if (which.bytes != bytes || which.is_not)
      in.fail(which.at, std::string{which.name} + " is not of " +
                            std::to_string(bytes) + " bytes");
    return which.slot;
  case operand::kind::number:
    return number(which.number, bytes);
  case operand::kind::symbol: {
    const auto* there = in.find(which.name);
    if (there == nullptr)
      in.fail(which.at, "nothing is named " + std::string{which.name});
    if (bytes != 8 && (bytes != 4 || there->where == space::global))
      in.fail(which.at, "an address does not fit");
    return number(there->address + static_cast<std::uint64_t>(which.offset),
                  bytes);
  }
  default:
    in.fail(which.at, "such an operand is not known here");
  }
}

std::uint32_t statement::destination(std::size_t which, unsigned bytes) {
  return destination(operands.at(which), bytes);
}

std::uint32_t statement::destination(const operand& which, unsigned bytes) {
  if (which.what != operand::kind::reg || which.is_not || which.is_fixed)
    in.fail(which.at, "the result has to be a register");
  if (which.bytes != bytes)
    in.fail(which.at, std::string{which.name} + " is not of " +
                          std::to_string(bytes) + " bytes");
  return which.slot;
}

std::uint32_t statement::predicate(const operand& which) {
  if (which.what == operand::kind::number)
    return number(which.number != 0 ? all_lanes : 0, 0);
  if (which.what != operand::kind::reg || which.bytes != 0 || which.is_not)
    in.fail(which.at, "there should be a predicate");
  return which.slot;
}

void statement::address(const operand& which, std::size_t slot) {
  if (which.what != operand::kind::address)
    in.fail(which.at, "there should be an address");
  const auto& base = which.parts[0];
  out.offset = which.offset;
  out.address_is_64 = true;
  switch (base.what) {
  case operand::kind::reg:
    if (base.bytes != 4 && base.bytes != 8)
      in.fail(base.at, "this is no address");
    out.address_is_64 = base.bytes == 8;
    out.r[slot] = base.slot;
    return;
  case operand::kind::number:
    out.r[slot] = number(base.number, 8);
    return;
  case operand::kind::symbol: {
    const auto* there = in.find(base.name);
    if (there == nullptr)
      in.fail(base.at, "nothing is named " + std::string{base.name});
    if (there->where != out.where)
      in.fail(base.at, std::string{base.name} + " is in another space");
    out.r[slot] = number(there->address, 8);
    return;
  }
  default:
    in.fail(base.at, "such an address is not known");
  }
}

std::uint64_t statement::immediate(std::size_t which) const {
  const auto& from = operands.at(which);
  if (from.what != operand::kind::number)
    in.fail(from.at, "there should be a number");
  return from.number;
}

// -- decoder ------------------------------------------------------------------

decoder::decoder(std::string_view text, scanner& from, const places& global,
                 const places& parameters, std::size_t& shared_bytes,
                 decoded_body& out)
    : text_(text), from_(from), global_(global), parameters_(parameters),
      shared_bytes_(shared_bytes), out_(out) {
  // nop
}

void decoder::fail(std::size_t at, const std::string& what) const {
  from_.fail_at(at, what);
}

void decoder::run() {
  read_scope();
  for (const auto& [from, to, at] : jumps_) {
    const auto there = labels_.find(to);
    if (there == labels_.end())
      fail(at, "there is no label " + std::string{to});
    out_.code[from].target = there->second;
  }
  // Who comes to the end has ended.
  statement end{"ret", suffixes{""}, {}, {}, *this};
  end.out.at = static_cast<std::uint32_t>(from_.at());
  decode_flow(end);
  out_.code.push_back(end.out);
}

void decoder::read_scope() {
  scopes_.emplace_back();
  for (;;) {
    const auto& next = from_.peek();
    if (next.what == token::kind::end)
      from_.fail("the body does not end");
    if (next == "}")
      break;
    if (from_.take("{")) {
      read_scope();
      from_.expect("}");
    } else if (from_.take(".reg")) {
      read_registers();
    } else if (from_.take(".shared")) {
      read_variable(space::shared);
    } else if (from_.take(".local")) {
      read_variable(space::local);
    } else if (from_.take(".loc")) {
      // Where the source has it: three numbers, and "function_name ...".
      const auto line = next.at;
      (void)line;
      while (from_.peek().what == token::kind::number)
        from_.take();
      if (from_.take(","))
        from_.fail("a .loc of an inlined function is not known");
    } else if (from_.take(".pragma")) {
      from_.take();
      from_.expect(";");
    } else {
      read_statement();
    }
  }
  scopes_.pop_back();
}

std::uint32_t decoder::new_slots(unsigned bytes, std::uint32_t count) {
  const auto first = out_.slots;
  out_.slots += (bytes == 8 ? 2 : 1) * count;
  return first;
}

void decoder::read_registers() {
  const auto of = from_.take();
  const auto what =
      of.text.starts_with('.') ? type_of(of.text.substr(1)) : std::nullopt;
  if (!what || what->is_pair || what->bytes == 1)
    fail(of.at, "registers of this type are not known");
  do {
    const auto name = from_.expect_word();
    if (from_.take("<")) {
      const auto count =
          static_cast<std::uint32_t>(number_of(from_.take().text));
      from_.expect(">");
      scopes_.back().families[name.text] = {new_slots(what->bytes, count),
                                            count, what->bytes};
    } else {
      scopes_.back().registers[name.text] = {new_slots(what->bytes, 1),
                                             what->bytes};
    }
  } while (from_.take(","));
  from_.expect(";");
}

void decoder::read_variable(space where) {
  std::uint64_t align = 0;
  if (from_.take(".align"))
    align = number_of(from_.take().text);
  const auto of = from_.take();
  const auto what =
      of.text.starts_with('.') ? type_of(of.text.substr(1)) : std::nullopt;
  if (!what || what->bytes == 0)
    fail(of.at, "variables of this type are not known");
  const auto name = from_.expect_word();
  std::uint64_t bytes = what->size();
  align = std::max<std::uint64_t>(align, bytes);
  while (from_.take("[")) {
    bytes *= number_of(from_.take().text);
    from_.expect("]");
  }
  from_.expect(";");
  std::uint64_t at;
  if (where == space::shared) {
    if (dynamic_.address != 0)
      fail(name.at, "shared memory is declared after some was used");
    at = rounded_up(shared_bytes_, align);
    shared_bytes_ = at + bytes;
  } else {
    at = rounded_up(out_.local_bytes, align);
    out_.local_bytes = at + bytes;
  }
  scopes_.back().variables[name.text] = {where, window_begin + at};
}

std::optional<decoder::reg>
decoder::find_register(std::string_view name) const {
  const auto digits = name.find_last_not_of("0123456789") + 1;
  std::uint32_t number = 0;
  bool is_numbered = digits < name.size();
  if (is_numbered)
    std::from_chars(name.data() + digits, name.data() + name.size(), number);
  for (auto s = scopes_.rbegin(); s != scopes_.rend(); ++s) {
    if (const auto one = s->registers.find(name); one != s->registers.end())
      return one->second;
    if (is_numbered)
      if (const auto many = s->families.find(name.substr(0, digits));
          many != s->families.end() && number < many->second.count)
        return reg{many->second.first +
                       (many->second.bytes == 8 ? 2 : 1) * number,
                   many->second.bytes};
  }
  return std::nullopt;
}

std::optional<std::uint32_t> decoder::find_special(std::string_view name) {
  for (const auto& [text, what] : special_names)
    if (text == name) {
      auto [known, is_new] = specials_.try_emplace(what, 0);
      if (is_new) {
        known->second = new_slots(4, 1);
        out_.specials.push_back({known->second, what});
      }
      return known->second;
    }
  return std::nullopt;
}

std::uint32_t decoder::constant_slot(std::uint64_t bits, unsigned bytes) {
  if (bytes < 8 && bytes > 0)
    bits &= (std::uint64_t{1} << 8 * bytes) - 1;
  auto [known, is_new] = constants_.try_emplace({bits, bytes}, 0);
  if (is_new) {
    known->second = new_slots(bytes, 1);
    out_.constants.push_back(
        {known->second, bits, static_cast<std::uint8_t>(bytes)});
  }
  return known->second;
}

const place* decoder::find(std::string_view name) {
  for (auto s = scopes_.rbegin(); s != scopes_.rend(); ++s)
    if (const auto there = s->variables.find(name); there != s->variables.end())
      return &there->second;
  if (const auto there = parameters_.find(name); there != parameters_.end())
    return &there->second;
  const auto there = global_.find(name);
  if (there == global_.end())
    return nullptr;
  if (there->second.address != dynamic_shared)
    return &there->second;
  dynamic_.address = window_begin + rounded_up(shared_bytes_, dynamic_align);
  return &dynamic_;
}

operand decoder::read_simple_operand() {
  operand out;
  out.at = from_.at();
  if (from_.take("!")) {
    out = read_simple_operand();
    out.is_not = !out.is_not;
    return out;
  }
  const bool negative = from_.take("-");
  const auto what = from_.take();
  out.name = what.text;
  if (what.what == token::kind::number) {
    try {
      out.number = number_of(what.text);
    } catch (const std::invalid_argument&) {
      fail(what.at, "this is no number");
    }
    if (negative)
      out.number = ~out.number + 1;
    return out;
  }
  if (what.what != token::kind::word || negative)
    fail(what.at, "this is no operand");
  if (what == "_") {
    out.what = operand::kind::sink;
  } else if (what == "WARP_SZ") {
    out.number = lanes;
  } else if (const auto known = find_register(what.text)) {
    out.what = operand::kind::reg;
    out.slot = known->slot;
    out.bytes = known->bytes;
  } else if (const auto slot = find_special(what.text)) {
    out.what = operand::kind::reg;
    out.slot = *slot;
    out.is_fixed = true;
    out.bytes = 4;
  } else if (what.text.starts_with('%')) {
    fail(what.at, "the register " + std::string{what.text} + " is not known");
  } else {
    out.what = operand::kind::symbol;
  }
  return out;
}

operand decoder::read_operand() {
  operand out;
  out.at = from_.at();
  const auto read_parts = [&](std::string_view end) {
    if (!from_.take(end)) {
      do
        out.parts.push_back(read_operand());
      while (from_.take(","));
      from_.expect(end);
    }
  };
  const auto read_offset = [&] {
    std::int64_t sign = from_.take("+") ? 1 : from_.take("-") ? -1 : 0;
    if (sign == 0)
      return std::int64_t{0};
    if (from_.take("-"))
      sign = -sign;
    return sign * static_cast<std::int64_t>(number_of(from_.take().text));
  };
  if (from_.take("{")) {
    out.what = operand::kind::vector;
    read_parts("}");
    return out;
  }
  if (from_.take("(")) {
    out.what = operand::kind::list;
    read_parts(")");
    return out;
  }
  if (from_.take("[")) {
    out.what = operand::kind::address;
    out.parts.push_back(read_simple_operand());
    out.offset = read_offset();
    from_.expect("]");
    return out;
  }
  out = read_simple_operand();
  if (out.what == operand::kind::symbol)
    out.offset = read_offset();
  if (from_.take("|")) {
    operand pair;
    pair.what = operand::kind::pair;
    pair.at = out.at;
    pair.parts = {out, read_simple_operand()};
    return pair;
  }
  return out;
}

void decoder::read_statement() {
  const auto at = from_.at();
  statement s{{}, suffixes{""}, {}, {}, *this};
  s.out.at = static_cast<std::uint32_t>(at);
  const bool is_guarded = from_.take("@");
  if (is_guarded) {
    s.out.guard_not = from_.take("!");
    const auto name = from_.expect_word();
    const auto known = find_register(name.text);
    if (!known || known->bytes != 0)
      fail(at, "the guard is no predicate");
    s.out.guard = known->slot;
  }
  const auto opcode = from_.expect_word();
  if (!is_guarded && from_.take(":")) {
    if (!labels_
             .emplace(opcode.text, static_cast<std::uint32_t>(out_.code.size()))
             .second)
      fail(at, "there are two labels " + std::string{opcode.text});
    return;
  }
  const auto end_of_name = std::min(opcode.text.find('.'), opcode.text.size());
  s.name = opcode.text.substr(0, end_of_name);
  if (end_of_name < opcode.text.size())
    s.parts = suffixes{opcode.text.substr(end_of_name + 1)};
  if (!from_.take(";")) {
    do
      s.operands.push_back(read_operand());
    while (from_.take(","));
    from_.expect(";");
  }
  if (s.name == "bra") {
    s.parts.take("uni");
    s.has(1);
    if (s.operands[0].what != operand::kind::symbol)
      fail(at, "there should be a label");
    jumps_.push_back({static_cast<std::uint32_t>(out_.code.size()),
                      s.operands[0].name, s.operands[0].at});
  }
  if (!decode_arithmetic(s) && !decode_conversion(s) && !decode_access(s) &&
      !decode_warp_operation(s) && !decode_flow(s))
    fail(at, "the instruction " + std::string{opcode.text} + " is not known");
  if (!s.parts.next().empty())
    fail(at, "'." + std::string{s.parts.next()} + "' of " +
                 std::string{opcode.text} + " is not known");
  out_.code.push_back(s.out);
}

} // namespace troupe::ptx
