#pragma once

#include "engine/codec/error.hpp"

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>

namespace troupe::download {

using std::chrono::milliseconds;

/// How a transfer behaves when it goes badly.
struct transfer_limits {
  unsigned connections = 4; ///< of one file, at a time
  unsigned tries = 3;       ///< of one request, without progress between them
  unsigned redirects = 5;   ///< of one request
  milliseconds connect_max{10'000};
  milliseconds stall_max{30'000}; ///< with less than `stall_bytes` a second
  static constexpr std::uint64_t stall_bytes = 1024;
  milliseconds answer_max{120'000}; ///< for an answer that is no file
  /// Before the second try; doubled before each further one, less up to a half
  /// at random.
  milliseconds pause{500};
  /// A server that asks for a longer pause (Retry-After) is given up.
  milliseconds pause_max{60'000};
};

/// Access to one kind of bucket. Empty = not given.
struct bucket_settings {
  std::string endpoint; ///< URL; empty = the provider's own
  std::string region;
  std::string key_id;
  std::string key_secret; ///< never shown
  std::string key_token;  ///< never shown
};

/// Where the machine itself gives credentials. Empty = not asked.
struct instance_settings {
  std::string metadata_endpoint;              ///< of a machine of Amazon's
  std::string google_endpoint;                ///< of a machine of Google's
  std::string container_url;                  ///< of the container
  std::string container_token;                ///< sent there; never shown
  std::filesystem::path container_token_file; ///< likewise
};

struct fetch_settings {
  std::string hub_endpoint = "https://huggingface.co";
  std::string hub_token;           ///< never shown
  std::filesystem::path hub_cache; ///< absolute, if it is used
  bool offline = false;            ///< only what the caches hold
  /// What is there is checked too, by the hash that the origin has of it, and
  /// fetched anew if it is broken. The origin must be in reach.
  bool verify = false;
  bucket_settings s3;
  bucket_settings gs;
  instance_settings instance;
  std::filesystem::path bucket_cache; ///< likewise
  std::filesystem::path ca_file;      ///< instead of the system's authorities
  transfer_limits limits;
};

/// The value of an environment variable; empty if it is not set.
using environment = std::function<std::string(const char* name)>;

/// This process's own.
std::string process_environment(const char* name);

/// Reads HF_ENDPOINT, HF_TOKEN (or HUGGING_FACE_HUB_TOKEN, or the file that
/// HF_TOKEN_PATH names or $HF_HOME/token), HF_HUB_CACHE, HF_HOME,
/// HF_HUB_OFFLINE, TROUPE_CACHE, the AWS_*, GS_* and STORAGE_EMULATOR_HOST
/// variables of docs/models.md, SSL_CERT_FILE and, for tests,
/// TROUPE_DOWNLOAD_STALL_S. Errors name the variable, never its value.
result<fetch_settings> read_fetch_settings(const environment&);

} // namespace troupe::download
