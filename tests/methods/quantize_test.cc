// Quantization and clustering against their definitions, written out here.
#include "methods/quantize.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>

#include "common/random.h"
#include "methods/calibrate.h"
#include "methods/cluster.h"
#include "methods/pruning.h"
#include "model/architectures.h"
#include "model/initialize.h"

namespace pare::methods {
namespace {

using model::Activations;
using model::DType;
using model::Encoding;
using model::Tensor;

Model Mlp() {
  Model m;
  m.graph = *model::BuildArchitecture("mlp", {{"hidden", {20, 14}}}, {1, 6, 6}, 3);
  m.tensors = model::InitializeWeights(m.graph, *model::Analyze(m.graph), 5);
  return m;
}

const std::vector<std::string> kAll = {"fc1.weight", "fc2.weight", "fc3.weight"};

TEST(QuantizeRowsTest, EveryWeightIsTheNearestCode) {
  Tensor weight = Mlp().tensors.at("fc1.weight");
  auto codes = *QuantizeRows(weight);
  auto w = weight.values<float>();
  auto q = codes.codes.values<int8_t>();
  auto scales = codes.scales.values<float>();
  for (size_t i = 0; i < w.size(); ++i) {
    double scale = scales[i / 36], best = 1e9;
    for (int code = -128; code <= 127; ++code) best = std::min(best, std::abs(w[i] - code * scale));
    EXPECT_LE(std::abs(w[i] - q[i] * scale), best + 1e-7);
  }
  for (size_t r = 0; r < scales.size(); ++r) {
    float largest = 0;
    for (float v : w.subspan(r * 36, 36)) largest = std::max(largest, std::abs(v));
    EXPECT_EQ(scales[r], largest / 127.5f);
  }
}

TEST(QuantizeRowsTest, RowsOfZerosAndWeightsThatAreNotFinite) {
  Tensor zeros(DType::kF32, {2, 4});
  auto codes = *QuantizeRows(zeros);
  for (int8_t q : codes.codes.values<int8_t>()) EXPECT_EQ(q, 0);
  for (float s : codes.scales.values<float>()) EXPECT_GT(s, 0.0f);
  Tensor bad(DType::kF32, {2, 4});
  bad.mutable_values<float>()[3] = std::nanf("");
  EXPECT_EQ(QuantizeRows(bad).error().code, ErrorCode::kDiverged);
}

TEST(QuantizeInt8Test, KeepsZerosAndMasksAndNamesWhatItLeavesAlone) {
  Model m = Mlp();
  std::vector<uint8_t> keep(20 * 36);
  for (size_t i = 0; i < keep.size(); ++i) keep[i] = i % 3 == 0;
  m.masks.emplace("fc1.weight", model::Mask({20, 36}, keep));
  ApplyMasks(m.masks, m.tensors);
  QuantizeOptions options{kAll, Activations::kDynamic, {}};
  auto layers = *Diagnose(m, options);
  ASSERT_EQ(layers.size(), 3u);
  EXPECT_TRUE(layers[0].quantized);
  EXPECT_EQ(layers[0].bytes_before, 4 * 720);
  EXPECT_EQ(layers[0].bytes_after, 720 + 4 * 20);
  EXPECT_FALSE(layers[2].quantized);
  EXPECT_NE(layers[2].reason.find("too small: 3 rows of 14 weights"), std::string::npos) << layers[2].reason;
  auto q = QuantizeInt8(m, options);
  ASSERT_TRUE(q.ok()) << q.error().message;
  EXPECT_EQ(q->graph.Find("fc1")->attributes.encoding, Encoding::kInt8);
  EXPECT_EQ(q->graph.Find("fc3")->attributes.encoding, Encoding::kDense);
  EXPECT_TRUE(model::CheckWeights(*model::Analyze(q->graph), q->tensors).ok());
  EXPECT_EQ(q->masks, m.masks);
  auto codes = q->tensors.at("fc1.weight").values<int8_t>();
  for (size_t i = 0; i < keep.size(); ++i) {
    if (!keep[i]) {
      EXPECT_EQ(codes[i], 0);
    }
  }
  // A second time changes nothing.
  auto again = *QuantizeInt8(*q, options);
  EXPECT_EQ(again.graph, q->graph);
  EXPECT_EQ(again.tensors.at("fc1.weight").digest(), q->tensors.at("fc1.weight").digest());
}

TEST(QuantizeInt8Test, ALayerWithOutliersIsLeftAloneAndTheReasonSaysHowLarge) {
  Model m = Mlp();
  auto values = m.tensors.at("fc1.weight").mutable_values<float>();
  for (size_t r = 0; r < 20; ++r) values[r * 36] = 30.0f;
  auto layers = *Diagnose(m, {kAll, Activations::kDynamic, {}});
  EXPECT_FALSE(layers[0].quantized);
  EXPECT_NE(layers[0].reason.find("too sensitive: with outliers of 6.0 standard deviations"), std::string::npos) << layers[0].reason;
  EXPECT_TRUE(layers[1].quantized);
  EXPECT_EQ(QuantizeInt8(m, {kAll, Activations::kDynamic, {}})->graph.Find("fc1")->attributes.encoding, Encoding::kDense);
}

TEST(QuantizeInt8Test, StaticNeedsARangeForEveryLinear) {
  QuantizeOptions options{kAll, Activations::kStatic, {{"fc1", {0.5f, 3}}}};
  auto missing = QuantizeInt8(Mlp(), options);
  ASSERT_FALSE(missing.ok());
  EXPECT_NE(missing.error().message.find("layer 'fc2' has no calibrated input range"), std::string::npos) << missing.error().message;
  options.inputs["fc2"] = {0.25f, 0};
  auto q = QuantizeInt8(Mlp(), options);
  ASSERT_TRUE(q.ok()) << q.error().message;
  EXPECT_EQ(q->tensors.at("fc1.input_zero_point").values<int32_t>()[0], 3);
  EXPECT_TRUE(model::CheckWeights(*model::Analyze(q->graph), q->tensors).ok());
}

TEST(FakeInt8Test, TrainedLayersBecomeTheSameInt8) {
  QuantizeOptions options{kAll, Activations::kDynamic, {}};
  Model fake = *FakeInt8(Mlp(), options);
  EXPECT_EQ(fake.graph.Find("fc1")->attributes.encoding, Encoding::kInt8Fake);
  EXPECT_EQ(fake.tensors.at("fc1.weight").digest(), Mlp().tensors.at("fc1.weight").digest());
  Model direct = *QuantizeInt8(Mlp(), options), trained = *QuantizeInt8(fake, options);
  EXPECT_EQ(direct.graph, trained.graph);
  for (const auto& [name, tensor] : direct.tensors) EXPECT_EQ(trained.tensors.at(name).digest(), tensor.digest()) << name;
  // From int8 the weights are what the codes say.
  Model back = *FakeInt8(direct, options);
  EXPECT_EQ(back.tensors.at("fc1.weight").digest(), model::DecodeWeight(*direct.graph.Find("fc1"), direct.tensors)->digest());
  EXPECT_TRUE(model::CheckWeights(*model::Analyze(back.graph), back.tensors).ok());
}

TEST(OutlineQuantizeTest, SaysWhatPlanningMayExpectAndRefusesWhatMakesNoSense) {
  Model m = Mlp();
  Outline outline = OutlineOf(m.graph, *model::Analyze(m.graph));
  Json params = {{"scheme", "int8_dynamic"}, {"tensors", {"fc1.weight", "fc3.weight"}}};
  Outline int8 = *OutlineQuantize(outline, params);
  EXPECT_EQ(int8.layers.at("fc1.weight").encoding, Encoding::kInt8);
  EXPECT_EQ(int8.layers.at("fc3.weight").encoding, Encoding::kDense);  // too small
  EXPECT_FALSE(CheckTrainable(int8, "retrain").ok());
  params["scheme"] = "qat";
  EXPECT_TRUE(OutlineQuantize(int8, params).ok());
  params.update({{"scheme", "cluster"}, {"bits", 4}});
  EXPECT_NE(OutlineQuantize(int8, params).error().message.find("those of fc1 are int8 already"), std::string::npos);
  Outline clustered = *OutlineQuantize(outline, params);
  EXPECT_TRUE(CheckTrainable(clustered, "retrain").ok());
  params["scheme"] = "int8_dynamic";
  EXPECT_NE(OutlineQuantize(clustered, params).error().message.find("codebook"), std::string::npos);
  outline.adapters = "lora";
  EXPECT_NE(OutlineQuantize(outline, params).error().message.find("merge: true"), std::string::npos);
}

TEST(NodesOfTest, ATensorStandsForWhatReplacedItsNode) {
  Model m = Mlp();
  model::Graph g = m.graph;
  for (auto& node : g.nodes) {
    if (node.name == "fc1") node.name = "fc1.u";
  }
  EXPECT_EQ(NodesOf(g, {"fc1.weight", "fc3.weight", "gone.weight"}), (std::vector<std::string>{"fc1.u", "fc3"}));
  EXPECT_EQ(NodesOf(m.graph, {"fc2.weight"}), std::vector<std::string>{"fc2"});
}

TEST(CalibrateTest, RangesOfTheThreeCalibrators) {
  // Values 0 … 1 uniformly, and one outlier.
  std::vector<float> values;
  for (int i = 0; i < 20'000; ++i) values.push_back(static_cast<float>(i) / 20'000.0f);
  values.push_back(4.0f);
  InputRange range;
  ASSERT_TRUE(range.Add(values).ok());
  InputHistogram histogram(range);
  histogram.Add(values);
  EXPECT_EQ(std::accumulate(histogram.counts().begin(), histogram.counts().end(), int64_t{0}), 20'001);
  auto high = [&](const CalibrationOptions& o) {
    model::InputCodes codes = ChooseInputCodes(o, histogram);
    EXPECT_EQ(codes.zero_point, 0);
    return codes.scale * 127;
  };
  EXPECT_NEAR(high({Calibrator::kMinMax, 99.99, 512}), 4.0, 1e-5);
  EXPECT_NEAR(high({Calibrator::kPercentile, 99.9, 512}), 0.999, 0.005);
  EXPECT_NEAR(high({Calibrator::kPercentile, 100, 512}), 4.0, 0.005);
  // By brute force on the values themselves.
  auto error = [&](double h) {
    double sum = 0, scale = h / 127;
    for (float v : values) sum += std::pow(v - std::clamp(std::nearbyint(v / scale), 0.0, 127.0) * scale, 2);
    return sum;
  };
  double found = error(high({Calibrator::kMse, 99.99, 512})), best = 1e9;
  for (int step = 0; step <= 80; ++step) best = std::min(best, error(4.0 * (1 - step / 100.0)));
  EXPECT_LE(found, best * 1.01);
  EXPECT_LT(found, error(4.0));
}

TEST(CalibrateTest, RefusesWhatIsNotFiniteAndTooFewSamples) {
  InputRange range;
  EXPECT_EQ(range.Add(std::vector<float>{1.0f, INFINITY}).error().code, ErrorCode::kDiverged);
  Json params = {{"calibrator", "mse"}, {"calibration_samples", 2}};
  EXPECT_NE(CalibrationOptionsFromJson(params).error().message.find("too few"), std::string::npos);
  params["calibrator"] = "median";
  EXPECT_NE(CalibrationOptionsFromJson(params).error().message.find("min_max, percentile, mse"), std::string::npos);
  InputHistogram nothing{InputRange()};
  nothing.Add(std::vector<float>{0.0f, 0.0f});
  EXPECT_EQ(nothing.counts()[0], 2);
}

// Within-cluster squared error of the best split of sorted values into k runs: dynamic programming over all of them.
double BestError(std::vector<double> v, size_t k) {
  std::sort(v.begin(), v.end());
  size_t n = v.size();
  auto cost = [&](size_t a, size_t b) {
    double mean = 0, sum = 0;
    for (size_t i = a; i < b; ++i) mean += v[i] / static_cast<double>(b - a);
    for (size_t i = a; i < b; ++i) sum += (v[i] - mean) * (v[i] - mean);
    return sum;
  };
  std::vector<double> best(n + 1, 1e18);
  best[0] = 0;
  for (size_t c = 0; c < k; ++c) {
    std::vector<double> next(n + 1, 1e18);
    for (size_t b = 1; b <= n; ++b) {
      for (size_t a = 0; a < b; ++a) next[b] = std::min(next[b], best[a] + cost(a, b));
    }
    best = next;
  }
  return best[n];
}

TEST(ClusterTest, FindsTheBestClustersThereAre) {
  RandomStream stream(3, RandomPurpose::kTest);
  std::vector<float> weights;
  for (int i = 0; i < 60; ++i) weights.push_back(static_cast<float>(stream.Normal()));
  for (int64_t k : {1, 3, 7}) {
    std::vector<float> values = ClusterValues(weights, k);
    EXPECT_LE(values.size(), static_cast<size_t>(k));
    EXPECT_TRUE(std::is_sorted(values.begin(), values.end()));
    double error = 0;
    for (float w : weights) {
      double nearest = 1e9;
      for (float v : values) nearest = std::min(nearest, std::abs(static_cast<double>(w) - v));
      error += nearest * nearest;
    }
    EXPECT_LE(error, (1 + 1e-6) * BestError({weights.begin(), weights.end()}, static_cast<size_t>(k)) + 1e-9) << k;
  }
}

TEST(ClusterTest, FewDistinctWeightsAreKeptToTheBit) {
  std::vector<float> weights;
  for (int i = 0; i < 40; ++i) weights.push_back(i % 2 ? 0.3f : -0.7f);
  EXPECT_EQ(ClusterValues(weights, 15), (std::vector<float>{-0.7f, 0.3f}));
}

TEST(ClusterTest, ZerosStayZeroAndSmallLayersAreLeftAlone) {
  Model m = Mlp();
  std::vector<uint8_t> keep(20 * 36);
  for (size_t i = 0; i < keep.size(); ++i) keep[i] = i % 2 == 0;
  m.masks.emplace("fc1.weight", model::Mask({20, 36}, keep));
  ApplyMasks(m.masks, m.tensors);
  auto clustered = ClusterWeights(m, kAll, 4);
  ASSERT_TRUE(clustered.ok()) << clustered.error().message;
  ASSERT_EQ(clustered->layers.size(), 3u);
  EXPECT_TRUE(clustered->layers[0].clustered);
  EXPECT_LE(clustered->layers[0].values, 15);
  EXPECT_LT(clustered->layers[0].error, 0.1);
  EXPECT_FALSE(clustered->layers[2].clustered);
  EXPECT_NE(clustered->layers[2].reason.find("too small"), std::string::npos);
  const Model& c = clustered->model;
  EXPECT_TRUE(model::CheckWeights(*model::Analyze(c.graph), c.tensors).ok());
  auto codes = c.tensors.at("fc1.weight").values<uint8_t>();
  std::set<int> used;
  for (size_t i = 0; i < keep.size(); ++i) {
    EXPECT_EQ(codes[i] == 0, keep[i] == 0) << i;
    used.insert(codes[i]);
  }
  EXPECT_LE(used.size(), 16u);
  EXPECT_EQ(c.tensors.at("fc1.weight_values").shape(), model::Shape{16});
  EXPECT_FALSE(ClusterWeights(m, kAll, 9).ok());
}

}  // namespace
}  // namespace pare::methods
