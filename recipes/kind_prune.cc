// prune: masks weights, at once or along a schedule while training.
#include <algorithm>
#include <cmath>
#include <optional>
#include <regex>
#include <set>

#include "methods/calibrate.h"
#include "methods/pruning.h"
#include "methods/units.h"
#include "recipes/kinds.h"

namespace pare::recipes {
namespace {

constexpr Field kFields[] = {
    {"prune", "criterion", "name", "\"magnitude\"", 0, 0, "magnitude,magnitude_l1,magnitude_l2,random,taylor,fisher,movement", "", "which weights go first; magnitude is magnitude_l1", "magnitude"},
    {"prune", "scope", "name", "\"global\"", 0, 0, "global,layer", "", "one ranking over all targets, or one per layer", "layer"},
    {"prune", "schedule", "name", "\"one_shot\"", 0, 0, "one_shot,linear,cubic", "", "at once, or during training", "cubic"},
    {"prune", "granularity", "text", "\"weight\"", 0, 0, "", "", "what goes at once: weight; N:M (keep the best N of every M in a row); ROWSxCOLUMNS (a block); channel, head or layer (units that remove can take out)", "2:4"},
    {"prune", "round_to", "integer", "", 1, 1048576, "", "units", "channel, head: widths left are multiples of it; default 1", "8"},
    {"prune", "calibration_samples", "integer", "", methods::kMinCalibrationSamples, 1e9, "", "samples", "taylor, fisher: training samples whose gradients are taken; default 512", "512"},
    {"prune", "sparsity", "number", "", 0, 0.99999, "", "fraction", "one_shot: fraction of the targets' weights that is gone afterwards", "0.9"},
    {"prune", "fraction_of_remaining", "number", "", 0, 0.99999, "", "fraction", "one_shot: fraction of the weights still there that goes now", "0.2"},
    {"prune", "init_sparsity", "number", "", 0, 0.99999, "", "fraction", "linear, cubic: at start_epoch; default 0", "0"},
    {"prune", "final_sparsity", "number", "", 0, 0.99999, "", "fraction", "linear, cubic: from end_epoch on", "0.95"},
    {"prune", "start_epoch", "number", "", 0, 100000, "", "epochs", "linear, cubic: when pruning starts; default 0", "0"},
    {"prune", "end_epoch", "number", "", 0, 100000, "", "epochs", "linear, cubic: when it ends and the masks freeze; default two thirds of epochs", "8"},
    {"prune", "update_frequency", "number", "", 0.001, 1000, "", "epochs", "linear, cubic: how often masks are refreshed; default 0.5", "0.5"},
    methods::Targets("prune"),
    methods::Ignore("prune"),
    {"prune", "min_density", "number", "0", 0, 1, "", "fraction", "no layer keeps less than this", "0.01"},
    {"prune", "max_density", "number", "1", 0, 1, "", "fraction", "no layer keeps more than this", "0.5"},
};

constexpr int64_t kDefaultCalibration = 512;

// The granularity as step parameters (docs/formats.md); null for single weights; nothing if the text is none.
std::optional<Json> GranularityOf(const std::string& text, int64_t round_to) {
  if (text == "weight") return Json();
  if (text == "channel" || text == "head" || text == "layer") return Json{{"kind", "structured"}, {"unit", text}, {"round_to", round_to}};
  static const std::regex pair("([1-9][0-9]{0,6})([:x])([1-9][0-9]{0,6})");
  std::smatch match;
  if (!std::regex_match(text, match, pair)) return std::nullopt;
  int64_t first = std::stoll(match[1].str()), second = std::stoll(match[3].str());
  if (match[2] == ":") return Json{{"kind", "n_m"}, {"n", first}, {"m", second}};
  return Json{{"kind", "block"}, {"rows", first}, {"columns", second}};
}
Json GranularityOf(const Json& prune) {
  return GranularityOf(prune.value("granularity", "weight"), prune.value("round_to", int64_t{1})).value_or(Json());
}
std::string KindOf(const Json& granularity) { return granularity.is_null() ? "" : granularity["kind"].get<std::string>(); }

bool Calibrates(const Json& prune) { return prune["criterion"] == "taylor" || prune["criterion"] == "fisher"; }

// The last third trains under frozen masks.
double DefaultEndEpoch(double epochs) { return epochs * 2.0 / 3.0; }

bool Scheduled(const Json& prune) { return prune.value("schedule", "one_shot") != "one_shot"; }

void CheckOneShot(CheckContext& context, const Json& prune, const std::string& pointer) {
  bool fixed = KindOf(GranularityOf(TextOr(prune, "granularity", "weight"), 1).value_or(Json())) == "n_m";
  if (fixed ? prune.contains("fraction_of_remaining") : prune.contains("sparsity") == prune.contains("fraction_of_remaining")) {
    context.Fail(pointer, fixed ? "fraction_of_remaining: N:M says itself how much goes" : "prune: a one_shot step needs exactly one of sparsity and fraction_of_remaining");
  }
  for (const auto& [key, value] : prune.items()) {
    bool scheduled = key == "init_sparsity" || key == "final_sparsity" || key == "start_epoch" || key == "end_epoch" || key == "update_frequency";
    if (scheduled || (FindField("train", key) && key != "schedule")) context.Fail(pointer + "/" + key, key + ": only with schedule: linear or cubic");
  }
}

void CheckScheduled(CheckContext& context, const Json& prune, const std::string& pointer) {
  bool fixed = KindOf(GranularityOf(TextOr(prune, "granularity", "weight"), 1).value_or(Json())) == "n_m";
  if (!prune.contains("final_sparsity") && !fixed) context.Fail(pointer, "prune: schedule linear or cubic needs final_sparsity");
  context.Refuse(prune, pointer, {"sparsity", "fraction_of_remaining"}, "only with schedule: one_shot; use final_sparsity");
  if (NumberOr(prune, "init_sparsity", 0) > NumberOr(prune, "final_sparsity", 1)) {
    context.Fail(pointer + "/init_sparsity", "init_sparsity is larger than final_sparsity");
  }
  double epochs = NumberOr(prune, "epochs", kDefaultStepEpochs), start = NumberOr(prune, "start_epoch", 0);
  double end = NumberOr(prune, "end_epoch", DefaultEndEpoch(epochs));
  if (!(start < end)) {
    const char* field = prune.contains("end_epoch") ? "/end_epoch" : "/start_epoch";
    context.Fail(pointer + field, "start_epoch (" + Canonical(Json(start)) + ") must be before end_epoch (" + Canonical(Json(end)) + ")");
  } else if (end > epochs) {
    context.Fail(pointer + "/end_epoch", "end_epoch is after the step's last epoch (epochs: " + Canonical(Json(static_cast<int64_t>(epochs))) + ")");
  }
  context.Training(prune, pointer, context.OfTrain("schedule", "constant"));  // `schedule` is that of the sparsity here
}

// A global ranking that may not reach its amount would fail after the training before it.
void CheckDensity(CheckContext& context, const Json& prune, const std::string& pointer) {
  double low = NumberOr(prune, "min_density", 0), high = NumberOr(prune, "max_density", 1);
  if (low > high) return context.Fail(pointer + "/min_density", "min_density is larger than max_density");
  if (TextOr(prune, "scope", "global") != "global") return;
  for (const char* field : {"sparsity", "init_sparsity", "final_sparsity"}) {
    if (!prune.contains(field) || !prune[field].is_number()) continue;
    double density = 1 - prune[field].get<double>();
    if (density < 0 || density > 1) continue;  // said already
    std::string at = pointer + "/" + field, name(field);
    if (density < low - 1e-9) context.Fail(at, name + ": more than min_density allows to remove; every layer keeps at least " + Canonical(Json(low)));
    if (density > high + 1e-9) context.Fail(at, name + ": less than max_density removes; every layer keeps at most " + Canonical(Json(high)));
  }
  bool scheduled = TextOr(prune, "schedule", "one_shot") != "one_shot";
  if (scheduled && !prune.contains("init_sparsity") && high < 1) {
    context.Fail(pointer + "/max_density", "max_density: needs init_sparsity, the sparsity that it starts from");
  }
}

void CheckGranularity(CheckContext& context, const Json& prune, const std::string& pointer) {
  std::string text = TextOr(prune, "granularity", "weight"), at = pointer + "/granularity";
  auto granularity = GranularityOf(text, 1);
  if (!granularity) return context.Fail(at, "granularity: expected weight, N:M such as 2:4, a block such as 4x1, channel, head or layer, found " + Quoted(text));
  std::string kind = KindOf(*granularity);
  if (kind == "n_m") {
    int64_t n = (*granularity)["n"].get<int64_t>(), m = (*granularity)["m"].get<int64_t>();
    if (n >= m || m > methods::kMaxGroup) return context.Fail(at, "granularity: N:M keeps N of every M, 1 ≤ N < M ≤ " + std::to_string(methods::kMaxGroup) + ", found " + Quoted(text));
    double removed = 1 - static_cast<double>(n) / static_cast<double>(m);
    for (const char* field : {"sparsity", "final_sparsity"}) {
      if (std::abs(NumberOr(prune, field, removed) - removed) < 1e-9) continue;
      context.Fail(pointer + "/" + field, std::string(field) + ": " + text + " removes " + Canonical(Json(removed)) + "; leave the field out");
    }
    if (TextOr(prune, "scope", "layer") != "layer") context.Fail(pointer + "/scope", "scope: N:M keeps as much in every row; leave the field out");
    context.Refuse(prune, pointer, {"min_density", "max_density"}, "N:M says itself how much stays");
  }
  bool layers = kind == "structured" && (*granularity)["unit"] == "layer";
  if (layers && TextOr(prune, "scope", "global") != "global") context.Fail(pointer + "/scope", "scope: layers are ranked with one another, global");
  if (kind != "structured" || layers) context.Refuse(prune, pointer, {"round_to"}, "only with granularity: channel or head");
}

void CheckCriterion(CheckContext& context, const Json& prune, const std::string& pointer) {
  std::string criterion = TextOr(prune, "criterion", "magnitude");
  if (criterion != "taylor" && criterion != "fisher") context.Refuse(prune, pointer, {"calibration_samples"}, "only with criterion: taylor or fisher");
  if (criterion != "movement") return;
  if (TextOr(prune, "schedule", "one_shot") == "one_shot") {
    context.Fail(pointer + "/criterion", "criterion: movement sums over training; it needs schedule: linear or cubic");
  } else if (NumberOr(prune, "init_sparsity", 0) > 0 && NumberOr(prune, "start_epoch", 0) == 0) {
    context.Fail(pointer + "/init_sparsity", "init_sparsity: movement knows nothing before the first batch; leave it 0, or set start_epoch");
  }
}

void Check(CheckContext& context, const Json& prune, const std::string& pointer) {
  CheckDensity(context, prune, pointer);
  CheckGranularity(context, prune, pointer);
  CheckCriterion(context, prune, pointer);
  std::string schedule = TextOr(prune, "schedule", "one_shot");
  if (schedule == "linear" || schedule == "cubic") CheckScheduled(context, prune, pointer);
  if (schedule == "one_shot") CheckOneShot(context, prune, pointer);
}

void ResolveSchedule(ResolveContext& context, Json& prune, Json written, const std::string& pointer) {
  if (!context.CanTrain(written, pointer)) return;
  written.erase("schedule");  // that of the sparsity
  Json train = context.MergedTrain(written);
  double epochs = train["epochs"].get<double>();
  if (context.has_train()) {
    // The baseline's schedule, squeezed into this step's epochs.
    double factor = epochs / context.train()["epochs"].get<double>();
    if (!written.contains("warmup_epochs")) train["warmup_epochs"] = train["warmup_epochs"].get<double>() * factor;
    if (!written.contains("milestones")) {
      for (Json& m : train["milestones"]) m = std::max(1.0, std::floor(m.get<double>() * factor));
    }
  }
  context.CheckBatch(train, pointer);
  prune["train"] = std::move(train);
  EraseTrainFields(prune, "prune");
  for (const auto& [field, otherwise] : {std::pair("init_sparsity", 0.0), {"start_epoch", 0.0}, {"end_epoch", DefaultEndEpoch(epochs)}, {"update_frequency", 0.5}}) {
    if (!prune.contains(field)) prune[field] = otherwise;
  }
}

void ResolvePrune(ResolveContext& context, Json& prune, const std::string& pointer) {
  const Json written = prune;
  FillDefaults("prune", prune);
  if (prune["criterion"] == "magnitude") prune["criterion"] = "magnitude_l1";
  prune["tensors"] = context.Tensors(prune, pointer);
  Json granularity = GranularityOf(prune);
  if (KindOf(granularity) == "n_m") {
    prune["scope"] = "layer";
    prune[Scheduled(prune) ? "final_sparsity" : "sparsity"] = 1 - granularity["n"].get<double>() / granularity["m"].get<double>();
  }
  if (KindOf(granularity) == "structured" && !prune.contains("round_to")) prune["round_to"] = 1;
  if (Calibrates(prune)) {
    int64_t samples = context.training_samples();
    if (!prune.contains("calibration_samples")) prune["calibration_samples"] = std::min(kDefaultCalibration, samples);
    if (prune["calibration_samples"].get<int64_t>() > samples) {
      context.Fail(pointer + "/calibration_samples", "calibration_samples: there are only " + std::to_string(samples) + " training samples; lower it");
    }
  }
  if (Scheduled(prune)) ResolveSchedule(context, prune, written, pointer);
}

// A multiple that is wider than a layer leaves it whole.
bool CheckMultiple(Chain& chain, const methods::UnitPlan& units, int64_t multiple) {
  int64_t widest = 0;
  std::string whole;
  for (const methods::PrunableClass& c : units.classes) {
    auto size = static_cast<int64_t>(c.units.size());
    widest = std::max(widest, size);
    if (size < multiple) whole += (whole.empty() ? "" : ", ") + c.name + " (" + std::to_string(size) + ")";
  }
  std::string text = "round_to: " + std::to_string(multiple) + " is more than the units of ";
  if (widest < multiple) chain.Refuse("round_to", text + "every layer (at most " + std::to_string(widest) + "), nothing would be pruned; lower it");
  else if (!whole.empty()) chain.Warn(text + whole + ": they stay whole");
  return widest >= multiple;
}

// What the network says to the granularity: rows that N does not divide, units that cannot go. Layers without such units
// keep their place in the outline. How wide layers are is known only while the graph is the dense one.
bool FitsNetwork(Chain& chain, const Json& params, const methods::Outline& before) {
  if (!params.contains("granularity")) return true;
  const Json& granularity = params["granularity"];
  bool parts = granularity["kind"] == "structured" && granularity["unit"] != "channel";  // no step adds heads or branches
  if (before.reshaped && !parts) {
    if (granularity["kind"] == "n_m") {
      chain.Warn("granularity: how wide layers are behind low_rank or remove is only known once that has run; where M does not divide a width, the step will fail");
    }
    return true;
  }
  model::Graph graph = chain.graph();
  methods::SetEncodings(graph, before);
  auto info = model::Analyze(graph);
  auto options = info.ok() ? methods::PruneOptionsFromJson(params, graph, *info) : Result<methods::PruneOptions>(info.error());
  if (!options.ok()) {
    std::string text = options.error().message;
    chain.Refuse("granularity", text.starts_with("prune: ") ? text.substr(7) : text);
    return false;
  }
  if (options->units == nullptr || before.reshaped) return true;
  if (!CheckMultiple(chain, *options->units, options->granularity.round_to)) return false;
  std::set<std::string> takes_part;
  for (const methods::PrunableClass& c : options->units->classes) {
    for (const methods::PrunableUnit& unit : c.units) {
      for (const methods::Slice& slice : unit.weights) takes_part.insert(slice.tensor);
    }
  }
  for (auto& [name, layer] : chain.outline().layers) {
    if (!takes_part.contains(name)) layer = before.layers.at(name);
  }
  return true;
}

void PlanPrune(Chain& chain, const Json& prune) {
  Json params = {{"schedule", prune["schedule"]}, {"criterion", prune["criterion"]}, {"scope", prune["scope"]}, {"tensors", prune["tensors"]},
                 {"min_density", prune["min_density"]}, {"max_density", prune["max_density"]}};
  bool scheduled = Scheduled(prune), of_remaining = prune.contains("fraction_of_remaining");
  const char* amount = scheduled ? "final_sparsity" : of_remaining ? "fraction_of_remaining" : "sparsity";
  params[amount] = prune[amount];
  if (Json granularity = GranularityOf(prune); !granularity.is_null()) params["granularity"] = std::move(granularity);
  if (Calibrates(prune)) params["calibration_samples"] = prune["calibration_samples"];
  if (scheduled) {
    if (!chain.MayTrain("prune")) return;
    for (const char* f : {"init_sparsity", "start_epoch", "end_epoch", "update_frequency"}) params[f] = prune[f];
    Json training = chain.Training(prune["train"]);
    params["train"] = training["train"];
    params["draw_epoch"] = training["draw_epoch"];
  } else if (Calibrates(prune) && !chain.MayTrain("prune by " + prune["criterion"].get<std::string>())) {
    return;  // gradients pass through the layers that it leaves alone, too
  }
  const methods::Outline before = chain.outline();
  if (!chain.Become(methods::FindMethod("prune")->outline(before, params)) || !FitsNetwork(chain, params, before)) return;
  chain.Advance("prune", std::move(params), {}, scheduled || Calibrates(prune));
  if (!scheduled && chain.is_last() && prune.value("sparsity", 0.0) > 0.8) {
    chain.Warn("a large part of the weights is removed and nothing is retrained afterwards");
  }
}

}  // namespace

Kind PruneKind() {
  Kind kind;
  kind.name = "prune";
  kind.fields = kFields;
  kind.help = "mask the weights, blocks or units of lowest score, at once or along a schedule while training";
  kind.examples = {"{sparsity: 0.9}", "{schedule: cubic, final_sparsity: 0.9, epochs: 6, milestones: [4]}", "{sparsity: 0.5, criterion: taylor}",
                   "{granularity: \"2:4\"}", "{granularity: channel, scope: layer, sparsity: 0.5}"};
  kind.train_fields = true;
  kind.check = Check;
  kind.resolve = ResolvePrune;
  kind.plan = PlanPrune;
  kind.trains = Scheduled;
  return kind;
}

}  // namespace pare::recipes
