# The packages that the engine needs, for a machine that has none of them: their
# headers are in TROUPE_BARE/include, and their libraries, as programs open
# them, in TROUPE_BARE/lib. scripts/gpu-check.sh makes such a folder.

# bare_package(TARGET [LIBRARY]): what find_package would have found.
function(bare_package target)
  if(ARGC EQUAL 1)
    add_library(${target} INTERFACE IMPORTED GLOBAL)
  else()
    file(GLOB library ${TROUPE_BARE}/lib/lib${ARGV1}.so.*)
    if(NOT library)
      message(FATAL_ERROR "There is no lib${ARGV1} in ${TROUPE_BARE}/lib.")
    endif()
    add_library(${target} SHARED IMPORTED GLOBAL)
    set_target_properties(${target} PROPERTIES IMPORTED_LOCATION ${library})
  endif()
  target_include_directories(${target} INTERFACE ${TROUPE_BARE}/include)
endfunction()

bare_package(Boost::boost)
bare_package(Catch2::Catch2)
bare_package(CLI11::CLI11)
bare_package(CURL::libcurl curl)
bare_package(OpenSSL::Crypto crypto)
bare_package(PkgConfig::PCRE2 pcre2-8)
bare_package(fmt::fmt fmt)
bare_package(gloo gloo)
bare_package(simdjson::simdjson simdjson)
# As their own files say.
target_compile_definitions(fmt::fmt INTERFACE FMT_SHARED)
target_compile_definitions(simdjson::simdjson INTERFACE
  SIMDJSON_THREADS_ENABLED=1)
