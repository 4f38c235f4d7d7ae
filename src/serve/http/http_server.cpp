#include "serve/http/http_server.h"

#include <httplib.h>
#include <netdb.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <list>
#include <mutex>
#include <string_view>
#include <system_error>
#include <thread>
#include <utility>

#include "core/error.h"
#include "core/log.h"
#include "serve/api_error.h"
#include "serve/http/connection.h"

namespace refract {
namespace {

constexpr size_t kHeadBytes = 64 << 10;  // of a request, beside its body
constexpr int kRequests = 10000;         // of one connection
constexpr int kLookEvery = 100;          // ms between looks whether to stop

// The connection that a handler answers on: httplib does not hand it over.
thread_local Connection* current_connection = nullptr;

// What httplib reads and writes.
class HttpStream : public httplib::Stream {
 public:
  explicit HttpStream(Connection& connection) : connection_(connection) {}
  bool is_readable() const override { return true; }
  bool is_writable() const override { return !connection_.gone(); }
  ssize_t read(char* data, size_t size) override { return connection_.read(data, size); }
  ssize_t write(const char* data, size_t size) override { return connection_.write(data, size); }
  void get_remote_ip_and_port(std::string& ip, int& port) const override {
    ip.clear();
    port = 0;
  }
  void get_local_ip_and_port(std::string& ip, int& port) const override {
    ip.clear();
    port = 0;
  }
  socket_t socket() const override { return connection_.fd(); }

 private:
  Connection& connection_;
};

// In a time that does not tell how much of it was right.
bool same_secret(std::string_view a, std::string_view b) {
  unsigned difference = a.size() == b.size() ? 0 : 1;
  for (size_t i = 0; i < a.size(); ++i)
    difference |= static_cast<unsigned char>(a[i]) ^
                  static_cast<unsigned char>(b.empty() ? 0 : b[i % b.size()]);
  return difference == 0;
}

// "[::1]:8080" -> "::1".
std::string host_of(const std::string& header) {
  if (header.starts_with('[')) return header.substr(1, header.find(']') - 1);
  return header.substr(0, header.find(':'));
}

void put(httplib::Response& response, const HttpAnswer& answer) {
  response.status = answer.status;
  for (const auto& [name, value] : answer.headers) response.set_header(name, value);
  if (!answer.stream) {
    response.set_content(answer.body, answer.type);
    return;
  }
  response.set_chunked_content_provider(
      answer.type, [stream = answer.stream](size_t, httplib::DataSink& sink) {
        const bool whole =
            stream([&](std::string_view piece) { return sink.write(piece.data(), piece.size()); });
        if (whole) sink.done();
        return whole;
      });
}

}  // namespace

class HttpServer::Impl : private httplib::Server {
 public:
  Impl(const HttpOptions& options, HttpServer::Handler handler, Answered answered);
  ~Impl() override;
  std::string url() const;
  void run(const std::function<bool()>& stop);
  void finish(std::chrono::milliseconds grace);

 private:
  struct Client {
    Client(int fd, std::chrono::milliseconds timeout) : connection(fd, timeout) {}
    Connection connection;
    std::thread thread;
    std::atomic<bool> done = false;
  };

  void refuse_call(httplib::Response& response, const ApiError& error) const;
  bool comes_in(const httplib::Request& request, httplib::Response& response) const;
  void check_access(const httplib::Request& request) const;
  void check_framing(const httplib::Request& request) const;
  void handle(const httplib::Request& request, httplib::Response& response,
              const httplib::ContentReader* reader) const;
  std::string read_body(const httplib::ContentReader& reader) const;
  void accept_one();
  void turn_away(int fd) const;
  void serve(Client& client);
  void reap();

