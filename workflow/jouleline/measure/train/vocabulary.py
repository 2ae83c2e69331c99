"""The tokenizers: WordPiece for encoders, byte-level BPE for decoders, or the checkpoint's own."""

from collections.abc import Iterable

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from jouleline.errors import UserError

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
END_TOKEN = "<|endoftext|>"
BPE_SIZE = 8192
"""Most entries of a byte-level vocabulary: the texts hold little more, and a model's own may be larger."""
_ROLES = {
    "pad_id": ("[PAD]", "<pad>"),
    "unk_id": ("[UNK]", "<unk>"),
    "cls_id": ("[CLS]", "<s>"),
    "sep_id": ("[SEP]", "</s>"),
    "mask_id": ("[MASK]", "<mask>"),
}


def train_wordpiece(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """A WordPiece vocabulary of at most `vocab_size` entries, lower case. The same texts give the same vocabulary."""
    if vocab_size < 256:
        raise UserError(f"vocab_size {vocab_size} is too small for a WordPiece vocabulary; give at least 256")
    trained = _bare_wordpiece(models.WordPiece(unk_token="[UNK]"))
    # The trainer numbers letters inside a word in the order of a hash map, and uses these numbers to break ties.
    # Passing all letters as special tokens fixes the numbers, so the same texts give the same vocabulary.
    letters = [chr(code) for code in range(33, 127) if not 65 <= code <= 90]
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size,
        initial_alphabet=letters,
        limit_alphabet=len(letters),
        special_tokens=[*SPECIAL_TOKENS, *(f"##{letter}" for letter in letters)],
        show_progress=False,
    )
    trained.train_from_iterator(texts, trainer)
    tokenizer = _bare_wordpiece(models.WordPiece(trained.get_vocab(), unk_token="[UNK]"))
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    return tokenizer


def _bare_wordpiece(model: models.Model) -> Tokenizer:
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer


def train_bytes(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """A byte-level BPE vocabulary (like GPT-2's) of at most min(`vocab_size`, BPE_SIZE) entries. It can write every
    text and read it back. The same texts give the same vocabulary."""
    # Sorted, because the library returns the bytes in the order of a hash map.
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    if vocab_size < len(alphabet) + 1:
        raise UserError(
            f"vocab_size {vocab_size} is too small for a vocabulary of bytes; give at least {len(alphabet) + 1}"
        )
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=min(vocab_size, BPE_SIZE),
        initial_alphabet=alphabet,
        special_tokens=[END_TOKEN],
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def of_checkpoint(checkpoint: str) -> tuple[Tokenizer, int | None]:
    """The tokenizer of a folder or hub name, and the id of its end of text. Raises UserError where there is none."""
    from transformers import AutoTokenizer

    try:
        loaded = AutoTokenizer.from_pretrained(checkpoint)
    except (OSError, ValueError) as error:
        raise UserError(
            f"no tokenizer in checkpoint {checkpoint!r}; give a folder or hub name that has one"
        ) from error
    if not loaded.is_fast:
        raise UserError(f"checkpoint {checkpoint!r} has no tokenizer.json; save it with a fast tokenizer")
    return loaded.backend_tokenizer, loaded.eos_token_id


def special_ids(tokenizer: Tokenizer) -> dict[str, int]:
    """Ids by role. The special tokens have BERT's names or RoBERTa's."""
    found = {}
    for role, names in _ROLES.items():
        ids = [tokenizer.token_to_id(name) for name in names if tokenizer.token_to_id(name) is not None]
        if not ids:
            raise UserError(
                f"the tokenizer has none of {' or '.join(names)}; use one of a BERT-like checkpoint"
            )
        found[role] = ids[0]
    return found
