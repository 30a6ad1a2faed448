// Results as text: pure functions from docs/protocol.md's JSON shapes. No terminal, no I/O. Every text ends with a newline.
#pragma once

#include <string>

#include "cli/text.h"
#include "common/json.h"

namespace pare::cli {

// `columns`: of a terminal; names give way first.
std::string RenderList(const Json& jobs, size_t columns = kUnlimited);
std::string RenderJob(const Json& job);  // describe
std::string RenderEvents(const Json& events);
std::string RenderReport(const Json& report);
std::string RenderModels(const Json& models);
std::string RenderHistory(const Json& history);  // of one model
std::string RenderWhy(const Json& why);
std::string RenderStep(const Json& step);  // of cmd_show.cc
std::string RenderDigest(const Json& digest);
std::string RenderState(const Json& change);  // of pause, resume, cancel, retry
std::string RenderPlan(const Json& plan);     // of cmd_plan.cc

// "epoch 1.3/3  loss 0.4512  accuracy 87.10 %  sparsity 50.00 %  left 2.1 s" of docs/protocol.md's progress values.
std::string RenderProgress(const Json& progress);
// What `run` and `watch` redraw: the job, and one line per variant with the step that it is at. No line is longer than `columns`.
std::string RenderLive(const Json& watch, size_t columns = kUnlimited);
// A step that came to its end, for those who follow: an evaluation on validation (of the step that made the model), a
// decision, a failure. Empty for every other step. The name is padded, or shortened, to `width`.
std::string RenderStepLine(const Json& step, size_t width);

}  // namespace pare::cli
