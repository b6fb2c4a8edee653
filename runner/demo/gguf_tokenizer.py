"""The keys of a byte-level BPE in GGUF, from the contents of a tokenizer.json."""

import gguf

from safetensors_reader import Fault

# The published expression of o200k, which tokenizer.ggml.pre calls gpt-4o.
O200K_PATTERN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
    r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def _pre_tokenizer(tokenizer: dict, path) -> str:
    steps = tokenizer.get("pre_tokenizer") or {}
    steps = steps.get("pretokenizers", [steps])
    patterns = [step["pattern"].get("Regex") for step in steps if step.get("type") == "Split"]
    if patterns == [O200K_PATTERN]:
        return "gpt-4o"
    if (
        not patterns
        and [step.get("type") for step in steps] == ["ByteLevel"]
        and steps[0].get("use_regex", True)
    ):
        return "gpt-2"
    raise Fault(
        f"{path}: a pre-tokenizer that has no name here (patterns {patterns}); known: gpt-4o (o200k), gpt-2"
    )


def add_tokenizer(writer: gguf.GGUFWriter, tokenizer: dict, path, size: int, roles: dict):
    """Adds all keys tokenizer.ggml.*. Ids below `size` that the file does not name become unused tokens;
    `roles` has the ids of bos, eos and padding; `path` is for messages."""
    model = tokenizer.get("model", {})
    if model.get("type") != "BPE":
        raise Fault(f"{path}: model.type: expected BPE, found {model.get('type')!r}")
    tokens, types = [f"[PAD{i}]" for i in range(size)], [gguf.TokenType.UNUSED] * size
    entries = [(text, id, gguf.TokenType.NORMAL) for text, id in model["vocab"].items()]
    for added in tokenizer.get("added_tokens", []):
        kind = gguf.TokenType.CONTROL if added.get("special") else gguf.TokenType.USER_DEFINED
        entries.append((added["content"], added["id"], kind))
    for text, id, kind in entries:
        if not 0 <= id < size:
            raise Fault(f"{path}: token {text!r} has id {id}, but vocab_size is {size}")
        tokens[id], types[id] = text, kind
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(_pre_tokenizer(tokenizer, path))
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges(merges)
    for role, id in roles.items():
        writer.add_uint32(f"tokenizer.ggml.{role}_token_id", id)
    writer.add_add_bos_token(False)
