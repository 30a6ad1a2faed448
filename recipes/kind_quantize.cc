// quantize: weights as 8-bit integers (at once, calibrated, or trained for it), or as codes of a few shared values.
#include <algorithm>

#include "methods/calibrate.h"
#include "methods/quantize.h"
#include "recipes/kinds.h"

namespace pare::recipes {
namespace {

constexpr Field kFields[] = {
    {"quantize", "scheme", "name", "\"int8_dynamic\"", 0, 0, "int8_dynamic,int8_static,qat,cluster", "", "int8_dynamic: inputs rounded by the range that is there; int8_static: by a calibrated range; qat: trained with the rounding; cluster: weights share 2^bits values", "int8_static"},
    {"quantize", "activations", "name", "", 0, 0, "dynamic,static", "", "qat: as in int8_dynamic or int8_static; default dynamic", "static"},
    {"quantize", "calibrator", "name", "", 0, 0, "min_max,percentile,mse", "", "static: the range that the codes cover: all that calibration saw, all but the rarest, or the one of least squared error; default min_max", "percentile"},
    {"quantize", "percentile", "number", "", 50.1, 100, "", "percent", "calibrator percentile: of the inputs are below the top of the range, and as many above its bottom; default 99.99", "99.9"},
    {"quantize", "calibration_samples", "integer", "", methods::kMinCalibrationSamples, 1e9, "", "samples", "static: training samples to calibrate with; default 512, or all if there are fewer", "256"},
    {"quantize", "bits", "integer", "", 1, 8, "", "", "cluster: of a code; default 5", "4"},
    {"quantize", "targets", "patterns", "", 0, 0, "", "", "which weights: layer or tensor name, glob, re:REGEX (whole name), or operator type; default: linear, conv2d and embedding", "[fc1, embedding]"},
    methods::Ignore("quantize"),
};

std::string SchemeOf(const Json& section) { return TextOr(section, "scheme", "int8_dynamic"); }
bool IsStatic(const Json& section) {
  std::string scheme = SchemeOf(section);
  return scheme == "int8_static" || (scheme == "qat" && TextOr(section, "activations", "dynamic") == "static");
}

void CheckQuantize(CheckContext& context, const Json& section, const std::string& pointer) {
  std::string scheme = SchemeOf(section);
  if (scheme != "qat") {
    context.Refuse(section, pointer, {"activations"}, "only with scheme: qat");
    for (const auto& [key, value] : section.items()) {
      if (FindField("train", key) != nullptr) context.Fail(pointer + "/" + key, key + ": only with scheme: qat, the others do not train");
    }
  } else {
    context.Training(section, pointer, TextOr(section, "schedule", "constant"));
  }
  if (scheme != "cluster") context.Refuse(section, pointer, {"bits"}, "only with scheme: cluster; int8 has 8");
  if (!IsStatic(section)) {
    context.Refuse(section, pointer, {"calibrator", "percentile", "calibration_samples"},
                   "only with scheme: int8_static, or scheme: qat with activations: static");
  } else if (TextOr(section, "calibrator", "min_max") != "percentile") {
    context.Refuse(section, pointer, {"percentile"}, "only with calibrator: percentile");
  }
}

// All operators with weights that the network has.
Json DefaultTargets(const model::Graph& graph) {
  Json targets = Json::array();
  for (model::OpType op : {model::OpType::kLinear, model::OpType::kConv2d, model::OpType::kEmbedding}) {
    bool there = std::any_of(graph.nodes.begin(), graph.nodes.end(), [&](const model::Node& node) { return node.op == op; });
    if (there) targets.push_back(std::string(model::ToString(op)));
  }
  return targets;
}

void ResolveCalibration(ResolveContext& context, Json& section, const std::string& pointer) {
  if (!section.contains("calibrator")) section["calibrator"] = "min_max";
  if (!section.contains("percentile")) section["percentile"] = 99.99;
  int64_t samples = context.training_samples();
  if (!section.contains("calibration_samples")) section["calibration_samples"] = std::min<int64_t>(512, samples);
  if (section["calibration_samples"].get<int64_t>() > samples) {
    context.Fail(pointer + "/calibration_samples", "calibration_samples: there are only " + std::to_string(samples) + " training samples; lower it");
  }
}

void ResolveQuantize(ResolveContext& context, Json& section, const std::string& pointer) {
  const Json written = section;
  std::string scheme = SchemeOf(section);
  if (scheme == "qat" && !context.CanTrain(written, pointer)) return;
  FillDefaults("quantize", section);
  if (scheme == "qat") {
    Json train = context.FineTuning(written, pointer);
    context.CheckBatch(train, pointer);
    section["train"] = std::move(train);
    EraseTrainFields(section, "quantize");
    if (!section.contains("activations")) section["activations"] = "dynamic";
  }
  if (scheme == "cluster" && !section.contains("bits")) section["bits"] = 5;
  if (IsStatic(section)) ResolveCalibration(context, section, pointer);
  Json layers = section;
  if (!written.contains("targets")) layers["targets"] = DefaultTargets(context.graph());
  section["tensors"] = context.Tensors(layers, pointer);
}

void PlanQuantize(Chain& chain, const Json& section) {
  bool trains = section["scheme"] == "qat";
  Json params = {{"scheme", section["scheme"]}, {"tensors", section["tensors"]}};
  for (const char* field : {"activations", "calibrator", "percentile", "calibration_samples", "bits"}) {
    if (section.contains(field)) params[field] = section[field];
  }
  Result<methods::Outline> outline = methods::OutlineQuantize(chain.outline(), params);
  if (!chain.Become(std::move(outline))) return;
  if (trains) params.update(chain.Training(section["train"]));
  chain.Advance("quantize", std::move(params), {}, trains || IsStatic(section));
}

}  // namespace

Kind QuantizeKind() {
  Kind kind;
  kind.name = "quantize";
  kind.fields = kFields;
  kind.help = "store weights as 8-bit integers (dynamic, calibrated, or trained for it), or as codes of a few shared values";
  kind.examples = {"{scheme: int8_dynamic}", "{scheme: int8_static, calibrator: percentile}", "{scheme: qat, epochs: 2}", "{scheme: cluster, bits: 5}"};
  kind.may_be_empty = true;
  kind.train_fields = true;
  kind.check = CheckQuantize;
  kind.resolve = ResolveQuantize;
  kind.plan = PlanQuantize;
  kind.trains = [](const Json& section) { return SchemeOf(section) == "qat"; };
  return kind;
}

}  // namespace pare::recipes
