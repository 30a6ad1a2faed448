// retrain: trains the network under its masks: fine-tuning, replay of the learning-rate schedule, or weight rewind.
#include "common/plural.h"
#include "recipes/dense_weights.h"
#include "recipes/kinds.h"

namespace pare::recipes {
namespace {

constexpr Field kFields[] = {
    {"retrain", "rewind", "name", "\"none\"", 0, 0, "none,learning_rate,weights", "", "none: fine-tune; learning_rate: replay the schedule with the trained weights; weights: start again from earlier weights", "learning_rate"},
    {"retrain", "to", "rewind", "", 0, 0, "", "epoch", "learning_rate, weights: the epoch of train at which the schedule is entered, and for weights the moment whose weights come back (init is 0); default: init for weights, train.epochs − epochs for learning_rate", "init"},
    {"retrain", "init_seed", "integer", "", 0, 9007199254740991.0, "", "", "weights, to: init: start from other initial weights, drawn from this seed, under the present masks", "7"},
};

void Check(CheckContext& context, const Json& retrain, const std::string& pointer) {
  std::string rewind = TextOr(retrain, "rewind", "none");
  if (rewind == "none") context.Refuse(retrain, pointer, {"to"}, "only with rewind: learning_rate or weights");
  bool at_init = rewind == "weights" && (!retrain.contains("to") || retrain["to"] == "init" || retrain["to"] == 0);
  if (!at_init) context.Refuse(retrain, pointer, {"init_seed"}, "only with rewind: weights and to: init");
  // Fine-tuning runs at a constant rate unless it says otherwise; a rewound step replays the schedule of train.
  std::string otherwise = rewind == "none" ? "constant" : context.OfTrain("schedule", "constant");
  context.Training(retrain, pointer, TextOr(retrain, "schedule", otherwise));
}

void ResolveRewind(ResolveContext& context, Json& retrain, const Json& written, const std::string& pointer) {
  int64_t total = context.train()["epochs"].get<int64_t>();
  int64_t epochs = written.contains("epochs") ? retrain["epochs"].get<int64_t>() : 0;
  if (epochs > total) return context.Fail(pointer + "/epochs", "epochs: the schedule of train has only " + Plural(total, "epoch") + " to replay");
  bool weights = retrain["rewind"] == "weights";
  Json to = written.value("to", Json());
  int64_t entry = to.is_number() ? to.get<int64_t>() : weights || to == "init" || epochs == 0 ? 0 : total - epochs;
  if (entry >= total) {
    return context.Fail(pointer + "/to", "to: epoch " + std::to_string(entry) + " is not before the end of training (" + Plural(total, "epoch") + ")");
  }
  if (epochs == 0) epochs = total - entry;
  if (entry + epochs > total) {
    return context.Fail(pointer + "/epochs", "epochs: from epoch " + std::to_string(entry) + " the schedule of train has only " + Plural(total - entry, "epoch") + " left");
  }
  retrain["to"] = entry;
  retrain["epochs"] = epochs;
}

void ResolveRetrain(ResolveContext& context, Json& retrain, const std::string& pointer) {
  const Json written = retrain;
  bool rewinds = written.value("rewind", "none") != "none";
  if (rewinds && !context.has_train()) {
    return context.Fail(pointer + "/rewind", "rewind needs the schedule and the weights of the baseline: there is no train section");
  }
  if (!context.CanTrain(written, pointer)) return;
  retrain = rewinds ? context.MergedTrain(written) : context.FineTuning(written, pointer);
  for (const char* field : {"rewind", "init_seed"}) {
    if (written.contains(field)) retrain[field] = written[field];
  }
  FillDefaults("retrain", retrain);
  retrain["to"] = nullptr;
  if (rewinds) ResolveRewind(context, retrain, written, pointer);
  context.CheckBatch(retrain, pointer);
}

void PlanRetrain(Chain& chain, const Json& retrain) {
  std::string rewind = retrain["rewind"].get<std::string>();
  if (!chain.MayTrain("retrain")) return;
  bool fine_tune = rewind == "none";
  Json params;
  std::map<std::string, StepKey> inputs;
  if (fine_tune) {
    params = chain.Training(retrain);
  } else {
    // A rewound epoch belongs to the baseline's schedule and draws as the baseline's did.
    params = chain.ReplayedTraining(retrain, retrain["to"].get<int64_t>());
  }
  params["rule"] = fine_tune ? "fine_tune" : rewind;
  if (rewind == "weights") {
    if (!FitsDenseWeights(chain.outline())) {
      return chain.Refuse("rewind", "weights: the network has changed since the baseline (layers factored, units removed or weights clustered), its earlier weights do not fit; use rewind: learning_rate, or put retrain before that step");
    }
    if (retrain.contains("init_seed")) {
      Json init = {{"graph", model::ToJson(chain.graph())}, {"seed", retrain["init_seed"]}};
      inputs["rewind"] = chain.HelperModel("init-" + Canonical(retrain["init_seed"]), "initialize", std::move(init), {}, false, chain.outline()).key;
    } else {
      inputs["rewind"] = chain.WeightsAt(retrain["to"].get<int64_t>());
    }
  }
  methods::MarkTrained(chain.outline());
  chain.Advance("retrain", std::move(params), std::move(inputs), true);
}

}  // namespace

Kind RetrainKind() {
  Kind kind;
  kind.name = "retrain";
  kind.fields = kFields;
  kind.help = "train under the masks: fine-tune, replay the learning-rate schedule, or start again from earlier weights";
  kind.examples = {"{epochs: 3}", "{rewind: weights, to: init}"};
  kind.train_fields = true;
  kind.check = Check;
  kind.resolve = ResolveRetrain;
  kind.plan = PlanRetrain;
  kind.trains = [](const Json&) { return true; };
  return kind;
}

}  // namespace pare::recipes
