// FakeToolbox: a toolbox with what a test gives it.
#pragma once

#include <utility>
#include <vector>

#include "methods/toolbox.h"

namespace pare::methods {

class FakeToolbox : public Toolbox {
 public:
  explicit FakeToolbox(uint64_t seed = 1) : seed_(seed) {}
  uint64_t seed() const override { return seed_; }
  void Report(const std::string& layer, Json what) override { reports.emplace_back(layer, std::move(what)); }

  Result<model::TensorMap> Gradients(const model::Graph&, const model::TensorMap&, const GradientRequest& request) override {
    requests.push_back(request);
    return gradients;
  }

  std::vector<std::pair<std::string, Json>> reports;
  model::TensorMap gradients;
  std::vector<GradientRequest> requests;

 private:
  uint64_t seed_;
};

}  // namespace pare::methods
