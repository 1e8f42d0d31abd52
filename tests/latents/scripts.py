"""Texts in many scripts, and small tokenizers of the usual kinds trained on them."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

TEXTS = {
    "chinese": "今天天气很好，我们去公园散步，河边的花园里有音乐。𠀀𠮷",
    "japanese": "私は学生です。カタカナも漢字も書きます。",
    "korean": "안녕하세요, 저는 학생입니다. 오늘은 날씨가 좋아요.",
    "hindi": "मैं हिन्दी पढ़ता हूँ। क्षत्रिय राजा की किताब।",
    "arabic": "مرحبًا بالعالم، كيف حالك اليوم؟",
    "persian": "من می‌خواهم کتاب‌ها را بخوانم.",
    "thai": "สวัสดีครับ วันนี้ทำน้ำพริกกิน",
    "emoji": "family 👨‍👩‍👧‍👦 thumbs 👍🏽 flag 🇩🇪 heart ❤️‍🔥 done 🏴󠁧󠁢󠁥󠁮󠁧󠁿",
    "accents": "cafe\u0301 naïve Über",
    "english": "The unbelievable cat sat on the mat, and didn't move.",
}


def byte_level(texts: Iterable[str], merges: int) -> PreTrainedTokenizerFast:
    """Return a BPE on bytes, as those of GPT-2, Llama 3 and Qwen are."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=256 + merges, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def byte_fallback(texts: Iterable[str], merges: int) -> PreTrainedTokenizerFast:
    """Return a BPE with a token for each byte that it needs, as those of Llama 2 and Gemma are."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    special = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(
        vocab_size=len(special) + merges,
        special_tokens=special,
        limit_alphabet=80,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")


def word_piece(texts: Iterable[str], merges: int) -> PreTrainedTokenizerFast:
    """Return a WordPiece model, as BERT's is; it leaves out blanks."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.decoder = decoders.WordPiece(cleanup=False)
    trainer = trainers.WordPieceTrainer(
        vocab_size=300 + merges, special_tokens=["[UNK]"], show_progress=False
    )
    tokenizer.train_from_iterator([*texts, "a"], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]")


KINDS: dict[str, Callable[[Iterable[str], int], PreTrainedTokenizerFast]] = {
    "byte_level": byte_level,
    "byte_fallback": byte_fallback,
    "word_piece": word_piece,
}
