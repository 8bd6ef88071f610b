"""The Python tokeniser against the Java one, and against what the Java one was seen to give."""

import importlib.util
import json
import os
import random
import shutil
import subprocess
from pathlib import Path

import pytest

from enclap_hf.metrics import tokenize_ptb

JAR = "tokenizer/stanford-corenlp-3.4.1.jar"
# The published pipeline's list. Upper case beside lower-cased tokens: brackets are never removed.
REMOVED = {"''", "'", "``", "`", "-LRB-", "-RRB-", "-LCB-", "-RCB-", ".", "?", "!", ",", ":", "-", "--", "...", ";"}

FRAGMENTS = [
    "a",
    "b",
    "dog",
    "Dog",
    "THE",
    "it's",
    "can't",
    "don’t",
    "n't",
    "'s",
    "'ll",
    "y'all",
    "o'clock",
    "ma'am",
    "rock'n'roll",
    "'tis",
    "'em",
    "l'eau",
    "O'Brien",
    "cannot",
    "gonna",
    "gimme",
    "wanna",
    "dogs'",
    "'quoted'",
    '"said"',
    "“curly”",
    "‘single’",
    "«x»",
    "``x''",
    "1",
    "5",
    "10",
    "1,000.5",
    "3.5%",
    "-5",
    "+7",
    ".5",
    "1/2",
    "12/31/99",
    "10:30",
    "555-1234",
    "90s",
    "'90s",
    "1st",
    "2x4",
    "$5",
    "£5",
    "€5",
    "5¢",
    "½",
    "3½",
    "x²",
    "10⁻³",
    "20°C",
    "#1",
    "#tag",
    "@user",
    "a@b.com",
    "www.dogs.com",
    "http://a.b/c?d",
    "dog.wav",
    "1.mp3",
    "U.S.",
    "u.s.",
    "a.m.",
    "e.g.",
    "etc.",
    "Mr.",
    "Dr.",
    "st.",
    "Jan.",
    "jan.",
    "Sun.",
    "no.",
    "No.",
    "fig.",
    "Ph.D.",
    "Inc.",
    "vs.",
    "ft.",
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    "(x)",
    "[y]",
    "{z}",
    "-",
    "--",
    "---",
    "-----",
    "–",
    "—",
    "…",
    "...",
    "..",
    ".",
    ",",
    ";",
    ":",
    "!",
    "?",
    "!!",
    "?!",
    "/",
    "\\",
    "a/b",
    "and/or",
    "w/o",
    "*",
    "**",
    "&",
    "AT&T",
    "&amp;",
    "&lt;",
    "&quot;",
    "+",
    "=",
    "<",
    ">",
    "<b>",
    "</i>",
    "<<",
    ">>",
    "~",
    "^",
    "|",
    "_",
    "a_b",
    "well-known",
    "twenty-five-year-old",
    ":)",
    ";-)",
    ":(",
    "^_^",
    "<3",
    "café",
    "naïve",
    "Ünïcödé",
    "straße",
    "中文",
    "你好。",
    "日本語、",
    "привет",
    "Ελλάς",
    "العربية",
    "हिन्दी",
    "😀",
    "❤",
    "👍🏽",
    "™",
    "®",
    "©",
    "°",
    "\xa0",
    "\u200b",
    "\xad",
    "\ufeff",
    "\u3000",
    "\t",
    "\u2028",
    "soft\xadhyphen",
    "zero\u200bwidth",
    "İstanbul",
    "ﬁne",
    "ａ",
    "１",
    "٣",
    "№5",
    "♪",
    "→",
    "K",
]


def awkward_strings(count: int = 500) -> list[str]:
    """Strings put together from everything that tokenisers stumble over, always the same ones."""
    rng = random.Random(1115)
    strings = ["", " ", ".", "...", "'", '"', "-", "😀", "a" * 300, "two\nlines", "tab\there", *FRAGMENTS]
    while len(strings) < count:
        parts = []
        for _ in range(rng.randint(1, 8)):
            parts += [rng.choice(FRAGMENTS), rng.choice(["", " ", " ", " "])]
        strings.append("".join(parts))
    return strings[:count]


def tokenize_with_java(captions: list[str], tmp_path: Path) -> list[str]:
    """Run the Java tokeniser over all captions in one process and remove punctuation as the published pipeline does."""
    spec = importlib.util.find_spec("pycocoevalcap")
    if spec is None or shutil.which("java") is None:
        pytest.skip("needs pycocoevalcap and a Java runtime on the PATH")
    jar = Path(list(spec.submodule_search_locations)[0]) / JAR
    # Java ends lines at these too and then gives every later caption its neighbour's tokens: each counts as a blank.
    # A neutral line after every caption keeps abbreviations from looking at the next caption.
    blanks = str.maketrans(dict.fromkeys("\n\r\x0b\x0c\x85\u2028\u2029", " "))
    lines = [line for caption in captions for line in (caption.translate(blanks), "x")]
    (tmp_path / "captions.txt").write_text("\n".join(lines), encoding="utf-8", newline="")
    command = ["java", "-Dfile.encoding=UTF-8", "-cp", str(jar), "edu.stanford.nlp.process.PTBTokenizer"]
    command += ["-preserveLines", "-lowerCase", str(tmp_path / "captions.txt")]
    output = subprocess.run(command, capture_output=True, timeout=120, check=True).stdout.decode("utf-8")
    tokenized = output.split("\n")[: len(lines)][::2]
    return [" ".join(word for word in line.rstrip().split(" ") if word not in REMOVED) for line in tokenized]


