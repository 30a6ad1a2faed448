// The only file beside common/zmq_transport.cc that includes zmq.hpp: gradients are too long for a Transport, which copies
// every message and limits its size.
//
// A DEALER here never connects again: what was under way on a lost connection is lost, so the gang is broken. It learns of the
// loss from a monitor and not from a socket without peers (reconnect_ivl −1), as libzmq then drops what was received and not
// read yet: the last total. Heartbeats are answered by libzmq's own thread, however long the rank computes.
#include "worker/collective/zmq_collective.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <map>
#include <optional>
#include <set>
#include <zmq.hpp>

#include "common/json.h"
#include "worker/collective/tree.h"

namespace pare::collective {
namespace {

constexpr Millis kSlice{100};            // of waiting, between looks at other things
constexpr Millis kProbeInterval{1'000};  // rank 0 learns by sending that a peer is gone
constexpr Millis kHeartbeat{5'000};
constexpr Millis kLinger{5'000};         // of rank 0, so that the last total leaves; what others sent was answered
constexpr Millis kNever{std::chrono::hours(24 * 20)};
constexpr int64_t kLargestBuffer = int64_t{1} << 32;  // bytes: a thousand million parameters
constexpr size_t kLargestHeader = 4096;

struct Message {
  std::string peer;  // at rank 0
  int rank = 0;
  std::string type;
  Json header;
  std::vector<zmq::message_t> payload;
};

Error Gone(int rank) { return Error{ErrorCode::kUnreachable, "rank " + std::to_string(rank) + " of the gang is gone"}; }

Error OtherSizes(int rank) {
  return Error{ErrorCode::kCorrupt, "rank " + std::to_string(rank) + " of the gang exchanges gradients of another size: it trains something else"};
}

bool OfRound(const Message& m, std::string_view type, int64_t round) { return m.type == type && m.header.value("round", Json()) == Json(round); }

void CopyBytes(std::byte* to, const zmq::message_t& from) {
  if (from.size() > 0) std::memcpy(to, from.data(), from.size());
}

bool IsLoopback(const std::string& host) { return host == "localhost" || host.rfind("127.", 0) == 0 || host == "[::1]"; }

// libzmq binds to numbers and interfaces only.
std::string Listening(const std::string& host) {
  bool v6 = host.rfind('[', 0) == 0;
  if (IsLoopback(host)) return v6 ? "tcp://[::1]:*" : "tcp://127.0.0.1:*";
  return v6 ? "tcp://[::]:*" : "tcp://0.0.0.0:*";
}

// What a `sum` or `total` brings: records, then buffers of `length` floats.
struct Layout {
  size_t records = 0, length = 0, buffers = 0;
  static size_t Aligned(size_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }
  size_t OffsetOf(size_t buffer) const { return Aligned(records) + buffer * Aligned(length * sizeof(float)); }
  size_t bytes() const { return records + buffers * length * sizeof(float); }
  Json ToJson() const { return {records, length, buffers}; }
};

// Of the only connection that a socket has.
class LossMonitor : public zmq::monitor_t {
 public:
  void Watch(zmq::socket_t& socket) { init(socket, "inproc://loss", ZMQ_EVENT_DISCONNECTED); }
  bool lost() {
    while (check_event(0)) {}
    return lost_;
  }
  void on_event_disconnected(const zmq_event_t&, const char*) override { lost_ = true; }

 private:
  bool lost_ = false;
};

}  // namespace

struct ZmqCollective::Sockets {
  explicit Sockets(GangOptions o) : options(std::move(o)), socket(context, root() ? zmq::socket_type::router : zmq::socket_type::dealer) {
    socket.set(zmq::sockopt::linger, root() ? static_cast<int>(kLinger.count()) : 0);
    socket.set(zmq::sockopt::maxmsgsize, kLargestBuffer);
    socket.set(zmq::sockopt::heartbeat_ivl, static_cast<int>(kHeartbeat.count()));
    socket.set(zmq::sockopt::heartbeat_timeout, static_cast<int>(kSilence.count()));
    socket.set(zmq::sockopt::reconnect_ivl, static_cast<int>(kNever.count()));
    if (root()) socket.set(zmq::sockopt::router_mandatory, true);
    else monitor.Watch(socket);
  }

  bool root() const { return options.rank == 0; }
  ShardRange Owned(int shards) const { return OwnedBy(options.rank, options.ranks, shards); }
  void Listen();
  Result<bool> Join(const std::vector<std::string>& endpoints, std::string_view state);
  Result<bool> Gather(std::string_view state);
  Result<bool> Arrive(const std::string& endpoint, std::string_view state);

  // `payload` is shared with libzmq, not copied. False: nobody is there.
  bool Send(const std::string& peer, Json header, std::span<zmq::message_t> payload);
  // Either way: in memory, or as frames.
  Result<std::vector<zmq::message_t>> Pack(const Layout& layout, std::span<const std::byte> records, std::span<const std::span<float>> buffers);
  // The buffers of a message; `records` are copied. They lie in the sender's memory, or in `received`.
  Result<std::vector<std::span<float>>> Unpack(const Message& m, const Layout& layout, std::span<std::byte> records, std::vector<std::vector<float>>& received);
  std::optional<Message> Receive();
  // Takes messages until `done`. Its errors, and kUnreachable, kStopped.
  Status Await(const std::function<bool()>& done, const std::function<Status(Message&)>& take, std::optional<Millis> patience);
  std::optional<Error> Lost();

  Status Sum(std::span<const std::span<float>> shards, int n, std::span<float> total, std::span<std::byte> records);
  Status Collect(std::vector<std::span<float>>& buffers, std::span<const Addition> tree, std::span<std::byte> records, size_t length);
  Status Broadcast(std::span<float> total, std::span<std::byte> records);
  Status Exchange(const std::vector<std::span<float>>& buffers, std::span<const Addition> tree, std::span<float> total, std::span<std::byte> records);

  GangOptions options;
  zmq::context_t context{1};
  zmq::socket_t socket;
  LossMonitor monitor;  // of the others
  SystemClock clock;
  std::string endpoint;
  std::map<int, std::string> peers;  // at rank 0, by rank
  std::set<int> awaited;             // at rank 0: whose message is missing
  Millis probed{0};
  int64_t round = 0, sent = 0;
  std::optional<Error> broken;
  std::map<int, std::vector<std::vector<float>>> received;  // buffers that came as frames, by sender
  std::optional<SharedMemory> own;                          // for what this rank sends; nothing: frames
  std::map<int, SharedMemory> memories;                     // of the others, by rank
};

void ZmqCollective::Sockets::Listen() {
  if (options.host.rfind('[', 0) == 0) socket.set(zmq::sockopt::ipv6, true);
  socket.bind(Listening(options.host));
  std::string bound = socket.get(zmq::sockopt::last_endpoint);
  endpoint = "tcp://" + (options.host == "localhost" ? "127.0.0.1" : options.host) + bound.substr(bound.rfind(':'));
}

bool ZmqCollective::Sockets::Send(const std::string& peer, Json header, std::span<zmq::message_t> payload) {
  header["gang"] = options.gang;
  header["rank"] = options.rank;
  std::string text = Canonical(header);
  try {
    auto flags = [](bool more) { return more ? zmq::send_flags::dontwait | zmq::send_flags::sndmore : zmq::send_flags::dontwait; };
    if (root() && !socket.send(zmq::buffer(peer), flags(true))) return false;
    if (!socket.send(zmq::buffer(text), flags(!payload.empty()))) return false;
    sent += static_cast<int64_t>(text.size());
    for (zmq::message_t& part : payload) {
      zmq::message_t shared;
      shared.copy(part);
      sent += static_cast<int64_t>(part.size());
      if (!socket.send(shared, flags(&part != &payload.back()))) return false;
    }
    return true;
  } catch (const zmq::error_t& e) {
    if (e.num() == EHOSTUNREACH) return false;
    throw;
  }
}

std::optional<Message> ZmqCollective::Sockets::Receive() {
  for (;;) {
    std::vector<zmq::message_t> frames;
    for (bool more = true; more;) {
      zmq::message_t frame;
      // The frames of a message arrive together: only the first may be missing.
      if (!socket.recv(frame, zmq::recv_flags::dontwait)) return std::nullopt;
      more = frame.more();
      frames.push_back(std::move(frame));
    }
    Message m;
    size_t first = root() ? 1 : 0;
    if (frames.size() <= first || frames[first].size() > kLargestHeader) continue;
    if (root()) m.peer = frames[0].to_string();
    Result<Json> header = ParseJson(frames[first].to_string_view(), "gang message");
    if (!header.ok() || !header->is_object()) continue;
    auto gang = StringField(*header, "gang"), type = StringField(*header, "type");
    auto rank = IntField(*header, "rank");
    if (!gang.ok() || !type.ok() || !rank.ok() || *gang != options.gang || *rank < 0 || *rank >= options.ranks) continue;
    m.rank = static_cast<int>(*rank);
    if ((m.rank == 0) == root()) continue;
    m.type = *type;
    m.header = *std::move(header);
    for (size_t i = first + 1; i < frames.size(); ++i) m.payload.push_back(std::move(frames[i]));
    return m;
  }
}

// Rank 0 has to try.
std::optional<Error> ZmqCollective::Sockets::Lost() {
  if (!root()) return monitor.lost() ? std::optional(Gone(0)) : std::nullopt;
  if (clock.Monotonic() - probed < kProbeInterval) return std::nullopt;
  probed = clock.Monotonic();
  for (int rank : awaited) {
    if (peers.contains(rank) && !Send(peers[rank], {{"type", "probe"}}, {})) return Gone(rank);
  }
  return std::nullopt;
}

Status ZmqCollective::Sockets::Await(const std::function<bool()>& done, const std::function<Status(Message&)>& take, std::optional<Millis> patience) {
  Millis began = probed = clock.Monotonic();
  while (!done()) {
    // Before the look at messages: what came before the connection was lost still counts.
    std::optional<Error> lost = Lost();
    while (!done()) {
      std::optional<Message> message = Receive();
      if (!message) break;
      TRY(take(*message));
    }
    if (done()) return Ok();
    if (lost) return *lost;
    if (options.interrupted && options.interrupted()) return Error{ErrorCode::kStopped, "waiting for the gang was interrupted"};
    if (patience && clock.Monotonic() - began > *patience) {
      return Error{ErrorCode::kUnreachable, "the gang did not come together within " + std::to_string(patience->count()) + " ms"};
    }
    zmq::pollitem_t item{socket.handle(), 0, ZMQ_POLLIN, 0};
    try {
      zmq::poll(&item, 1, kSlice);
    } catch (const zmq::error_t& e) {
      if (e.num() != EINTR) throw;
    }
  }
  return Ok();
}

Result<bool> ZmqCollective::Sockets::Join(const std::vector<std::string>& endpoints, std::string_view state) {
  if (static_cast<int>(endpoints.size()) != options.ranks) {
    return Error{ErrorCode::kInvalid, "a gang of " + std::to_string(options.ranks) + " was given " + std::to_string(endpoints.size()) + " endpoints"};
  }
  return root() ? Gather(state) : Arrive(endpoints[0], state);
}

Result<bool> ZmqCollective::Sockets::Gather(std::string_view state) {
  bool same = true, shared = own.has_value();
  TRY(Await([&] { return static_cast<int>(peers.size()) == options.ranks - 1; },
            [&](Message& m) {
              if (m.type != "hello") return Ok();
              peers[m.rank] = m.peer;
              same = same && m.header.value("state", Json()) == Json(state);
              auto memory = StringField(m.header, "memory");
              auto opened = memory.ok() && !memory->empty() ? SharedMemory::Open(*memory) : Result<SharedMemory>(Error{});
              shared = shared && opened.ok();
              if (opened.ok()) memories.insert_or_assign(m.rank, *std::move(opened));
              return Ok();
            },
            options.patience));
  if (!shared) own.reset();
  for (const auto& [rank, peer] : peers) {
    if (!Send(peer, {{"type", "start"}, {"same", same}, {"memory", own ? own->name() : ""}}, {})) return Gone(rank);
  }
  return same;
}

Result<bool> ZmqCollective::Sockets::Arrive(const std::string& to, std::string_view state) {
  if (to.rfind("tcp://[", 0) == 0) socket.set(zmq::sockopt::ipv6, true);
  socket.connect(to);
  if (!Send({}, {{"type", "hello"}, {"state", state}, {"memory", own ? own->name() : ""}}, {})) return Gone(0);
  std::optional<bool> same;
  TRY(Await([&] { return same.has_value(); },
            [&](Message& m) {
              if (m.type != "start") return Ok();
              same = m.header.value("same", Json()) == Json(true);
              auto memory = StringField(m.header, "memory");
              if (!memory.ok() || memory->empty()) {
                own.reset();
                return Ok();
              }
              auto opened = SharedMemory::Open(*memory);
              if (!opened.ok()) return Status(opened.error());
              memories.insert_or_assign(0, *std::move(opened));
              return Ok();
            },
            options.patience));
  return *same;
}

Status ZmqCollective::Sockets::Sum(std::span<const std::span<float>> shards, int n, std::span<float> total, std::span<std::byte> records) {
  ShardRange own = Owned(n);
  CHECK(n > 0 && static_cast<int>(shards.size()) == own.second - own.first && records.size() % static_cast<size_t>(n) == 0);
  std::vector<Addition> tree = TreeOf(n);
  std::vector<std::span<float>> buffers(static_cast<size_t>(n));
  std::copy(shards.begin(), shards.end(), buffers.begin() + own.first);
  for (const Addition& a : tree) {
    if (Within(a, own)) Add(buffers[static_cast<size_t>(a.to)], buffers[static_cast<size_t>(a.from)]);
  }
  ++round;
  if (!root()) return Exchange(buffers, tree, total, records);
  TRY(Collect(buffers, tree, records, total.size()));
  auto done_by_one = [&](const Addition& a) {
    for (int rank = 0; rank < options.ranks; ++rank) {
      if (Within(a, OwnedBy(rank, options.ranks, n))) return true;
    }
    return false;
  };
  for (const Addition& a : tree) {
    if (!done_by_one(a)) Add(buffers[static_cast<size_t>(a.to)], buffers[static_cast<size_t>(a.from)]);
  }
  if (total.data() != buffers[0].data()) std::copy(buffers[0].begin(), buffers[0].end(), total.begin());
  return Broadcast(total, records);
}

Status ZmqCollective::Sockets::Collect(std::vector<std::span<float>>& buffers, std::span<const Addition> tree, std::span<std::byte> records, size_t length) {
  auto n = static_cast<int>(buffers.size());
  size_t record = records.size() / buffers.size();
  for (int rank = 1; rank < options.ranks; ++rank) awaited.insert(rank);
  auto take = [&](Message& m) -> Status {
    if (!OfRound(m, "sum", round) || m.peer != peers[m.rank] || !awaited.contains(m.rank)) return Ok();
    ShardRange range = OwnedBy(m.rank, options.ranks, n);
    std::vector<int> left = PartialsOf(tree, range);
    Layout layout{static_cast<size_t>(range.second - range.first) * record, length, left.size()};
    ASSIGN_OR_RETURN(std::vector<std::span<float>> partials, Unpack(m, layout, records.subspan(static_cast<size_t>(range.first) * record, layout.records), received[m.rank]));
    for (size_t i = 0; i < left.size(); ++i) buffers[static_cast<size_t>(left[i])] = partials[i];
    awaited.erase(m.rank);
    return Ok();
  };
  return Await([&] { return awaited.empty(); }, take, std::nullopt);
}

Status ZmqCollective::Sockets::Broadcast(std::span<float> total, std::span<std::byte> records) {
  Layout layout{records.size(), total.size(), 1};
  ASSIGN_OR_RETURN(std::vector<zmq::message_t> payload, Pack(layout, records, std::span(&total, 1)));
  // Somebody who is gone now breaks the next sum; this one is complete, and may have been the last.
  for (const auto& [rank, peer] : peers) (void)Send(peer, {{"type", "total"}, {"round", round}, {"sizes", layout.ToJson()}}, payload);
  return Ok();
}

Status ZmqCollective::Sockets::Exchange(const std::vector<std::span<float>>& buffers, std::span<const Addition> tree, std::span<float> total,
                                        std::span<std::byte> records) {
  auto [first, last] = Owned(static_cast<int>(buffers.size()));
  size_t record = records.size() / buffers.size();
  std::vector<std::span<float>> left;
  for (int s : PartialsOf(tree, {first, last})) left.push_back(buffers[static_cast<size_t>(s)]);
  Layout layout{static_cast<size_t>(last - first) * record, total.size(), left.size()};
  ASSIGN_OR_RETURN(std::vector<zmq::message_t> payload, Pack(layout, records.subspan(static_cast<size_t>(first) * record, layout.records), left));
  if (!Send({}, {{"type", "sum"}, {"round", round}, {"sizes", layout.ToJson()}}, payload)) return Gone(0);
  bool got = false;
  auto take = [&](Message& m) -> Status {
    if (!OfRound(m, "total", round)) return Ok();
    ASSIGN_OR_RETURN(std::vector<std::span<float>> sum, Unpack(m, {records.size(), total.size(), 1}, records, received[0]));
    std::copy(sum[0].begin(), sum[0].end(), total.begin());
    got = true;
    return Ok();
  };
  return Await([&] { return got; }, take, std::nullopt);
}

// The others have read what was there before: rank 0 has all sums of this round, or this rank has the total of the last.
Result<std::vector<zmq::message_t>> ZmqCollective::Sockets::Pack(const Layout& layout, std::span<const std::byte> records, std::span<const std::span<float>> buffers) {
  std::vector<zmq::message_t> frames;
  if (!own) {
    frames.emplace_back(records.data(), records.size());
    for (std::span<float> buffer : buffers) frames.emplace_back(buffer.data(), buffer.size_bytes());
    return frames;
  }
  ASSIGN_OR_RETURN(std::byte* at, own->Cover(layout.OffsetOf(layout.buffers)));
  std::copy(records.begin(), records.end(), at);
  for (size_t i = 0; i < buffers.size(); ++i) std::memcpy(at + layout.OffsetOf(i), buffers[i].data(), buffers[i].size_bytes());
  sent += static_cast<int64_t>(layout.bytes());
  return frames;
}

Result<std::vector<std::span<float>>> ZmqCollective::Sockets::Unpack(const Message& m, const Layout& layout, std::span<std::byte> records, std::vector<std::vector<float>>& copies) {
  if (m.header.value("sizes", Json()) != layout.ToJson()) return OtherSizes(m.rank);
  std::vector<std::span<float>> buffers;
  if (own) {
    ASSIGN_OR_RETURN(std::byte* at, memories.at(m.rank).Cover(layout.OffsetOf(layout.buffers)));
    std::copy(at, at + layout.records, records.begin());
    for (size_t i = 0; i < layout.buffers; ++i) buffers.emplace_back(reinterpret_cast<float*>(at + layout.OffsetOf(i)), layout.length);
    return buffers;
  }
  if (m.payload.size() != layout.buffers + 1 || m.payload[0].size() != layout.records) return OtherSizes(m.rank);
  CopyBytes(records.data(), m.payload[0]);
  // A frame need not lie where floats may.
  copies.resize(layout.buffers);
  for (size_t i = 0; i < layout.buffers; ++i) {
    if (m.payload[i + 1].size() != layout.length * sizeof(float)) return OtherSizes(m.rank);
    copies[i].resize(layout.length);
    CopyBytes(std::as_writable_bytes(std::span(copies[i])).data(), m.payload[i + 1]);
    buffers.emplace_back(copies[i]);
  }
  return buffers;
}

ZmqCollective::ZmqCollective(std::unique_ptr<Sockets> sockets) : sockets_(std::move(sockets)) {}
ZmqCollective::~ZmqCollective() = default;

Result<std::unique_ptr<ZmqCollective>> ZmqCollective::Open(GangOptions options) {
  CHECK(options.ranks >= 1 && options.rank >= 0 && options.rank < options.ranks);
  std::string host = options.host;
  try {
    auto sockets = std::make_unique<Sockets>(std::move(options));
    if (sockets->root()) sockets->Listen();
    auto memory = sockets->options.share_memory ? SharedMemory::Create() : Result<SharedMemory>(Error{});
    if (memory.ok()) sockets->own = *std::move(memory);
    return std::unique_ptr<ZmqCollective>(new ZmqCollective(std::move(sockets)));
  } catch (const zmq::error_t& e) {
    return Error{SystemError("", e.num()).code, "cannot listen for a gang on host '" + host + "': " + e.what()};
  }
}

std::string ZmqCollective::endpoint() const { return sockets_->endpoint; }
int ZmqCollective::rank() const { return sockets_->options.rank; }
int ZmqCollective::ranks() const { return sockets_->options.ranks; }
std::pair<int, int> ZmqCollective::Owned(int shards) const { return sockets_->Owned(shards); }
int64_t ZmqCollective::bytes_sent() const { return sockets_->sent; }

Result<bool> ZmqCollective::Join(const std::vector<std::string>& endpoints, std::string_view state) {
  try {
    return sockets_->Join(endpoints, state);
  } catch (const zmq::error_t& e) {
    return Error{ErrorCode::kUnreachable, "meeting the gang at '" + (endpoints.empty() ? "" : endpoints[0]) + "': " + e.what()};
  }
}

Status ZmqCollective::SumShards(std::span<const std::span<float>> shards, int total_shards, std::span<float> total, std::span<std::byte> records) {
  if (sockets_->broken) return *sockets_->broken;
  Status summed;
  try {
    summed = sockets_->Sum(shards, total_shards, total, records);
  } catch (const zmq::error_t& e) {
    summed = Error{ErrorCode::kUnreachable, std::string("exchange with the gang: ") + e.what()};
  }
  if (!summed.ok()) sockets_->broken = summed.error();
  return summed;
}

}  // namespace pare::collective
