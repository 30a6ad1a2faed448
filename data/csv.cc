#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <map>

#include "common/files.h"
#include "data/readers.h"

namespace pare::data {
namespace {

constexpr size_t kMaxColumns = 1'000'000;

Error Bad(const std::string& path, size_t line, size_t column, const std::string& text) {
  return Error{ErrorCode::kInvalid, path + ":" + std::to_string(line) + ":" + std::to_string(column) + ": " + text};
}

std::string_view Trim(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\r' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

struct Place {
  const std::string& path;
  size_t line_number;
  std::string_view line;
  Error Bad(size_t at, const std::string& text) const { return data::Bad(path, line_number, at + 1, text); }
};

// The cell between double quotes that begins at `at`, which moves behind it. A doubled quote stands for one, and is left as it is.
Result<std::string_view> QuotedCell(const Place& place, size_t& at) {
  std::string_view line = place.line;
  size_t begin = at + 1, close = line.find('"', begin);
  while (close != std::string_view::npos && line.substr(close + 1, 1) == "\"") close = line.find('"', close + 2);
  if (close == std::string_view::npos) return place.Bad(at, "this quote is not closed; a cell in double quotes ends with one on the same line");
  size_t end = std::min(line.find(',', close), line.size());
  size_t rest = line.find_first_not_of(" \t\r", close + 1);
  if (rest < end) return place.Bad(rest, "text after the closing quote; a comma or the end of the line is allowed there");
  at = end;
  return Trim(line.substr(begin, close - begin));
}

Result<std::vector<std::string_view>> Cells(const Place& place) {
  std::vector<std::string_view> cells;
  std::string_view line = place.line;
  for (size_t at = 0;; ++at) {
    size_t first = line.find_first_not_of(" \t\r", at);
    if (first != std::string_view::npos && line[first] == '"') {
      ASSIGN_OR_RETURN(std::string_view cell, QuotedCell(place, at = first));
      cells.push_back(cell);
    } else {
      size_t comma = std::min(line.find(',', at), line.size());
      cells.push_back(Trim(line.substr(at, comma - at)));
      if (size_t quote = cells.back().find('"'); quote != std::string_view::npos) {
        return place.Bad(static_cast<size_t>(cells.back().data() - line.data()) + quote, "a quote inside a cell; quotes are allowed around a whole cell");
      }
      at = comma;
    }
    if (at == line.size()) return cells;
  }
}

bool ParseNumber(std::string_view cell, double& value) {
  auto [end, code] = std::from_chars(cell.data(), cell.data() + cell.size(), value);
  return code == std::errc() && end == cell.data() + cell.size() && std::abs(value) <= std::numeric_limits<float>::max();
}

// A header names columns; a damaged number in a first row of data (nan, an empty cell) must not turn it into one.
bool IsName(std::string_view cell) {
  double value = 0;
  auto [end, code] = std::from_chars(cell.data(), cell.data() + cell.size(), value);
  return !cell.empty() && (code == std::errc::invalid_argument || end != cell.data() + cell.size());
}

// Which of two equal names is meant nobody can tell.
Status CheckNames(const Place& place, const std::vector<std::string_view>& names) {
  std::map<std::string_view, size_t> seen;
  for (size_t i = 0; i < names.size(); ++i) {
    auto [first, fresh] = seen.emplace(names[i], i);
    if (fresh || names[i].empty()) continue;
    return place.Bad(static_cast<size_t>(names[i].data() - place.line.data()), "column " + std::to_string(i) + " has the name of column " + std::to_string(first->second) + ", '" +
                                                                                std::string(names[i].substr(0, 40)) + "'; each column needs a name of its own");
  }
  return Ok();
}

// Column of the label: by header name, or by zero-based number.
Result<size_t> LabelColumn(const std::vector<std::string_view>& first, bool header, const std::string& wanted, const std::string& path) {
  if (header) {
    for (size_t i = 0; i < first.size(); ++i) {
      if (first[i] == wanted) return i;
    }
  }
  size_t number = 0;
  auto [end, code] = std::from_chars(wanted.data(), wanted.data() + wanted.size(), number);
  if (code == std::errc() && end == wanted.data() + wanted.size() && number < first.size()) return number;
  std::string names;
  for (size_t i = 0; header && i < std::min<size_t>(first.size(), 20); ++i) names += (i ? ", " : "") + std::string(first[i]);
  return Bad(path, 1, 1, "no label column '" + wanted + "'; " +
                             (header ? "columns are " + names : "the file has no header: give the column's number, 0 to " + std::to_string(first.size() - 1)));
}

}  // namespace

Result<Split> ReadCsv(const std::string& path, const std::string& label_column, const model::Shape& shape) {
  ASSIGN_OR_RETURN(std::string file, ReadDataFile(path));
  std::string_view text = file;
  if (text.starts_with("\xEF\xBB\xBF")) text.remove_prefix(3);  // byte order mark
  std::vector<float> samples;
  std::vector<int64_t> labels;
  size_t label = 0, columns = 0, line_number = 0;
  for (size_t at = 0; at < text.size();) {
    size_t end = std::min(text.find('\n', at), text.size());
    std::string_view line = text.substr(at, end - at);
    at = end + 1;
    ++line_number;
    if (Trim(line).empty()) continue;
    Place place{path, line_number, line};
    ASSIGN_OR_RETURN(std::vector<std::string_view> cells, Cells(place));
    double value = 0;
    if (columns == 0) {
      bool header = std::any_of(cells.begin(), cells.end(), IsName);
      columns = cells.size();
      if (columns < 2 || columns > kMaxColumns) return Bad(path, line_number, 1, "needs 2 to 1000000 columns, found " + std::to_string(columns));
      ASSIGN_OR_RETURN(label, LabelColumn(cells, header, label_column, path));
      if (header) {
        TRY(CheckNames(place, cells));
        continue;
      }
    }
    if (cells.size() != columns) {
      return Bad(path, line_number, 1, std::to_string(cells.size()) + " columns, the first line has " + std::to_string(columns));
    }
    for (size_t c = 0; c < columns; ++c) {
      size_t column = static_cast<size_t>(cells[c].data() - line.data()) + 1;
      bool number = ParseNumber(cells[c], value);
      if (c == label && (!number || value != std::floor(value) || value < 0 || value > 1e6)) {
        return Bad(path, line_number, column, "label '" + std::string(cells[c].substr(0, 40)) + "' is not an integer from 0 to 1000000: number the classes from 0");
      }
      if (!number) return Bad(path, line_number, column, "'" + std::string(cells[c].substr(0, 40)) + "' is not a finite number");
      if (c != label) {
        samples.push_back(static_cast<float>(value));
      } else {
        labels.push_back(static_cast<int64_t>(value));
      }
    }
  }
  if (labels.empty()) return Bad(path, 1, 1, "no rows");
  auto rows = static_cast<int64_t>(labels.size());
  auto features = static_cast<int64_t>(columns) - 1;
  model::Shape sample = shape.empty() ? model::Shape{features} : shape;
  if (!std::all_of(sample.begin(), sample.end(), [&](int64_t d) { return d >= 1 && d <= features; }) || sample.size() > 3 ||
      model::ElementCount(sample) != features) {
    return Bad(path, 1, 1, "shape " + model::ToString(sample) + " does not fit the " + std::to_string(features) + " columns beside the label");
  }
  sample.insert(sample.begin(), rows);
  return Split{model::Tensor::Of<float>(model::DType::kF32, sample, samples), model::Tensor::Of<int64_t>(model::DType::kI64, {rows}, labels)};
}

}  // namespace pare::data