def test_awkward_strings_are_tokenised_as_java_does(tmp_path):
    strings = awkward_strings()
    assert len(strings) == 500
    expected = tokenize_with_java(strings, tmp_path)
    different = [
        (s, ours, java) for s, ours, java in zip(strings, tokenize_ptb(strings), expected, strict=True) if ours != java
    ]
    assert different == []


def test_the_shared_captions_are_tokenised_as_java_does(tmp_path):
    captions = shared_captions()
    expected = tokenize_with_java(captions, tmp_path)
    different = [
        (c, ours, java)
        for c, ours, java in zip(captions, tokenize_ptb(captions), expected, strict=True)
        if ours != java
    ]
    assert len(captions) == 11742 and different == []


def shared_captions() -> list[str]:
    folder = os.environ.get("ENCLAP_METRICS_REFERENCE")
    if not folder:
        pytest.skip("needs ENCLAP_METRICS_REFERENCE, a folder with captions and their published scores")
    captions = []
    for name in ("clotho_eval.json", "audiocaps_test.json"):
        for clip in json.loads((Path(folder) / name).read_text(encoding="utf-8")):
            captions += [clip["candidate"], *clip["references"]]
    return captions


# Output of the Java tokeniser for these, less the removed punctuation.
@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("A dog barks, then a car passes by.", "a dog barks then a car passes by"),
        ("The dog's bark can't be heard", "the dog 's bark ca n't be heard"),
        ("We cannot hear what they're gonna say", "we can not hear what they 're gon na say"),
        ('A man says "hello" (twice) [loudly]', "a man says hello -lrb- twice -rrb- -lsb- loudly -rsb-"),
        ("It costs 1,000.5 or 50% at 10:30", "it costs 1,000.5 or 50 % at 10:30"),
        ("Rain at 5 1/2 inches", "rain at 5\xa01/2 inches"),
        ("Water drips -- slowly - on wood…", "water drips slowly on wood"),
        ("Mr. Smith etc. sing. A low-pitched hum at 3 a.m.", "mr. smith etc. sing a low-pitched hum at 3 a.m."),
        ("a train in the u.s.", "a train in the u.s."),
        ("the sun. the cat.", "the sun the cat"),
        ("café 😀 naïve", "café naïve"),
        ("what?! no!", "what ?! no"),
        ("", ""),
        ("...", ""),
        ("two\nlines\tand a tab", "two lines and a tab"),
    ],
)
def test_known_sentences_are_tokenised_as_expected(caption, expected):
    assert tokenize_ptb([caption]) == [expected]


def test_plain_captions_take_the_same_way_as_through_the_rules():
    """The short cut for captions of plain words must not differ from the rules it skips."""
    from enclap_hf.metrics import ptb_tokenizer

    words = [
        "a",
        "dog",
        "Barks",
        "gonna",
        "cannot",
        "st",
        "etc",
        "x",
        "sun",
        "inc",
        "t-shirt",
        "U",
        "jan",
        "wash",
        "ill",
    ]
    rng = random.Random(3)
    for _ in range(500):
        separators = [" ", ", ", "  "]
        caption = "".join(rng.choice(words) + rng.choice(separators) for _ in range(rng.randint(1, 5))) + rng.choice(
            words
        )
        caption += rng.choice(["", ".", " .", ","])
        tokens = [token for token in ptb_tokenizer._lex(caption) if token not in ptb_tokenizer.PUNCTUATION]
        assert tokenize_ptb([caption]) == [" ".join(tokens)]


def test_no_caption_looks_at_its_neighbour():
    together = tokenize_ptb(["see no.", "5 dogs"])
    assert together == tokenize_ptb(["see no."]) + tokenize_ptb(["5 dogs"])


@pytest.mark.parametrize("captions", ["a dog", [None], [["a dog"]], [b"a dog"], [3]])
def test_what_is_no_list_of_strings_is_refused(captions):
    with pytest.raises(TypeError, match="expected"):
        tokenize_ptb(captions)


def test_a_very_long_caption_is_tokenised_in_linear_time():
    assert len(tokenize_ptb(["dog's 😀 " * 10_000])[0].split()) == 20_000
