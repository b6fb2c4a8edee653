# The device headers as text inside programs, for the run-time compiler.
#
# Included, it defines the library gg_device_headers; its header is runner/device_headers.hpp. Run as a script with
# ROOTS, INCLUDE, OUTPUT and DEPFILE, it writes the library's source: every root header and all that they include.
if(NOT CMAKE_SCRIPT_MODE_FILE)
    file(GLOB roots CONFIGURE_DEPENDS RELATIVE ${PROJECT_SOURCE_DIR}/include ${PROJECT_SOURCE_DIR}/include/gg/cuda/*.cuh
         ${PROJECT_SOURCE_DIR}/include/gg/block/*.hpp ${PROJECT_SOURCE_DIR}/include/gg/layer/*.hpp)
    set(script ${CMAKE_CURRENT_LIST_FILE})
    set(output ${PROJECT_BINARY_DIR}/device_headers.cpp)
    add_custom_command(
        OUTPUT ${output}
        COMMAND ${CMAKE_COMMAND} "-DROOTS=${roots}" -DINCLUDE=${PROJECT_SOURCE_DIR}/include -DOUTPUT=${output}
                -DDEPFILE=${output}.d -P ${script}
        DEPENDS ${script} DEPFILE ${output}.d
        COMMENT "device headers" VERBATIM)
    add_library(gg_device_headers STATIC ${output})
    target_include_directories(gg_device_headers PUBLIC ${CMAKE_CURRENT_LIST_DIR})
    target_link_libraries(gg_device_headers PUBLIC gg_flags)
    return()
endif()

cmake_minimum_required(VERSION 3.25)
set(texts "")
set(rows "")
set(depends "")
set(seen "")
list(LENGTH ROOTS left)
while(left GREATER 0)
    list(POP_FRONT ROOTS header)
    if(NOT header IN_LIST seen)
        list(LENGTH seen index)
        list(APPEND seen ${header})
        file(READ ${INCLUDE}/${header} text)
        string(FIND "${text}" ")gg_text\"" clash)
        if(NOT clash EQUAL -1)
            message(FATAL_ERROR "${header} contains )gg_text\", which ends the literal that holds it")
        endif()
        string(APPEND texts "constexpr char text_${index}[] = R\"gg_text(${text})gg_text\";\n")
        string(APPEND rows "    {\"${header}\", {text_${index}, sizeof text_${index} - 1}},\n")
        string(APPEND depends " \\\n ${INCLUDE}/${header}")
        string(REGEX MATCHALL "\n#[ \t]*include[ \t]*\"[^\"]+\"" includes "\n${text}")
        foreach(include IN LISTS includes)
            string(REGEX MATCH "\"(.+)\"" _ "${include}")
            list(APPEND ROOTS ${CMAKE_MATCH_1})
        endforeach()
    endif()
    list(LENGTH ROOTS left)
endwhile()

file(WRITE ${OUTPUT} "// The device headers. Written by the build.\n#include \"device_headers.hpp\"\n\n"
     "namespace {\n\n${texts}\nconstexpr gg::cuda::HeaderText headers[] = {\n${rows}};\n\n}  // namespace\n\n"
     "namespace gg::runner {\n\nstd::span<const cuda::HeaderText> device_headers() {\n    return headers;\n}\n\n"
     "}  // namespace gg::runner\n")
file(WRITE ${DEPFILE} "${OUTPUT}:${depends}\n")
