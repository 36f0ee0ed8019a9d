#pragma once

#include <string>
#include <string_view>

namespace troupe::node_agent {

/// Ray's name of a GPU's type from the one that its driver gives it: "H200" for
/// "NVIDIA H200", "A100-80G" for "NVIDIA A100-SXM4-80GB", "RTX-4090" for
/// "NVIDIA GeForce RTX 4090". Empty if no name can be made of it.
std::string accelerator_type_of(std::string_view driver_name);

/// The less exact name that fits too: "A100" for "A100-80G"; else empty.
std::string accelerator_family_of(std::string_view accelerator_type);

} // namespace troupe::node_agent
