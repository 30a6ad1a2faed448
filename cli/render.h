// Results as text: pure functions from docs/protocol.md's JSON shapes. No terminal, no I/O.
#pragma once

#include <string>
#include <vector>

#include "common/json.h"

namespace pare::cli {

// Columns padded to their widest cell; the first row is the heading. Cells that look like numbers are right-aligned.
std::string Table(const std::vector<std::vector<std::string>>& rows);
std::string HumanBytes(int64_t bytes);      // "1.04 MB"
std::string HumanDuration(double seconds);  // "2 m 05 s"

std::string RenderList(const Json& jobs);
std::string RenderJob(const Json& job);      // describe
std::string RenderEvents(const Json& events);
std::string RenderReport(const Json& report);
std::string RenderModels(const Json& models);
std::string RenderWhy(const Json& why);
std::string RenderPlan(const Json& plan);    // of cmd_plan.cc
// One line per variant that is at work: what `run` and `watch` redraw.
std::string RenderLive(const Json& watch);
// "iterative/03-retrain  done  accuracy 89.12 %  sparsity 48.8 %": a finished step, for plain output.
std::string RenderStepLine(const Json& step);

}  // namespace pare::cli