  HttpOptions options_;
  HttpServer::Handler handler_;
  Answered answered_;
  std::list<std::unique_ptr<Client>> clients_;  // of the thread that runs
  std::atomic<bool> stopping_ = false;
  int listening_ = -1;
};

HttpServer::Impl::Impl(const HttpOptions& options, HttpServer::Handler handler, Answered answered)
    : options_(options), handler_(std::move(handler)), answered_(std::move(answered)) {
  listening_ = listen_at(options_.host, options_.port);
  svr_sock_ = listening_;  // httplib breaks off streams of a server without a socket
  set_payload_max_length(options_.body_bytes);
  set_pre_routing_handler([this](const httplib::Request& request, httplib::Response& response) {
    return comes_in(request, response) ? HandlerResponse::Unhandled : HandlerResponse::Handled;
  });
  const std::string any = ".*";
  const auto without_body = [this](const httplib::Request& request, httplib::Response& response) {
    handle(request, response, nullptr);
  };
  const auto with_body = [this](const httplib::Request& request, httplib::Response& response,
                                const httplib::ContentReader& reader) {
    handle(request, response, &reader);
  };
  Get(any, without_body);
  Options(any, without_body);
  Post(any, with_body);
  Put(any, with_body);
  Patch(any, with_body);
  set_error_handler([](const httplib::Request&, httplib::Response& response) {
    if (!response.body.empty()) return;
    if (current_connection->timed_out()) response.status = 408;
    current_connection->close_after_answer();
    response.set_content(error_body(response.status, "the request is no HTTP that is served here"),
                         "application/json");
  });
  set_logger([this](const httplib::Request&, const httplib::Response& response) {
    answered_(response.status);
  });
}

HttpServer::Impl::~Impl() {
  if (listening_ >= 0) ::close(listening_);
  finish(std::chrono::milliseconds(0));
}

std::string HttpServer::Impl::url() const {
  const bool six = options_.host.find(':') != std::string::npos;
  const std::string host = six ? "[" + options_.host + "]" : options_.host;
  return fmt::format("http://{}:{}", host, options_.port);
}

void HttpServer::Impl::refuse_call(httplib::Response& response, const ApiError& error) const {
  current_connection->close_after_answer();  // its body, if it has one, was not read
  response.status = error.status();
  response.set_header("Connection", "close");
  if (error.status() == 401) response.set_header("WWW-Authenticate", "Bearer");
  response.set_content(error.body(), "application/json");
}

bool HttpServer::Impl::comes_in(const httplib::Request& request,
                                httplib::Response& response) const {
  try {
    check_access(request);
    check_framing(request);
    return true;
  } catch (const ApiError& error) {
    refuse_call(response, error);
    return false;
  }
}

void HttpServer::Impl::check_access(const httplib::Request& request) const {
  if (!options_.token.empty() && request.path != "/health") {
    const std::string given = request.get_header_value("Authorization");
    constexpr std::string_view kScheme = "Bearer ";
    const bool right =
        given.starts_with(kScheme) && same_secret(given.substr(kScheme.size()), options_.token);
    if (!right) throw ApiError(401, "this server wants its token: Authorization: Bearer TOKEN");
  }
  // A page from elsewhere in a browser of this machine reaches loopback under a name of its own.
  if (options_.token.empty() && request.has_header("Host") &&
      !is_loopback(host_of(request.get_header_value("Host")))) {
    throw ApiError(403, "this server answers to loopback names alone");
  }
  // Such a page may also send a plain request, which needs no leave; its browser says whose it is.
  if (options_.token.empty() && request.has_header("Origin")) {
    const std::string origin = request.get_header_value("Origin");
    const size_t name = origin.find("://");
    if (name == std::string::npos || !is_loopback(host_of(origin.substr(name + 3))))
      throw ApiError(403, "this server answers to pages of this machine alone");
  }
}

// What tells where a body ends must be there once and be plain.
void HttpServer::Impl::check_framing(const httplib::Request& request) const {
  const size_t lengths = request.get_header_value_count("Content-Length");
  const size_t encodings = request.get_header_value_count("Transfer-Encoding");
  if (lengths + encodings > 1) throw ApiError(400, "the request gives its length twice");
  if (encodings == 1 && request.get_header_value("Transfer-Encoding") != "chunked")
    throw ApiError(501, "Transfer-Encoding is chunked or nothing");
  if (lengths == 1) {
    const std::string length = request.get_header_value("Content-Length");
    const bool plain =
        !length.empty() && length.find_first_not_of("0123456789") == std::string::npos;
    if (!plain) throw ApiError(400, "Content-Length is no number");
    if (length.size() > 15 || std::stoull(length) > options_.body_bytes) {
      throw ApiError(413, fmt::format("the request has more than {} bytes", options_.body_bytes));
    }
  }
  const bool has_body =
      request.method == "POST" || request.method == "PUT" || request.method == "PATCH";
  if (has_body && lengths + encodings == 0)
    throw ApiError(411, "the request has no Content-Length");
  if (!has_body &&
      (encodings == 1 || (lengths == 1 && request.get_header_value("Content-Length") != "0")))
    throw ApiError(400, fmt::format("{} has no body here", request.method));
  if (request.is_multipart_form_data()) throw ApiError(400, "send JSON, not a form");
  if (!has_body && request.method != "GET" && request.method != "HEAD" &&
      request.method != "OPTIONS") {
    throw ApiError(405, "GET and POST are what this server does");
  }
}

std::string HttpServer::Impl::read_body(const httplib::ContentReader& reader) const {
  std::string body;
  bool large = false;
  const bool whole = reader([&](const char* data, size_t size) {
    large = body.size() + size > options_.body_bytes;  // also of what was compressed
    if (!large) body.append(data, size);
    return !large;
  });
  if (whole) return body;
  if (current_connection->timed_out()) throw ApiError(408, "the request did not come in time");
  if (large)
    throw ApiError(413, fmt::format("the request has more than {} bytes", options_.body_bytes));
  throw ApiError(400, "the request broke off, or has more bytes than are read");
}

void HttpServer::Impl::handle(const httplib::Request& request, httplib::Response& response,
                              const httplib::ContentReader* reader) const {
  Connection& connection = *current_connection;
  try {
    HttpCall call{request.method, request.path, {}, [&connection] { return connection.gone(); }};
    if (reader) call.body = read_body(*reader);
    put(response, handler_(call));
  } catch (const ApiError& error) {
    refuse_call(response, error);
  }
}

void HttpServer::Impl::run(const std::function<bool()>& stop) {
  while (!stop()) {
    pollfd entry{listening_, POLLIN, 0};
    if (::poll(&entry, 1, kLookEvery) > 0) accept_one();
    reap();
  }
  stopping_ = true;
  ::close(std::exchange(listening_, -1));
}

void HttpServer::Impl::accept_one() {
  const int fd = ::accept4(listening_, nullptr, nullptr, SOCK_CLOEXEC);
  if (fd < 0) {
    // Without file descriptors poll() would return at once for ever.
    if (errno == EMFILE || errno == ENFILE)
      std::this_thread::sleep_for(std::chrono::milliseconds(kLookEvery));
    return;
  }
  reap();
  if (static_cast<int>(clients_.size()) >= options_.connections) {
    turn_away(fd);
    return;
  }
  clients_.push_back(std::make_unique<Client>(fd, options_.timeout));
  Client& client = *clients_.back();
  try {
    client.thread = std::thread([this, &client] { serve(client); });
  } catch (const std::system_error&) {  // no more threads
    clients_.pop_back();
  }
}

// Never waits: it is the thread that takes connections.
void HttpServer::Impl::turn_away(int fd) const {
  const std::string body = error_body(503, "the server has as many connections as it takes");
  const std::string text = fmt::format(
      "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nRetry-After: "
      "1\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{}",
      body.size(), body);
  ::send(fd, text.data(), text.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
  ::shutdown(fd, SHUT_WR);
  ::close(fd);
  answered_(503);
}

void HttpServer::Impl::serve(Client& client) {
  Connection& connection = client.connection;
  current_connection = &connection;
  HttpStream stream(connection);
  try {
    for (int i = 0; i < kRequests; ++i) {
      if (!connection.wait_for_request([this] { return stopping_.load(); })) break;
      connection.begin_request(options_.body_bytes + kHeadBytes);
      bool closed = false;
      const bool answered =
          process_request(stream, stopping_, closed, [](httplib::Request& request) {
            request.ranges.clear();                    // of an answer there are no parts
            request.headers.erase("Accept-Encoding");  // compression would hold a stream back
          });
      if (!answered || closed || stopping_ || connection.closing()) break;
    }
    connection.finish();
  } catch (const std::exception& error) {
    log_warning("a connection failed: {}", error.what());
  }
  current_connection = nullptr;
  client.done = true;
}

void HttpServer::Impl::reap() {
  std::erase_if(clients_, [](const std::unique_ptr<Client>& client) {
    if (!client->done) return false;
    client->thread.join();
    return true;
  });
}

void HttpServer::Impl::finish(std::chrono::milliseconds grace) {
  stopping_ = true;
  const auto until = std::chrono::steady_clock::now() + grace;
  while (reap(), !clients_.empty() && std::chrono::steady_clock::now() < until)
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  for (const auto& client : clients_) client->connection.cut();
  for (const auto& client : clients_) client->thread.join();
  clients_.clear();
}

HttpServer::HttpServer(const HttpOptions& options, Handler handler, Answered answered)
    : impl_(std::make_unique<Impl>(options, std::move(handler), std::move(answered))) {}
HttpServer::~HttpServer() = default;
std::string HttpServer::url() const { return impl_->url(); }
void HttpServer::run(const std::function<bool()>& stop) { impl_->run(stop); }
void HttpServer::finish(std::chrono::milliseconds grace) { impl_->finish(grace); }

}  // namespace refract
