#include "engine/ops/gloo/gloo_communicator.hpp"

#include "engine/ops/gloo/gloo_wait.hpp"
#include "engine/ops/gloo/process_watch.hpp"

#include <gloo/rendezvous/context.h>
#include <gloo/rendezvous/store.h>
#include <gloo/transport/tcp/device.h>
#include <gloo/transport/unbound_buffer.h>

#include <algorithm>
#include <condition_variable>
#include <cstring>
#include <map>
#include <mutex>
#include <optional>

namespace troupe::ops {

namespace {

using std::chrono::milliseconds;

/// As long as it takes, for a wait that needs a number.
constexpr milliseconds no_limit = std::chrono::hours{24 * 365};

/// From so many bytes on a sum of more than two ranks is made in parts.
constexpr std::size_t parts_from = 32u << 10;

class local_meeting final : public rank_meeting {
public:
  void put(const std::string& key, const std::vector<char>& value) override {
    std::lock_guard lock{mutex_};
    values_[key] = value;
    changed_.notify_all();
  }

  std::vector<char> get(const std::string& key) override {
    constexpr std::chrono::seconds longest{60};
    std::unique_lock lock{mutex_};
    if (!changed_.wait_for(lock, longest,
                           [&] { return values_.contains(key); }))
      throw rank_lost{"no rank has said " + key};
    return values_.at(key);
  }

private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<std::string, std::vector<char>> values_;
};

/// A meeting as Gloo wants it.
class meeting_store final : public gloo::rendezvous::Store {
public:
  explicit meeting_store(rank_meeting& where) : where_(where) {
    // nop
  }

  void set(const std::string& key, const std::vector<char>& data) override {
    where_.put(key, data);
  }

  std::vector<char> get(const std::string& key) override {
    return where_.get(key);
  }

  void wait(const std::vector<std::string>& keys) override {
    for (const auto& key : keys)
      where_.get(key);
  }

private:
  rank_meeting& where_;
};

class gloo_communicator final : public communicator {
public:
  gloo_communicator(std::shared_ptr<gloo::rendezvous::Context> context,
                    const gloo_options& how)
      : context_(std::move(context)), timeout_(how.timeout), group_(how.group) {
    if (group_)
      listener_ = group_->at_end([this] { wait_.give_up(); });
  }

  /// The first rank of a process watches over the first ones of the others.
  void watch_processes(std::int32_t rank_here) {
    const auto said = tell_all(std::to_string(rank_here));
    std::vector<int> firsts;
    for (int r = 0; r < size(); ++r)
      if (r != rank() && said[static_cast<std::size_t>(r)] == "0")
        firsts.push_back(r);
    if (rank_here == 0)
      watch_.emplace(context_, group_, std::move(firsts));
  }

  ~gloo_communicator() override {
    if (!group_)
      return;
    group_->forget(listener_);
    watch_.reset(); // tells the others that nothing is wrong, if nothing is
    group_->end("rank " + std::to_string(rank()) + " of the model is gone");
  }

  std::int32_t rank() const override {
    return context_->rank;
  }

  std::int32_t size() const override {
    return context_->size;
  }

  void all_reduce(float* x, std::int64_t n) override {
    const auto bytes = static_cast<std::size_t>(n) * sizeof(float);
    if (size() > 2 && bytes >= parts_from)
      reduce_in_parts(x, n);
    else
      reduce_whole(x, n);
  }

  void all_gather(const float* x, std::int64_t rows, std::int64_t cols,
                  float* out) override {
    const auto n = rows * cols;
    exchange(x, n);
    for (std::int32_t r = 0; r < size(); ++r)
      for (std::int64_t row = 0; row < rows; ++row)
        std::copy_n(gathered_.data() + r * n + row * cols, cols,
                    out + (row * size() + r) * cols);
  }

