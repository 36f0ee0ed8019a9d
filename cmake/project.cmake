# Helpers that every folder's CMakeLists.txt uses.

add_library(troupe_options INTERFACE)
target_compile_features(troupe_options INTERFACE cxx_std_20)
target_include_directories(troupe_options INTERFACE ${PROJECT_SOURCE_DIR})
if(NOT TROUPE_BARE) # by whatever compiler a GPU's machine has
  set(warnings_are_errors -Werror)
endif()
# -ffp-contract=off is part of the arithmetic contract: a multiply-add is fused
# only where the source says so.
target_compile_options(troupe_options INTERFACE
  $<$<COMPILE_LANGUAGE:CXX>:-Wall -Wextra ${warnings_are_errors} -ffp-contract=off>)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  # GCC 12 sees moved-from members of std::variant as uninitialised. It looks
  # for garbage first at 256 MB, which costs up to a tenth of its time; what it
  # makes is the same later.
  target_compile_options(troupe_options INTERFACE
    $<$<COMPILE_LANGUAGE:CXX>:-Wno-maybe-uninitialized
    --param=ggc-min-heapsize=524288>)
endif()
if(TROUPE_SANITIZE)
  target_compile_options(troupe_options INTERFACE
    $<$<COMPILE_LANGUAGE:CXX>:-fsanitize=${TROUPE_SANITIZE}
    -fno-sanitize=null -fno-omit-frame-pointer -g1>)
  target_link_options(troupe_options INTERFACE -fsanitize=${TROUPE_SANITIZE})
endif()

# project_library(NAME DEPS ...): a static library of the folder's *.cpp files.
function(project_library name)
  cmake_parse_arguments(arg "" "" "DEPS" ${ARGN})
  file(GLOB sources CONFIGURE_DEPENDS *.cpp)
  if(sources)
    add_library(${name} STATIC ${sources})
    target_link_libraries(${name} PUBLIC troupe_options ${arg_DEPS})
  else()
    add_library(${name} INTERFACE)
    target_link_libraries(${name} INTERFACE troupe_options ${arg_DEPS})
  endif()
endfunction()

# project_test(NAME [NETWORK] DEPS ...): one Catch2 program of the folder's *.cpp
# files. NETWORK: it opens ports and counts on some that it has closed, so no
# other such program runs beside it.
function(project_test name)
  if(NOT TROUPE_TESTS)
    return()
  endif()
  cmake_parse_arguments(arg "NETWORK" "" "DEPS;LABELS" ${ARGN})
  file(GLOB sources CONFIGURE_DEPENDS *.cpp)
  if(NOT sources)
    return()
  endif()
  add_executable(${name} ${sources})
  target_link_libraries(${name} PRIVATE troupe_test_main ${arg_DEPS})
  # They are compiled more often than they run: a third of a build.
  target_compile_options(${name} PRIVATE -O1)
  target_compile_definitions(${name} PRIVATE
    TROUPE_SOURCE_DIR="${PROJECT_SOURCE_DIR}"
    TROUPE_BINARY_DIR="${PROJECT_BINARY_DIR}")
  add_test(NAME ${name} COMMAND ${name})
  set_tests_properties(${name} PROPERTIES LABELS "${arg_LABELS}" TIMEOUT 600)
  if(arg_NETWORK)
    set_tests_properties(${name} PROPERTIES RESOURCE_LOCK network)
  endif()
endfunction()
