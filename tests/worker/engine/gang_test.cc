// Networks of a gang: the bits of one network alone, for any number of ranks, over memory and over sockets.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <set>
#include <thread>

#include "model/architectures.h"
#include "model/initialize.h"
#include "worker/collective/zmq_collective.h"
#include "worker/engine/network.h"
#include "worker/engine/optimizer.h"

namespace pare::engine {
namespace {

using Ranks = std::vector<std::shared_ptr<collective::Collective>>;

Ranks OverMemory(int ranks) {
  Ranks all;
  for (auto& rank : collective::NewMemoryCollectives(ranks)) all.push_back(std::move(rank));
  return all;
}

Ranks OverSockets(int ranks) {
  std::vector<std::shared_ptr<collective::ZmqCollective>> open;
  std::vector<std::string> endpoints;
  for (int rank = 0; rank < ranks; ++rank) {
    open.push_back(*collective::ZmqCollective::Open({.gang = "networks", .rank = rank, .ranks = ranks}));
    endpoints.push_back(open.back()->endpoint());
  }
  std::vector<std::thread> threads;
  for (auto& rank : open) threads.emplace_back([&] { EXPECT_TRUE(rank->Join(endpoints, "").ok()); });
  for (std::thread& t : threads) t.join();
  return {open.begin(), open.end()};
}

struct Case {
  std::string name;
  model::Graph graph;
  model::GraphInfo info = *model::Analyze(graph);
};

std::vector<Case> Cases() {
  model::Graph normed = *model::BuildArchitecture("resnet8", Json{{"width", 4}}, {1, 8, 8}, 3);  // with batch norms
  normed.nodes.back().inputs = {"dropout"};
  normed.nodes.insert(normed.nodes.end() - 1, model::Node{"dropout", model::OpType::kDropout, {"flatten"}, {.probability = 0.3}});
  return {{"mlp", *model::BuildArchitecture("mlp", Json{{"hidden", {9, 7}}, {"dropout", 0.2}}, {12}, 3)},
          {"lenet5", *model::BuildArchitecture("lenet5", Json::object(), {1, 28, 28}, 10)},
          {"resnet8", std::move(normed)}};
}

std::unique_ptr<Network> Make(const Case& c, std::shared_ptr<collective::Collective> gang, int shards) {
  NetworkOptions options;
  options.shards = shards;
  options.seed = 7;
  options.collective = std::move(gang);
  return *Network::Create(c.graph, model::InitializeWeights(c.graph, c.info, 3), options);
}

struct Batch {
  std::vector<float> samples;
  std::vector<int64_t> labels;
};

Batch BatchOf(const Case& c, int64_t number) {
  size_t n = number % 4 == 3 ? 3 : 30;  // the small one leaves shards empty
  Batch batch{std::vector<float>(n * static_cast<size_t>(model::ElementCount(c.info.shapes[0]))), std::vector<int64_t>(n)};
  for (size_t i = 0; i < batch.samples.size(); ++i) batch.samples[i] = static_cast<float>(std::sin(0.37 * static_cast<double>(i) + static_cast<double>(number)));
  for (size_t i = 0; i < n; ++i) batch.labels[i] = static_cast<int64_t>(i) % 3;
  return batch;
}

template <typename T>
std::string BytesOf(std::span<const T> values) {
  return {reinterpret_cast<const char*>(values.data()), values.size_bytes()};
}

// Everything that five batches say and leave behind.
std::string TrainedBits(const Case& c, std::shared_ptr<collective::Collective> gang, int shards, std::span<const uint8_t> mask) {
  auto network = Make(c, std::move(gang), shards);
  network->SetExchanged(mask);
  auto optimizer = Optimizer::Create({.kind = "adam"}, static_cast<int64_t>(network->parameters().size()));
  std::string bits;
  for (int64_t b = 0; b < 5; ++b) {
    Batch batch = BatchOf(c, b);
    BatchResult result = network->TrainBatch(batch.samples, batch.labels, {1, b}, {});
    EXPECT_TRUE(result.exchanged.ok()) << (result.exchanged.ok() ? "" : result.exchanged.error().message);
    bits += BytesOf(std::span<const double>(&result.loss, 1)) + std::to_string(result.correct) + " " + std::to_string(result.labelled);
    if (mask.empty()) bits += BytesOf(std::span<const float>(network->gradients()));
    optimizer->Step(network->parameters(), network->gradients(), mask, 0.01, 1.0);
  }
  for (const auto& [name, tensor] : network->Weights()) bits += name + tensor.digest().hex();
  Batch batch = BatchOf(c, 9);
  double loss = network->EvaluateBatch(batch.samples, batch.labels, {}).loss;
  return bits + BytesOf(std::span<const double>(&loss, 1));
}

void ExpectBitsOfOneAlone(const Case& c, const Ranks& ranks, int shards, std::span<const uint8_t> mask = {}) {
  std::string alone = TrainedBits(c, nullptr, shards, mask);
  std::vector<std::string> bits(ranks.size());
  std::vector<std::thread> threads;
  for (size_t r = 0; r < ranks.size(); ++r) {
    threads.emplace_back([&, r] { bits[r] = TrainedBits(c, ranks[r], shards, mask); });
  }
  for (std::thread& t : threads) t.join();
  for (const std::string& b : bits) EXPECT_TRUE(b == alone) << c.name << ", " << shards << " shards, " << ranks.size() << " ranks";
}

TEST(NetworkGangTest, EveryRankHasTheBitsOfOneNetworkAlone) {
  for (const Case& c : Cases()) {
    for (int ranks : {2, 3}) {
      ExpectBitsOfOneAlone(c, OverMemory(ranks), 4);
      ExpectBitsOfOneAlone(c, OverSockets(ranks), 4);
    }
    ExpectBitsOfOneAlone(c, OverSockets(2), 5);
  }
}

TEST(NetworkGangTest, RanksWithoutAShardHaveThemToo) {
  Case c = Cases()[0];
  ExpectBitsOfOneAlone(c, OverSockets(3), 1);
  ExpectBitsOfOneAlone(c, OverSockets(3), 2);
  ExpectBitsOfOneAlone(c, OverMemory(3), 2);
}

// Zeros for all but every `one_in`-th parameter.
std::vector<uint8_t> Sparse(size_t size, size_t one_in) {
  std::vector<uint8_t> mask(size);
  for (size_t i = 0; i < size; i += one_in) mask[i] = 1;
  return mask;
}

TEST(NetworkGangTest, AMaskChangesNothingThatTheOptimizerKeeps) {
  for (const Case& c : Cases()) {
    std::vector<uint8_t> mask = Sparse(Make(c, nullptr, 1)->parameters().size(), 7);
    ExpectBitsOfOneAlone(c, OverSockets(2), 3, mask);
    ExpectBitsOfOneAlone(c, OverMemory(3), 4, mask);
  }
}

TEST(NetworkGangTest, OnlySurvivingGradientsAreExchanged) {
  Case c = Cases()[1];
  size_t parameters = Make(c, nullptr, 1)->parameters().size();
  auto sent = [&](std::span<const uint8_t> mask) {
    Ranks ranks = OverSockets(2);
    int64_t before = ranks[0]->bytes_sent() + ranks[1]->bytes_sent();
    std::vector<std::thread> threads;
    for (auto& rank : ranks) threads.emplace_back([&] { TrainedBits(c, rank, 2, mask); });
    for (std::thread& t : threads) t.join();
    return static_cast<double>(ranks[0]->bytes_sent() + ranks[1]->bytes_sent() - before);
  };
  double dense = sent({});
  EXPECT_NEAR(dense, 5 * 2 * 4 * static_cast<double>(parameters), 5'000) << "a sum to rank 0 and the total back, in each of five batches";
  EXPECT_NEAR(dense / sent(Sparse(parameters, 10)), 10, 0.3);
}

TEST(NetworkGangTest, WithoutARankABatchHasNotHappened) {
  for (const Case& c : Cases()) {
    Ranks ranks = OverSockets(2);
    auto network = Make(c, ranks[0], 4);
    auto before = network->Weights();
    ranks[1].reset();
    Batch batch = BatchOf(c, 0);
    BatchResult result = network->TrainBatch(batch.samples, batch.labels, {0, 0}, {});
    ASSERT_FALSE(result.exchanged.ok());
    EXPECT_EQ(result.exchanged.error().code, ErrorCode::kUnreachable);
    for (const auto& [name, tensor] : network->Weights()) EXPECT_EQ(tensor.digest(), before.at(name).digest()) << name;
  }
}

TEST(NetworkGangTest, GradientsInEvaluationModeNeedNobody) {
  Case c = Cases()[2];
  Ranks ranks = OverMemory(2);  // of which one never calls
  LossOptions loss;
  loss.evaluation_mode = true;
  Batch batch = BatchOf(c, 0);
  auto alone = Make(c, nullptr, 4), one = Make(c, ranks[0], 4);
  EXPECT_EQ(one->TrainBatch(batch.samples, batch.labels, {}, loss).loss, alone->TrainBatch(batch.samples, batch.labels, {}, loss).loss);
  EXPECT_EQ(BytesOf(std::span<const float>(one->gradients())), BytesOf(std::span<const float>(alone->gradients())));
}

}  // namespace
}  // namespace pare::engine