  void broadcast(std::vector<std::byte>& bytes) override {
    std::uint64_t length = bytes.size();
    from_first(&length, sizeof length, rank() == 0 ? timeout_ : no_limit);
    bytes.resize(length);
    from_first(bytes.data(), length, timeout_);
  }

  std::vector<std::string> tell_all(const std::string& own) override {
    const auto count = static_cast<std::size_t>(size());
    std::vector<std::uint64_t> lengths(count);
    lengths[index()] = own.size();
    each_to_all(lengths.data(),
                std::vector<std::size_t>(count, sizeof(std::uint64_t)),
                no_limit);
    std::vector<std::size_t> sizes(lengths.begin(), lengths.end());
    std::string all(first_of(sizes, count), '\0');
    own.copy(all.data() + first_of(sizes, index()), own.size());
    each_to_all(all.data(), sizes, timeout_);
    std::vector<std::string> out;
    for (std::size_t r = 0; r < count; ++r)
      out.push_back(all.substr(first_of(sizes, r), sizes[r]));
    return out;
  }

  void check() override {
    if (group_)
      group_->check();
  }

private:
  std::size_t index() const {
    return static_cast<std::size_t>(rank());
  }

  static std::size_t first_of(const std::vector<std::size_t>& sizes,
                              std::size_t rank) {
    std::size_t out = 0;
    for (std::size_t r = 0; r < rank; ++r)
      out += sizes[r];
    return out;
  }

  // Gloo's errors are ours; a wait that is over its time ends all connections.
  template <class Transfer>
  void together(Transfer transfer) {
    check();
    try {
      transfer(++slot_);
    } catch (const std::exception& why) { // also of its assertions
      if (group_)
        group_->end("rank " + std::to_string(rank()) + ": " + why.what());
      check();
      throw rank_lost{why.what()};
    }
  }

  /// In `at` stand the ranks' parts, one after the other; this rank's is there
  /// and goes to all.
  void each_to_all(void* at, const std::vector<std::size_t>& sizes,
                   milliseconds timeout) {
    const auto count = sizes.size();
    together([&](std::uint64_t slot) {
      auto buffer = context_->createUnboundBuffer(at, first_of(sizes, count));
      std::size_t receives = 0;
      std::size_t sends = 0;
      for (std::size_t r = 0; r < count; ++r) {
        if (r == index())
          continue;
        if (sizes[r] > 0) {
          buffer->recv(static_cast<int>(r), slot, first_of(sizes, r), sizes[r]);
          ++receives;
        }
        if (sizes[index()] > 0) {
          buffer->send(static_cast<int>(r), slot, first_of(sizes, index()),
                       sizes[index()]);
          ++sends;
        }
      }
      wait_for(*buffer, receives, sends, timeout);
    });
  }

  void wait_for(gloo::transport::UnboundBuffer& buffer, std::size_t receives,
                std::size_t sends, milliseconds timeout) {
    wait_.run(buffer, receives, sends, timeout);
  }

  void from_first(void* at, std::size_t bytes, milliseconds timeout) {
    if (bytes == 0)
      return;
    together([&](std::uint64_t slot) {
      auto buffer = context_->createUnboundBuffer(at, bytes);
      if (rank() != 0) {
        buffer->recv(0, slot);
        wait_for(*buffer, 1, 0, timeout);
        return;
      }
      for (int r = 1; r < size(); ++r)
        buffer->send(r, slot);
      wait_for(*buffer, 0, static_cast<std::size_t>(size()) - 1, timeout);
    });
  }

  /// gathered_ = all ranks' n numbers, in their order.
  void exchange(const float* x, std::int64_t n) {
    const auto count = static_cast<std::size_t>(n);
    grow(gathered_, count * static_cast<std::size_t>(size()));
    std::copy_n(x, count, gathered_.data() + index() * count);
    each_to_all(gathered_.data(),
                std::vector<std::size_t>(static_cast<std::size_t>(size()),
                                         count * sizeof(float)),
                timeout_);
  }

