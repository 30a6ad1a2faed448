// Training adapters on a frozen base against PEFT (reference/make_low_rank.py): losses, adapters after every step, the merged model.
#include "methods/lora.h"

#include <gtest/gtest.h>

#include "model/architectures.h"
#include "tests/worker/engine/reference_values.h"
#include "worker/engine/network.h"
#include "worker/engine/optimizer.h"

namespace pare::engine {
namespace {

// "base_model.model.fc1.lora_A.default.weight" → "fc1.lora_a.weight"
std::string OurName(std::string name) {
  name = name.substr(std::string("base_model.model.").size());
  std::string node = name.substr(0, name.find('.'));
  return node + (name.find("lora_A") != name.npos ? ".lora_a.weight" : ".lora_b.weight");
}

class PeftTest : public testing::TestWithParam<size_t> {};

TEST_P(PeftTest, TrainsAndMergesAsPeftDoes) {
  Json reference = ReadReference("low_rank.json").at("lora").at(GetParam());
  methods::Model base;
  base.graph = *model::BuildArchitecture("mlp", Json{{"hidden", {9, 7}}}, {12}, 3);
  auto dense = *model::Analyze(base.graph);
  int ordinal = 0;
  for (const auto& spec : dense.tensors) base.tensors.emplace(spec.name, Fill(spec.shape, ordinal++));
  auto adapted = *methods::AddAdapters(base, {{"fc1.weight", "fc3.weight"}, reference["rank"], reference["alpha"]}, 1);
  auto take = [](const Json& values, const model::Shape& shape) {
    auto floats = values.get<std::vector<float>>();
    return model::Tensor::Of<float>(model::DType::kF32, shape, floats);
  };
  for (const auto& [name, values] : reference["start"].items()) {
    auto& tensor = adapted.model.tensors.at(OurName(name));
    tensor = take(values, tensor.shape());
  }
  NetworkOptions options;
  options.frozen = methods::FrozenUnderAdapters(adapted.model.graph, *model::Analyze(adapted.model.graph));
  auto network = *Network::Create(adapted.model.graph, adapted.model.tensors, options);
  OptimizerOptions rule;
  rule.kind = reference["optimizer"];
  rule.momentum = 0.9;
  rule.weight_decay = rule.kind == "sgd" ? 0.0 : 0.01;
  auto optimizer = Optimizer::Create(rule, static_cast<int64_t>(network->parameters().size()));
  auto samples = reference["samples"].get<std::vector<float>>();
  std::vector<int64_t> labels = {0, 1, 2, 0, 1, 2, 0, 1};
  for (const Json& loss : reference["losses"]) {
    double expected = loss;
    EXPECT_NEAR(network->TrainBatch(samples, labels, {}, {}).loss, expected, 1e-6 * expected);
    optimizer->Step(network->parameters(), network->gradients(), {}, rule.kind == "sgd" ? 0.2 : 0.02, 1.0);
  }
  model::TensorMap weights = network->Weights();
  for (const auto& [name, values] : reference["end"].items()) {
    auto expected = values.get<std::vector<float>>();
    auto found = weights.at(OurName(name)).values<float>();
    for (size_t i = 0; i < expected.size(); ++i) ASSERT_NEAR(found[i], expected[i], 2e-6) << name << " " << i;
  }
  for (const auto& [name, tensor] : base.tensors) EXPECT_EQ(weights.at(name).digest(), tensor.digest()) << name << " is frozen";
  adapted.model.tensors = weights;
  auto merged = *methods::MergeAdapters(adapted.model);
  for (const auto& [name, values] : reference["merged"].items()) {
    auto expected = values.get<std::vector<float>>();
    auto found = merged.tensors.at(name).values<float>();
    for (size_t i = 0; i < expected.size(); ++i) ASSERT_NEAR(found[i], expected[i], 2e-6) << name << " " << i;
  }
  auto plain = *Network::Create(merged.graph, merged.tensors, {});
  std::vector<float> logits(24), unmerged(24);
  plain->EvaluateBatch(samples, labels, logits);
  network->EvaluateBatch(samples, labels, unmerged);
  for (size_t i = 0; i < logits.size(); ++i) {
    // Weights agree within 2e-6, a logit sums two dozen of them.
    EXPECT_NEAR(logits[i], reference["merged_logits"][i].get<float>(), 2e-5);
    EXPECT_NEAR(logits[i], unmerged[i], 5e-6);
  }
}
INSTANTIATE_TEST_SUITE_P(Optimizers, PeftTest, testing::Values(0, 1));

}  // namespace
}  // namespace pare::engine
