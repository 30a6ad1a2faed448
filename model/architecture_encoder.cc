#include "model/architecture_encoder.h"

#include <algorithm>
#include <array>
#include <utility>

#include "model/architecture_builder.h"

namespace pare::model {
namespace {

constexpr double kEpsilon = 1e-12;    // BERT's layer_norm_eps
constexpr double kDeviation = 0.02;   // and initializer_range
constexpr int64_t kMaxVocabulary = int64_t{1} << 24;  // ids travel as float32, which holds integers exactly up to here

struct IntegerField {
  const char *name, *default_value;
  int64_t low, high;
  const char* help;
};
constexpr std::array<IntegerField, 9> kIntegers = {{
    {"vocabulary", "30522", 1, kMaxVocabulary, "token ids are 0 to vocabulary − 1"},
    {"length", "512", 1, 1 << 16, "rows of the table of positions: the longest sample that the network can take"},
    {"types", "2", 0, 16, "rows of the table of segments; 0: none"},
    {"layers", "2", 1, 96, "blocks of attention and feed-forward network"},
    {"hidden", "128", 1, 1 << 14, "width of a token's features"},
    {"heads", "2", 1, 1 << 10, "of attention; they divide hidden"},
    {"intermediate", "512", 1, 1 << 16, "width of the feed-forward network"},
    {"padding", "0", -1, kMaxVocabulary - 1, "id that fills up short samples: attention and the mean do not see it; -1: there is none"},
    {"separator", "-1", -1, kMaxVocabulary - 1, "id that ends a segment: a token's type is the number of separators before it, at most types − 1; -1: all tokens have type 0"},
}};

Error Bad(const std::string& text) { return Error{ErrorCode::kInvalid, text}; }

int64_t Take(const Json& parameters, const char* field) { return parameters.at(field).get<int64_t>(); }

// Node by node; what every layer needs lies in members.
class Encoder {
 public:
  Encoder(const Json& parameters, const Shape& sample_shape)
      : p_(parameters), hidden_(Take(p_, "hidden")), dropout_(p_.at("dropout").get<double>()), b_(sample_shape, DType::kI64) {}

  Graph Build(int64_t classes) {
    Embeddings();
    for (int64_t i = 0; i < Take(p_, "layers"); ++i) Layer("encoder.layer." + std::to_string(i));
    if (p_.at("pooling") == "first") {
      b_.Add("pooler.first", OpType::kFirst);
      b_.Linear("pooler.dense", hidden_, hidden_);
      b_.Add("pooler.activation", OpType::kTanh);
    } else {
      std::vector<std::string> inputs = {b_.last()};
      if (!mask_.empty()) inputs.push_back(mask_);
      b_.Add("pooler.mean", OpType::kSequenceMean, {}, std::move(inputs));
    }
    Dropout("pooler.dropout");
    b_.Linear("classifier", hidden_, classes);
    return b_.Finish();
  }

 private:
  std::string Table(const std::string& name, int64_t rows, const std::string& ids) {
    Attributes a;
    a.vocabulary = rows;
    a.dimension = hidden_;
    a.deviation = kDeviation;
    return b_.Add(name, OpType::kEmbedding, a, {ids});
  }
  void Norm(const std::string& name) {
    Attributes a;
    a.features = hidden_;
    a.epsilon = kEpsilon;
    b_.Add(name, OpType::kLayerNorm, a);
  }
  void Dropout(const std::string& name) {
    if (dropout_ == 0) return;
    Attributes a;
    a.probability = dropout_;
    b_.Add(name, OpType::kDropout, a);
  }

  void Embeddings() {
    const std::string input = b_.last(), name = "embeddings.";
    if (Attributes a; Take(p_, "padding") >= 0) {
      a.id = Take(p_, "padding");
      mask_ = b_.Add(name + "key_mask", OpType::kKeyMask, a, {input});
    }
    std::vector<std::string> sum = {Table(name + "word_embeddings", Take(p_, "vocabulary"), input)};
    std::string positions = b_.Add(name + "position_ids", OpType::kPositions, {}, {input});
    sum.push_back(Table(name + "position_embeddings", Take(p_, "length"), positions));
    if (int64_t types = Take(p_, "types"); types > 0) {
      Attributes a;
      a.id = std::max<int64_t>(0, Take(p_, "separator"));
      a.segments = Take(p_, "separator") < 0 ? 1 : types;  // one segment: every token has type 0
      std::string segments = b_.Add(name + "token_type_ids", OpType::kSegments, a, {input});
      sum.push_back(Table(name + "token_type_embeddings", types, segments));
    }
    b_.Add(name + "add", OpType::kAdd, {}, std::move(sum));
    Norm(name + "LayerNorm");
    Dropout(name + "dropout");
  }