  static void grow(std::vector<float>& to, std::size_t floats) {
    if (to.size() < floats)
      to.resize(floats);
  }

  /// x[i] = what gathered_ has of it, added in the order of ranks.
  void add_up(float* x, std::int64_t n) const {
    std::copy_n(gathered_.data(), n, x);
    for (std::int32_t r = 1; r < size(); ++r) {
      const float* more = gathered_.data() + r * n;
      for (std::int64_t i = 0; i < n; ++i)
        x[i] += more[i];
    }
  }

  void reduce_whole(float* x, std::int64_t n) {
    exchange(x, n);
    add_up(x, n);
  }

  std::int64_t begin_of(std::int64_t n, std::size_t rank) const {
    return n * static_cast<std::int64_t>(rank) / size();
  }

  /// Each rank adds up a part, and has the others' from them.
  void reduce_in_parts(float* x, std::int64_t n) {
    const auto count = static_cast<std::size_t>(size());
    std::vector<std::size_t> sizes;
    for (std::size_t r = 0; r < count; ++r)
      sizes.push_back(
          static_cast<std::size_t>(begin_of(n, r + 1) - begin_of(n, r)) *
          sizeof(float));
    const auto first = begin_of(n, index());
    const auto own = begin_of(n, index() + 1) - first;
    gather_part(x, sizes, own);
    add_up(x + first, own);
    each_to_all(x, sizes, timeout_);
  }

  /// gathered_ = all ranks' numbers of this one's part.
  void gather_part(float* x, const std::vector<std::size_t>& sizes,
                   std::int64_t own) {
    const auto count = sizes.size();
    const auto part = static_cast<std::size_t>(own);
    grow(gathered_, part * count);
    std::copy_n(x + first_of(sizes, index()) / sizeof(float), part,
                gathered_.data() + index() * part);
    together([&](std::uint64_t slot) {
      auto in = context_->createUnboundBuffer(gathered_.data(),
                                              gathered_.size() * sizeof(float));
      auto out = context_->createUnboundBuffer(x, first_of(sizes, count));
      for (std::size_t r = 0; r < count; ++r) {
        if (r == index())
          continue;
        in->recv(static_cast<int>(r), slot, r * part * sizeof(float),
                 part * sizeof(float));
        out->send(static_cast<int>(r), slot, first_of(sizes, r), sizes[r]);
      }
      wait_for(*in, count - 1, 0, timeout_);
      wait_for(*out, 0, count - 1, timeout_);
    });
  }

  std::shared_ptr<gloo::rendezvous::Context> context_;
  milliseconds timeout_;
  std::shared_ptr<thread_group> group_; ///< may be null
  std::uint64_t slot_ = 0;
  std::vector<float> gathered_;
  gloo_wait wait_;
  std::optional<process_watch> watch_;
  std::uint64_t listener_ = 0;
};

} // namespace

std::unique_ptr<rank_meeting> make_local_meeting() {
  return std::make_unique<local_meeting>();
}

result<std::unique_ptr<communicator>>
connect_ranks(const gloo_options& how, std::shared_ptr<rank_meeting> where) {
  try {
    gloo::transport::tcp::attr at{how.address.c_str()};
    auto device = gloo::transport::tcp::CreateDevice(at);
    auto context =
        std::make_shared<gloo::rendezvous::Context>(how.rank, how.size);
    context->setTimeout(how.timeout);
    meeting_store store{*where};
    context->connectFullMesh(store, device);
    auto out = std::make_unique<gloo_communicator>(std::move(context), how);
    if (how.group)
      out->watch_processes(how.rank_here);
    return std::unique_ptr<communicator>{std::move(out)};
  } catch (const std::exception& why) {
    return error{errc::unavailable,
                 std::string{"the ranks of the model cannot be connected: "} +
                     why.what()};
  }
}

} // namespace troupe::ops
