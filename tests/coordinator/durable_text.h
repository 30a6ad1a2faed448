// All of a coordinator's state that a restart must give back, as text: equal texts are equal states.
#pragma once

#include <string>

#include "coordinator/state.h"

namespace pare::coordinator {

std::string DurableTextOf(const State& state);

}  // namespace pare::coordinator
