// What the engine's results rest on besides its own sources. Plain function, no thread rule.
#pragma once

#include <string>

namespace pare::engine {

// "libtorch 2.11.0, gcc 12.2.0"
std::string Libraries();

}  // namespace pare::engine
