#include "coordinator/endpoints.h"

#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>

#include "common/digest.h"

namespace pare::coordinator {

Result<std::string> DefaultEndpoint(const std::string& store, const std::string& name) {
  std::string file = "/" + name + ".sock";
  if (store.size() + file.size() < sizeof(sockaddr_un::sun_path)) return "ipc://" + store + file;
  std::string directory = "/tmp/pare-" + std::to_string(::getuid()) + "-" + DigestOf(store).brief();
  if (::mkdir(directory.c_str(), 0700) != 0 && errno != EEXIST) return SystemError("cannot make " + directory, errno);
  struct stat found {};
  if (::lstat(directory.c_str(), &found) != 0) return SystemError("cannot look at " + directory, errno);
  if (!S_ISDIR(found.st_mode) || found.st_uid != ::getuid() || (found.st_mode & 077) != 0) {
    return Error{ErrorCode::kConflict, directory + " belongs to somebody else or is open to others: remove it, or give --listen"};
  }
  return "ipc://" + directory + file;
}

}  // namespace pare::coordinator
