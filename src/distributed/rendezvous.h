// A place where processes that know nothing of each other leave and find values: the TCPStore of
// libtorch, which torchrun uses too.
#pragma once
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/error.h"
#include "distributed/ranks.h"
#include "ops/collectives/collectives.h"

namespace refract {

// Another process, or the way to it, is gone. What the others say tells more than the message.
class ConnectionError : public Error {
 public:
  using Error::Error;
};

// Every function throws ConnectionError where the store can't be reached any more.
class Rendezvous : public KeyValues {
 public:
  // Process 0 listens, unless torchrun does; the others come to it. Fails after `seconds`, and
  // where the port is taken. `listens`: false for a second connection of process 0.
  Rendezvous(const Ranks& ranks, int64_t seconds, bool listens = true);
  ~Rendezvous() override;

  void set(const std::string& key, const std::vector<char>& value) override;
  void set(const std::string& key, const std::string& value);
  std::vector<char> get(const std::string& key) override;  // waits, for a day at most
  std::string text(const std::string& key);                // get(), as text
  // The value, or nothing where nobody has set it.
  std::optional<std::string> look(const std::string& key);
  // The values of keys that are set.
  std::vector<std::string> look_at(const std::vector<std::string>& keys);
  // Sets it unless somebody has: whether it was this call.
  bool claim(const std::string& key, const std::string& value);
  // Adds 1 to a counter and returns it.
  int64_t count(const std::string& key);
  // The counter, without adding to it.
  int64_t counted(const std::string& key);

 private:
  struct Store;
  std::unique_ptr<Store> store_;
};

// The address of this machine that packets to `address` leave from.
std::string own_address(const std::string& address, int64_t port);

}  // namespace refract
