// IEEE 754 binary16 (F16 tensors), nearest, ties to even. Pure.
#pragma once

#include <cstdint>

namespace pare::model {

uint16_t HalfOf(float value);
float FloatOf(uint16_t half);  // exact

}  // namespace pare::model
