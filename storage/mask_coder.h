// Entropy coding of pruning masks: an adaptive binary range coder (LZMA's rc: Pavlov, "LZMA specification", section
// "Range Decoder") whose probability follows each row's own density. Close to H(s) bits per weight, deterministic.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "common/result.h"
#include "model/mask.h"

namespace pare::storage {

std::string EncodeMask(const model::Mask& mask);
// kCorrupt when the bytes end early or do not describe a mask of this shape. Safe on arbitrary bytes.
Result<model::Mask> DecodeMask(model::Shape shape, std::string_view bytes);

}  // namespace pare::storage
