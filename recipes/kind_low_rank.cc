// low_rank: replaces layers by two thin ones. Two steps: spectrum, shared by all low_rank steps on the same network with the
// same layers, and low_rank itself, which looks the ranks up.
#include <algorithm>
#include <cmath>

#include "methods/low_rank.h"
#include "methods/ranks.h"
#include "methods/spectrum.h"
#include "recipes/kinds.h"

namespace pare::recipes {
namespace {

constexpr int64_t kDefaultCalibration = 1'024;
constexpr double kDefaultEnergy = 0.95;

constexpr Field kFields[] = {
    {"low_rank", "energy", "number", "", 0.01, 1, "", "", "keep the smallest rank with this fraction of the squared singular values; default 0.95 unless budget or rank is given", "0.9"},
    {"low_rank", "budget", "number", "", 0.001, 0.999, "", "", "fraction of budget_of that the layers keep together; ranks go where they lose least", "0.5"},
    {"low_rank", "budget_of", "name", "\"parameters\"", 0, 0, "parameters,multiply_adds,latency", "", "what budget counts; latency: by a model of the machine (roofline)", "multiply_adds"},
    {"low_rank", "batch", "integer", "", 1, 65536, "", "samples", "budget_of: latency: samples per run; default: goal.target.batch, else 1", "32"},
    {"low_rank", "machine_balance", "number", "8", 0.01, 1e4, "", "", "budget_of: latency: multiply-adds that the machine does while it reads or writes one byte of memory", "4"},
    {"low_rank", "rank", "integer", "", 1, 1 << 20, "", "", "this rank for every layer", "16"},
    {"low_rank", "output_layer", "boolean", "", 0, 0, "", "", "factor the layer that makes the network's outputs, too; default: false with energy unless targets is given, else true", "true"},
    {"low_rank", "conv", "name", "\"channel\"", 0, 0, "channel,spatial", "", "convolutions become channel: kh x kw and 1x1, or spatial: kh x 1 and 1 x kw", "spatial"},
    {"low_rank", "whitened", "boolean", "false", 0, 0, "", "", "lose least of the layers' outputs on calibration samples instead of least of the weights", "true"},
    {"low_rank", "calibration_samples", "integer", "", 1, 1 << 20, "", "samples", "whitened: training samples that tell what the layers' inputs are like; default 1024, or all if there are fewer", "2048"},
    methods::Targets("low_rank"),
    methods::Ignore("low_rank"),
};

void Check(CheckContext& context, const Json& section, const std::string& pointer) {
  int given = 0;
  for (const char* field : {"energy", "budget", "rank"}) given += section.contains(field);
  if (given > 1) context.Fail(pointer, "low_rank: energy, budget and rank exclude each other; give one of them");
  if (!section.contains("budget")) context.Refuse(section, pointer, {"budget_of"}, "only with budget");
  if (TextOr(section, "budget_of", "") != "latency") context.Refuse(section, pointer, {"batch", "machine_balance"}, "only with budget_of: latency");
  if (section.value("whitened", Json(false)) != true) context.Refuse(section, pointer, {"calibration_samples"}, "only with whitened: true");
}

// The fields of a budget, as methods::RankOptionsFromJson takes them.
Json BudgetOf(const Json& section) {
  Json params = {{"budget", section["budget"]}, {"budget_of", section["budget_of"]}};
  if (section["budget_of"] == "latency") params.update({{"batch", section["batch"]}, {"machine_balance", section["machine_balance"]}});
  return params;
}

// Each layer that cannot be what the section asks for, on the dense network.
void CheckLayers(ResolveContext& context, const Json& section, const std::string& pointer) {
  methods::ConvForm conv = *methods::ConvFormFromString(section["conv"].get<std::string>());
  double least = 0, whole = 0;
  methods::RankOptions budget;
  if (section.contains("budget")) budget = *methods::RankOptionsFromJson(BudgetOf(section));
  for (const Json& tensor : section["tensors"]) {
    std::string name = tensor.get<std::string>();
    auto form = methods::FormOf(context.graph(), context.info(), name, conv);
    if (!form.ok()) {
      // A grouped convolution among the default targets is left alone by the step, which says so.
      if (section.contains("targets")) context.Fail(pointer + "/targets", form.error().message);
      continue;
    }
    int64_t size = form->rows * form->columns, largest = methods::LargestRank(form->rows, form->columns, size);
    methods::RankedLayer ranked{name, form->rows, form->columns, {}, size, form->multiply_adds, form->multiply_adds_per_rank};
    double now = methods::CostOf(ranked, 0, budget);
    whole += now;
    least += largest > 0 ? std::min(now, methods::CostOf(ranked, 1, budget)) : now;
    if (section.contains("rank") && section["rank"].get<int64_t>() > largest) {
      std::string layer = name.substr(0, name.rfind('.'));
      context.Fail(pointer + "/rank", "rank " + Canonical(section["rank"]) + " saves nothing in " + layer + ": of " + std::to_string(form->rows) + "x" + std::to_string(form->columns) +
                                          " only ranks up to " + std::to_string(largest) + " are below break-even; lower rank or add " + layer + " to ignore");
    }
  }
  if (section.contains("budget") && section["budget"].get<double>() * whole < least) {
    context.Fail(pointer + "/budget", "budget: rank 1 in every layer keeps " + Canonical(Json(std::ceil(least / whole * 1e4) / 1e4)) + " of the " + section["budget_of"].get<std::string>() + " already");
  }
}

void CheckCalibration(ResolveContext& context, const Json& section, const std::string& pointer) {
  int64_t samples = section["calibration_samples"].get<int64_t>();
  if (samples > context.training_samples()) {
    return context.Fail(pointer + "/calibration_samples", "calibration_samples: there are only " + std::to_string(context.training_samples()) + " training samples; lower it");
  }
  bool spatial = section["conv"] == "spatial";
  for (const Json& tensor : section["tensors"]) {
    std::string name = tensor.get<std::string>(), layer = name.substr(0, name.rfind('.'));
    const model::Node& node = *context.graph().Find(layer);
    const model::Attributes& a = node.attributes;
    const model::Shape& in = context.info().shapes[static_cast<size_t>(context.graph().IndexOf(node.inputs[0]))];
    const model::Shape& out = context.info().shapes[static_cast<size_t>(context.graph().IndexOf(layer))];
    int64_t features = 0, each = 1;
    if (node.op == model::OpType::kLinear) {
      features = a.in_features;
      each = model::ElementCount(in) / features;
    } else if (node.op == model::OpType::kConv2d && a.groups == 1) {
      features = a.in_channels * a.kernel_h * (spatial ? 1 : a.kernel_w);
      each = out[1] * (spatial ? in[2] : out[2]);
    }
    if (samples * each >= features) continue;
    context.Fail(pointer + "/calibration_samples", "calibration_samples: " + std::to_string(samples) + " samples are too few for the " + std::to_string(features) + " input features of " + layer +
                                                       "; give at least " + std::to_string((features + each - 1) / each) + ", or whitened: false");
  }
}

void ResolveLowRank(ResolveContext& context, Json& section, const std::string& pointer) {
  FillDefaults("low_rank", section);
  if (!section.contains("energy") && !section.contains("budget") && !section.contains("rank")) section["energy"] = kDefaultEnergy;
  if (!section.contains("output_layer")) section["output_layer"] = !section.contains("energy") || section.contains("targets");
  if (section["budget_of"] == "latency" && !section.contains("batch")) section["batch"] = context.tree().at("goal").value("target", Json::object()).value("batch", 1);
  section["tensors"] = context.Tensors(section, pointer);
  CheckLayers(context, section, pointer);
  if (!section["whitened"].get<bool>()) return;
  if (!section.contains("calibration_samples")) section["calibration_samples"] = std::min(kDefaultCalibration, context.training_samples());
  CheckCalibration(context, section, pointer);
}

void PlanLowRank(Chain& chain, const Json& section) {
  Json spectrum = {{"tensors", section["tensors"]}, {"conv", section["conv"]}, {"whitened", section["whitened"]}};
  bool whitened = section["whitened"].get<bool>();
  if (whitened) spectrum["calibration_samples"] = section["calibration_samples"];
  Json params = {{"tensors", section["tensors"]}, {"conv", section["conv"]}};
  for (const char* field : {"energy", "rank"}) {
    if (section.contains(field)) params[field] = section[field];
  }
  if (section.contains("budget")) params.update(BudgetOf(section));
  Json changed = params;  // what it works on
  if (!section["output_layer"].get<bool>()) {
    params["output_layer"] = false;
    std::string whole = methods::OutputWeight(chain.graph(), chain.info());
    std::erase_if(changed["tensors"].get_ref<Json::array_t&>(), [&](const Json& tensor) { return tensor == whole; });
  }
  if (!chain.Become(methods::OutlineLowRank(chain.outline(), changed))) return;
  StepKey spectra = chain.Helper(chain.name() + "/spectrum", "spectrum", std::move(spectrum), {{"model", chain.model()}}, whitened);
  chain.Advance("low_rank", std::move(params), {{"spectrum", spectra}}, false);
}

}  // namespace

Kind LowRankKind() {
  Kind kind;
  kind.name = "low_rank";
  kind.fields = kFields;
  kind.help = "replace layers by two thin ones: ranks by energy, budget or number, plain or whitened by calibration data";
  kind.examples = {"{}", "{budget: 0.5, whitened: true}", "{rank: 4, conv: spatial}"};
  kind.may_be_empty = true;
  kind.check = Check;
  kind.resolve = ResolveLowRank;
  kind.plan = PlanLowRank;
  return kind;
}

}  // namespace pare::recipes
