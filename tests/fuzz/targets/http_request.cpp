#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <thread>

#include "fuzz/fuzz_target.h"
#include "serve/api_error.h"
#include "serve/completion_request.h"
#include "serve/http/http_server.h"
#include "text/simple_tokenizers.h"

namespace {

// A server that reads completions and answers none. It ends with the program.
class Server {
 public:
  Server() : http_(options(), answer, [](int) {}) {
    std::thread([this] { http_.run([] { return false; }); }).detach();
    const std::string url = http_.url();
    port_ = static_cast<uint16_t>(std::stoi(url.substr(url.rfind(':') + 1)));
  }

  // Sends the bytes and nothing behind them; what comes back.
  std::string ask(std::string_view bytes) const {
    const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = ::htonl(INADDR_LOOPBACK);
    address.sin_port = ::htons(port_);
    // A reset instead of an end frees the port at once: there are thousands of clients a second.
    const linger reset{1, 0};
    ::setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
    std::string came;
    if (::connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0) {
      while (!bytes.empty()) {
        const ssize_t sent = ::send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
        if (sent <= 0) break;
        bytes.remove_prefix(static_cast<size_t>(sent));
      }
      ::shutdown(fd, SHUT_WR);
      char piece[4096];
      for (ssize_t n = 0; (n = ::recv(fd, piece, sizeof(piece), 0)) > 0;)
        came.append(piece, static_cast<size_t>(n));
    }
    ::close(fd);
    return came;
  }

 private:
  static refract::HttpOptions options() {
    refract::HttpOptions options;
    options.port = 0;
    options.body_bytes = 32 << 10;
    options.timeout = std::chrono::milliseconds(500);
    return options;
  }

  static refract::HttpAnswer answer(const refract::HttpCall& call) {
    static const auto tokenizer = refract::make_byte_tokenizer();
    refract::RequestLimits limits;
    limits.context = 64;
    limits.vocabulary = 257;
    try {
      if (call.method == "POST") refract::parse_completion(call.body, *tokenizer, 256, limits);
    } catch (const refract::ApiError&) {
      throw;
    } catch (const std::exception&) {
      std::abort();  // the library that serves would make an answer of it
    }
    refract::HttpAnswer answer;
    answer.body = "{}";
    return answer;
  }

  refract::HttpServer http_;
  uint16_t port_ = 0;
};

}  // namespace

// The bytes of a connection. What is answered is HTTP.
FUZZ_TARGET(http_request) {
  static const Server& server = *new Server;
  const std::string answer = server.ask(text);
  if (!answer.empty() && !answer.starts_with("HTTP/1.1 ")) std::abort();
}
