// cast: rounds weights to a 16-bit format, to nearest, ties to even. They stay float32 tensors, so everything that runs
// or trains the network goes on as before; the low 16 (bf16) or 13 (f16) bits are zero and cost nothing in a checkpoint.
#pragma once

#include "methods/registry.h"

namespace pare::methods {

inline constexpr Field kCastFields[] = {
    {"cast", "format", "name", "\"bf16\"", 0, 0, "bf16,f16", "", "bf16: range of float32, 8 bits of precision; f16: up to 65504, 11 bits", "f16"},
    Targets("cast"),
    Ignore("cast"),
};

Result<Outline> OutlineCast(Outline outline, const Json& params);
// kInvalid names a layer with a weight beyond the format's range.
Result<Model> Cast(Model model, const Json& params, Toolbox& toolbox);

}  // namespace pare::methods
