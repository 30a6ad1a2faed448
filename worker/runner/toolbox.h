// RunnerToolbox: what a method gets when the runner runs it (methods/toolbox.h), made of the step's spec and data. One thread.
#pragma once

#include "methods/toolbox.h"
#include "worker/runner/steps.h"

namespace pare::runner {

class RunnerToolbox : public methods::Toolbox {
 public:
  // REQUIRES: outlives this.
  explicit RunnerToolbox(StepContext& context) : context_(context) {}

  uint64_t seed() const override { return context_.spec.seed; }
  void Report(const std::string& layer, Json what) override;
  Result<model::TensorMap> Gradients(const model::Graph& graph, const model::TensorMap& tensors, const methods::GradientRequest& request) override;
  // What was reported, in that order.
  const Json& report() const { return report_; }

 private:
  StepContext& context_;
  Json report_ = Json::array();
};

}  // namespace pare::runner
