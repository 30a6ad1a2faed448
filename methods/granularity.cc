#include "methods/granularity.h"

namespace pare::methods {
namespace {

Error Invalid(const std::string& text) { return {ErrorCode::kInvalid, "prune: field 'granularity': " + text}; }

Status Read(const Json& json, const char* field, int64_t low, int64_t high, int64_t& out) {
  Result<int64_t> value = IntField(json, field);
  if (!value.ok()) return Invalid(value.error().message);
  if (*value < low || *value > high) {
    return Invalid(std::string(field) + ": " + std::to_string(*value) + " is not between " + std::to_string(low) + " and " + std::to_string(high));
  }
  out = *value;
  return Ok();
}

}  // namespace

Result<Granularity> GranularityFromJson(const Json& params) {
  Granularity g;
  auto json = params.find("granularity");
  if (json == params.end()) return g;
  if (!json->is_object()) return Invalid("expected an object");
  Result<std::string> kind = StringField(*json, "kind");
  if (!kind.ok()) return Invalid(kind.error().message);
  if (*kind == "n_m") {
    g.kind = GranularityKind::kNofM;
    TRY(Read(*json, "m", 2, kMaxGroup, g.m));
    TRY(Read(*json, "n", 1, g.m - 1, g.n));
  } else if (*kind == "block") {
    g.kind = GranularityKind::kBlock;
    TRY(Read(*json, "rows", 1, kMaxBlockSide, g.rows));
    TRY(Read(*json, "columns", 1, kMaxBlockSide, g.columns));
  } else if (*kind == "structured") {
    g.kind = GranularityKind::kStructured;
    Result<std::string> unit = StringField(*json, "unit");
    if (!unit.ok()) return Invalid(unit.error().message);
    if (*unit == "channel") g.unit = UnitKind::kChannel;
    else if (*unit == "head") g.unit = UnitKind::kHead;
    else if (*unit == "layer") g.unit = UnitKind::kLayer;
    else return Invalid("unit '" + *unit + "' is not one of channel, head, layer");
    TRY(Read(*json, "round_to", 1, kMaxRoundTo, g.round_to));
  } else {
    return Invalid("kind '" + *kind + "' is not one of n_m, block, structured");
  }
  return g;
}

MatrixShape MatrixOf(const model::Shape& shape) {
  int64_t rows = shape.empty() ? 1 : shape[0];
  return {rows, rows == 0 ? 0 : model::ElementCount(shape) / rows};
}

Status CheckGroups(const Granularity& g, const std::string& tensor, const model::Shape& shape) {
  MatrixShape matrix = MatrixOf(shape);
  if (g.kind != GranularityKind::kNofM || matrix.columns % g.m == 0) return Ok();
  return Error{ErrorCode::kInvalid, "prune: " + std::to_string(g.n) + ":" + std::to_string(g.m) + " needs rows of a multiple of " +
                                        std::to_string(g.m) + " weights, those of " + tensor + " have " + std::to_string(matrix.columns) +
                                        "; ignore this layer or use another granularity"};
}

}  // namespace pare::methods
