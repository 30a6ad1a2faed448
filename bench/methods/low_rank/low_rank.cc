// Rank search over the 36 linears of a MiniLM-size encoder (six layers of four 384x384, one 1536x384, one 384x1536) against
// torch.linalg in the same process and interleaved with it: best of REPEATS rounds each. Prints one JSON line, then
// the bars of the README; exits with 1 if one is missed.
//
//   bench_low_rank [THREADS [REPEATS]]
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <functional>

#include "bench/methods/verdict.h"
#include "common/random.h"
#include "methods/low_rank.h"
#include "methods/ranks.h"
#include "worker/engine/linalg.h"

namespace pare {
namespace {

// Rows that share a falling spectrum, as trained weights do: noise through a smoothing of its columns.
model::Tensor Weight(int64_t rows, int64_t columns, uint64_t seed) {
  model::Tensor w(model::DType::kF32, {rows, columns});
  RandomStream stream(seed, RandomPurpose::kTest);
  auto values = w.mutable_values<float>();
  for (int64_t r = 0; r < rows; ++r) {
    double carried = 0;
    for (int64_t c = 0; c < columns; ++c) {
      carried = 0.8 * carried + 0.05 * stream.Normal();
      values[static_cast<size_t>(r * columns + c)] = static_cast<float>(carried);
    }
  }
  return w;
}

model::Tensor Covariance(int64_t columns) {
  engine::CovarianceSum sum({{columns}});
  std::vector<float> x(static_cast<size_t>(2 * columns * columns));
  RandomStream stream(7, RandomPurpose::kTest);
  for (float& v : x) v = static_cast<float>(stream.Normal());
  sum.Add(x, 2 * columns);
  return sum.Mean();
}

struct Encoder {
  std::vector<engine::SpectrumJob> values, factors, whitened;
  std::vector<methods::RankedLayer> layers;
};

Encoder MakeEncoder() {
  Encoder e;
  model::Tensor narrow = Covariance(384), wide = Covariance(1536);
  for (int layer = 0; layer < 6; ++layer) {
    for (auto [rows, columns] : {std::pair<int64_t, int64_t>{384, 384}, {384, 384}, {384, 384}, {384, 384}, {1536, 384}, {384, 1536}}) {
      std::string name = "w" + std::to_string(e.values.size());
      e.values.push_back({name, Weight(rows, columns, e.values.size()), {}, 0});
      e.factors.push_back(e.values.back());
      e.factors.back().keep = methods::LargestRank(rows, columns, rows * columns);
      e.whitened.push_back(e.factors.back());
      e.whitened.back().covariance = columns == 384 ? narrow : wide;
      e.layers.push_back({name, rows, columns, {}, rows * columns, rows * columns, rows + columns});
    }
  }
  return e;
}

double SecondsOf(const std::function<void()>& body) {
  auto start = std::chrono::steady_clock::now();
  body();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

template <typename T>
T Must(Result<T> result) {
  if (result.ok()) return *std::move(result);
  std::fprintf(stderr, "%s\n", result.error().message.c_str());
  std::exit(1);
}

int Run(int threads, int repeats) {
  Encoder e = MakeEncoder();
  std::vector<engine::SpectrumResult> found;
  std::vector<std::vector<double>> expected;
  const std::vector<double> thresholds = {0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95};
  struct Timed {
    const char* name;
    std::function<void()> body;
    double best = 1e9;
  };
  std::vector<Timed> timed = {
      {"torch_svdvals_s", [&] { expected = Must(engine::TorchSpectra(e.values, false, threads)); }},
      {"torch_svd_s", [&] { Must(engine::TorchSpectra(e.values, true, threads)); }},
      {"spectra_values_s", [&] { found = Must(engine::Spectra(e.values, threads)); }},
      {"spectra_with_factors_s", [&] { Must(engine::Spectra(e.factors, threads)); }},
      {"whitened_with_factors_s", [&] { Must(engine::Spectra(e.whitened, threads)); }},
      {"frontier_of_10_thresholds_s", [&] { methods::Frontier(e.layers, thresholds); }},
      {"ranks_of_one_budget_s", [&] { Must(methods::ChooseRanks(e.layers, {.budget = 0.5})); }},
  };
  double off = 0;
  for (int round = 0; round <= repeats; ++round) {  // the first one warms up
    for (Timed& t : timed) {
      double seconds = SecondsOf(t.body);
      if (round > 0) t.best = std::min(t.best, seconds);
      for (size_t i = 0; i < found.size() && round == 0; ++i) e.layers[i].energies = found[i].energies;
    }
  }
  for (size_t i = 0; i < found.size(); ++i) {
    for (size_t k = 0; k < found[i].energies.size(); ++k) off = std::max(off, std::abs(found[i].energies[k] - expected[i][k]) / expected[i][0]);
  }
  Json line = {{"threads", threads}, {"repeats", repeats}, {"largest_difference_of_energies", off}};
  std::map<std::string, double> best;
  for (const Timed& t : timed) line[t.name] = best[t.name] = t.best;
  line["values_vs_svdvals"] = best["torch_svdvals_s"] / best["spectra_values_s"];
  line["factors_vs_svd"] = best["torch_svd_s"] / best["spectra_with_factors_s"];
  // Ten candidate thresholds: a search that decomposes for each of them, and one that looks them up.
  line["search_vs_svd_per_candidate"] = 10 * best["torch_svd_s"] / (best["spectra_with_factors_s"] + best["frontier_of_10_thresholds_s"]);
  std::printf("%s\n", Canonical(line).c_str());
  using bench::Bar, bench::Meets;
  bool met = Meets(Bar::kAtLeast, "search against an SVD per candidate", line["search_vs_svd_per_candidate"], 10);
  met = Meets(Bar::kAtMost, "seconds of the spectra", best["spectra_values_s"], 0.6) && met;
  met = Meets(Bar::kAtMost, "seconds of the whitened scan", best["whitened_with_factors_s"], 5) && met;
  met = Meets(Bar::kAtMost, "milliseconds of one threshold more", 100 * best["frontier_of_10_thresholds_s"], 10) && met;
  return met ? 0 : 1;
}

}  // namespace
}  // namespace pare

int main(int argc, char** argv) { return pare::Run(argc > 1 ? std::atoi(argv[1]) : 2, argc > 2 ? std::atoi(argv[2]) : 5); }
