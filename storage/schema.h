// The database schema as named migrations, oldest first. Version n is reached by running migration n; each runs in one
// transaction and is never edited after a release.
#pragma once

#include <span>
#include <string_view>

namespace pare::storage {

struct Migration {
  int version;
  std::string_view name;
  std::string_view sql;
};
std::span<const Migration> Migrations();

}  // namespace pare::storage
