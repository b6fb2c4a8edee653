#include "sha256.hpp"

#include <openssl/evp.h>

#include <algorithm>
#include <memory>
#include <span>

#include "gg/core/error.hpp"
#include "gg/gguf/mapped_file.hpp"
#include "progress.hpp"

namespace gg::runner {

std::string sha256(const std::vector<std::filesystem::path>& paths) {
    std::vector<gguf::MappedFile> files;
    std::uint64_t total = 0, done = 0;
    for (const std::filesystem::path& path : paths) {
        files.push_back(gguf::MappedFile::open(path));
        total += files.back().bytes().size();
    }
    const auto require = [](int good) {
        if (good != 1) throw Error(ErrorCode::internal, "SHA-256 failed in libcrypto");
    };
    const std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context(EVP_MD_CTX_new(), EVP_MD_CTX_free);
    require(EVP_DigestInit_ex(context.get(), EVP_sha256(), nullptr));
    Progress progress("checking SHA-256", total);
    for (const gguf::MappedFile& file : files) {
        file.advise_sequential();
        std::span<const std::byte> bytes = file.bytes();
        while (!bytes.empty()) {
            const std::span<const std::byte> piece =
                bytes.first(std::min<std::size_t>(bytes.size(), 4U << 20));
            require(EVP_DigestUpdate(context.get(), piece.data(), piece.size()));
            bytes = bytes.subspan(piece.size());
            progress.update(done += piece.size());
        }
    }
    unsigned char digest[32];
    require(EVP_DigestFinal_ex(context.get(), digest, nullptr));
    std::string text;
    for (const unsigned char byte : digest) {
        text += "0123456789abcdef"[byte >> 4];
        text += "0123456789abcdef"[byte & 15];
    }
    return text;
}

}  // namespace gg::runner
