// ZmqCollective: the Collective of a gang, several processes on one host or more that train one step together.
//
// A star around rank 0, which listens; the others connect to it. Each rank adds up what it can of its own shards (tree.h)
// and sends the partial sums that are left; rank 0 does the remaining additions in tree order and answers with the total.
// Rejected: a ring or all-to-all, which move less through one host but add in an order that depends on the number of ranks.
//
// A message is a line of JSON {gang, rank, type, round, …}. What belongs to another gang or round is dropped: strangers and
// leftovers do no harm. `sum` and `total` bring records and buffers of little-endian floats: where all ranks can open each other's
// shared memory, in that of the sender, from a multiple of kAlignment each; else as one frame each behind the line.
//
//   rank r → 0: hello {state, memory}         then per round: sum {sizes}    records of its shards, partial sums
//   0 → rank r: start {same, memory}                          total {sizes}  records of all shards, sum
//               probe (nothing to answer)
//
// How it fails: a process that ends is noticed at once, as its connection closes (kUnreachable), a host that vanishes after
// kSilence. A rank that only computes long, or stands still for less than kSilence, is waited for. Belongs to one thread.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "common/clock.h"
#include "worker/collective/collective.h"
#include "worker/collective/shared_memory.h"

namespace pare::collective {

inline constexpr Millis kRendezvousPatience{30'000};  // for ranks that were told of each other
inline constexpr size_t kAlignment = 64;
inline constexpr Millis kSilence{30'000};             // of a connection whose other end answers no heartbeat

struct GangOptions {
  std::string gang;  // the same for all ranks, and for no other gang that ever was
  int rank = 0;
  int ranks = 1;
  std::string host = "127.0.0.1";  // name or address of this host as others reach it; a loopback one keeps other hosts out
  Millis patience = kRendezvousPatience;
  bool share_memory = true;  // where it can be done
  // Asked about ten times a second while waiting: true ends the wait with kStopped. May be empty.
  std::function<bool()> interrupted;
};

class ZmqCollective : public Collective {
 public:
  // Rank 0 listens from here on. kInvalid or kIo: the host is none of this machine's.
  static Result<std::unique_ptr<ZmqCollective>> Open(GangOptions options);
  // Closing the connections tells the others.
  ~ZmqCollective() override;

  // Where others reach this rank: tcp://HOST:PORT, or empty for ranks that nobody connects to.
  std::string endpoint() const;
  // Meets the others; endpoints by rank. True: all ranks named the same `state`. kUnreachable: one did not come in time.
  Result<bool> Join(const std::vector<std::string>& endpoints, std::string_view state);

  int rank() const override;
  int ranks() const override;
  std::pair<int, int> Owned(int shards) const override;
  // REQUIRES: joined.
  Status SumShards(std::span<const std::span<float>> shards, int total_shards, std::span<float> total, std::span<std::byte> records) override;
  int64_t bytes_sent() const override;

 private:
  struct Sockets;
  explicit ZmqCollective(std::unique_ptr<Sockets> sockets);
  std::unique_ptr<Sockets> sockets_;
};

}  // namespace pare::collective
