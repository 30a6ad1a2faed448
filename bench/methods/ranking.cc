// Global ranking of a large model: time and memory (methods/selection.h). Prints one line per criterion: seconds, peak
// resident memory, and its ratio to the bytes of weights (and of the gradients that the criterion was given).
//
//   bench_ranking [MILLIONS OF WEIGHTS, default 100]     exits with 1 if a bar of the README is missed
#include <sys/resource.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "bench/methods/verdict.h"
#include "methods/pruning.h"

namespace pare {
namespace {

constexpr int64_t kLayers = 10;

int64_t PeakBytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<int64_t>(usage.ru_maxrss) * 1024;
}

std::vector<float> Filled(int64_t n, uint64_t seed) {
  std::vector<float> values(static_cast<size_t>(n));
  uint64_t state = seed * 2 + 1;
  for (float& v : values) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    v = static_cast<float>(static_cast<int32_t>(state >> 32)) * 0x1p-31f;
  }
  return values;
}

bool Rank(const char* name, methods::Criterion criterion, const methods::Granularity& granularity, const std::vector<float>& weights,
          const std::vector<float>& gradients) {
  methods::PruneOptions options;
  options.criterion = criterion;
  options.scope = methods::Scope::kGlobal;
  options.granularity = granularity;
  std::vector<methods::WeightView> views;
  size_t each = weights.size() / kLayers, columns = 1000;
  for (size_t t = 0; t < kLayers; ++t) {
    options.tensors.push_back("layer" + std::to_string(t) + ".weight");
    views.push_back({options.tensors.back(), {static_cast<int64_t>(each / columns), static_cast<int64_t>(columns)}, std::span(weights).subspan(t * each, each), t,
                     gradients.empty() ? std::span<const float>() : std::span(gradients).subspan(t * each, each)});
  }
  auto start = std::chrono::steady_clock::now();
  auto masks = methods::Prune(options, {0.9, {}}, views, {}, {});
  double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  if (!masks.ok()) {
    std::fprintf(stderr, "bench_ranking: %s\n", masks.error().message.c_str());
    return false;
  }
  double bytes = 4.0 * static_cast<double>(weights.size() + gradients.size());
  std::printf("%-28s %6.2f s   peak %7.1f MB   %.3f x the bytes of %s\n", name, seconds, static_cast<double>(PeakBytes()) / 1e6, static_cast<double>(PeakBytes()) / bytes,
              gradients.empty() ? "the weights" : "weights and gradients");
  return bench::Meets(bench::Bar::kAtMost, "peak memory in bytes of what it was given", static_cast<double>(PeakBytes()) / bytes, 1.2);
}

}  // namespace
}  // namespace pare

int main(int argc, char** argv) {
  using namespace pare;
  int64_t millions = argc > 1 ? std::atoll(argv[1]) : 100;
  if (argc > 2 || millions < 1) {
    std::fprintf(stderr, "usage: bench_ranking [MILLIONS]\n");
    return 2;
  }
  std::vector<float> weights = Filled(millions * 1'000'000, 1), gradients;
  bool good = Rank("magnitude", methods::Criterion::kMagnitudeL1, {}, weights, gradients);
  good = Rank("magnitude, blocks of 4x1", methods::Criterion::kMagnitudeL1, {methods::GranularityKind::kBlock, 0, 0, 4, 1}, weights, gradients) && good;
  gradients = Filled(millions * 1'000'000, 2);
  good = Rank("taylor", methods::Criterion::kTaylor, {}, weights, gradients) && good;
  return good ? 0 : 1;
}
