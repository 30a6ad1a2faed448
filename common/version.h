// Versions that decide compatibility. A change of any of these is a change of contract.
#pragma once

#include <string_view>

namespace pare {

inline constexpr std::string_view kPareVersion = "0.1.0";
// Messages between processes; both sides must match exactly.
inline constexpr int kProtocolVersion = 3;
// Part of every step key: raised whenever a step would give other bits than before.
inline constexpr std::string_view kEngineVersion = "1";

}  // namespace pare
