// One side of bench/methods/distill: distillation of MLPs on Fashion-MNIST as worker/runner drives it: gather, ask the teacher,
// batch, optimizer step. Prints one JSON line: seconds of every epoch, of the pass that computes the logits, their bytes.
//
//   bench_distill cached|loop TEACHER_HIDDEN STUDENT_HIDDEN BATCH THREADS SHARDS EPOCHS SAMPLES      (hidden widths: 1200,1200)
#include <chrono>
#include <cstdio>
#include <numeric>
#include <sstream>
#include <string>

#include "common/random.h"
#include "data/dataset.h"
#include "model/architectures.h"
#include "model/initialize.h"
#include "worker/engine/optimizer.h"
#include "worker/runner/teacher.h"

namespace pare {
namespace {

struct Setting {
  std::string way, teacher, student;
  int64_t batch = 60;
  int threads = 1, shards = 1;
  int64_t epochs = 3, samples = 60000;
};

constexpr int64_t kPass = 500;  // samples at once when the logits are computed

Result<std::unique_ptr<engine::Network>> Mlp(const std::string& hidden, const Setting& s, uint64_t seed) {
  Json widths = Json::array();
  std::istringstream list(hidden);
  for (std::string width; std::getline(list, width, ',');) widths.push_back(std::stoll(width));
  ASSIGN_OR_RETURN(model::Graph graph, model::BuildArchitecture("mlp", {{"hidden", widths}}, {1, 28, 28}, 10));
  ASSIGN_OR_RETURN(model::GraphInfo info, model::Analyze(graph));
  engine::NetworkOptions options;
  options.threads = s.threads;
  options.shards = s.shards;
  options.max_batch = std::max(s.batch, kPass);
  return engine::Network::Create(graph, model::InitializeWeights(graph, info, seed), options);
}

double Since(std::chrono::steady_clock::time_point start) { return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count(); }

class Distillation {
 public:
  Distillation(const Setting& setting, data::Dataset dataset) : s_(setting), dataset_(std::move(dataset)) {
    spec_.offset = {0.2860};
    spec_.scale = {1 / 0.3530};
  }

  Status Run() {
    ASSIGN_OR_RETURN(auto network, Mlp(s_.teacher, s_, 2));
    ASSIGN_OR_RETURN(student_, Mlp(s_.student, s_, 1));
    runner::DistillOptions options;
    auto start = std::chrono::steady_clock::now();
    if (s_.way == "cached") {
      std::vector<uint32_t> rows(static_cast<size_t>(s_.samples));
      std::iota(rows.begin(), rows.end(), 0u);
      runner::Logits logits(Answers(*network, rows), network->classes());
      bytes_ = logits.Encode().size();
      ASSIGN_OR_RETURN(teacher_, runner::NewCachedTeacher(std::move(logits), rows, student_->classes(), options));
    } else {
      teacher_ = runner::NewLoopTeacher(std::move(network), "teacher", options);
    }
    double pass = Since(start);
    engine::OptimizerOptions rule;
    rule.momentum = 0.9;
    optimizer_ = engine::Optimizer::Create(rule, static_cast<int64_t>(student_->parameters().size()));
    std::string seconds;
    for (int64_t epoch = 0; epoch < s_.epochs; ++epoch) {
      start = std::chrono::steady_clock::now();
      TRY(Epoch(epoch));
      seconds += (epoch > 0 ? ", " : "") + std::to_string(Since(start));
    }
    std::printf("{\"seconds\": [%s], \"pass_seconds\": %.3f, \"bytes\": %zu, \"loss\": %.6f}\n", seconds.c_str(), pass, bytes_, loss_);
    return Ok();
  }

 private:
  engine::SampleSource Source(std::span<const uint32_t> rows) const {
    return [this, rows](int64_t from, int64_t count, std::span<float> out) {
      data::Gather(dataset_.train, spec_, rows.subspan(static_cast<size_t>(from), static_cast<size_t>(count)), out);
    };
  }

  std::vector<float> Answers(engine::Network& network, std::span<const uint32_t> rows) const {
    auto classes = static_cast<size_t>(network.classes());
    std::vector<float> values(rows.size() * classes);
    for (size_t first = 0; first < rows.size(); first += kPass) {
      auto batch = rows.subspan(first, std::min<size_t>(kPass, rows.size() - first));
      network.Observe(Source(batch), static_cast<int64_t>(batch.size()), std::span(values).subspan(first * classes, batch.size() * classes), {});
    }
    return values;
  }

  Status Epoch(int64_t epoch) {
    std::vector<uint32_t> order = Permutation(RandomStream(1, RandomPurpose::kShuffle, static_cast<uint64_t>(epoch)), static_cast<uint32_t>(s_.samples));
    std::vector<int64_t> labels(static_cast<size_t>(s_.batch));
    for (int64_t first = 0, batch = 0; first < s_.samples; first += s_.batch, ++batch) {
      auto n = static_cast<size_t>(std::min(s_.batch, s_.samples - first));
      auto rows = std::span<const uint32_t>(order).subspan(static_cast<size_t>(first), n);
      data::GatherLabels(dataset_.train, rows, std::span(labels).first(n));
      engine::LossOptions loss;
      engine::SampleSource samples = Source(rows);
      TRY(teacher_->Teach(rows, samples, loss));
      loss_ = student_->TrainBatch(samples, std::span(labels).first(n), {epoch, batch}, loss).loss;
      optimizer_->Step(student_->parameters(), student_->gradients(), {}, 0.05, 1.0, [&](const auto& body) { student_->ForRanges(body); });
    }
    return Ok();
  }

  Setting s_;
  data::Dataset dataset_;
  data::DataSpec spec_;
  std::unique_ptr<engine::Network> student_;
  std::unique_ptr<runner::Teacher> teacher_;
  std::unique_ptr<engine::Optimizer> optimizer_;
  size_t bytes_ = 0;
  double loss_ = 0;
};

Status Distill(const Setting& setting) {
  ASSIGN_OR_RETURN(data::Dataset dataset, data::Load({.dataset = "fashion-mnist"}));
  return Distillation(setting, std::move(dataset)).Run();
}

}  // namespace
}  // namespace pare

int main(int argc, char** argv) {
  if (argc != 9) {
    std::fprintf(stderr, "usage: bench_distill cached|loop TEACHER_HIDDEN STUDENT_HIDDEN BATCH THREADS SHARDS EPOCHS SAMPLES\n");
    return 2;
  }
  pare::Setting s{argv[1], argv[2], argv[3], std::stoll(argv[4]), std::stoi(argv[5]), std::stoi(argv[6]), std::stoll(argv[7]), std::stoll(argv[8])};
  pare::Status status = pare::Distill(s);
  if (!status.ok()) std::fprintf(stderr, "bench_distill: %s\n", status.error().message.c_str());
  return status.ok() ? 0 : 1;
}
