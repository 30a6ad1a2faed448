#include "methods/spectrum.h"

#include <algorithm>
#include <iterator>

namespace pare::methods {
namespace {

using model::DType;
using model::Tensor;

Error Invalid(std::string message) { return {ErrorCode::kInvalid, std::move(message)}; }
Error Corrupt(const std::string& message) { return {ErrorCode::kCorrupt, "spectrum: " + message}; }

constexpr const char* kIndex = "layers";
constexpr double kThresholds[] = {0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99};

bool HasFactors(const LayerSpectrum& layer) { return layer.up.shape().size() == 2; }

// A tensor of the blob, checked.
Result<Tensor> Part(const model::TensorMap& tensors, const std::string& name, DType dtype) {
  auto it = tensors.find(name);
  if (it == tensors.end() || it->second.dtype() != dtype) return Corrupt("'" + name + "' is missing or of another type");
  return it->second;
}

Result<LayerSpectrum> LayerFrom(const Json& json, const model::TensorMap& tensors) {
  LayerSpectrum layer;
  ASSIGN_OR_RETURN(layer.tensor, StringField(json, "tensor"));
  if (json.contains("reason")) {
    ASSIGN_OR_RETURN(layer.reason, StringField(json, "reason"));
    return layer;
  }
  ASSIGN_OR_RETURN(layer.rows, IntField(json, "rows"));
  ASSIGN_OR_RETURN(layer.columns, IntField(json, "columns"));
  ASSIGN_OR_RETURN(layer.weight, DigestField(json, "weight"));
  ASSIGN_OR_RETURN(layer.ridge, NumberField(json, "ridge"));
  ASSIGN_OR_RETURN(Tensor energies, Part(tensors, "energies/" + layer.tensor, DType::kF64));
  if (layer.rows < 1 || layer.columns < 1 || energies.size() != std::min(layer.rows, layer.columns)) return Corrupt(layer.tensor + " has another size than its energies");
  auto values = energies.values<double>();
  layer.energies.assign(values.begin(), values.end());
  if (!tensors.contains("up/" + layer.tensor)) return layer;
  ASSIGN_OR_RETURN(layer.up, Part(tensors, "up/" + layer.tensor, DType::kF32));
  ASSIGN_OR_RETURN(layer.down, Part(tensors, "down/" + layer.tensor, DType::kF32));
  int64_t k = layer.up.shape().size() == 2 ? layer.up.shape()[1] : 0;
  if (layer.up.shape() != model::Shape{layer.rows, k} || layer.down.shape() != model::Shape{k, layer.columns}) return Corrupt(layer.tensor + " has factors of other shapes");
  return layer;
}

Json ReportOf(const LayerSpectrum& layer, const RankChoice& choice, bool masked) {
  Json json = {{"layer", layer.tensor.substr(0, layer.tensor.rfind('.'))}, {"tensor", layer.tensor}, {"rank", choice.rank}};
  if (layer.reason.empty()) json.update({{"of", {layer.rows, layer.columns}}, {"largest_rank", choice.largest}, {"energy", choice.energy}});
  if (choice.rank == 0) json["left_alone"] = choice.reason;
  else if (masked) json["mask"] = "ended";
  return json;
}

std::string KeptForOutputs(const RankedLayer& layer) {
  return "it makes the " + std::to_string(layer.rows) + " outputs, which fewer directions cannot all tell apart; output_layer: true factors it too";
}

}  // namespace

model::TensorMap ToTensors(const Spectrum& spectrum) {
  model::TensorMap tensors;
  Json layers = Json::array();
  for (const LayerSpectrum& layer : spectrum.layers) {
    if (!layer.reason.empty()) {
      layers.push_back({{"tensor", layer.tensor}, {"reason", layer.reason}});
      continue;
    }
    layers.push_back({{"tensor", layer.tensor}, {"rows", layer.rows}, {"columns", layer.columns}, {"weight", layer.weight.hex()}, {"ridge", layer.ridge}});
    tensors.emplace("energies/" + layer.tensor, Tensor::Of<double>(DType::kF64, {static_cast<int64_t>(layer.energies.size())}, layer.energies));
    if (!HasFactors(layer)) continue;
    tensors.emplace("up/" + layer.tensor, layer.up);
    tensors.emplace("down/" + layer.tensor, layer.down);
  }
  std::string index = Canonical({{"conv", ToString(spectrum.conv)}, {"whitened", spectrum.whitened}, {"calibration_samples", spectrum.calibration_samples}, {"layers", layers}});
  tensors.emplace(kIndex, Tensor::Of<char>(DType::kU8, {static_cast<int64_t>(index.size())}, index));
  return tensors;
}

Result<Spectrum> SpectrumFromTensors(const model::TensorMap& tensors) {
  ASSIGN_OR_RETURN(Tensor index, Part(tensors, kIndex, DType::kU8));
  auto text = index.values<char>();
  ASSIGN_OR_RETURN(Json json, ParseJson({text.data(), text.size()}, "spectrum"));
  Spectrum spectrum;
  ASSIGN_OR_RETURN(std::string conv, StringField(json, "conv"));
  ASSIGN_OR_RETURN(spectrum.conv, ConvFormFromString(conv));
  ASSIGN_OR_RETURN(spectrum.whitened, BoolField(json, "whitened"));
  ASSIGN_OR_RETURN(spectrum.calibration_samples, IntField(json, "calibration_samples"));
  if (!json.contains("layers") || !json["layers"].is_array()) return Corrupt("'layers' is no list");
  for (const Json& layer : json["layers"]) {
    ASSIGN_OR_RETURN(LayerSpectrum read, LayerFrom(layer, tensors));
    spectrum.layers.push_back(std::move(read));
  }
  return spectrum;
}

Result<std::vector<RankedLayer>> RankedLayers(const Model& model, const Spectrum& spectrum, const std::vector<std::string>& tensors) {
  ASSIGN_OR_RETURN(model::GraphInfo info, model::Analyze(model.graph));
  std::vector<RankedLayer> layers;
  for (const std::string& name : tensors) {
    auto found = std::find_if(spectrum.layers.begin(), spectrum.layers.end(), [&](const LayerSpectrum& l) { return l.tensor == name; });
    if (found == spectrum.layers.end()) return Invalid("low_rank: " + name + " is not in the spectrum; give the spectrum step the same targets");
    RankedLayer layer{name, found->rows, found->columns, found->energies, found->rows * found->columns};
    layers.push_back(layer);
    if (!found->reason.empty()) continue;
    ASSIGN_OR_RETURN(MatrixForm form, FormOf(model.graph, info, name, spectrum.conv));
    if (form.rows != found->rows || form.columns != found->columns || model.tensors.at(name).digest() != found->weight) {
      return Invalid("low_rank: " + name + " has other weights than the spectrum was made of");
    }
    if (auto mask = model.masks.find(name); mask != model.masks.end()) layers.back().kept = mask->second.kept();
    layers.back().multiply_adds = form.multiply_adds;
    layers.back().multiply_adds_per_rank = form.multiply_adds_per_rank;
  }
  return layers;
}

Result<LowRankResult> LowRank(Model model, const Spectrum& spectrum, const Json& params) {
  ASSIGN_OR_RETURN(RankOptions options, RankOptionsFromJson(params));
  ASSIGN_OR_RETURN(model::GraphInfo info, model::Analyze(model.graph));
  ASSIGN_OR_RETURN(std::vector<model::TensorSpec> specs, PresentTensors(params, info));
  std::vector<std::string> names;
  for (const auto& spec : specs) names.push_back(spec.name);
  ASSIGN_OR_RETURN(std::vector<RankedLayer> layers, RankedLayers(model, spectrum, names));
  std::string whole = params.value("output_layer", true) ? "" : OutputWeight(model.graph, info);
  // What was not decomposed, or makes the outputs, takes no part in the choice.
  auto chosen = [&](const RankedLayer& layer) { return !layer.energies.empty() && layer.tensor != whole; };
  std::vector<RankedLayer> candidates;
  std::copy_if(layers.begin(), layers.end(), std::back_inserter(candidates), chosen);
  ASSIGN_OR_RETURN(std::vector<RankChoice> choices, ChooseRanks(candidates, options));
  LowRankResult result;
  std::vector<Factors> factors;
  size_t next = 0;
  for (const RankedLayer& layer : layers) {
    auto found = std::find_if(spectrum.layers.begin(), spectrum.layers.end(), [&](const LayerSpectrum& l) { return l.tensor == layer.tensor; });
    RankChoice choice{layer.tensor, 0, 0, 1.0, found->reason};
    if (chosen(layer)) choice = choices[next++];
    else if (found->reason.empty()) choice = {layer.tensor, 0, LargestRank(layer.rows, layer.columns, layer.kept), 1.0, KeptForOutputs(layer)};
    result.report.push_back(ReportOf(*found, choice, model.masks.contains(layer.tensor)));
    if (choice.rank == 0) continue;
    if (!HasFactors(*found) || found->up.shape()[1] < choice.rank) return Corrupt(layer.tensor + " lacks factors of rank " + std::to_string(choice.rank));
    factors.push_back({layer.tensor, choice.rank, found->up, found->down});
  }
  if (options.rank && factors.empty() && !choices.empty()) {
    return Invalid("low_rank: " + choices[0].tensor.substr(0, choices[0].tensor.rfind('.')) + ": " + choices[0].reason + (choices.size() > 1 ? ", and no other layer gets smaller" : "") + "; lower rank");
  }
  ASSIGN_OR_RETURN(result.model, Factor(std::move(model), factors, spectrum.conv));
  return result;
}

Json SpectrumResults(const std::vector<RankedLayer>& layers, const Spectrum& spectrum) {
  Json list = Json::array(), frontier = Json::array();
  for (const LayerSpectrum& layer : spectrum.layers) {
    Json entry = {{"tensor", layer.tensor}};
    if (!layer.reason.empty()) {
      entry["left_alone"] = layer.reason;
      list.push_back(std::move(entry));
      continue;
    }
    Json ranks = Json::object();
    for (double threshold : kThresholds) ranks[Json(threshold).dump()] = RankForEnergy(layer.energies, threshold);
    entry.update({{"of", {layer.rows, layer.columns}}, {"largest_rank", HasFactors(layer) ? layer.up.shape()[1] : 0}, {"ranks", std::move(ranks)}});
    if (spectrum.whitened) entry["ridge"] = layer.ridge;
    list.push_back(std::move(entry));
  }
  std::vector<RankedLayer> decomposed;
  for (const RankedLayer& layer : layers) {
    if (!layer.energies.empty()) decomposed.push_back(layer);
  }
  for (const FrontierPoint& p : Frontier(decomposed, {std::begin(kThresholds), std::end(kThresholds)})) {
    frontier.push_back({{"energy", p.energy}, {"parameters", p.parameters}, {"multiply_adds", p.multiply_adds}});
  }
  return {{"conv", ToString(spectrum.conv)}, {"whitened", spectrum.whitened}, {"calibration_samples", spectrum.calibration_samples},
          {"layers", std::move(list)}, {"frontier", std::move(frontier)}};
}

Result<Outline> OutlineLowRank(Outline outline, const Json& params) {
  ASSIGN_OR_RETURN(std::vector<LayerOutline*> layers, LayersOf(outline, params.at("tensors")));
  TRY(CheckFloat(outline, layers, "low_rank"));
  for (LayerOutline* layer : layers) {
    double share = params.contains("budget") ? params.at("budget").get<double>() : 1.0;
    if (params.contains("rank") && layer->shape.size() >= 2) {
      double rows = static_cast<double>(layer->shape[0]), size = static_cast<double>(model::ElementCount(layer->shape));
      share = std::min(1.0, params.at("rank").get<double>() * (rows + size / rows) / size);
      // Known by the step that factors or masks it, here only about.
      if (double left = layer->weights * layer->density; left < size && share * size >= left) {
        outline.doubts.push_back("rank " + Canonical(params.at("rank")) + " of " + layer->node + " has more weights than the layer has left, which will stay as it is; lower rank");
        continue;
      }
    }
    layer->multiply_adds *= share;
    // A mask ends with its tensor.
    layer->weights *= layer->density * share;
    layer->density = 1;
    layer->masked = false;
    layer->factored = true;
  }
  outline.reshaped = true;
  return outline;
}

}  // namespace pare::methods