  // norm(entry + dropout(dense(last))): the end of both halves of a layer (norms behind the additions, as in the paper).
  void Residual(const std::string& name, int64_t in, const std::string& entry) {
    b_.Linear(name + ".dense", in, hidden_);
    Dropout(name + ".dropout");
    b_.Add(name + ".add", OpType::kAdd, {}, {b_.last(), entry});
    Norm(name + ".LayerNorm");
  }

  void Layer(const std::string& name) {
    const std::string entry = b_.last(), self = name + ".attention.self";
    std::vector<std::string> inputs;
    for (const char* part : {".query", ".key", ".value"}) inputs.push_back(b_.Linear(self + part, hidden_, hidden_, {entry}));
    if (!mask_.empty()) inputs.push_back(mask_);
    Attributes a;
    a.heads = Take(p_, "heads");
    b_.Add(self, OpType::kAttention, a, std::move(inputs));
    Residual(name + ".attention.output", hidden_, entry);
    const std::string middle = b_.last();
    b_.Linear(name + ".intermediate.dense", hidden_, Take(p_, "intermediate"));
    b_.Add(name + ".intermediate.activation", OpType::kGelu);
    Residual(name + ".output", Take(p_, "intermediate"), middle);
  }

  const Json& p_;
  int64_t hidden_;
  double dropout_;
  ArchitectureBuilder b_;
  std::string mask_;  // empty: no id is padding
};

// The fields together.
Status CheckTogether(const Json& p) {
  int64_t hidden = Take(p, "hidden"), heads = Take(p, "heads"), vocabulary = Take(p, "vocabulary");
  if (hidden % heads != 0) return Bad("heads: " + std::to_string(heads) + " heads do not divide a hidden width of " + std::to_string(hidden));
  for (const char* field : {"padding", "separator"}) {
    if (Take(p, field) < vocabulary) continue;
    return Bad(std::string(field) + ": id " + std::to_string(Take(p, field)) + " is outside the vocabulary, 0 to " + std::to_string(vocabulary - 1));
  }
  if (Take(p, "separator") >= 0 && Take(p, "types") < 2) return Bad("separator: tells segments apart, which takes at least 2 types, found " + std::to_string(Take(p, "types")));
  if (Take(p, "separator") >= 0 && Take(p, "separator") == Take(p, "padding")) return Bad("separator: " + std::to_string(Take(p, "separator")) + " is the id of padding");
  return Ok();
}

}  // namespace

ArchitectureInfo EncoderInfo() {
  ArchitectureInfo info;
  info.name = "encoder";
  info.help = "BERT (Devlin 2018) as a classifier, on samples that are vectors of token ids";
  for (const IntegerField& f : kIntegers) info.fields.push_back({f.name, "integer", f.default_value, std::to_string(f.low) + " to " + std::to_string(f.high), f.help});
  info.fields.push_back({"pooling", "name", "first", "first, mean", "what is classified: the features of the first token behind a linear layer and tanh, or the mean over all tokens but padding"});
  info.fields.push_back({"dropout", "number", "0.1", "[0, 1)", "probability behind the embeddings, behind both halves of every layer, and before the classifier"});
  return info;
}

Status CheckEncoderField(const std::string& field, const Json& value) {
  if (field == "pooling") {
    if (value == "first" || value == "mean") return Ok();
    return Bad("pooling: expected one of first, mean, found " + Canonical(value));
  }
  auto f = std::find_if(kIntegers.begin(), kIntegers.end(), [&](const IntegerField& known) { return field == known.name; });
  CHECK(f != kIntegers.end());
  // As numbers of the wider type: 2^64 − 1 is not −1.
  if (value.is_number_integer() && value.get<double>() >= static_cast<double>(f->low) && value.get<double>() <= static_cast<double>(f->high)) return Ok();
  return Bad(field + ": expected an integer from " + std::to_string(f->low) + " to " + std::to_string(f->high) + ", found " + Canonical(value));
}

Result<Graph> BuildEncoder(const Json& parameters, const Shape& sample_shape, int64_t classes) {
  TRY(CheckTogether(parameters));
  if (sample_shape.size() != 1) return Bad("encoder takes samples that are vectors of token ids [length], the data has " + ToString(sample_shape));
  if (int64_t length = Take(parameters, "length"); sample_shape[0] > length) {
    return Bad("length: the data has samples of " + std::to_string(sample_shape[0]) + " tokens, the table of positions ends at " + std::to_string(length));
  }
  return Encoder(parameters, sample_shape).Build(classes);
}

}  // namespace pare::model
