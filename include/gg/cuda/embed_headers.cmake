# The device headers as text inside programs, for the run-time compiler.
#
# Included, after gg::gg and CUDAToolkit were found, it defines the library gg::cuda: all that a program needs to use the
# CUDA backend. Run as a script with ROOTS, INCLUDE, OUTPUT and DEPFILE, it writes the library's source, which defines
# cuda/device_headers.hpp: every root header and all that they include.
if(NOT CMAKE_SCRIPT_MODE_FILE)
    cmake_path(SET include NORMALIZE ${CMAKE_CURRENT_LIST_DIR}/../..)
    file(GLOB roots CONFIGURE_DEPENDS RELATIVE ${include} ${include}/gg/cuda/*.cuh ${include}/gg/block/*.hpp
         ${include}/gg/layer/*.hpp)
    set(script ${CMAKE_CURRENT_LIST_FILE})
    set(output ${CMAKE_CURRENT_BINARY_DIR}/gg_device_headers.cpp)
    add_custom_command(
        OUTPUT ${output}
        COMMAND ${CMAKE_COMMAND} "-DROOTS=${roots}" -DINCLUDE=${include} -DOUTPUT=${output}
                -DDEPFILE=${output}.d -P ${script}
        DEPENDS ${script} DEPFILE ${output}.d
        COMMENT "device headers" VERBATIM)
    add_library(gg_cuda STATIC ${output})
    add_library(gg::cuda ALIAS gg_cuda)
    set_target_properties(gg_cuda PROPERTIES POSITION_INDEPENDENT_CODE TRUE)  # for shared libraries too
    target_link_libraries(gg_cuda PUBLIC gg::gg CUDA::cudart_static ${CMAKE_DL_LIBS})
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

file(WRITE ${OUTPUT} "// The device headers. Written by the build.\n#include \"gg/cuda/device_headers.hpp\"\n\n"
     "namespace {\n\n${texts}\nconstexpr gg::cuda::HeaderText headers[] = {\n${rows}};\n\n}  // namespace\n\n"
     "namespace gg::cuda {\n\nstd::span<const HeaderText> device_headers() {\n    return headers;\n}\n\n"
     "}  // namespace gg::cuda\n")
file(WRITE ${DEPFILE} "${OUTPUT}:${depends}\n")
