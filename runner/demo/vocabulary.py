"""Byte-level BPE with o200k's pre-tokenizer (tokenizer.ggml.pre = gpt-4o) and the markers of harmony."""

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from gguf_tokenizer import O200K_PATTERN

SPECIALS = [
    "<|startoftext|>",
    "<|endoftext|>",
    "<|return|>",
    "<|constrain|>",
    "<|channel|>",
    "<|start|>",
    "<|end|>",
    "<|message|>",
    "<|call|>",
]


def train(texts: list, size: int) -> Tokenizer:
    """A vocabulary of exactly `size` tokens, the specials last."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(O200K_PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size - len(SPECIALS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_special_tokens(SPECIALS)
    if tokenizer.get_vocab_size() != size:
        raise SystemExit(f"the texts give {tokenizer.get_vocab_size()} tokens, not {size}: use more text")
    return tokenizer


def encode_documents(tokenizer: Tokenizer, documents: list) -> list:
    """One stream of ids: every document between <|startoftext|> and <|endoftext|>."""
    begin, end = (tokenizer.token_to_id(name) for name in SPECIALS[:2])
    ids = []
    for encoding in tokenizer.encode_batch([document.text() for document in documents]):
        ids += [begin, *encoding.ids, end]
    return ids


def encode_conversations(tokenizer: Tokenizer, conversations: list) -> list:
    ids = []
    texts = {text for turns in conversations for text, special in turns if not special}
    order = sorted(texts)
    known = dict(zip(order, (encoding.ids for encoding in tokenizer.encode_batch(order))))
    for turns in conversations:
        for text, special in turns:
            ids += [tokenizer.token_to_id(text)] if special else known[text]
    return ids
