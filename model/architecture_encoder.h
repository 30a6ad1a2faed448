// The built-in architecture "encoder": BERT (Devlin 2018) as a classifier, with the names of its nodes and tensors. Inside model/;
// callers go through model/architectures.h, which says what errors look like.
#pragma once

#include <string>

#include "common/json.h"
#include "model/architectures.h"

namespace pare::model {

ArchitectureInfo EncoderInfo();
// One field by itself. REQUIRES: a field of EncoderInfo() other than dropout.
Status CheckEncoderField(const std::string& field, const Json& value);
// REQUIRES: every field is there and good by itself. kInvalid: fields that do not fit together (heads divide hidden, the ids named lie
// in the vocabulary), samples that are no vectors of at most `length` ids.
Result<Graph> BuildEncoder(const Json& parameters, const Shape& sample_shape, int64_t classes);

}  // namespace pare::model
