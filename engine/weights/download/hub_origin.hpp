#pragma once

#include "engine/weights/download/fetch_settings.hpp"
#include "engine/weights/download/model_reference.hpp"
#include "engine/weights/download/origin.hpp"

#include <memory>
#include <string_view>

namespace troupe::download {

/// Hugging Face, or what speaks as it does at settings.hub_endpoint. One
/// request lists a repository; a file whose hash it does not say is asked for
/// by a HEAD. The token goes to the endpoint alone, and in the clear to
/// loopback only.
std::unique_ptr<origin> make_hub_origin(const hub_reference&,
                                        const fetch_settings&);

/// The answer of GET /api/models/ID/revision/REVISION?blobs=true. Errors: not
/// such an answer, a name that would leave its directory, too many files.
result<listing> read_hub_listing(std::string_view json);

} // namespace troupe::download
