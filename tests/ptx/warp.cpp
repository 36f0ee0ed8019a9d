#include "tests/ptx/warp.hpp"

#include <algorithm>
#include <cstring>

namespace troupe::ptx {

namespace {

std::string text_of(const char* name, const unsigned (&at)[3]) {
  return std::string{name} + " (" + std::to_string(at[0]) + ", " +
         std::to_string(at[1]) + ", " + std::to_string(at[2]) + ")";
}

std::string hex(std::uint64_t x) {
  std::string out;
  for (; x != 0 || out.empty(); x >>= 4)
    out.insert(out.begin(), "0123456789abcdef"[x & 15]);
  return "0x" + out;
}

const char* name_of(shared_memory::access how) {
  switch (how) {
  case shared_memory::access::read:
    return "reads";
  case shared_memory::access::write:
    return "writes";
  default:
    return "changes";
  }
}

unsigned count_of(std::uint32_t mask) {
  return mask == all_lanes ? lanes : static_cast<unsigned>(std::popcount(mask));
}

} // namespace

void of_lanes::fill_others(std::uint32_t mask) {
  if (mask == all_lanes)
    return;
  const auto first = at[std::countr_zero(mask)];
  for (unsigned l = 0; l < lanes; ++l)
    if ((mask >> l & 1) == 0)
      at[l] = first;
}

bool of_lanes::are_within(std::uint64_t begin, std::uint64_t end,
                          std::uint64_t bytes) const {
  if (end - begin < bytes)
    return false;
  // The highest bit is that of a difference below 0.
  std::uint64_t outside = 0, bits = 0;
  for (unsigned l = 0; l < lanes; ++l) {
    outside |= (at[l] - begin) | (end - bytes - at[l]);
    bits |= at[l];
  }
  return outside >> 63 == 0 && (bits & (bytes - 1)) == 0;
}

bool of_lanes::ascend(std::uint32_t mask, std::uint64_t by) const {
  if (mask != all_lanes)
    return (mask & (mask - 1)) == 0; // one
  std::uint64_t before = 0;
  for (unsigned l = 1; l < lanes; ++l)
    before |= at[l] - at[l - 1] - by;
  return before >> 63 == 0;
}

block::block(const kernel& what, const launch& launched, memory& where)
    : of(what), body(*what.body), how(launched),
      threads(how.threads[0] * how.threads[1] * how.threads[2]),
      global(where.all(), *what.body->variables),
      shared((what.shared_bytes + dynamic_align - 1) / dynamic_align *
                 dynamic_align +
             how.shared_bytes),
      parameters(what.parameter_bytes), found(what.body->code.size()) {
  for (std::size_t n = 0; n < what.parameters.size(); ++n)
    std::memcpy(parameters.data() + what.parameters[n].offset, how.arguments[n],
                what.parameters[n].bytes);
}

// -- registers ----------------------------------------------------------------

warp::warp(block& of, unsigned number)
    : of_(of), number_(number),
      file_(new std::byte[of.body.slots * slot_bytes]),
      first_defined_(of.body.slots),
      local_((of.body.local_bytes + 15) / 16 * 16 * lanes) {
  const auto there = std::min(of.threads - number * lanes, lanes);
  exists_ = there == lanes ? all_lanes : (std::uint32_t{1} << there) - 1;
  for (const auto& one : of.body.constants) {
    first_defined_[one.slot] = all_lanes;
    if (one.bytes == 0)
      predicate(one.slot) = static_cast<std::uint32_t>(one.bits);
    for (unsigned l = 0; one.bytes != 0 && l < lanes; ++l)
      if (one.bytes == 8)
        at<std::uint64_t>(one.slot)[l] = one.bits;
      else if (one.bytes == 4)
        at<std::uint32_t>(one.slot)[l] = static_cast<std::uint32_t>(one.bits);
      else
        at<std::uint16_t>(one.slot)[l] = static_cast<std::uint16_t>(one.bits);
  }
  for (const auto& one : of.body.specials)
    first_defined_[one.slot] = all_lanes;
}

void warp::set_special(std::uint32_t slot, special what) {
  auto* const to = at<std::uint32_t>(slot);
  for (unsigned l = 0; l < lanes; ++l) {
    const auto thread = number_ * lanes + l;
    const auto& n = of_.how.threads;
    const auto one = std::uint32_t{1} << l;
    to[l] = [&]() -> std::uint32_t {
      switch (what) {
      case special::tid_x:
        return thread % n[0];
      case special::tid_y:
        return thread / n[0] % n[1];
      case special::tid_z:
        return thread / n[0] / n[1];
      case special::ntid_x:
        return n[0];
      case special::ntid_y:
        return n[1];
      case special::ntid_z:
        return n[2];
      case special::ctaid_x:
        return of_.at[0];
      case special::ctaid_y:
        return of_.at[1];
      case special::ctaid_z:
        return of_.at[2];
      case special::nctaid_x:
        return of_.how.blocks[0];
      case special::nctaid_y:
        return of_.how.blocks[1];
      case special::nctaid_z:
        return of_.how.blocks[2];
      case special::laneid:
        return l;
      case special::warpid:
        return number_;
      case special::nwarpid:
        return (of_.threads + lanes - 1) / lanes;
      case special::lanemask_eq:
        return one;
      case special::lanemask_lt:
        return one - 1;
      case special::lanemask_le:
        return one | (one - 1);
      case special::lanemask_gt:
        return ~(one | (one - 1));
      case special::lanemask_ge:
        return ~(one - 1);
      case special::dynamic_smem_size:
        return static_cast<std::uint32_t>(of_.how.shared_bytes);
      case special::total_smem_size:
        return static_cast<std::uint32_t>(of_.shared.size());
      }
      return 0;
    }();
  }
}

void warp::begin() {
  defined_ = first_defined_;
  for (const auto& one : of_.body.specials)
    set_special(one.slot, one.what);
  state_ = state::runs;
  live_ = active_ = exists_;
  waiting_ = 0;
  early_ = of_.how.begins_early ? exists_ : 0;
  next_ = 0;
  stop_ = ~std::uint32_t{0};
}

// -- where its threads are ----------------------------------------------------

void warp::go() {
  const auto* const code = of_.body.code.data();
  gives_turn_ = false;
  // Others of the block may be what it waits for.
  constexpr unsigned turn = 1 << 20;
  for (unsigned n = 0; state_ == state::runs && !gives_turn_ && n < turn; ++n) {
    last_ = next_;
    const auto& i = code[next_++];
    auto mask = active_;
    ++done.instructions; // also if none of its lanes does it
    if (i.guard != 0) {
      need(i, mask, i.guard);
      mask &= i.guard_not ? ~predicate(i.guard) : predicate(i.guard);
    }
    if (mask != 0) {
      done.lane_instructions += count_of(mask);
      i.run(*this, i, mask);
    }
    if (next_ >= stop_ && state_ != state::has_ended)
      regroup();
  }
}

void warp::regroup() {
  for_each_lane(active_, [&](unsigned l) { next_of_[l] = next_; });
  const auto may_run = live_ & ~waiting_;
  if (may_run == 0)
    fail_missing();
  auto least = ~std::uint32_t{0};
  for_each_lane(may_run,
                [&](unsigned l) { least = std::min(least, next_of_[l]); });
  active_ = 0;
  stop_ = ~std::uint32_t{0};
  for_each_lane(live_, [&](unsigned l) {
    if (next_of_[l] == least)
      active_ |= std::uint32_t{1} << l;
    else
      stop_ = std::min(stop_, next_of_[l]);
  });
  waiting_ &= ~active_;
  next_ = least;
}

void warp::branch(std::uint32_t taken, std::uint32_t target) {
  if (taken == active_) {
    next_ = target;
    return;
  }
  for_each_lane(active_ & ~taken, [&](unsigned l) { next_of_[l] = next_; });
  for_each_lane(taken, [&](unsigned l) { next_of_[l] = target; });
  active_ = 0;
  regroup();
}

void warp::end_threads(std::uint32_t which) {
  for (const auto& one : copies_)
    if ((which >> one.lane & 1) != 0)
      fail(of_.body.code[one.instruction], one.lane,
           "the thread ends before it has waited for this copy");
  if (const auto early = which & early_; early != 0)
    fail(last(), static_cast<unsigned>(std::countr_zero(early)),
         "the thread ends and has not waited for earlier launches");
  live_ &= ~which;
  active_ &= ~which;
  if (live_ == 0)
    state_ = state::has_ended;
  else if (active_ == 0)
    regroup();
}

bool warp::meet(const instruction& i, std::uint32_t arrived,
                std::uint32_t wanted) {
  if (const auto ended = wanted & ~live_; ended != 0)
    fail(i, std::countr_zero(arrived),
         "the warp's lane " + std::to_string(std::countr_zero(ended)) +
             " should do this too and " +
             ((exists_ & ended) == 0 ? "does not exist" : "has ended"));
  if ((arrived & wanted) == wanted)
    return true;
  waiting_ |= arrived;
  for_each_lane(active_ & ~arrived, [&](unsigned l) { next_of_[l] = next_; });
  for_each_lane(arrived, [&](unsigned l) { next_of_[l] = last_; });
  active_ = 0;
  regroup();
  return false;
}

void warp::fail_missing() const {
  const auto first = static_cast<unsigned>(std::countr_zero(waiting_));
  std::string others;
  for_each_lane(live_, [&](unsigned l) {
    if (next_of_[l] != next_of_[first] && others.empty())
      others = "; lane " + std::to_string(l) + " waits at PTX " +
               line_at(of_.body.text, of_.body.code[next_of_[l]].at);
  });
  if (const auto ended = exists_ & ~live_; ended != 0)
    others +=
        "; lane " + std::to_string(std::countr_zero(ended)) + " has ended";
  fail(of_.body.code[next_of_[first]], first,
       "not all lanes come to this instruction of the warp" + others);
}

void warp::fail(const instruction& i, unsigned lane,
                const std::string& what) const {
  const auto thread = number_ * lanes + lane;
  const auto& n = of_.how.threads;
  const unsigned at[3] = {thread % n[0], thread / n[0] % n[1],
                          thread / n[0] / n[1]};
  throw fault{what + "\n  at PTX " + line_at(of_.body.text, i.at) +
              "\n  kernel " + of_.of.name + ", " + text_of("block", of_.at) +
              ", " + text_of("thread", at) + ", warp " +
              std::to_string(number_) + ", lane " + std::to_string(lane)};
}

// -- memory -------------------------------------------------------------------

void warp::addresses(const instruction& i, std::uint32_t mask, std::size_t slot,
                     of_lanes& out) {
  need(i, mask, i.r[slot]);
  const auto offset = static_cast<std::uint64_t>(i.offset);
  if (i.address_is_64) {
    const auto* const from = at<std::uint64_t>(i.r[slot]);
    for (unsigned l = 0; l < lanes; ++l)
      out.at[l] = from[l] + offset;
  } else {
    const auto* const from = at<std::uint32_t>(i.r[slot]);
    for (unsigned l = 0; l < lanes; ++l)
      out.at[l] = from[l] + offset;
  }
  out.fill_others(mask);
}

void warp::check_earlier(const instruction& i, std::uint32_t mask,
                         const of_lanes& addresses, std::size_t bytes,
                         shared_memory::access how) {
  auto& unfinished = *of_.how.unfinished;
  const bool writes = how != shared_memory::access::read;
  for_each_lane(mask & early_, [&](unsigned l) {
    if (writes)
      fail(i, l, "the thread writes before it has waited for earlier launches");
    if (unfinished.touch(addresses.at[l], bytes))
      fail(i, l,
           "the thread reads what an earlier launch writes, for which it has "
           "not waited");
  });
  if (writes)
    for_each_lane(mask,
                  [&](unsigned l) { unfinished.add(addresses.at[l], bytes); });
}

void warp::check_global(const instruction& i, std::uint32_t mask,
                        const of_lanes& addresses, std::size_t bytes,
                        shared_memory::access how) {
  if (of_.how.unfinished != nullptr)
    check_earlier(i, mask, addresses, bytes, how);
  if (of_.global.read_changes())
    std::fill(of_.found.begin(), of_.found.end(), range{});
  auto& known = of_.found[index_of(i)];
  if (addresses.are_within(known.begin, known.end, bytes))
    return;
  for_each_lane(mask, [&](unsigned l) {
    const auto first = addresses.at[l];
    if ((first & (bytes - 1)) != 0)
      fail(i, l,
           "the address " + hex(first) + " is no multiple of " +
               std::to_string(bytes));
    const auto there = of_.global.find(first);
    if (there.end == 0)
      fail(i, l, "there is no memory at " + hex(first));
    if (!there.holds(first, first + bytes))
      fail(i, l,
           std::to_string(bytes) + " bytes at " + hex(first) +
               " reach beyond the memory of " +
               std::to_string(there.end - there.begin) + " bytes at " +
               hex(there.begin));
    known = there;
  });
}

std::size_t warp::shared_offset(const instruction& i, unsigned lane,
                                std::uint64_t address, std::size_t bytes) {
  const auto offset = address - window_begin;
  if (address < window_begin || offset + bytes > of_.shared.size())
    fail(i, lane,
         std::to_string(bytes) + " bytes at " +
             (address < window_begin ? hex(address) + ", which is none,"
                                     : std::to_string(offset)) +
             " of shared memory are not within its " +
             std::to_string(of_.shared.size()));
  if (offset % bytes != 0)
    fail(i, lane,
         "the offset " + std::to_string(offset) +
             " of shared memory is no multiple of " + std::to_string(bytes));
  return offset;
}

void warp::use_shared(const instruction& i, unsigned lane,
                      shared_memory::access how, std::size_t offset,
                      std::size_t bytes) {
  try {
    of_.shared.use(how, offset, bytes, number_, index_of(i));
  } catch (const shared_memory::conflict& wrong) {
    fail_shared(i, lane, how, wrong);
  }
}

void warp::fail_shared(const instruction& i, unsigned lane,
                       shared_memory::access how,
                       const shared_memory::conflict& wrong) const {
  using kind = shared_memory::conflict::kind;
  const auto where = "shared memory at " + std::to_string(wrong.offset);
  if (wrong.what == kind::unwritten)
    fail(i, lane, where + " is read and was never written in this block");
  const auto other =
      "PTX " + line_at(of_.body.text, of_.body.code[wrong.instruction].at);
  if (wrong.what == kind::pending)
    fail(i, lane,
         where + " is used before the copy that writes it was waited for, " +
             other);
  fail(i, lane,
       "a race for " + where + ": this " + name_of(how) +
           " what, since the last barrier, " +
           (wrong.warp == shared_memory::many
                ? std::string{"several warps"}
                : "warp " + std::to_string(wrong.warp)) +
           " " + name_of(wrong.how) + " by " + other);
}

void warp::locate_shared(const instruction& i, std::uint32_t mask,
                         const of_lanes& addresses, std::size_t bytes,
                         shared_memory::access how, spots& out) {
  if (!addresses.are_within(window_begin, window_begin + of_.shared.size(),
                            bytes))
    for_each_lane(mask, [&](unsigned l) {
      (void)shared_offset(i, l, addresses.at[l], bytes);
    });
  auto* const data = of_.shared.data();
  for (unsigned l = 0; l < lanes; ++l)
    out.at[l] = data + (addresses.at[l] - window_begin);
  // Lanes that stand side by side, or at the same place, are one access.
  std::size_t begin = 0, end = 0;
  unsigned of = 0;
  const auto use = [&] {
    if (bytes >= 4 || (begin % 4 == 0 && end % 4 == 0))
      use_shared(i, of, how, begin, end - begin);
    else
      for (auto at = begin; at < end; at += bytes)
        use_shared(i, of, how, at, bytes);
  };
  for_each_lane(mask, [&](unsigned l) {
    const auto offset = addresses.at[l] - window_begin;
    if (offset == end && begin != end) {
      end += bytes;
    } else if (begin == end || offset + bytes != end) {
      if (begin != end)
        use();
      begin = offset;
      end = offset + bytes;
      of = l;
    }
  });
  use();
}

void warp::locate(const instruction& i, std::uint32_t mask, space where,
                  of_lanes& addresses, std::size_t bytes,
                  shared_memory::access how, spots& out) {
  if (of_.how.counts_traffic)
    count_traffic(mask, where, addresses, bytes, how);
  switch (where) {
  case space::global:
    check_global(i, mask, addresses, bytes, how);
    for (unsigned l = 0; l < lanes; ++l)
      out.at[l] = reinterpret_cast<std::byte*>(addresses.at[l]);
    out.are_apart = addresses.ascend(mask, bytes);
    return;
  case space::shared:
    out.are_apart = addresses.ascend(mask, bytes);
    locate_shared(i, mask, addresses, bytes, how, out);
    return;
  case space::local:
    for_each_lane(mask, [&](unsigned l) {
      const auto offset = addresses.at[l] - window_begin;
      if (addresses.at[l] < window_begin ||
          offset + bytes > of_.body.local_bytes || offset % bytes != 0)
        fail(i, l,
             std::to_string(bytes) + " bytes at " + hex(addresses.at[l]) +
                 " of local memory are not within its " +
                 std::to_string(of_.body.local_bytes) + " or not aligned");
      out.at[l] = local_.data() + local_.size() / lanes * l + offset;
    });
    return;
  case space::parameter:
    for_each_lane(mask, [&](unsigned l) {
      const auto offset = addresses.at[l] - window_begin;
      if (addresses.at[l] < window_begin ||
          offset + bytes > of_.parameters.size() || offset % bytes != 0)
        fail(i, l, "this is not within the parameters, or not aligned");
      if (how != shared_memory::access::read)
        fail(i, l, "a parameter is not to be written");
      out.at[l] = of_.parameters.data() + offset;
    });
    return;
  case space::generic:
    break;
  }
  // Lanes may be in different spaces.
  constexpr std::pair<space, std::uint64_t> windows[] = {
      {space::shared, shared_window},
      {space::local, local_window},
      {space::parameter, parameter_window}};
  for (const auto& [which, window] : windows) {
    std::uint32_t there = 0;
    of_lanes in_it = addresses;
    for_each_lane(mask, [&](unsigned l) {
      if (addresses.at[l] - window < window_bytes)
        there |= std::uint32_t{1} << l;
      in_it.at[l] -= window;
    });
    if (there == 0)
      continue;
    in_it.fill_others(there);
    locate(i, there, which, in_it, bytes, how, out);
    mask &= ~there;
  }
  out.are_apart = false;
  if (mask == 0)
    return;
  of_lanes global = addresses;
  global.fill_others(mask);
  check_global(i, mask, global, bytes, how);
  for_each_lane(mask, [&](unsigned l) {
    out.at[l] = reinterpret_cast<std::byte*>(global.at[l]);
  });
}

void warp::count_traffic(std::uint32_t mask, space where,
                         const of_lanes& addresses, std::size_t bytes,
                         shared_memory::access how) {
  if (where == space::shared)
    done.shared += turns_of(addresses.at, mask, bytes);
  else if (where == space::global)
    (how == shared_memory::access::read ? done.loaded : done.stored) +=
        sectors_of(addresses.at, mask, bytes);
}

// -- asynchronous copies ------------------------------------------------------

void warp::begin_copy(const instruction& i, unsigned lane, std::size_t to,
                      const std::byte* from, std::size_t bytes,
                      std::size_t read) {
  try {
    of_.shared.begin_copy(to, bytes, number_, index_of(i));
  } catch (const shared_memory::conflict& wrong) {
    fail_shared(i, lane, shared_memory::access::write, wrong);
  }
  copies_.push_back({lane, index_of(i), to, from, bytes, read, groups_[lane]});
}

void warp::commit_copies(std::uint32_t mask) {
  for_each_lane(mask, [&](unsigned l) { ++groups_[l]; });
}

void warp::finish_copies(std::uint32_t mask, std::uint64_t left) {
  std::erase_if(copies_, [&](const copy& one) {
    if ((mask >> one.lane & 1) == 0 ||
        (left != none_left && one.group + left >= groups_[one.lane]))
      return false;
    auto* const to = of_.shared.data() + one.to;
    if (one.read != 0)
      std::memcpy(to, one.from, one.read);
    std::memset(to + one.read, 0, one.bytes - one.read);
    try {
      of_.shared.end_copy(one.to, one.bytes, number_, one.instruction);
    } catch (const shared_memory::conflict& wrong) {
      fail_shared(of_.body.code[one.instruction], one.lane,
                  shared_memory::access::write, wrong);
    }
    return true;
  });
}

} // namespace troupe::ptx
