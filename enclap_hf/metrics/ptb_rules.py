"""Token rules of Penn Treebank tokenisation, as the COCO caption pipeline applies it.

The rules are regular expressions over a caption whose characters beyond ASCII have been replaced by the marks of
`ptb_characters`. At every position the rule with the longest match wins, and of equally long matches the first.
A rule's token is its group 1 where it has one: what follows group 1 is context that the match needs and counts in its
length, but that stays in the input.

The rules describe what Stanford's PTBTokenizer of CoreNLP 3.4.1 was observed to do, not how it is written.
"""

from __future__ import annotations

import enum
import re
from typing import cast

# Marks: é any letter beyond ASCII, ǂ a combining or modifier letter, ٠ a digit beyond ASCII, § a symbol that is a token
# of its own, and \x01 a character that the tokeniser drops.
LETTER = r"[A-Za-zéǂ\xad]|&[aeiouAEIOU](?:acute|grave|uml);"
DIGIT = r"[0-9٠]"
ALNUM = r"[A-Za-zé0-9٠]"
APOSTROPHE = r"(?:['\x92’]|&apos;)"
APOSTROPHE_OR_TICK = r"(?:['`\x91\x92‘’‛]|&apos;)"
SPACE = r"[ \t\xa0\u2000-\u200a\u3000]"

COMPOUND_PART = rf"(?:[dDlLoO]{APOSTROPHE_OR_TICK}{ALNUM})?{ALNUM}+"
COMPOUND = rf"{COMPOUND_PART}(?:[-_]{COMPOUND_PART})*"
WORD = rf"(?:{LETTER})(?:{LETTER}|{DIGIT})*(?:[.!?](?:{LETTER})(?:{LETTER}|{DIGIT})*)*"
NUMBER = rf"(?:{DIGIT}*(?:[.:,\xad\u066b\u066c]{DIGIT}+)+|{DIGIT}+(?:[.:,\xad\u066b\u066c]{DIGIT}+)*)"
CLITIC = rf"{APOSTROPHE}(?:[msdMSD]|[rR][eE]|[vV][eE]|[lL][lL])"
NOT_CLITIC = rf"[nN]{APOSTROPHE_OR_TICK}[tT]"

# Abbreviations that keep their full stop. In the second group only when capitalised: in lower case they are words.
# In the third group only before a number.
TITLES = (
    "adj adm adv alex asst attys? ave brig capt cf cie col comdr cmdr cpl dept det drs? elec ens ft gen govs? hon insp "
    "invt jos lieut lt maj messrs m[ft]g mlle mme mrs? ms msgr mt natl pfc ph pres profs? pvt reps? rev sens? sfc sgt "
    "spc ste? supts? vs wm"
)
ABBREVIATIONS = (
    "al ala apr ariz assn aug bancorp bhd bldg blvd bros calif co colo conn corp cos ct dak dec esq est etc ext feb "
    "fla fri ga inc ind intl jan jr jul jun kans? ky ltd mar md mich minn mo mon mont neb nev nov oct okla penn plc "
    "pp?t[ye]s? rd rt sept? seq sq sr sys tel tenn thu thurs tues? univ va vt wed wisc? wyo"
)
CAPITALISED_ABBREVIATIONS = "Ark Az Del Ill La Mass Miss Ore Pa Tex Wash"
ABBREVIATIONS_BEFORE_NUMBERS = "art ca figs? nos? op pp? prop"
ACRONYM = r"(?:(?:Canada|Sino|Korean|EU|Japan|non)-U\.S|U\.S\.-(?:U\.K|U\.S\.S\.R)|[A-Za-z](?:\.[A-Za-z])*)"
DEGREE = r"(?:Ph|Ed)\.D"

FILE_EXTENSIONS = (
    "bat|bmp|c|cgi|class|cpp|dll|docx?|exe|gif|gz|h|html?|jar|java|jpe?g|mov|mp3|pdf|php|pl|png|ppt|ps|py|sql|tar|txt|wav|x"
    "|xml|zip"
)
URL_END = r"[^ \t\n\f\r\"<>|.!?(){},-]"
URL_REST = r"[^ \t\n\f\r\"<>|(){}]+"
FACE = r"[-^x=~<>']"


def _alternatives(words: str, capitalised_only: bool = False) -> str:
    """A pattern for a blank-separated list of words, in any case or from a capital on."""
    if capitalised_only:
        return "|".join(f"{word}|{word.upper()}" for word in words.split())
    return "(?i:" + "|".join(words.split()) + ")"


def _rule(pattern: str) -> re.Pattern:
    return re.compile(pattern)


