#include "worker/runner/evaluation.h"

#include <algorithm>
#include <cmath>

namespace pare::runner {
namespace {

constexpr double kNormalQuantile = 1.959963984540054;  // 97.5 % of the normal distribution

void MarkCorrect(std::span<const float> logits, std::span<const int64_t> labels, size_t first, std::string& bitmap) {
  size_t classes = logits.size() / labels.size();
  for (size_t i = 0; i < labels.size(); ++i) {
    const float* row = logits.data() + i * classes;
    auto best = std::max_element(row, row + classes) - row;  // the first of equals
    if (best == labels[i]) bitmap[(first + i) / 8] = static_cast<char>(bitmap[(first + i) / 8] | 1 << ((first + i) % 8));
  }
}

}  // namespace

engine::SampleSource SamplesOf(const data::Split& split, const data::DataSpec& spec, std::span<const uint32_t> rows) {
  return [&split, &spec, rows](int64_t first, int64_t count, std::span<float> out) {
    data::Gather(split, spec, rows.subspan(static_cast<size_t>(first), static_cast<size_t>(count)), out);
  };
}

EvaluationCounts EvaluateRows(engine::Network& network, const data::Split& split, const data::DataSpec& spec,
                              std::span<const uint32_t> rows, std::string* bitmap) {
  EvaluationCounts counts;
  counts.total = static_cast<int64_t>(rows.size());
  size_t limit = std::min<size_t>(kEvaluationBatch, rows.size());
  std::vector<float> logits;
  std::vector<int64_t> labels(limit);
  if (bitmap != nullptr) {
    bitmap->assign((rows.size() + 7) / 8, '\0');
    logits.resize(limit * static_cast<size_t>(network.classes()));
  }
  double loss_sum = 0.0;
  for (size_t first = 0; first < rows.size(); first += limit) {
    size_t n = std::min(limit, rows.size() - first);
    std::span<int64_t> batch_labels(labels.data(), n);
    std::span<float> batch_logits(logits.data(), bitmap == nullptr ? 0 : n * static_cast<size_t>(network.classes()));
    std::span<const uint32_t> part = rows.subspan(first, n);
    data::GatherLabels(split, part, batch_labels);
    engine::BatchResult result = network.EvaluateBatch(SamplesOf(split, spec, part), batch_labels, batch_logits);
    counts.correct += result.correct;
    loss_sum += result.loss * static_cast<double>(n);
    if (bitmap != nullptr) MarkCorrect(batch_logits, batch_labels, first, *bitmap);
  }
  counts.loss = loss_sum / static_cast<double>(rows.size());
  return counts;
}

double Percent(int64_t correct, int64_t total) { return 100.0 * static_cast<double>(correct) / static_cast<double>(total); }

Interval WilsonInterval(int64_t correct, int64_t total) {
  constexpr double z = kNormalQuantile;
  double n = static_cast<double>(total), p = static_cast<double>(correct) / n;
  double middle = (p + z * z / (2 * n)) / (1 + z * z / n);
  double half = z / (1 + z * z / n) * std::sqrt(p * (1 - p) / n + z * z / (4 * n * n));
  // At the ends the bounds are 0 and 1 exactly; rounding must not show.
  return {correct == 0 ? 0.0 : 100.0 * (middle - half), correct == total ? 100.0 : 100.0 * (middle + half)};
}

PairedCounts CountPairs(std::string_view first, std::string_view second, int64_t total) {
  PairedCounts counts;
  for (int64_t i = 0; i < total; ++i) {
    auto bit = [&](std::string_view bitmap) { return bitmap[static_cast<size_t>(i / 8)] >> (i % 8) & 1; };
    counts.only_first += bit(first) != 0 && bit(second) == 0;
    counts.only_second += bit(first) == 0 && bit(second) != 0;
  }
  return counts;
}

Interval PairedInterval(const PairedCounts& counts, int64_t total) {
  double n = static_cast<double>(total) + 2.0, b = static_cast<double>(counts.only_first) + 0.5, c = static_cast<double>(counts.only_second) + 0.5;
  double middle = (c - b) / n, half = kNormalQuantile * std::sqrt(b + c - (c - b) * (c - b) / n) / n;
  return {100.0 * (middle - half), 100.0 * (middle + half)};
}

Status CheckFits(const model::Graph& graph, const model::GraphInfo& info, const data::Dataset& dataset,
                 const data::DataSpec& spec) {
  const model::Shape& all = dataset.train.samples.shape();
  model::Shape sample(all.begin() + 1, all.end());
  if (graph.nodes.empty() || graph.nodes[0].attributes.shape != sample) {
    std::string takes = graph.nodes.empty() ? "nothing" : model::ToString(graph.nodes[0].attributes.shape);
    return Error{ErrorCode::kInvalid, "the model takes samples of shape " + takes + ", the dataset has " + model::ToString(sample)};
  }
  const model::Shape& output = info.shapes[static_cast<size_t>(graph.IndexOf(graph.output))];
  if (output.size() != 1 || output[0] < dataset.classes) {
    return Error{ErrorCode::kInvalid, "the model's output has shape " + model::ToString(output) + ", the dataset has " +
                                          std::to_string(dataset.classes) + " classes"};
  }
  size_t channels = sample.size() == 3 ? static_cast<size_t>(sample[0]) : 1;
  for (const auto* list : {&spec.offset, &spec.scale}) {
    if (list->empty() || list->size() == channels) continue;
    return Error{ErrorCode::kInvalid, "data: offset and scale have " + std::to_string(list->size()) +
                                          " entries, samples of shape " + model::ToString(sample) + " have " +
                                          std::to_string(channels) + " channels"};
  }
  return Ok();
}

}  // namespace pare::runner
