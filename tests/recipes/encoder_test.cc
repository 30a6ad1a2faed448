// The architecture encoder in recipes: how its samples are read, what is refused, and that every method plans on it.
#include "tests/recipes/fixture.h"

namespace pare::recipes {
namespace {

using testing::HasSubstr;

constexpr const char* kModel = "{architecture: encoder, vocabulary: 2000, length: 32, hidden: 64, heads: 4, intermediate: 256, separator: 2}";

std::string Text(const std::string& steps, const std::string& model = kModel, const std::string& more_data = "") {
  return "version: 1\nname: test\nmodel: " + model + "\ndata: {train: t.npy, train_labels: tl.npy, test: e.npy, test_labels: el.npy, validation: 1000" + more_data +
         "}\ntrain: {epochs: 4, optimizer: adamw, learning_rate: 0.001}\nvariants: {v: [" + steps + "]}\n";
}

std::vector<std::string> TensorsOf(const std::string& steps, const std::string& kind) {
  for (const PlannedStep& step : FullPlan(Resolved(Text(steps)))) {
    if (step.variant == "v" && step.spec.kind == kind) return step.spec.params.at("tensors");
  }
  return {};
}

TEST(EncoderRecipeTest, IdsAreTakenAsTheyAre) {
  for (const char* dtype : {"F32", "U8"}) {
    data::DataInfo info = TokensInfo();
    info.dtype = dtype;
    ResolvedRecipe recipe = Resolved(Text("{evaluate: {}}"), info);
    EXPECT_EQ(recipe.tree["data"]["normalize"], "none");
    Json spec = StepOf(recipe, "baseline").spec.data.Tree();
    EXPECT_EQ(spec["offset"], Json::array({0.0}));
    // Bytes are read as v / 255 times this.
    EXPECT_EQ(spec["scale"], Json::array({dtype == std::string("U8") ? 255.0 : 1.0}));
  }
}

TEST(EncoderRecipeTest, IdsAreNeitherNormalizedNorAugmented) {
  EXPECT_THAT(ErrorOf(Text("{evaluate: {}}", kModel, ", normalize: standard")), HasSubstr("normalize: the samples are token ids, which are taken as they are; leave it out"));
  EXPECT_EQ(ErrorOf(Text("{evaluate: {}}", kModel, ", normalize: none")), "");
  EXPECT_THAT(ErrorOf(Text("{evaluate: {}}", kModel, ", augment: {flip: true}")), HasSubstr("augment: flips and shifts need images, the samples are token ids"));
}

TEST(EncoderRecipeTest, IdsOutsideTheVocabularyAreAnErrorThatNamesTheSample) {
  data::DataInfo info = TokensInfo();
  info.largest_id = data::IdPlace{2000, "test", 17, 3};
  EXPECT_THAT(ErrorOf(Text("{evaluate: {}}"), info), HasSubstr("model: data: test sample 17, position 3: 2000 is no token id; the vocabulary is 0 to 1999"));
  info.largest_id = data::IdPlace{0.25, "train", 4, 31};
  EXPECT_THAT(ErrorOf(Text("{evaluate: {}}"), info), HasSubstr("train sample 4, position 31: 0.25 is no token id"));
}

TEST(EncoderRecipeTest, MessagesNameTheFieldAndItsPlace) {
  EXPECT_THAT(ErrorOf(Text("{evaluate: {}}", "{architecture: encoder, hidden: 100, heads: 3}")), HasSubstr("3:8: model: heads: 3 heads do not divide a hidden width of 100"));
  EXPECT_EQ(ErrorOf(Text("{evaluate: {}}", "{architecture: encoder, vocabulary: 2000, hidden: 96, heads: 6}")), "") << "they fit each other, if not the defaults";
  EXPECT_THAT(ErrorOf(Text("{evaluate: {}}", "{architecture: encoder, head: 3}")), HasSubstr("did you mean 'heads'?"));
  EXPECT_THAT(ErrorOf(Text("{evaluate: {}}", "{architecture: encoder, length: 16}")), HasSubstr("length: the data has samples of 32 tokens, the table of positions ends at 16"));
  EXPECT_THAT(ErrorOf(Text("{evaluate: {}}"), FashionInfo()), HasSubstr("encoder takes samples that are vectors of token ids [length], the data has [1, 28, 28]"));
  EXPECT_THAT(ErrorOf(Text("{student: {model: {architecture: mlp}}}, {retrain: {}}")), HasSubstr("one of student and recipe reads token ids, the other numbers"));
  EXPECT_THAT(ErrorOf(Text("{student: {model: {architecture: encoder, vocabulary: 2500}}}, {distill: {teacher: baseline}}")), HasSubstr("disagree in the vocabulary: 2000 and 2500"));
}

TEST(EncoderRecipeTest, EveryMethodPlansOnIt) {
  for (const char* steps : {
           "{prune: {sparsity: 0.9, scope: layer, targets: [embedding, linear]}}, {retrain: {epochs: 1}}",
           "{prune: {sparsity: 0.5, criterion: taylor}}, {retrain: {rewind: weights, to: init}}",
           "{prune: {schedule: cubic, final_sparsity: 0.9, epochs: 3, criterion: movement}}",
           "{prune: {granularity: '2:4'}}",
           "{prune: {granularity: head, scope: layer, sparsity: 0.5, targets: '*.attention.self.*'}}, {retrain: {}}, {remove: {}}",
           "{prune: {granularity: channel, scope: layer, sparsity: 0.5, targets: '*.intermediate.dense'}}, {remove: {}}, {retrain: {}}",
           "{prune: {granularity: layer, sparsity: 0.5, targets: 'encoder.*'}}, {remove: {}}",
           "{low_rank: {budget: 0.5, whitened: true}}, {retrain: {}}",
           "{lora: {rank: 4}}, {merge: {}}, {quantize: {scheme: int8_dynamic}}",
           "{qlora: {rank: 4, merge: true}}",
           "{quantize: {scheme: int8_static}}",
           "{quantize: {scheme: qat}}",
           "{prune: {sparsity: 0.9}}, {quantize: {scheme: cluster, bits: 5}}, {retrain: {}}",
           "{student: {model: {architecture: encoder, vocabulary: 2000, length: 32, layers: 1, hidden: 32, intermediate: 64, separator: 2}}}, {distill: {teacher: baseline, match: {encoder.layer.0.output.LayerNorm: encoder.layer.1.output.LayerNorm}}}",
           "{self_distill: {generations: 1}}",
           "{sensitivity: {}}",
           "{measure: {}}",
           "{cast: {}}",
       }) {
    EXPECT_EQ(ErrorOf(Text(steps)), "") << steps;
  }
}

TEST(EncoderRecipeTest, LoraStandsBesideQueryAndValue) {
  std::vector<std::string> expected;
  for (const char* layer : {"0", "1"}) {
    for (const char* part : {"query", "value"}) expected.push_back(std::string("encoder.layer.") + layer + ".attention.self." + part + ".weight");
  }
  EXPECT_EQ(TensorsOf("{lora: {rank: 4}}", "lora"), expected);
}

TEST(EncoderRecipeTest, QuantizationTakesTheTablesToo) {
  EXPECT_THAT(TensorsOf("{quantize: {scheme: int8_dynamic}}", "quantize"), testing::IsSupersetOf({"embeddings.word_embeddings.weight", "embeddings.position_embeddings.weight", "pooler.dense.weight"}));
}

TEST(EncoderRecipeTest, DistillationDefaultsToAdamWAtASmallRate) {
  Json train = StepOf(Resolved(Text("{distill: {teacher: baseline}}")), "v/01-distill").spec.params.at("train");
  EXPECT_EQ(train["optimizer"]["kind"], "adamw");
  EXPECT_EQ(train["schedule"]["learning_rate"], 1e-5);
}

TEST(EncoderRecipeTest, AStudentThatStartsFromNothingIsTaughtWithTheScheduleOfTrain) {
  const std::string student = "{student: {model: {architecture: encoder, vocabulary: 2000, length: 32, layers: 1, separator: 2}}}, ";
  Json train = StepOf(Resolved(Text(student + "{distill: {teacher: baseline}}")), "v/02-distill").spec.params.at("train");
  EXPECT_EQ(train["schedule"]["learning_rate"], 0.001);
  EXPECT_EQ(train["epochs"], 4);
  // What follows it is fine-tuning again.
  train = StepOf(Resolved(Text(student + "{distill: {teacher: baseline}}, {distill: {teacher: baseline}}")), "v/03-distill").spec.params.at("train");
  EXPECT_EQ(train["schedule"]["learning_rate"], 1e-5);
}

}  // namespace
}  // namespace pare::recipes