class Action(enum.Enum):
    """What becomes of the text that a rule matched. A rule may also hold a string, which replaces the text."""

    RAW = "the token as it stands"
    WORD = "a word: soft hyphens go, &amp; becomes &"
    CLITIC = "a word whose apostrophe becomes the plain one"
    QUOTES = "quotation marks, in their ASCII form"
    DROP = "punctuation that the pipeline removes"


RAW, WORD_TOKEN, CLITIC_TOKEN, QUOTES, DROP = list(Action)


RULES: list[tuple[re.Pattern, Action | str]] = [
    (_rule(pattern), cast("Action | str", action))
    for pattern, action in [
        (rf"{SPACE}+", DROP),
        # Two words written as one: the first part here, the rest is read next.
        (r"(?i:(can)not|(gon)na|(got)ta|(lem)me|(gim)me|(wan)na)", RAW),
        (r"('[tT])(?i:is|was)", RAW),
        # Mark-up and entities.
        (
            r"<(?:[!?][A-Za-z-][^>\r\n]*|/?[A-Za-z][A-Za-z0-9:.-]*(?:[ ]+(?:[A-Za-z][A-Za-z0-9:.-]*"
            r"(?:[ ]*=[ ]*['\"][^\r\n'\"]*['\"])?|['\"][^\r\n'\"]+['\"]|[ ]*/))*[ ]*/?)[ ]*>",
            RAW,
        ),
        (r"&(?:MD|mdash|ndash);|[\x96\x97\u2013\u2014\u2015]", DROP),
        (r"&amp;", "&"),
        (r"\xad+", DROP),
        (r"&(?:HT|TL|UR|LR|QC|QL|QR|odq|cdq|#[0-9]+);", RAW),
        (r"&nbsp;", DROP),
        (r"&lt;", "<"),
        (r"&gt;", ">"),
        # Words and clitics.
        (rf"({WORD}){CLITIC}", WORD_TOKEN),
        (rf"((?:[A-Za-z\xad])*[A-MO-Za-mo-z]\xad*){NOT_CLITIC}", WORD_TOKEN),
        (WORD, WORD_TOKEN),
        (
            rf"{APOSTROPHE}[nN]{APOSTROPHE}?|[lLdDjJ]{APOSTROPHE}|(?i:dunkin|somethin|ol){APOSTROPHE}"
            rf"|{APOSTROPHE}(?i:em|cause|til)|(?i:c'mon|c{APOSTROPHE}est|ma{APOSTROPHE}am|o{APOSTROPHE}o)",
            RAW,
        ),
        (rf"([yY]{APOSTROPHE})[A-Za-zé]", RAW),
        (rf"[A-Za-zé]+[aeiouyAEIOUY]{APOSTROPHE_OR_TICK}[aeiouA-Z][A-Za-zé]*", RAW),
        (rf"({CLITIC})[^A-Za-z]", CLITIC_TOKEN),
        (r"(')[A-Za-z][^ \t\n\r\xa0]", QUOTES),
        (CLITIC, CLITIC_TOKEN),
        (rf"[nA-HJ-XZ]{APOSTROPHE_OR_TICK}[A-Za-zé]{{2,}}", RAW),
        (rf"{NOT_CLITIC}(?![A-Za-z])", CLITIC_TOKEN),
        # Addresses.
        (rf"https?://{URL_REST}{URL_END}", RAW),
        (
            r"(?:www\.(?:[^ \t\n\f\r\"<>|.!?(){},]+\.)+[a-zA-Z]{2,4}"
            r"|(?:[^ \t\n\f\r\"`'<>|.!?(){},-_$]+\.)+(?:com|net|org|edu))"
            rf"(?:/{URL_REST}{URL_END})?",
            RAW,
        ),
        (
            r"(?:&lt;|<)?[a-zA-Z0-9][^ \t\n\f\r\"<>|(){}\xa0]*@(?:[^ \t\n\f\r\"<>|(){}.\xa0]+\.)*"
            r"[^ \t\n\f\r\"<>|(){}.\xa0]+(?:&gt;|>)?",
            RAW,
        ),
        (rf"@[a-zA-Z_][a-zA-Z_0-9]*|#(?:{LETTER})+", RAW),
        # Numbers, dates, fractions, telephone numbers.
        (rf"{DIGIT}{{1,2}}[-/]{DIGIT}{{1,2}}[-/]{DIGIT}{{2,4}}", RAW),
        (rf"[-+]?{NUMBER}", WORD_TOKEN),
        (r"[\u207a\u207b\u208a\u208b]?(?:[\u2070\xb9\xb2\xb3\u2074-\u2079]+|[\u2080-\u2089]+)", RAW),
        (rf"(?:{DIGIT}{{1,4}}[- \xa0])?{DIGIT}{{1,4}}(?:\\?/|\u2044){DIGIT}{{1,4}}", RAW),
        (
            rf"(?:\({DIGIT}{{2,3}}\)[ \xa0]?|(?:\+\+?)?(?:{DIGIT}{{2,4}}[- \xa0])?{DIGIT}{{2,4}}[- \xa0])"
            rf"{DIGIT}{{3,4}}[- \xa0]?{DIGIT}{{3,5}}"
            rf"|(?:(?:\+\+?)?{DIGIT}{{2,4}}\.)?{DIGIT}{{2,4}}\.{DIGIT}{{3,4}}\.{DIGIT}{{3,5}}",
            RAW,
        ),
        (rf"({APOSTROPHE}[0-9][0-9])[ \t\xa0\n]|{APOSTROPHE}[2-9]0s", RAW),
        # Compounds.
        (r"-(?i:RRB|LRB|RCB|LCB|RSB|LSB)-|C\.D\.s|pro-|anti-|S(?:&|&amp;)P-500|S(?:&|&amp;)Ls", WORD_TOKEN),
        (COMPOUND, WORD_TOKEN),
        (r"[A-Za-z0-9]+(?:-[A-Za-z]+){0,2}(?:\\?/[A-Za-z0-9]+(?:-[A-Za-z]+){0,2}){1,2}", RAW),
        (r"[A-Z]+(?:(?:[+&]|&amp;)[A-Z]+)+", WORD_TOKEN),
        (r"[cC]\+\+|[cCfF]#", RAW),
        (r"[A-Z]*\$|#", RAW),
        # Abbreviations.
        (
            rf"((?:{DEGREE}|{_alternatives(ABBREVIATIONS)}|{_alternatives(CAPITALISED_ABBREVIATIONS, True)})\.)"
            r"[\s\S]{2}",
            RAW,
        ),
        (r"[A-Za-z0-9][A-Za-z0-9.,\xad]*(?:-(?:[A-Za-z0-9\xad]+|[A-Za-z](?:\.[A-Za-z])+\.))+", WORD_TOKEN),
        (rf"{_alternatives(TITLES)}\.", RAW),
        (rf"({_alternatives(ABBREVIATIONS_BEFORE_NUMBERS)}\.)[ \t\xa0]?[0-9]", RAW),
        (rf"{ACRONYM}\.", RAW),
        (rf"((?:{WORD}|{COMPOUND})\.)[,;:]", WORD_TOKEN),
        (rf"((?:{LETTER}|{DIGIT})+(?:\.(?:{LETTER}|{DIGIT})+)*\.(?i:{FILE_EXTENSIONS}))(?:{SPACE}|[\n.?!,])", RAW),
        # Faces.
        (r"([<>]?[:;=][-o*']?[()DPdpO\\{@|\[\]])(?![A-Za-z0-9])", RAW),
        (rf"{FACE}_{FACE}|\({FACE}[_.]?{FACE}\)", RAW),
        # Brackets stay: the pipeline lower-cases their names, and then no longer finds them in its list of punctuation.
        (r"\(", "-lrb-"),
        (r"\)", "-rrb-"),
        (r"\[", "-lsb-"),
        (r"\]", "-rsb-"),
        (r"\{", "-lcb-"),
        (r"\}", "-rcb-"),
        # Punctuation.
        (r"[?!]+", RAW),
        (r"\.\.\.+|…|\.", DROP),
        (r"[,;:]", DROP),
        (r"-{1,4}", DROP),
        (r"-{5,}", RAW),
        (r"\"|&quot;", DROP),
        (rf"''|[`‘’‛“”\x91-\x94‹›«»]{{1,2}}|{APOSTROPHE}", QUOTES),
        (r"[@]+|#+|_+|\*+|(?:\\\*){1,3}", RAW),
        (r"[\x80¤₠€]", "$"),
        (r"¢", "cents"),
        (r"£", "#"),
        (r"¼", "1/4"),
        (r"½", "1/2"),
        (r"¾", "3/4"),
        (r"⅓", "1/3"),
        (r"⅔", "2/3"),
        (r"<<|>>", RAW),
        (r"[§/\\%&+<>=~^|]", RAW),
    ]
]

# For captions of plain words: words that the rules split, and words that keep a full stop.
COMPOUND_WORDS = frozenset(["cannot", "gonna", "gotta", "lemme", "gimme", "wanna"])
ABBREVIATION = re.compile(rf"[a-z]|{_alternatives(' '.join((TITLES, ABBREVIATIONS, CAPITALISED_ABBREVIATIONS)))}")
