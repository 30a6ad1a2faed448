// Which range the inputs of linears have, for codes that do not change any more (static int8): two passes over calibration
// samples, through methods/calibrate.h. One thread calls; bits do not depend on the network's threads.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "methods/calibrate.h"
#include "worker/runner/steps.h"

namespace pare::runner {

// Codes for the input of every node of `nodes`, which are linears of the checkpoint, over the first samples in the order of
// the permutation (seed, kCalibrate), without augmentation.
// kInvalid: there are not so many samples; kDiverged names the layer whose input is not finite; kStopped: on request.
Result<std::map<std::string, model::InputCodes>> CalibrateInputs(StepContext& context, const storage::Checkpoint& checkpoint,
                                                                 const std::vector<std::string>& nodes,
                                                                 const methods::CalibrationOptions& options);

}  // namespace pare::runner
