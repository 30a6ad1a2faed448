#include "model/architectures.h"

#include <algorithm>

#include "model/architecture_builder.h"
#include "model/architecture_encoder.h"

namespace pare::model {
namespace {

Error Bad(const std::string& text) { return Error{ErrorCode::kInvalid, text}; }

using Builder = ArchitectureBuilder;

const std::vector<std::string> kActivations = {"relu", "gelu", "tanh", "sigmoid", "silu"};

OpType ActivationOp(const Json& parameters) { return *OpTypeFromString(parameters.at("activation").get<std::string>()); }

Graph Mlp(const Json& parameters, const Shape& sample_shape, int64_t classes) {
  Builder b(sample_shape);
  int64_t width = ElementCount(sample_shape);
  if (sample_shape.size() > 1) b.Add("flatten", OpType::kFlatten);
  OpType activation = ActivationOp(parameters);
  double dropout = parameters.at("dropout").get<double>();
  int i = 1;
  for (const Json& hidden : parameters.at("hidden")) {
    b.Linear("fc" + std::to_string(i), width, hidden.get<int64_t>());
    b.Add("act" + std::to_string(i), activation);
    if (dropout > 0) {
      Attributes a;
      a.probability = dropout;
      b.Add("drop" + std::to_string(i), OpType::kDropout, a);
    }
    width = hidden.get<int64_t>();
    ++i;
  }
  b.Linear("fc" + std::to_string(i), width, classes);
  return b.Finish();
}

Result<Graph> Lenet5(const Json& parameters, const Shape& shape, int64_t classes) {
  if (shape.size() != 3 || shape[1] < 16 || shape[2] < 16) {
    return Bad("lenet5 takes images [channels, height, width] of at least 16x16 pixels, the data has " + ToString(shape));
  }
  OpType activation = ActivationOp(parameters);
  Builder b(shape);
  b.Conv("conv1", shape[0], 6, 5, 1, 2, true);
  b.Add("act1", activation);
  b.Pool("pool1", 2);
  b.Conv("conv2", 6, 16, 5, 1, 0, true);
  b.Add("act2", activation);
  b.Pool("pool2", 2);
  b.Add("flatten", OpType::kFlatten);
  int64_t width = 16 * ((shape[1] / 2 - 4) / 2) * ((shape[2] / 2 - 4) / 2);
  b.Linear("fc1", width, 120);
  b.Add("act3", activation);
  b.Linear("fc2", 120, 84);
  b.Add("act4", activation);
  b.Linear("fc3", 84, classes);
  return b.Finish();
}

void ResidualBlock(Builder& b, const std::string& name, int64_t in, int64_t out, int64_t stride) {
  std::string entry = b.last();
  b.Conv(name + ".conv1", in, out, 3, stride, 1, false);
  b.Norm(name + ".bn1", out);
  b.Add(name + ".relu1", OpType::kRelu);
  b.Conv(name + ".conv2", out, out, 3, 1, 1, false);
  std::string main = b.Norm(name + ".bn2", out);
  std::string shortcut = entry;
  if (stride != 1 || in != out) {
    b.Conv(name + ".shortcut.conv", in, out, 1, stride, 0, false, {entry});
    shortcut = b.Norm(name + ".shortcut.bn", out);
  }
  b.Add(name + ".add", OpType::kAdd, {}, {main, shortcut});
  b.Add(name + ".relu2", OpType::kRelu);
}

Result<Graph> Resnet(const Json& parameters, const Shape& shape, int64_t classes) {
  int64_t depth = parameters.at("depth").get<int64_t>(), width = parameters.at("width").get<int64_t>();
  if (depth < 8 || depth > 1202 || (depth - 2) % 6 != 0) {
    return Bad("resnet depth must be 6n + 2 (8, 14, 20, 26, 32, …), found " + std::to_string(depth));
  }
  if (shape.size() != 3 || shape[1] < 4 || shape[2] < 4) {
    return Bad("resnet takes images [channels, height, width] of at least 4x4 pixels, the data has " + ToString(shape));
  }
  Builder b(shape);
  b.Conv("stem.conv", shape[0], width, 3, 1, 1, false);
  b.Norm("stem.bn", width);
  b.Add("stem.relu", OpType::kRelu);
  int64_t in = width;
  for (int stage = 0; stage < 3; ++stage) {
    int64_t out = width << stage;
    for (int64_t block = 0; block < (depth - 2) / 6; ++block) {
      ResidualBlock(b, "stage" + std::to_string(stage + 1) + "." + std::to_string(block), in, out, stage > 0 && block == 0 ? 2 : 1);
      in = out;
    }
  }
  b.Add("pool", OpType::kGlobalAvgPool2d);
  b.Add("flatten", OpType::kFlatten);
  b.Linear("fc", in, classes);
  return b.Finish();
}

// "resnet20" is resnet with depth 20.
std::string BaseName(std::string_view name, int64_t* depth) {
  if (name.size() > 6 && name.substr(0, 6) == "resnet" &&
      std::all_of(name.begin() + 6, name.end(), [](char c) { return c >= '0' && c <= '9'; }) && name.size() <= 10) {
    *depth = std::stoll(std::string(name.substr(6)));
    return "resnet";
  }
  return std::string(name);
}

Status CheckField(const ArchitectureInfo& info, const std::string& field, const Json& value) {
  auto in_range = [&](const Json& v, int64_t low, int64_t high) {
    return v.is_number_integer() && v.get<int64_t>() >= low && v.get<int64_t>() <= high;
  };
  if (info.name == "encoder" && field != "dropout") {
    TRY(CheckEncoderField(field, value));
  } else if (field == "hidden") {
    bool good = value.is_array() && value.size() <= 64;
    for (const Json& v : value) good = good && in_range(v, 1, 1 << 20);
    if (!good) return Bad("hidden: expected a list of widths from 1 to 1048576, found " + Canonical(value));
  } else if (field == "activation") {
    if (!value.is_string() || std::find(kActivations.begin(), kActivations.end(), value.get<std::string>()) == kActivations.end()) {
      return Bad("activation: expected one of relu, gelu, tanh, sigmoid, silu, found " + Canonical(value));
    }
  } else if (field == "dropout") {
    if (!value.is_number() || value.get<double>() < 0 || value.get<double>() >= 1) {
      return Bad("dropout: expected a number in [0, 1), found " + Canonical(value));
    }
  } else if (!in_range(value, 1, 4096)) {
    return Bad(field + ": expected an integer from 1 to 4096, found " + Canonical(value));
  }
  return Ok();
}

}  // namespace

const std::vector<ArchitectureInfo>& Architectures() {
  static const std::vector<ArchitectureInfo> infos = {
      {"mlp", "fully connected layers",
       {{"hidden", "list of integers", "[300, 100]", "1 to 1048576 each", "widths of the hidden layers"},
        {"activation", "name", "relu", "relu, gelu, tanh, sigmoid, silu", "after every hidden layer"},
        {"dropout", "number", "0", "[0, 1)", "probability after every hidden layer"}}},
      {"lenet5", "LeCun 1998 with max pooling", {{"activation", "name", "relu", "relu, gelu, tanh, sigmoid, silu", "everywhere"}}},
      {"resnet", "CIFAR-style residual network (He 2015, section 4.2); resnet20 implies depth: 20",
       {{"depth", "integer", "20", "6n + 2", "layers"}, {"width", "integer", "16", "1 to 4096", "channels of the first stage"}}},
      EncoderInfo(),
  };
  return infos;
}

Result<Json> ResolveArchitecture(std::string_view name, const Json& parameters) {
  int64_t depth = 0;
  std::string base = BaseName(name, &depth);
  if (!parameters.is_object()) return Bad("architecture " + base + ": expected fields, found " + Canonical(parameters));
  std::string known;
  for (const ArchitectureInfo& info : Architectures()) {
    known += (known.empty() ? "" : ", ") + info.name;
    if (info.name != base) continue;
    Json resolved = Json::object();
    for (const ArchitectureField& field : info.fields) {
      resolved[field.name] = field.type == "name" ? Json(field.default_value) : Json::parse(field.default_value);
    }
    if (depth != 0) resolved["depth"] = depth;
    for (const auto& [key, value] : parameters.items()) {
      if (!resolved.contains(key)) return Bad("unknown field '" + key + "' of architecture " + base);
      TRY(CheckField(info, key, value));
      if (key == "depth" && depth != 0 && value != depth) {
        return Bad("depth: " + std::string(name) + " implies " + std::to_string(depth) + ", found " + Canonical(value));
      }
      resolved[key] = value;
    }
    return resolved;
  }
  return Bad("unknown architecture '" + std::string(name) + "'; known are " + known);
}

Result<Graph> BuildArchitecture(std::string_view name, const Json& parameters, const Shape& sample_shape, int64_t classes) {
  ASSIGN_OR_RETURN(Json resolved, ResolveArchitecture(name, parameters));
  if (classes < 1) return Bad("a model needs at least one class");
  int64_t depth = 0;
  std::string base = BaseName(name, &depth);
  if (base == "mlp") return Mlp(resolved, sample_shape, classes);
  if (base == "encoder") return BuildEncoder(resolved, sample_shape, classes);
  if (base == "lenet5") return Lenet5(resolved, sample_shape, classes);
  return Resnet(resolved, sample_shape, classes);
}

}  // namespace pare::model
