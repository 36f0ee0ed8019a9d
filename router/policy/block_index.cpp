#include "router/policy/block_index.hpp"

#include "router/policy/replica_snapshot.hpp"

#include <algorithm>
#include <bit>
#include <utility>

namespace troupe::router {

namespace {

constexpr std::size_t cells_min = 256;
constexpr std::size_t cells_ahead = 12; // asked for while a chain is looked up

std::size_t cell_bytes(std::size_t words) {
  return (1 + words) * sizeof(std::uint64_t) + 1;
}

/// Calls with the number of each bit that is set.
template <class Visit>
void each_bit(std::uint64_t word, Visit visit) {
  for (; word != 0; word &= word - 1)
    visit(static_cast<std::size_t>(std::countr_zero(word)));
}

} // namespace

block_index::block_index(std::size_t bytes_max, std::uint64_t seed)
    : bytes_max_(bytes_max), seed_(seed | 1) {
  rebuild(cells_min, words_);
}

bool block_index::add(codec::block_name name, std::uint64_t holder) {
  auto& slot = slot_for(holder);
  auto cell = cell_of(name);
  if (table_[cell * (1 + words_)] == 0) {
    if (!make_room())
      return false;
    cell = cell_of(name);
    table_[cell * (1 + words_)] = name;
    ++size_;
  }
  touched_[cell] = 1;
  auto& word = bits(cell)[slot.slot / slots_per_word];
  auto bit = std::uint64_t{1} << slot.slot % slots_per_word;
  slot.blocks += (word & bit) == 0;
  word |= bit;
  return true;
}

void block_index::remove(codec::block_name name, std::uint64_t holder) {
  auto known = slots_.find(holder);
  auto cell = cell_of(name);
  if (known == slots_.end() || table_[cell * (1 + words_)] == 0)
    return;
  auto* held = bits(cell);
  auto& word = held[known->second.slot / slots_per_word];
  auto bit = std::uint64_t{1} << known->second.slot % slots_per_word;
  known->second.blocks -= (word & bit) != 0;
  word &= ~bit;
  if (std::all_of(held, held + words_, [](auto w) { return w == 0; }))
    erase(cell);
}

void block_index::remove_all(std::uint64_t holder) {
  auto known = slots_.find(holder);
  if (known == slots_.end())
    return;
  auto slot = known->second.slot;
  auto bit = std::uint64_t{1} << slot % slots_per_word;
  for (std::size_t cell = 0; cell < cells(); ++cell)
    bits(cell)[slot / slots_per_word] &= ~bit;
  holder_of_[slot] = 0;
  slots_.erase(known);
  rebuild(cells(), words_);
}

void block_index::forget_one() {
  // Once around clears all marks.
  for (std::size_t i = 0; i < 2 * cells() && size_ != 0; ++i) {
    auto cell = hand_;
    hand_ = (hand_ + 1) % cells();
    if (table_[cell * (1 + words_)] == 0 || std::exchange(touched_[cell], 0))
      continue;
    uncount(bits(cell));
    erase(cell);
    hand_ = cell; // another may lie there now
    return;
  }
}

void block_index::match(std::span<const codec::block_name> chain,
                        std::span<const std::uint64_t> holders,
                        std::span<std::uint32_t> out) const {
  std::fill(out.begin(), out.end(), 0);
  std::vector<std::uint64_t> alive(words_);
  std::vector<std::uint32_t> found(holder_of_.size());
  for (auto holder : holders)
    if (auto known = slots_.find(holder);
        known != slots_.end() && known->second.blocks != 0)
      alive[known->second.slot / slots_per_word] |=
          std::uint64_t{1} << known->second.slot % slots_per_word;
  auto left = std::any_of(alive.begin(), alive.end(),
                          [](auto word) { return word != 0; });
  auto ask = [&](std::size_t i) {
    if (i < chain.size())
      __builtin_prefetch(&table_[home(chain[i]) * (1 + words_)]);
  };
  for (std::size_t i = 0; left && i < cells_ahead; ++i)
    ask(i);
  auto end = [&](std::size_t word, std::uint64_t gone, std::size_t length) {
    each_bit(gone, [&](std::size_t bit) {
      found[word * slots_per_word + bit] = static_cast<std::uint32_t>(length);
    });
  };
  std::size_t length = 0;
  for (; left && length < chain.size(); ++length) {
    ask(length + cells_ahead);
    const auto* cell = &table_[cell_of(chain[length]) * (1 + words_)];
    left = false;
    for (std::size_t w = 0; w < words_; ++w) {
      end(w, alive[w] & ~cell[1 + w], length);
      alive[w] &= cell[1 + w];
      left = left || alive[w] != 0;
    }
  }
  for (std::size_t w = 0; w < words_; ++w)
    end(w, alive[w], length);
  for (std::size_t i = 0; i < holders.size(); ++i)
    if (auto known = slots_.find(holders[i]); known != slots_.end())
      out[i] = found[known->second.slot];
}

std::size_t block_index::size_of(std::uint64_t holder) const {
  auto known = slots_.find(holder);
  return known == slots_.end() ? 0 : known->second.blocks;
}

std::size_t block_index::bytes() const {
  return cells() * cell_bytes(words_);
}

std::size_t block_index::home(codec::block_name name) const {
  return mixed(name ^ seed_) & (cells() - 1);
}

std::size_t block_index::cell_of(codec::block_name name) const {
  auto cell = home(name);
  for (;;) {
    auto there = table_[cell * (1 + words_)];
    if (there == name || there == 0)
      return cell;
    cell = (cell + 1) & (cells() - 1);
  }
}

std::uint64_t* block_index::bits(std::size_t cell) {
  return &table_[cell * (1 + words_) + 1];
}

// Past the bound a larger word for the bits means fewer cells: all is forgotten
// then.
block_index::slot_state& block_index::slot_for(std::uint64_t holder) {
  auto [known, fresh] = slots_.try_emplace(holder);
  if (!fresh)
    return known->second;
  auto free = std::find(holder_of_.begin(), holder_of_.end(), 0);
  if (free == holder_of_.end())
    free = holder_of_.insert(free, 0);
  *free = holder;
  known->second.slot = static_cast<std::size_t>(free - holder_of_.begin());
  if (holder_of_.size() <= words_ * slots_per_word)
    return known->second;
  auto fitting = cells();
  while (fitting > cells_min && fitting * cell_bytes(words_ + 1) > bytes_max_)
    fitting /= 2;
  if (fitting != cells()) {
    std::fill(table_.begin(), table_.end(), 0);
    for (auto& [one, slot] : slots_)
      slot.blocks = 0;
  }
  rebuild(fitting, words_ + 1);
  return known->second;
}

// At most three quarters of the cells are taken.
bool block_index::make_room() {
  if (size_ + 1 <= cells() / 4 * 3)
    return true;
  if (2 * cells() * cell_bytes(words_) > bytes_max_)
    return false;
  rebuild(2 * cells(), words_);
  return true;
}

// Leaves out what nobody holds.
void block_index::rebuild(std::size_t cells, std::size_t words) {
  auto old =
      std::exchange(table_, std::vector<std::uint64_t>(cells * (1 + words)));
  auto marks = std::exchange(touched_, std::vector<std::uint8_t>(cells));
  auto before = std::exchange(words_, words);
  size_ = 0;
  hand_ = 0;
  for (std::size_t i = 0; i < marks.size(); ++i) {
    const auto* from = &old[i * (1 + before)];
    if (std::all_of(from + 1, from + 1 + before,
                    [](auto word) { return word == 0; }))
      continue;
    auto cell = cell_of(*from);
    std::copy(from, from + 1 + before, &table_[cell * (1 + words_)]);
    touched_[cell] = marks[i];
    ++size_;
  }
}

// What follows without a gap and lies behind its home moves up (Knuth, volume
// 3, 6.4, algorithm R).
void block_index::erase(std::size_t cell) {
  auto stride = 1 + words_;
  auto mask = cells() - 1;
  --size_;
  for (auto next = cell;;) {
    std::fill_n(&table_[cell * stride], stride, 0);
    touched_[cell] = 0;
    for (;;) {
      next = (next + 1) & mask;
      auto name = table_[next * stride];
      if (name == 0)
        return;
      if (((next - home(name)) & mask) >= ((next - cell) & mask))
        break;
    }
    std::copy_n(&table_[next * stride], stride, &table_[cell * stride]);
    touched_[cell] = touched_[next];
    cell = next;
  }
}

void block_index::uncount(const std::uint64_t* held) {
  for (std::size_t w = 0; w < words_; ++w)
    each_bit(held[w], [&](std::size_t bit) {
      --slots_.at(holder_of_[w * slots_per_word + bit]).blocks;
    });
}

} // namespace troupe::router
