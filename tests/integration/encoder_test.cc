// A small encoder on token ids, from files to an export, by every method: whole processes, as a user runs them.
#include <gmock/gmock.h>

#include <filesystem>
#include <set>

#include "model/architectures.h"
#include "model/safetensors.h"
#include "tests/cli/fixture.h"

namespace pare::cli {
namespace {

constexpr const char* kModel = "{architecture: encoder, vocabulary: 2000, length: 32, types: 2, layers: 1, hidden: 32, heads: 4, intermediate: 64, separator: 2}";
constexpr const char* kData = "data: {train: tokens/train.npy, train_labels: tokens/train_labels.npy, test: tokens/test.npy, test_labels: tokens/test_labels.npy, validation: 300}\n";
constexpr const char* kEveryMethod = R"(train: {epochs: 6, batch_size: 32, optimizer: adamw, learning_rate: 0.002}
goal: {max_accuracy_drop: 100.0, minimize: bytes}
variants:
  adapters: [{lora: {rank: 2, epochs: 1}}, {evaluate: {}}, {merge: {}}]
  clustered: [{quantize: {scheme: cluster, bits: 4}}]
  factored: [{low_rank: {budget: 0.6, whitened: true, calibration_samples: 100}}, {retrain: {epochs: 1}}]
  fewer-heads: [{prune: {granularity: head, scope: layer, sparsity: 0.5, targets: "*.attention.self.*"}}, {remove: {}}, {retrain: {epochs: 1}}]
  four-bits: [{qlora: {rank: 2, epochs: 1, merge: true}}]
  gradual: [{prune: {schedule: cubic, final_sparsity: 0.8, epochs: 1, update_frequency: 0.25, targets: [embedding, linear]}}]
  int8: [{quantize: {scheme: int8_dynamic}}]
  int8-static: [{quantize: {scheme: int8_static, calibration_samples: 100}}]
  narrow: [{sensitivity: {samples: 100}}, {prune: {granularity: channel, scope: layer, sparsity: 0.5, criterion: taylor, targets: "*.intermediate.dense"}}, {remove: {}}, {cast: {}}]
  rounded: [{quantize: {scheme: qat, epochs: 1}}]
  sequel: [{self_distill: {generations: 1, epochs: 1, control: false}}]
  shorter: [{prune: {granularity: layer, sparsity: 0.5, targets: "encoder.*"}}, {remove: {}}, {retrain: {epochs: 1}}]
  taught: [{student: {model: {architecture: encoder, vocabulary: 2000, length: 32, layers: 1, hidden: 16, heads: 2, intermediate: 32, separator: 2}}}, {distill: {teacher: baseline, epochs: 8}}]
promote: {as: every-method}
)";

class EncoderRunTest : public CliTest {
 protected:
  void MakeTokens(int train, int test) {
    Outcome made = Shell("python3 " PARE_SOURCE_DIR "/recipes/make_tokens.py tokens --train " + std::to_string(train) + " --test " + std::to_string(test));
    ASSERT_EQ(made.code, 0) << made.err;
  }
  static std::string Head(const std::string& name, const std::string& model = kModel) { return "version: 1\nname: " + name + "\nseed: 1\nmodel: " + model + "\n" + kData; }
  Json CandidateOf(const std::string& store, const std::string& step) const {
    Json report = Ask({"report", "--json"}, store);
    if (step == "baseline") return report["baseline"];
    for (const Json& line : report["candidates"]) {
      if (line["step"] == step) return line;
    }
    ADD_FAILURE() << "no candidate " << step;
    return Json::object();
  }
};

TEST_F(EncoderRunTest, EveryMethodRunsAndGivesTheSameBitsOnAnyWorkers) {
  MakeTokens(2400, 200);
  Write("every.yaml", Head("every") + kEveryMethod);
  Outcome one = Pare({"run", "every.yaml", "--workers", "1"}, Path("one")), two = Pare({"run", "every.yaml", "--workers", "2", "--threads", "2"}, Path("two"));
  ASSERT_EQ(one.code, 0) << one.err << one.out;
  ASSERT_EQ(two.code, 0) << two.err << two.out;
  EXPECT_EQ(Pare({"digest"}, Path("one")).out, Pare({"digest"}, Path("two")).out);
  Json report = Ask({"report", "--json"}, Path("one"));
  EXPECT_GT(report["baseline"]["validation_accuracy"], 75.0);
  std::set<std::string> variants;
  for (const Json& line : report["candidates"]) {
    variants.insert(line["variant"]);
    EXPECT_GT(line["validation_accuracy"], 60.0) << line["step"];
  }
  EXPECT_EQ(variants.size(), 13u) << "every variant has a candidate";
}

// The shipped recipe with one layer instead of two.
TEST_F(EncoderRunTest, BertPerLayerIsPrunedRepairedAndExportedWithoutLeftovers) {
  MakeTokens(6000, 500);
  std::string recipe = Read(PARE_SOURCE_DIR "/recipes/bert-per-layer.yaml");
  size_t layers = recipe.find("layers: 2");
  ASSERT_NE(layers, std::string::npos);
  Write("bert.yaml", recipe.replace(layers, 9, "layers: 1"));
  Outcome run = Pare({"run", "bert.yaml", "--workers", "1"}, Path("store"));
  ASSERT_EQ(run.code, 0) << run.err << run.out;
  double dense = CandidateOf(Path("store"), "baseline")["validation_accuracy"], repaired = CandidateOf(Path("store"), "per-layer/02-retrain")["validation_accuracy"];
  double raw = CandidateOf(Path("store"), "per-layer/01-prune")["validation_accuracy"];
  EXPECT_GT(dense, 85.0) << "four classes: 25 is chance, 50 what the words alone tell, 96 the best there is";
  EXPECT_LT(raw, dense - 20.0);
  EXPECT_GT(repaired, dense - 5.0);
  EXPECT_NEAR(CandidateOf(Path("store"), "per-layer/02-retrain")["sparsity"].get<double>(), 0.9, 1e-3);
  ASSERT_EQ(Pare({"export", "bert-per-layer", "exported"}, Path("store")).code, 0);
  auto tensors = model::ReadSafetensors(Path("exported/model.safetensors"));
  ASSERT_TRUE(tensors.ok()) << tensors.error().message;
  auto graph = model::GraphFromJson(Parsed(Read(Path("exported/graph.json"))));
  ASSERT_TRUE(graph.ok()) << graph.error().message;
  auto info = model::Analyze(*graph);
  EXPECT_EQ(tensors->size(), info->tensors.size()) << "no masks, nothing beside the weights";
  for (const model::TensorSpec& spec : info->tensors) {
    ASSERT_TRUE(tensors->contains(spec.name)) << spec.name;
    if (!spec.prunable || spec.node == "classifier") continue;
    auto values = tensors->at(spec.name).values<float>();
    auto zeros = static_cast<double>(std::count(values.begin(), values.end(), 0.0f));
    EXPECT_NEAR(zeros / static_cast<double>(values.size()), 0.9, 0.01) << spec.name;
  }
}

TEST_F(EncoderRunTest, IdsOutsideTheVocabularyAreRefusedAtPlanning) {
  MakeTokens(600, 100);
  Write("small.yaml", Head("small", "{architecture: encoder, vocabulary: 1000, length: 32}") + "train: {epochs: 1}\n");
  Outcome plan = Pare({"plan", "small.yaml"}, Path("store"));
  EXPECT_EQ(plan.code, 2);
  EXPECT_THAT(plan.err, testing::ContainsRegex("sample [0-9]+, position [0-9]+: 199[0-9] is no token id; the vocabulary is 0 to 999"));
}

// Ids as a table of numbers with a label column.
TEST_F(EncoderRunTest, ReadsIdsFromCsv) {
  std::string text = "label,t0,t1,t2,t3\n";
  for (int i = 0; i < 200; ++i) text += std::to_string(i % 2) + ",1," + std::to_string(3 + i % 2) + "," + std::to_string(5 + i % 7) + ",0\n";
  Write("ids.csv", text);
  Write("csv.yaml", "version: 1\nname: csv\nmodel: {architecture: encoder, vocabulary: 12, length: 8, layers: 1, hidden: 8, intermediate: 8}\n"
                    "data: {train: ids.csv, test: ids.csv, validation: 40}\ntrain: {epochs: 8, batch_size: 16, optimizer: adam, learning_rate: 0.01}\n");
  Outcome run = Pare({"run", "csv.yaml", "--workers", "1"}, Path("store"));
  ASSERT_EQ(run.code, 0) << run.err << run.out;
  EXPECT_EQ(CandidateOf(Path("store"), "baseline")["validation_accuracy"], 100.0);
}

}  // namespace
}  // namespace pare::cli
