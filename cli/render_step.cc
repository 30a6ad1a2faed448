// The results of a step, whatever its kind: numbers by name, lists of layers as tables.
#include <algorithm>

#include "cli/render.h"

namespace pare::cli {
namespace {

constexpr size_t kMostRows = 60;   // of a list; --json has all
constexpr size_t kMostValues = 12;  // of a list of numbers

std::string CellOf(const Json& value) {
  if (value.is_string()) return value.get<std::string>();
  if (value.is_null()) return kNone;
  if (value.is_number_float()) return Format("%.6g", value.get<double>());
  if (value.is_boolean()) return value.get<bool>() ? "yes" : "no";
  if (!value.is_array()) return Canonical(value);
  std::string list;
  for (size_t i = 0; i < value.size() && i < kMostValues; ++i) list += (i == 0 ? "" : ", ") + CellOf(value[i]);
  return value.size() > kMostValues ? list + ", … (" + std::to_string(value.size()) + ")" : list;
}

bool IsTable(const Json& value) {
  return value.is_array() && !value.empty() && std::all_of(value.begin(), value.end(), [](const Json& row) { return row.is_object(); });
}

std::string TableOf(const Json& list) {
  std::vector<std::string> columns;
  for (const Json& row : list) {
    for (const auto& [name, value] : row.items()) {
      if (std::find(columns.begin(), columns.end(), name) == columns.end()) columns.push_back(name);
    }
  }
  // What a row is about comes first, what explains it last.
  auto place = [](const std::string& name) { return name == "layer" || name == "tensor" || name == "name" ? 0 : name == "reason" ? 2 : 1; };
  std::stable_sort(columns.begin(), columns.end(), [&](const auto& a, const auto& b) { return place(a) < place(b); });
  Rows rows = {columns};
  for (const Json& row : list) {
    if (rows.size() > kMostRows) break;
    std::vector<std::string> cells;
    for (const std::string& column : columns) cells.push_back(row.contains(column) ? CellOf(row[column]) : "");
    rows.push_back(std::move(cells));
  }
  std::string out = Table(rows);
  return list.size() <= kMostRows ? out : out + "… and " + std::to_string(list.size() - kMostRows) + " more (--json has all)\n";
}

// `path`: of the objects around it.
void Add(const Json& object, const std::string& path, Rows& values, std::string& tables) {
  for (const auto& [name, value] : object.items()) {
    std::string here = path.empty() ? name : path + "." + name;
    if (value.is_object() && !value.empty()) Add(value, here, values, tables);
    else if (IsTable(value)) tables += "\n" + here + "\n" + TableOf(value);
    else values.push_back({here, CellOf(value)});
  }
}

}  // namespace

std::string RenderStep(const Json& step) {
  std::string out = Text(step, "kind") + " " + Text(step, "step") + " of job " + Text(step, "job") + "\nartifact " + Text(step, "artifact") + "\n";
  Rows values = {{"result", "value"}};
  std::string tables;
  if (const Json results = step.value("results", Json()); results.is_object()) Add(results, "", values, tables);
  if (values.size() > 1) out += "\n" + Table(values);
  out += tables;
  if (IsTable(step.value("files", Json()))) out += "\nfiles\n" + TableOf(step["files"]);
  return out;
}

}  // namespace pare::cli
