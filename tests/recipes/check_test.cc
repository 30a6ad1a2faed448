// Bad recipes: the exact message for each, with position, what was found, what is allowed and the nearest name.
#include "recipes/check.h"

#include "recipes/kinds.h"
#include "tests/recipes/fixture.h"

namespace pare::recipes {
namespace {

using testing::HasSubstr;

// The step kinds as messages list them.
std::string Known() {
  std::string list;
  for (const std::string& name : KindNames()) list += (list.empty() ? "" : ", ") + name;
  return list;
}

constexpr const char* kTrainFields =
    "epochs, batch_size, shards, optimizer, learning_rate, momentum, nesterov, beta1, beta2, epsilon, weight_decay, schedule, milestones, gamma, "
    "final_learning_rate, warmup_epochs, label_smoothing, labels, clip_norm";

struct Case {
  std::string yaml, message;
};

void ExpectMessages(const std::vector<Case>& cases) {
  for (const Case& c : cases) EXPECT_EQ(ErrorOf(c.yaml), c.message) << c.yaml;
}

TEST(CheckTest, UnknownFieldsAreNamedWithTheNearestOne) {
  ExpectMessages({
      {std::string(kHead) + "goul: {}\n",
       "r.yaml:6:1: unknown field 'goul' in recipe; did you mean 'goal'? Allowed: version, name, seed, device, model, data, train, snapshot, gang, goal, keep, variants, promote"},
      {std::string(kHead) + "zzz: 1\n",
       "r.yaml:6:1: unknown field 'zzz' in recipe. Allowed: version, name, seed, device, model, data, train, snapshot, gang, goal, keep, variants, promote"},
      {std::string(kHead) + "goal: {max_acuracy_drop: 1}\n",
       "r.yaml:6:8: unknown field 'max_acuracy_drop' in goal; did you mean 'max_accuracy_drop'? Allowed: max_accuracy_drop, minimize, target, price_per_hour"},
      {std::string(kHead) + "goal:\n  target:\n    thread: 1\n", "r.yaml:8:5: unknown field 'thread' in target; did you mean 'threads'? Allowed: device, threads, batch"},
      {std::string(kHead) + "snapshot: {every_epoch: 1}\n",
       "r.yaml:6:12: unknown field 'every_epoch' in snapshot; did you mean 'every_epochs'? Allowed: every_epochs, every_seconds"},
      {std::string(kHead) + "promote: {as: x, keep: true}\n", "r.yaml:6:18: unknown field 'keep' in promote. Allowed: as, keep_best_effort"},
      {"name: test\nmodel: {architecture: mlp, hiden: [3]}\ndata: {dataset: fashion-mnist}\ntrain: {}\n",
       "r.yaml:2:28: unknown field 'hiden' in model (architecture 'mlp'); did you mean 'hidden'? Allowed: architecture, weights, activation, dropout, hidden"},
      {"name: test\nmodel: {architecture: mlp}\ndata: {dataset: fashion-mnist, augment: {flips: true}}\ntrain: {}\n",
       "r.yaml:3:42: unknown field 'flips' in augment; did you mean 'flip'? Allowed: flip, shift"},
      {"name: test\nmodel: {architecture: mlp}\ndata: {dataset: fashion-mnist}\ntrain:\n  epoch: 3\n",
       "r.yaml:5:3: unknown field 'epoch' in train; did you mean 'epochs'? Allowed: " + std::string(kTrainFields)},
  });
  EXPECT_EQ(StepError("retrain: {epoch: 3}"), "r.yaml:6:27: unknown field 'epoch' in retrain; did you mean 'epochs'? Allowed: rewind, to, init_seed, " + std::string(kTrainFields));
  EXPECT_EQ(StepError("evaluate: {on: test}"), "r.yaml:6:28: unknown field 'on' in evaluate. Allowed: split");
}

TEST(CheckTest, ValuesOfAWrongTypeOrRangeAreShownWithWhatIsAllowed) {
  ExpectMessages({
      {"version: 2\nname: test\nmodel: {architecture: mlp}\ndata: {dataset: fashion-mnist}\ntrain: {}\n", "r.yaml:1:10: version: expected 1, found 2"},
      {"name: 7\nmodel: {architecture: mlp}\ndata: {dataset: fashion-mnist}\ntrain: {}\n", "r.yaml:1:7: name: expected text, found 7"},
      {"name: a b\nmodel: {architecture: mlp}\ndata: {dataset: fashion-mnist}\ntrain: {}\n",
       "r.yaml:1:7: name: expected letters, digits, '-', '_' and '.', at most 100, not '.' first, found 'a b'"},
      {std::string(kHead) + "seed: -1\n", "r.yaml:6:7: seed: expected an integer from 0 to 9007199254740991, found -1"},
      {std::string(kHead) + "seed: 1.0\n", "r.yaml:6:7: seed: expected an integer from 0 to 9007199254740991, found 1.0"},
      {std::string(kHead) + "device: cpus\n", "r.yaml:6:9: device: expected one of cpu, found \"cpus\"; did you mean 'cpu'?"},
      {std::string(kHead) + "goal: {minimize: \"bytes,parameters\"}\n", "r.yaml:6:18: minimize: expected one of bytes, parameters, multiply_adds, found \"bytes,parameters\""},
      {std::string(kHead) + "goal: {minimize: byte}\n", "r.yaml:6:18: minimize: expected one of bytes, parameters, multiply_adds, found \"byte\"; did you mean 'bytes'?"},
      {std::string(kHead) + "goal: [1]\n", "r.yaml:6:7: goal: expected a section with fields, found [1]"},
      {std::string(kHead) + "goal:\n", "r.yaml:6:1: goal: expected a section with fields, found null"},
      {std::string(kHead) + "promote: {as: x, keep_best_effort: yes}\n", "r.yaml:6:36: keep_best_effort: expected true or false, found \"yes\""},
      {std::string(kHead) + "promote: {as: ../x}\n", "r.yaml:6:15: as: expected letters, digits, '-', '_' and '.', at most 100, not '.' first, found '../x'"},
      {"name: test\nmodel: {architecture: mlp, hidden: [0]}\ndata: {dataset: fashion-mnist}\ntrain: {}\n",
       "r.yaml:2:36: hidden: expected a list of widths from 1 to 1048576, found [0]"},
      {"name: test\nmodel: {architecture: mpl}\ndata: {dataset: fashion-mnist}\ntrain: {}\n",
       "r.yaml:2:23: architecture: unknown architecture 'mpl'; did you mean 'mlp'? Allowed: mlp, lenet5, resnet, encoder"},
      {"name: test\nmodel: {architecture: resnet, depth: 9}\ndata: {dataset: fashion-mnist}\ntrain: {}\n", "r.yaml:2:8: model: resnet depth must be 6n + 2 (8, 14, 20, 26, 32, …), found 9"},
      {"name: test\nmodel: {architecture: mlp}\ndata: {dataset: mnist}\ntrain: {}\n", "r.yaml:3:17: dataset: expected one of fashion-mnist, found \"mnist\""},
      {"name: test\nmodel: {architecture: mlp}\ndata: {train: a.csv, test: b.csv, shape: [1, 2.5]}\ntrain: {}\n",
       "r.yaml:3:42: shape: expected a list of integers from 1 to 1000000, found [1,2.5]"},
      {"name: test\nmodel: {architecture: mlp}\ndata: {dataset: fashion-mnist, validation: lots}\ntrain: {}\n",
       "r.yaml:3:44: validation: expected an integer of at least 0, found \"lots\""},
      {"name: test\nmodel: {architecture: mlp}\ndata: {dataset: fashion-mnist}\ntrain: {learning_rate: fast}\n",
       "r.yaml:4:24: learning_rate: expected a number from 0 to 1000000, found \"fast\""},
      {"name: test\nmodel: {architecture: mlp}\ndata: {dataset: fashion-mnist}\ntrain: {schedule: multi_step, milestones: 3}\n",
       "r.yaml:4:43: milestones: expected a list of numbers from 0 to 100000, found 3"},
  });
  EXPECT_EQ(StepError("prune: {sparsity: 1}"), "r.yaml:6:35: sparsity: expected a number from 0 to 0.99999, found 1");
  EXPECT_EQ(StepError("prune: {sparsity: 0.5, targets: []}"), "r.yaml:6:49: targets: expected a pattern or a list of patterns, found []");
  EXPECT_EQ(StepError("prune: {sparsity: 0.5, criterion: magnitud}"),
            "r.yaml:6:51: criterion: expected one of magnitude, magnitude_l1, magnitude_l2, random, taylor, fisher, movement, found \"magnitud\"; did you mean 'magnitude'?");
  EXPECT_EQ(StepError("retrain: {rewind: weights, to: -3}"), "r.yaml:6:48: to: expected init or an epoch number, found -3");
  EXPECT_EQ(StepError("evaluate: {split: test}"), "r.yaml:6:35: split: expected one of validation, found \"test\"");
}

TEST(CheckTest, MissingPartsAreNamed) {
  ExpectMessages({
      {"", "r.yaml: a recipe is a set of fields; start with 'version: 1' and 'name: …'"},
      {"- 1\n", "r.yaml:1:1: a recipe is a set of fields; start with 'version: 1' and 'name: …'"},
      {"version: 1\n",
       "r.yaml:1:1: 'name' is missing\nr.yaml:1:1: 'model' is missing\nr.yaml:1:1: 'data' is missing\n"
       "r.yaml:1:1: 'train' is missing; it can be omitted only when model.weights gives a trained model"},
      {"name: test\nmodel: {hidden: [3]}\ndata: {dataset: fashion-mnist}\ntrain: {}\n", "r.yaml:2:8: model: 'architecture' is missing; known are mlp, lenet5, resnet, encoder"},
      {"name: test\nmodel: {architecture: mlp}\ndata: {train: a.csv}\ntrain: {}\n",
       "r.yaml:3:7: data: 'test' is missing: the report's accuracies come from samples that training never saw"},
      {std::string(kHead) + "promote: {keep_best_effort: true}\n", "r.yaml:6:10: promote: 'as', the model's name in the registry, is missing"},
      {std::string(kHead) + "variants: {v: []}\n", "r.yaml:6:15: expected a list of steps, each starting with '-'"},
      {std::string(kHead) + "variants:\n  v:\n    prune: {sparsity: 0.5}\n", "r.yaml:8:5: expected a list of steps, each starting with '-'"},
      {std::string(kHead) + "variants: {v: [{repeat: {}, steps: [{evaluate: {}}]}]}\n", "r.yaml:6:25: repeat: 'times' is missing"},
      {std::string(kHead) + "variants: {v: [{repeat: {times: 2}}]}\n", "r.yaml:6:16: repeat and steps belong together"},
      {std::string(kHead) + "variants: {v: [{steps: [{evaluate: {}}]}]}\n", "r.yaml:6:16: repeat and steps belong together"},
  });
  EXPECT_EQ(StepError("prune: {}"), "r.yaml:6:24: prune: a one_shot step needs exactly one of sparsity and fraction_of_remaining");
  EXPECT_EQ(StepError("prune: {schedule: cubic}"), "r.yaml:6:24: prune: schedule linear or cubic needs final_sparsity");
}

TEST(CheckTest, StepsThatAreNoneAreRefused) {
  ExpectMessages({
      {std::string(kHead) + "variants: {v: [prune]}\n", "r.yaml:6:16: expected a step: one of " + Known() + " (with steps)"},
      {std::string(kHead) + "variants: {v: [{}]}\n", "r.yaml:6:16: expected a step: one of " + Known() + " (with steps)"},
      {std::string(kHead) + "variants: {v: [{prun: {sparsity: 0.5}}]}\n", "r.yaml:6:17: unknown step kind 'prun'; did you mean 'prune'? Allowed: " + Known()},
      {std::string(kHead) + "variants: {v: [{train: {}}]}\n", "r.yaml:6:17: unknown step kind 'train'; did you mean 'retrain'? Allowed: " + Known()},
      {std::string(kHead) + "variants:\n  v:\n    - prune: {sparsity: 0.5}\n      retrain: {}\n", "r.yaml:8:7: one step per list item; start the next one with '-'"},
      {std::string(kHead) + "variants: {v: [{repeat: {times: 2}, steps: [{evaluate: {}}], times: 2}]}\n", "r.yaml:6:62: unknown field 'times' beside repeat. Allowed: repeat, steps"},
      {std::string(kHead) + "variants: {v: [{repeat: 3, steps: [{evaluate: {}}]}]}\n", "r.yaml:6:25: repeat: expected a section with fields, found 3"},
      {std::string(kHead) + "variants: {../x: [{evaluate: {}}]}\n",
       "r.yaml:6:12: name of a variant: expected letters, digits, '-', '_' and '.', at most 100, not '.' first, found '../x'"},
  });
  EXPECT_EQ(StepError("retrain: "), "r.yaml:6:17: retrain: expected a section with fields, found null");
}

TEST(CheckTest, ContradictionsInTheDataSectionAreRefused) {
  auto data = [](const std::string& section) { return ErrorOf("name: test\nmodel: {architecture: mlp}\ntrain: {}\ndata: {" + section + "}\n"); };
  EXPECT_EQ(data("validation: 10"), "r.yaml:4:7: data: give either dataset (fashion-mnist) or the files train and test");
  EXPECT_EQ(data("dataset: fashion-mnist, train: a.npy"), "r.yaml:4:7: data: give either dataset (fashion-mnist) or the files train and test");
  EXPECT_EQ(data("dataset: fashion-mnist, format: npy"), "r.yaml:4:40: format: only with files, not with dataset");
  EXPECT_EQ(data("train: a.csv, test: b.csv, directory: /data"), "r.yaml:4:46: directory: only with dataset; give the files' paths instead");
}

TEST(CheckTest, ContradictionsInTrainingAreRefused) {
  auto train = [](const std::string& section) { return ErrorOf("name: test\nmodel: {architecture: mlp}\ndata: {dataset: fashion-mnist}\ntrain: {" + section + "}\n"); };
  EXPECT_EQ(train("schedule: multi_step"), "r.yaml:4:19: schedule: multi_step needs milestones, the epochs at which the rate falls");
  EXPECT_EQ(train("schedule: multi_step, milestones: []"), "r.yaml:4:19: schedule: multi_step needs milestones, the epochs at which the rate falls");
  EXPECT_EQ(train("milestones: [3]"), "r.yaml:4:21: milestones: only with schedule: multi_step, here it is constant");
  EXPECT_EQ(train("schedule: cosine, gamma: 0.5"), "r.yaml:4:34: gamma: only with schedule: multi_step, here it is cosine");
  EXPECT_EQ(train("final_learning_rate: 0.1"), "r.yaml:4:30: final_learning_rate: only with schedule: cosine or linear, here it is constant");
  EXPECT_EQ(train("optimizer: adam, momentum: 0.9"), "r.yaml:4:36: momentum: only with optimizer: sgd, here it is adam");
  EXPECT_EQ(train("optimizer: adamw, nesterov: true"), "r.yaml:4:37: nesterov: only with optimizer: sgd, here it is adamw");
  EXPECT_EQ(train("beta1: 0.9"), "r.yaml:4:16: beta1: only with optimizer: adam or adamw, here it is sgd");
  EXPECT_EQ(train("nesterov: true, momentum: 0"), "r.yaml:4:19: nesterov: needs a momentum above 0");
  EXPECT_EQ(train("epochs: 2, warmup_epochs: 3"), "r.yaml:4:35: warmup_epochs is longer than epochs");
  EXPECT_EQ(train("batch_size: 70000"), "r.yaml:4:21: batch_size 70000 is larger than the training split of 60000");
  EXPECT_EQ(train("batch_size: 4, shards: 8"), "r.yaml:4:32: shards: more shards than the 4 samples of a batch");
}

TEST(CheckTest, ContradictionsInPruneStepsAreRefused) {
  EXPECT_EQ(StepError("prune: {sparsity: 0.5, fraction_of_remaining: 0.5}"), "r.yaml:6:24: prune: a one_shot step needs exactly one of sparsity and fraction_of_remaining");
  EXPECT_EQ(StepError("prune: {sparsity: 0.5, final_sparsity: 0.9}"), "r.yaml:6:56: final_sparsity: only with schedule: linear or cubic");
  EXPECT_EQ(StepError("prune: {sparsity: 0.5, epochs: 3}"), "r.yaml:6:48: epochs: only with schedule: linear or cubic");
  EXPECT_EQ(StepError("prune: {schedule: cubic, sparsity: 0.9, final_sparsity: 0.9}"), "r.yaml:6:52: sparsity: only with schedule: one_shot; use final_sparsity");
  EXPECT_EQ(StepError("prune: {schedule: linear, init_sparsity: 0.9, final_sparsity: 0.5}"), "r.yaml:6:58: init_sparsity is larger than final_sparsity");
  EXPECT_EQ(StepError("prune: {schedule: cubic, final_sparsity: 0.9, epochs: 6, end_epoch: 7}"), "r.yaml:6:85: end_epoch is after the step's last epoch (epochs: 6)");
  EXPECT_EQ(StepError("prune: {schedule: cubic, final_sparsity: 0.9, start_epoch: 2, end_epoch: 2}"),
            "r.yaml:6:90: start_epoch (2.0) must be before end_epoch (2.0)");
  // end_epoch is two thirds of three epochs.
  EXPECT_EQ(StepError("prune: {schedule: cubic, final_sparsity: 0.9, start_epoch: 2.5}"), "r.yaml:6:76: start_epoch (2.5) must be before end_epoch (2.0)");
  EXPECT_EQ(StepError("prune: {schedule: cubic, final_sparsity: 0.9, final_learning_rate: 0.1}"),
            "r.yaml:6:84: final_learning_rate: only with schedule: cosine or linear, here it is multi_step");
  EXPECT_EQ(StepError("prune: {sparsity: 0.5, min_density: 0.9, max_density: 0.5, scope: layer}"), "r.yaml:6:53: min_density is larger than max_density");
  EXPECT_EQ(StepError("prune: {sparsity: 0.9, min_density: 0.2}"), "r.yaml:6:35: sparsity: more than min_density allows to remove; every layer keeps at least 0.2");
  EXPECT_EQ(StepError("prune: {sparsity: 0.1, max_density: 0.5}"), "r.yaml:6:35: sparsity: less than max_density removes; every layer keeps at most 0.5");
  EXPECT_EQ(StepError("prune: {schedule: cubic, final_sparsity: 0.9, max_density: 0.5}"), "r.yaml:6:76: max_density: needs init_sparsity, the sparsity that it starts from");
  // Per layer the bounds only clamp.
  EXPECT_EQ(StepError("prune: {sparsity: 0.9, min_density: 0.2, scope: layer}"), "");
}

TEST(CheckTest, ContradictionsInRetrainStepsAreRefused) {
  EXPECT_EQ(StepError("retrain: {to: init}"), "r.yaml:6:31: to: only with rewind: learning_rate or weights");
  EXPECT_EQ(StepError("retrain: {milestones: [1]}"), "r.yaml:6:39: milestones: only with schedule: multi_step, here it is constant");
  EXPECT_EQ(StepError("retrain: {rewind: weights, schedule: cosine, milestones: [1]}"), "r.yaml:6:74: milestones: only with schedule: multi_step, here it is cosine");
  EXPECT_EQ(StepError("retrain: {optimizer: adam}"), "r.yaml:6:38: optimizer: adam instead of train's sgd needs its own learning_rate");
  EXPECT_EQ(StepError("retrain: {rewind: learning_rate, epochs: 21}"), "r.yaml:6:58: epochs: the schedule of train has only 20 epochs to replay");
  EXPECT_EQ(StepError("retrain: {rewind: weights, to: 20}"), "r.yaml:6:48: to: epoch 20 is not before the end of training (20 epochs)");
  EXPECT_EQ(StepError("retrain: {rewind: weights, to: 15, epochs: 6}"), "r.yaml:6:60: epochs: from epoch 15 the schedule of train has only 5 epochs left");
  // A replayed multi-step schedule brings its milestones along.
  EXPECT_EQ(StepError("retrain: {rewind: weights, schedule: multi_step}"), "");
}

TEST(CheckTest, StepsWithoutATrainSectionMustSayHowToTrain) {
  const std::string head = "name: test\nmodel: {architecture: mlp, weights: w.safetensors}\ndata: {dataset: fashion-mnist, validation: 5000}\nvariants: {v: [{";
  EXPECT_EQ(ErrorOf(head + "retrain: {}}]}"), "r.yaml:4:26: there is no train section to inherit from: give at least optimizer and learning_rate here");
  EXPECT_EQ(ErrorOf(head + "prune: {schedule: cubic, final_sparsity: 0.9}}]}"),
            "r.yaml:4:24: there is no train section to inherit from: give at least optimizer and learning_rate here");
  EXPECT_EQ(ErrorOf(head + "retrain: {rewind: weights}}]}"), "r.yaml:4:35: rewind needs the schedule and the weights of the baseline: there is no train section");
  EXPECT_EQ(ErrorOf(head + "retrain: {optimizer: sgd, learning_rate: 0.01}}]}"), "");
}

TEST(CheckTest, RecipesThatDoNotFitTheDataAreRefused) {
  auto with = [](const std::string& model, const std::string& data, data::DataInfo info) {
    return ErrorOf("name: test\ntrain: {batch_size: 32}\nmodel: {" + model + "}\ndata: {dataset: fashion-mnist" + data + "}\nvariants: {v: [{evaluate: {}}]}\n", info);
  };
  data::DataInfo info = FashionInfo();
  EXPECT_EQ(with("architecture: mlp", "", info),
            "r.yaml:4:7: data: variants and promote need a validation split, which drives every decision; add for example validation: 5000");
  EXPECT_EQ(with("architecture: mlp", ", validation: 60000", info), "r.yaml:4:44: validation: 60000 of only 60000 training samples; nothing is left to train on");
  info.sample_shape = {784};
  EXPECT_EQ(with("architecture: lenet5", ", validation: 5000", info),
            "r.yaml:3:8: model: lenet5 takes images [channels, height, width] of at least 16x16 pixels, the data has [784]");
  EXPECT_EQ(with("architecture: mlp", ", validation: 5000, augment: {shift: 1}", info), "r.yaml:4:59: augment: flips and shifts need images, the samples have shape [784]");
}

TEST(CheckTest, AllErrorsAreToldAtOnceInTheOrderOfTheRecipe) {
  EXPECT_EQ(ErrorOf("seed: x\n"
                    "name: test\n"
                    "variants:\n"
                    "  b:\n"
                    "    - prune: {sparsity: 2}\n"
                    "  a:\n"
                    "    - retrain: {epochs: 0}\n"
                    "train: 5\n"
                    "model: {architecture: mlp, dropout: 1}\n"),
            "r.yaml:1:1: 'data' is missing\n"
            "r.yaml:1:7: seed: expected an integer from 0 to 9007199254740991, found \"x\"\n"
            "r.yaml:5:25: sparsity: expected a number from 0 to 0.99999, found 2\n"
            "r.yaml:7:25: epochs: expected an integer from 1 to 100000, found 0\n"
            "r.yaml:8:8: train: expected a section with fields, found 5\n"
            "r.yaml:9:37: dropout: expected a number in [0, 1), found 1");
}

TEST(CheckTest, TheListOfErrorsEnds) {
  std::string yaml = kHead;
  for (int i = 0; i < 1000; ++i) yaml += "wrong" + std::to_string(i) + ": 1\n";
  std::string message = ErrorOf(yaml);
  EXPECT_EQ(static_cast<size_t>(std::count(message.begin(), message.end(), '\n')), kMaxErrorsShown);
  EXPECT_THAT(message, testing::EndsWith("r.yaml: and more: only the first 50 errors are shown"));
}

TEST(CheckTest, LongAndStrangeWordsOfTheUserStayReadable) {
  EXPECT_THAT(ErrorOf(std::string(kHead) + "\"a\\nb\\x1b[2J\": 1\n"), HasSubstr("unknown field 'a\\nb\\u001b[2J' in recipe"));
  std::string word;
  for (int i = 0; i < 100; ++i) word += "é";
  EXPECT_THAT(ErrorOf(std::string(kHead) + word + ": 1\n"), HasSubstr("unknown field '" + word.substr(0, 60) + "…' in recipe"));
  // 59 bytes after the quotation mark: the thirtieth letter would be cut in two.
  EXPECT_THAT(ErrorOf(std::string(kHead) + "seed: " + word + "\n"), HasSubstr("found \"" + word.substr(0, 58) + "…"));
}

TEST(CheckTest, RepeatedStepsAreCountedBeforeAnythingIsExpanded) {
  EXPECT_EQ(ErrorOf(WithVariants(" {v: [{repeat: {times: 1000}, steps: [{evaluate: {}}, {evaluate: {}}, {evaluate: {}}, {evaluate: {}}, {evaluate: {}}]}]}")), "");
  EXPECT_EQ(ErrorOf(WithVariants(" {v: [{evaluate: {}}, {repeat: {times: 1000}, steps: [{repeat: {times: 5}, steps: [{evaluate: {}}]}]}]}")),
            "r.yaml:7:15: a variant has at most 5000 steps after repeat, found 5001");
  EXPECT_EQ(ErrorOf(WithVariants(" {v: [{repeat: {times: 1001}, steps: [{evaluate: {}}]}]}")), "r.yaml:7:33: times: expected an integer from 1 to 1000, found 1001");
  std::string deep = "{evaluate: {}}";
  for (int i = 0; i < 12; ++i) deep = "{repeat: {times: 1000}, steps: [" + deep + "]}";
  EXPECT_THAT(ErrorOf(WithVariants(" {v: [" + deep + "]}")), HasSubstr("a variant has at most 5000 steps after repeat"));
}

TEST(CheckTest, AJobHasALimitOfSteps) {
  std::string variants;
  for (int i = 0; i < 5; ++i) variants += "\n  v" + std::to_string(i) + ": [{repeat: {times: 1000}, steps: [{retrain: {epochs: 1}}, {retrain: {epochs: 2}}]}]";
  // Five times 2000 steps, each with an evaluation on validation and one on test.
  EXPECT_EQ(ErrorOf(WithVariants(variants)), "r.yaml:8:3: a job has at most 20000 steps, evaluations included; this one has 30005");
  std::string many;
  for (int i = 0; i < 257; ++i) many += "\n  v" + std::to_string(i) + ": [{evaluate: {}}]";
  EXPECT_EQ(ErrorOf(WithVariants(many)), "r.yaml:8:3: at most 256 variants, found 257");
}

}  // namespace
}  // namespace pare::recipes
