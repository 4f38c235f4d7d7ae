#include "distributed/rendezvous.h"

#include <c10/util/Logging.h>
#include <netdb.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <exception>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

C10_DECLARE_int(caffe2_log_level);

namespace refract {
namespace {

// torch's text, without what it says about itself.
std::string first_line(const std::exception& error) {
  const std::string text = error.what();
  return text.substr(0, text.find('\n'));
}

[[noreturn]] void fail_to_join(const Ranks& ranks, int64_t seconds, bool listens,
                               const std::exception& error) {
  const std::string reason = first_line(error);
  if (listens && reason.find("EADDRINUSE") != std::string::npos) {
    fail(
        "port {} of this machine is taken: another run, or another program, listens there; set "
        "MASTER_PORT to a free one for all processes",
        ranks.port);
  }
  if (listens) {
    fail("process 0 can't listen at port {} (MASTER_PORT): {}", ranks.port, reason);
  }
  fail(
      "process {} can't reach process 0 at {}:{} (MASTER_ADDR, MASTER_PORT) within {} s; does it "
      "run there, and is the port open?",
      ranks.rank, ranks.address, ranks.port, seconds);
}

}  // namespace

struct Rendezvous::Store {
  c10::intrusive_ptr<c10d::TCPStore> tcp;
  std::string place, prefix;

  std::string key(const std::string& name) const { return prefix + name; }

  template <class Call>
  auto reach(const Call& call) const {
    try {
      return call(*tcp);
    } catch (const std::exception&) {
      throw ConnectionError("the connection to process 0 at " + place + " is lost");
    }
  }
};

Rendezvous::Rendezvous(const Ranks& ranks, int64_t seconds, bool listens)
    : store_(std::make_unique<Store>()) {
  c10d::TCPStoreOptions options;
  options.port = static_cast<std::uint16_t>(ranks.port);
  options.isServer = listens && ranks.rank == 0 && !ranks.agent_store;
  options.waitWorkers = false;
  options.timeout = std::chrono::seconds(seconds);
  FLAGS_caffe2_log_level = 3;  // what it writes to standard error, fail_to_join() says in one line
  try {
    store_->tcp = c10::make_intrusive<c10d::TCPStore>(ranks.address, options);
  } catch (const std::exception& error) {
    fail_to_join(ranks, seconds, options.isServer, error);
  }
  store_->tcp->setTimeout(std::chrono::hours(24));
  store_->place = ranks.address + ":" + std::to_string(ranks.port);
  // torchrun's store outlives a restart of the processes.
  store_->prefix = "refract/" + ranks.attempt + "/";
}

Rendezvous::~Rendezvous() = default;

void Rendezvous::set(const std::string& key, const std::vector<char>& value) {
  const std::vector<uint8_t> bytes(value.begin(), value.end());
  store_->reach([&](c10d::TCPStore& tcp) { tcp.set(store_->key(key), bytes); });
}

void Rendezvous::set(const std::string& key, const std::string& value) {
  set(key, std::vector<char>(value.begin(), value.end()));
}

std::vector<char> Rendezvous::get(const std::string& key) {
  const auto bytes = store_->reach([&](c10d::TCPStore& tcp) { return tcp.get(store_->key(key)); });
  return {bytes.begin(), bytes.end()};
}

std::string Rendezvous::text(const std::string& key) {
  const std::vector<char> bytes = get(key);
  return {bytes.begin(), bytes.end()};
}

std::optional<std::string> Rendezvous::look(const std::string& key) {
  const bool there =
      store_->reach([&](c10d::TCPStore& tcp) { return tcp.check({store_->key(key)}); });
  if (!there) return std::nullopt;
  return text(key);
}

std::vector<std::string> Rendezvous::look_at(const std::vector<std::string>& keys) {
  std::vector<std::string> names, values;
  for (const std::string& key : keys) names.push_back(store_->key(key));
  for (const auto& bytes :
       store_->reach([&](c10d::TCPStore& tcp) { return tcp.multiGet(names); })) {
    values.emplace_back(bytes.begin(), bytes.end());
  }
  return values;
}

// A number of its own decides, since values are not compared by who wrote them.
bool Rendezvous::claim(const std::string& key, const std::string& value) {
  if (count(key + "/claims") != 1) return false;
  set(key, value);
  return true;
}

int64_t Rendezvous::count(const std::string& key) {
  return store_->reach([&](c10d::TCPStore& tcp) { return tcp.add(store_->key(key), 1); });
}

int64_t Rendezvous::counted(const std::string& key) {
  return store_->reach([&](c10d::TCPStore& tcp) { return tcp.add(store_->key(key), 0); });
}

// Connecting a datagram socket sends nothing; it only asks for the way.
std::string own_address(const std::string& address, int64_t port) {
  addrinfo hints{}, *found = nullptr;
  hints.ai_socktype = SOCK_DGRAM;
  if (::getaddrinfo(address.c_str(), std::to_string(port).c_str(), &hints, &found) != 0)
    fail("the name '{}' (MASTER_ADDR) is unknown on this machine", address);
  std::string own;
  for (const addrinfo* way = found; way && own.empty(); way = way->ai_next) {
    const int fd = ::socket(way->ai_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0) continue;
    sockaddr_storage local{};
    socklen_t length = sizeof(local);
    std::array<char, NI_MAXHOST> text{};
    if (::connect(fd, way->ai_addr, way->ai_addrlen) == 0 &&
        ::getsockname(fd, reinterpret_cast<sockaddr*>(&local), &length) == 0 &&
        ::getnameinfo(reinterpret_cast<sockaddr*>(&local), length, text.data(), text.size(),
                      nullptr, 0, NI_NUMERICHOST) == 0) {
      own = text.data();
    }
    ::close(fd);
  }
  ::freeaddrinfo(found);
  if (own.empty()) fail("this machine knows no way to '{}' (MASTER_ADDR)", address);
  return own;
}

}  // namespace refract
