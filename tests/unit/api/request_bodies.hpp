#pragma once

#include "router/api/openai.hpp"

#include <string>

/// Bodies for the tests: a right request plus the fields under test.
namespace troupe::api {

inline std::string chat_with(const std::string& fields) {
  return R"({"messages":[{"role":"user","content":"hi"}])" +
         (fields.empty() ? "" : "," + fields) + "}";
}

inline std::string completion_with(const std::string& fields) {
  return R"({"prompt":"once")" + (fields.empty() ? "" : "," + fields) + "}";
}

inline std::string messages(const std::string& list) {
  return R"({"messages":)" + list + "}";
}

/// "" if the body is taken, else the error's param ("(body)" if it has none).
template <class Request>
std::string refused(const api_result<Request>& parsed) {
  if (parsed)
    return {};
  const auto& param = parsed.error().param;
  return param.empty() ? "(body)" : param;
}

inline std::string chat_refuses(const std::string& body) {
  return refused(parse_chat_request(body));
}

inline std::string completion_refuses(const std::string& body) {
  return refused(parse_completion_request(body));
}

} // namespace troupe::api
