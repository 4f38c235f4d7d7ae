// HTTP on a socket of our own: a thread for each connection, of which there are at most so many.
// cpp-httplib reads requests and writes answers; limits, deadlines and who may come in are ours.
#pragma once
#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <string>

#include "serve/http/http_call.h"

namespace refract {

struct HttpOptions {
  std::string host = "127.0.0.1";
  int port = 8080;              // 0: any that is free
  std::string token;            // "Authorization: Bearer TOKEN" is required; empty: nothing is
  size_t body_bytes = 4 << 20;  // of a request
  int connections = 128;        // at a time
  std::chrono::milliseconds timeout{30000};  // for a request to come, and for a client to read on
};

class HttpServer {
 public:
  using Handler = std::function<HttpAnswer(const HttpCall&)>;
  using Answered = std::function<void(int status)>;

  // Listens from here on. Error where the address can't be had.
  HttpServer(const HttpOptions& options, Handler handler, Answered answered);
  ~HttpServer();
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;

  // "http://127.0.0.1:8080".
  std::string url() const;
  // Takes connections until `stop` says so.
  void run(const std::function<bool()>& stop);
  // Ends idle connections, waits for the others, and cuts those that need longer.
  void finish(std::chrono::milliseconds grace);

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace refract
