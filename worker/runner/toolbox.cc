#include "worker/runner/toolbox.h"

namespace pare::runner {

void RunnerToolbox::Report(const std::string& layer, Json what) {
  what["layer"] = layer;
  report_.push_back(std::move(what));
}

}  // namespace pare::runner
