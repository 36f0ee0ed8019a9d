#pragma once

#include "engine/weights/download/fetch_settings.hpp"
#include "engine/weights/download/model_reference.hpp"
#include "engine/weights/download/origin.hpp"

#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace troupe::download {

/// Amazon S3, or what speaks as it does: Google Cloud Storage by its XML
/// interface, MinIO and the like at an endpoint of their own. Requests name the
/// bucket in the path.
std::unique_ptr<origin> make_bucket_origin(const bucket_reference&,
                                           const fetch_settings&);

/// One answer of ListObjectsV2.
struct bucket_page {
  struct object {
    std::string key;
    std::string etag; ///< with quotes
    std::uint64_t size = 0;
  };
  std::vector<object> objects;
  std::string next; ///< continuation token; empty = the last page
};

result<bucket_page> read_bucket_page(std::string_view xml);

/// A folder of the cache for a bucket's prefix at an endpoint.
std::string bucket_folder(const bucket_reference&, const fetch_settings&);

} // namespace troupe::download
